//! Puts captured blocks into packs, ships them, and names them in a manifest.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, PackRef};
use genesis_snapshot::pack::{PackWriter, PackedBlocks};
use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName};
use genesis_wal::page::StateHash;
use genesis_wal::part::{self, Stamp};
use genesis_wal::position::WalPosition;
use genesis_wal::time::Micros;

use super::{CaptureError, Desk, Known};
use crate::replicate::kept::KeptPacks;
use crate::replicate::ship::{Outbox, ShippingEnded};

/// A pack is finished when it has grown to this many bytes.
const PACK_BYTES: usize = 32 << 20;

/// Bytes of memory for a pack: the part that makes it large enough, and the footer, come on top.
const PACK_ROOM: usize = PACK_BYTES + (2 << 20);

/// So many packs may be on their way to the store, beside the one that grows.
const IN_FLIGHT: usize = 2;

/// How often it is looked whether anybody still waits for the snapshot.
const LOOK: Duration = Duration::from_millis(100);

/// What a snapshot says of the state it holds.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// How its pages lie in blocks.
    pub layout: BlockLayout,
    /// The transaction id of the state.
    pub txid: Txid,
    /// From when on the state was the current one.
    pub time: Micros,
    /// The place in the WAL after it.
    pub position: Option<WalPosition>,
    /// The state hash.
    pub state: StateHash,
    /// The state of another line with which its line began.
    pub parent: Option<(Generation, Txid)>,
}

/// The packs of one snapshot, as they are written and shipped.
#[derive(Debug)]
pub struct Packer {
    stamp: Stamp,
    attempt: u32,
    known: Known,
    kept: KeptPacks,
    outbox: Outbox,
    open: Option<(BlockLayout, PackWriter)>,
    part: u32,
    /// The oldest first.
    in_flight: VecDeque<InFlight>,
    /// The memory of a pack that is stored.
    spare: Vec<u8>,
}

/// A pack on its way to the store.
#[derive(Debug)]
struct InFlight {
    name: PackName,
    object: Bytes,
    /// Told when it is stored: then what it holds is kept.
    stored: Receiver<()>,
}

impl Packer {
    /// The packs of this writer's snapshot number `attempt`. Blocks that are known are not stored
    /// again.
    #[must_use]
    pub fn new(stamp: Stamp, attempt: u32, known: Known, kept: KeptPacks, outbox: Outbox) -> Self {
        let (in_flight, spare) = (VecDeque::new(), Vec::new());
        Self { stamp, attempt, known, kept, outbox, open: None, part: 0, in_flight, spare }
    }

    /// The blocks that are stored, or on their way.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Adds blocks as one part. At most three packs are in memory.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn push(&mut self, packed: &PackedBlocks, desk: &Desk) -> Result<(), CaptureError> {
        self.keep_what_is_stored();
        let Some(first) = packed.blocks().next() else { return Ok(()) };
        let goes_on = |(layout, writer): &(BlockLayout, PackWriter)| {
            *layout == packed.layout()
                && writer.last() < Some(first)
                && writer.stored_len() < PACK_BYTES
        };
        if !self.open.as_ref().is_some_and(goes_on) {
            self.ship_pack(desk)?;
        }
        let (stamp, layout) = (self.stamp, packed.layout());
        let (_, writer) = self.open.get_or_insert_with(|| {
            let mut memory = std::mem::take(&mut self.spare);
            memory.clear();
            memory.reserve(PACK_ROOM);
            (layout, PackWriter::reusing(memory, layout, stamp))
        });
        writer.push_packed(packed)?;
        // What was known of them is old, and what is known now is told when the pack is complete.
        packed.blocks().for_each(|block| self.known.forget(block));
        Ok(())
    }

    /// Ships what is left and the manifest, and waits until everything is stored.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn finish(mut self, snapshot: Snapshot, desk: &Desk) -> Result<Manifest, CaptureError> {
        self.ship_pack(desk)?;
        let Snapshot { layout, txid, time, position, state, parent } = snapshot;
        let (packs, blocks) = self.known.assemble(layout).map_err(CaptureError::Missing)?;
        let stamp = self.stamp;
        let manifest =
            Manifest { layout, stamp, txid, position, time, state, parent, packs, blocks };
        let name = ManifestName {
            generation: stamp.generation,
            txid,
            time: time.ceil_millis(),
            epoch: stamp.epoch,
            attempt: self.attempt,
            repair: 0,
        };
        let mut object = Vec::new();
        manifest.encode(&mut object)?;
        // It is stored after the packs, whenever they are.
        let stored = self.outbox.object(name.into(), object.into())?;
        self.wait_until_left(0, desk)?;
        wait_for(&stored, desk)?;
        self.kept.forget_all();
        Ok(manifest)
    }

    fn ship_pack(&mut self, desk: &Desk) -> Result<(), CaptureError> {
        let Some((layout, writer)) = self.open.take() else { return Ok(()) };
        self.wait_until_left(IN_FLIGHT - 1, desk)?;
        let name = PackName {
            generation: self.stamp.generation,
            epoch: self.stamp.epoch,
            attempt: self.attempt,
            part: self.part,
            repair: 0,
        };
        self.part += 1;
        let (object, entries) = writer.finish()?;
        self.known.add(PackRef { name, size: object.len() as u64 }, layout, &entries);
        let object = Bytes::from(object);
        let stored = self.outbox.object(ObjectName::from(name), object.clone())?;
        self.in_flight.push_back(InFlight { name, object, stored });
        Ok(())
    }

    /// Waits until no more than so many packs are on their way.
    fn wait_until_left(&mut self, left: usize, desk: &Desk) -> Result<(), CaptureError> {
        while self.in_flight.len() > left
            && let Some(first) = self.in_flight.pop_front()
        {
            wait_for(&first.stored, desk)?;
            self.keep(first);
        }
        Ok(())
    }

    /// Of the packs that are stored, the oldest first, keeps in mind what they hold.
    fn keep_what_is_stored(&mut self) {
        while let Some(first) = self.in_flight.pop_front_if(|first| first.stored.try_recv().is_ok())
        {
            self.keep(first);
        }
    }

    fn keep(&mut self, InFlight { name, object, .. }: InFlight) {
        let footer = object.len() - part::trailing_len(&object).unwrap_or(0);
        self.kept.keep(&name, object.get(footer..).unwrap_or_default());
        if object.is_unique() {
            self.spare = object.into();
        }
    }
}

fn wait_for(stored: &Receiver<()>, desk: &Desk) -> Result<(), CaptureError> {
    loop {
        match stored.recv_timeout(LOOK) {
            Ok(()) => return Ok(()),
            Err(RecvTimeoutError::Timeout) if desk.is_stopped() => {
                return Err(CaptureError::Abandoned);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(ShippingEnded.into()),
        }
    }
}
