//! The threads of a capture: they read blocks, hash them, and pack those that are not known.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;
use std::{io, mem};

use fixedbitset::FixedBitSet;
use genesis_snapshot::block::{BlockLayout, hash_block};
use genesis_snapshot::pack::{PackedBlock, pack_block};
use genesis_wal::page::PageHash;
use rayon::iter::{IndexedParallelIterator, IntoParallelRefMutIterator, ParallelIterator};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::{CaptureError, Desk, Known, Last, Order, Packer, Report};
use crate::clock;
use crate::replicate::idle::be_idle;
use crate::sqlite::{Missing, PageFile, SourceError};

/// Blocks that are captured at once: 4 MiB.
const BATCH: usize = 64;

/// The pause before what could not be read is read again.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// Threads that run when nothing else wants to.
pub(super) fn pool() -> Result<ThreadPool, CaptureError> {
    let built = ThreadPoolBuilder::new()
        .thread_name(|n| format!("capture-{n}"))
        .start_handler(|_| be_idle())
        .build();
    built.map_err(|error| CaptureError::Thread(io::Error::other(error)))
}

/// Captures blocks.
pub(super) struct Worker<'a> {
    pub file: PageFile,
    pub packer: Option<Packer>,
    pub desk: &'a Desk,
    pub pool: ThreadPool,
}

/// A block that is being fetched.
#[derive(Default)]
struct Begun {
    block: u32,
    raw: Vec<u8>,
    missing: Missing,
}

/// A block as it was captured.
struct Captured {
    block: u32,
    hashes: Vec<PageHash>,
    /// As it is to be stored; nothing where that is known or no snapshot is made.
    packed: Option<PackedBlock>,
}

impl Worker<'_> {
    /// Does what is ordered, in turn.
    pub fn run(mut self, orders: &Receiver<Order>) -> Result<(), CaptureError> {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Sweep(layout, blocks) => {
                    self.sweep(layout, &blocks)?;
                    self.desk.tell(Report::SweepOver)?;
                }
                Order::Finish(layout, file, blocks) => return self.finish(layout, &file, &blocks),
            }
        }
        Ok(())
    }

    fn sweep(&mut self, layout: BlockLayout, blocks: &FixedBitSet) -> Result<(), CaptureError> {
        let blocks: Vec<u32> =
            blocks.ones().filter_map(|block| u32::try_from(block).ok()).collect();
        let mut batches = blocks.chunks(BATCH);
        let (mut batch, mut ahead) = (Vec::new(), Vec::new());
        self.begin(layout, batches.next().unwrap_or_default(), &mut ahead);
        while !ahead.is_empty() {
            if self.desk.is_stopped() {
                return Err(CaptureError::Abandoned);
            }
            mem::swap(&mut batch, &mut ahead);
            // The disk works on the next batch while this one is packed.
            self.begin(layout, batches.next().unwrap_or_default(), &mut ahead);
            let captured = self.capture(layout, &mut batch)?;
            let mut hashes = Vec::with_capacity(captured.len());
            for captured in captured {
                if let (Some(packer), Some(packed)) = (&mut self.packer, captured.packed) {
                    packer.push(layout, &packed, self.desk)?;
                }
                hashes.push((captured.block, captured.hashes));
            }
            self.desk.tell(Report::Blocks(hashes))?;
        }
        Ok(())
    }

    /// Has blocks fetched, into buffers that may have been used before.
    fn begin(&self, layout: BlockLayout, blocks: &[u32], batch: &mut Vec<Begun>) {
        let file = &self.file;
        batch.resize_with(blocks.len(), Begun::default);
        let begin = |(begun, &block): (&mut Begun, &u32)| {
            begun.block = block;
            begun.raw.resize(layout.bytes(block), 0);
            begun.missing = file.begin(layout.offset_of(block), &mut begun.raw);
        };
        self.pool.install(|| batch.par_iter_mut().zip(blocks).for_each(begin));
    }

    fn capture(
        &self,
        layout: BlockLayout,
        batch: &mut [Begun],
    ) -> Result<Vec<Captured>, CaptureError> {
        let known = self.packer.as_ref().map(Packer::known);
        let file = Reading { file: &self.file, desk: self.desk };
        let capture = |Begun { block, raw, missing }: &mut Begun| {
            file.finish(layout.offset_of(*block), raw, missing)?;
            pack(known, layout, *block, raw)
        };
        self.pool.install(|| batch.par_iter_mut().map(capture).collect())
    }

    fn finish(
        mut self,
        layout: BlockLayout,
        file: &File,
        blocks: &Receiver<Last>,
    ) -> Result<(), CaptureError> {
        let Some(mut packer) = self.packer.take() else { return Err(CaptureError::Abandoned) };
        let snapshot = loop {
            match blocks.recv() {
                Ok(Last::Block(block, offset)) => {
                    let mut raw = vec![0; layout.bytes(block)];
                    file.read_exact_at(&mut raw, offset).map_err(CaptureError::Last)?;
                    let captured = pack(Some(packer.known()), layout, block, &raw)?;
                    if let Some(packed) = captured.packed {
                        packer.push(layout, &packed, self.desk)?;
                    }
                }
                Ok(Last::Complete(snapshot)) => break snapshot,
                Err(mpsc::RecvError) => return Err(CaptureError::Abandoned),
            }
        };
        let manifest = packer.finish(snapshot, self.desk)?;
        self.desk.tell(Report::Stored(Box::new(manifest)))
    }
}

/// The file, as long as somebody waits for what is in it.
struct Reading<'a> {
    file: &'a PageFile,
    desk: &'a Desk,
}

impl Reading<'_> {
    /// Reads what was missing, and where that fails everything, again and again.
    fn finish(&self, offset: u64, raw: &mut [u8], missing: &Missing) -> Result<(), CaptureError> {
        let mut read = self.file.finish(offset, raw, missing);
        while let Err(error) = read {
            if self.desk.is_stopped() {
                return Err(CaptureError::Abandoned);
            }
            report_trouble(&error);
            clock::rest(READ_PAUSE);
            read = self.file.read(offset, raw);
        }
        Ok(())
    }
}

fn pack(
    known: Option<&Known>,
    layout: BlockLayout,
    block: u32,
    raw: &[u8],
) -> Result<Captured, CaptureError> {
    let (hashes, sum) = hash_block(layout, block, raw);
    let packed = match known {
        Some(known) if !known.has(layout, block, sum) => Some(pack_block(layout, block, raw)?),
        _ => None,
    };
    Ok(Captured { block, hashes, packed })
}

fn report_trouble(error: &SourceError) {
    tracing::warn!(%error, "cannot read the database for a snapshot; trying again");
}
