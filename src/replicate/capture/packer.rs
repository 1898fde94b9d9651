//! Puts captured blocks into packs, ships them, and names them in a manifest.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, PackRef};
use genesis_snapshot::pack::{PackWriter, PackedBlock};
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
    open: Option<Open>,
    part: u32,
    /// Told when the pack before is stored: then what it holds is kept.
    in_flight: Option<(Receiver<()>, PackName, Bytes)>,
}

#[derive(Debug)]
struct Open {
    layout: BlockLayout,
    last: u32,
    writer: PackWriter,
}

impl Packer {
    /// The packs of this writer's snapshot number `attempt`. Blocks that are known are not stored
    /// again.
    #[must_use]
    pub fn new(stamp: Stamp, attempt: u32, known: Known, kept: KeptPacks, outbox: Outbox) -> Self {
        Self { stamp, attempt, known, kept, outbox, open: None, part: 0, in_flight: None }
    }

    /// The blocks that are stored, or on their way.
    #[must_use]
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Adds a block. At most two packs are in memory.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn push(
        &mut self,
        layout: BlockLayout,
        packed: &PackedBlock,
        desk: &Desk,
    ) -> Result<(), CaptureError> {
        let goes_on = |open: &Open| {
            open.layout == layout
                && open.last < packed.block()
                && open.writer.stored_len() < PACK_BYTES
        };
        if !self.open.as_ref().is_some_and(goes_on) {
            self.ship_pack(desk)?;
        }
        let stamp = self.stamp;
        let open = self.open.get_or_insert_with(|| Open {
            layout,
            last: 0,
            writer: PackWriter::new(layout, stamp),
        });
        open.writer.push_packed(packed)?;
        open.last = packed.block();
        // What was known of it is old, and what is known now is told when the pack is complete.
        self.known.forget(packed.block());
        Ok(())
    }

    /// Ships what is left and the manifest, and waits until everything is stored.
    ///
    /// # Errors
    /// [`CaptureError`].
    pub fn finish(mut self, snapshot: Snapshot, desk: &Desk) -> Result<Manifest, CaptureError> {
        self.ship_pack(desk)?;
        self.wait(desk)?;
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
        let stored = self.outbox.object(name.into(), object.into())?;
        wait_for(&stored, desk)?;
        self.kept.forget_all();
        Ok(manifest)
    }

    fn ship_pack(&mut self, desk: &Desk) -> Result<(), CaptureError> {
        let Some(Open { layout, writer, .. }) = self.open.take() else { return Ok(()) };
        self.wait(desk)?;
        let name = PackName {
            generation: self.stamp.generation,
            epoch: self.stamp.epoch,
            attempt: self.attempt,
            part: self.part,
            repair: 0,
        };
        self.part += 1;
        let mut object = Vec::with_capacity(writer.stored_len());
        let entries = writer.finish(&mut object)?;
        self.known.add(PackRef { name, size: object.len() as u64 }, layout, &entries);
        let object = Bytes::from(object);
        let footer = part::trailing_len(&object).unwrap_or(0);
        let footer =
            Bytes::copy_from_slice(object.get(object.len() - footer..).unwrap_or_default());
        let stored = self.outbox.object(ObjectName::from(name), object)?;
        self.in_flight = Some((stored, name, footer));
        Ok(())
    }

    /// Waits until the pack before is stored, and keeps in mind what it holds.
    fn wait(&mut self, desk: &Desk) -> Result<(), CaptureError> {
        let Some((stored, name, footer)) = self.in_flight.take() else { return Ok(()) };
        wait_for(&stored, desk)?;
        self.kept.keep(&name, &footer);
        Ok(())
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
