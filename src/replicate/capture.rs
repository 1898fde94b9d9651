//! Reads a whole state under a held mark: to fill the page table, or to make a snapshot of it.

use std::sync::mpsc::{Receiver, RecvError};

use bytes::Bytes;
use genesis_snapshot::block::{BlockLayout, hash_block};
use genesis_snapshot::manifest::{Manifest, ManifestBlock, ManifestError, PackRef};
use genesis_snapshot::pack::{PackError, PackWriter, pack_block};
use genesis_wal::id::Txid;
use genesis_wal::name::{ManifestName, ObjectName, PackName};
use genesis_wal::part::Stamp;
use genesis_wal::position::WalPosition;
use genesis_wal::time::Micros;
use thiserror::Error;

use super::ship::{Outbox, ShippingEnded};
use super::table::PageTable;
use crate::sqlite::{SourceError, StateReader};

/// A pack is finished when it has grown to this many bytes.
const PACK_BYTES: usize = 32 << 20;

/// Why no snapshot was made.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A pack cannot be written.
    #[error("cannot write a pack")]
    Pack(#[from] PackError),
    /// The manifest cannot be written.
    #[error("cannot write a manifest")]
    Manifest(#[from] ManifestError),
    /// Nothing more is shipped.
    #[error(transparent)]
    Shipping(#[from] ShippingEnded),
}

/// What a snapshot says of the state it holds.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// Where it belongs, and who writes it.
    pub stamp: Stamp,
    /// Which of this writer's snapshots it is.
    pub attempt: u32,
    /// The transaction id of the state.
    pub txid: Txid,
    /// When the state was seen.
    pub time: Micros,
    /// The place in the WAL after it.
    pub position: Option<WalPosition>,
}

/// Hashes every page.
///
/// # Errors
/// When the source cannot be read.
pub fn hash_pages(state: &mut StateReader<'_>) -> Result<PageTable, SourceError> {
    let mut table = PageTable::new(state.page_size());
    for_each_block(state, |layout, block, raw| {
        let (hashes, _) = hash_block(layout, block, raw);
        table.extend(hashes);
        Ok(())
    })?;
    Ok(table)
}

/// Ships the whole state as packs and a manifest. At most two packs are in memory.
///
/// # Errors
/// [`CaptureError`]; what was shipped by then are packs that no manifest names.
pub fn ship_snapshot(
    state: &mut StateReader<'_>,
    snapshot: Snapshot,
    outbox: &Outbox,
) -> Result<PageTable, CaptureError> {
    let layout = BlockLayout { page_size: state.page_size(), pages: state.pages() };
    let mut table = PageTable::new(layout.page_size);
    let mut packs = Packs::new(layout, snapshot, outbox);
    for_each_block(state, |layout, block, raw| {
        let packed = pack_block(layout, block, raw)?;
        table.extend(packed.hashes().iter().copied());
        packs.writer.push_packed(&packed)?;
        if packs.writer.stored_len() >= PACK_BYTES { packs.ship_pack() } else { Ok(()) }
    })?;
    packs.finish(&table)?;
    Ok(table)
}

fn for_each_block<E: From<SourceError>>(
    state: &mut StateReader<'_>,
    mut take: impl FnMut(BlockLayout, u32, &[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let layout = BlockLayout { page_size: state.page_size(), pages: state.pages() };
    let mut raw = Vec::new();
    for block in 0..layout.blocks() {
        let Some(first) = layout.first_page(block) else {
            break;
        };
        raw.resize(layout.bytes(block), 0);
        state.read(first, &mut raw)?;
        take(layout, block, &raw)?;
    }
    Ok(())
}

/// The packs of one snapshot, as they are written and shipped.
struct Packs<'a> {
    layout: BlockLayout,
    snapshot: Snapshot,
    outbox: &'a Outbox,
    writer: PackWriter,
    shipped: Vec<PackRef>,
    blocks: Vec<ManifestBlock>,
    /// Told when the pack before is stored.
    in_flight: Option<Receiver<()>>,
}

impl<'a> Packs<'a> {
    fn new(layout: BlockLayout, snapshot: Snapshot, outbox: &'a Outbox) -> Self {
        let writer = PackWriter::new(layout, snapshot.stamp);
        let (shipped, blocks) = (Vec::new(), Vec::new());
        Self { layout, snapshot, outbox, writer, shipped, blocks, in_flight: None }
    }

    fn ship_pack(&mut self) -> Result<(), CaptureError> {
        let next = PackWriter::new(self.layout, self.snapshot.stamp);
        let full = std::mem::replace(&mut self.writer, next);
        if full.is_empty() {
            return Ok(());
        }
        let number = u32::try_from(self.shipped.len()).unwrap_or(u32::MAX);
        let name = PackName {
            generation: self.snapshot.stamp.generation,
            epoch: self.snapshot.stamp.epoch,
            attempt: self.snapshot.attempt,
            part: number,
            repair: 0,
        };
        let mut object = Vec::with_capacity(full.stored_len());
        let entries = full.finish(&mut object)?;
        self.blocks.extend(entries.into_iter().map(|entry| ManifestBlock { pack: number, entry }));
        self.shipped.push(PackRef { name, size: object.len() as u64 });
        self.ship(name.into(), object)
    }

    fn finish(mut self, table: &PageTable) -> Result<(), CaptureError> {
        self.ship_pack()?;
        let Snapshot { stamp, attempt, txid, time, position } = self.snapshot;
        let manifest = Manifest {
            layout: self.layout,
            stamp,
            txid,
            position,
            time,
            state: table.state(),
            parent: None,
            packs: std::mem::take(&mut self.shipped),
            blocks: std::mem::take(&mut self.blocks),
        };
        let name = ManifestName {
            generation: stamp.generation,
            txid,
            time: time.ceil_millis(),
            epoch: stamp.epoch,
            attempt,
            repair: 0,
        };
        let mut object = Vec::new();
        manifest.encode(&mut object)?;
        self.ship(name.into(), object)
    }

    /// Queues an object, once the one before is stored.
    fn ship(&mut self, name: ObjectName, object: Vec<u8>) -> Result<(), CaptureError> {
        if let Some(in_flight) = self.in_flight.take() {
            in_flight.recv().map_err(|RecvError| ShippingEnded)?;
        }
        self.in_flight = Some(self.outbox.object(name, Bytes::from(object))?);
        Ok(())
    }
}
