//! The threads of a capture: they read blocks, hash them, and pack those that are not known.

use std::fs::File;
use std::num::NonZero;
use std::sync::mpsc::{self, Receiver};
use std::thread::available_parallelism;
use std::{io, mem};

use fixedbitset::FixedBitSet;
use genesis_snapshot::block::BlockLayout;
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::chunk::{self, Chunk};
use super::line::Line;
use super::{CaptureError, Desk, Last, Order, Packer, Report};
use crate::replicate::idle::be_idle;
use crate::sqlite::PageFile;

/// More threads than this would only wait for the disk, each with chunks in memory.
const MOST_THREADS: usize = 8;

/// Chunks that are fetched ahead, beside those that threads are at: the disk works on them meanwhile.
const AHEAD: usize = 4;

/// Threads that run when nothing else wants to.
pub(super) fn pool() -> Result<ThreadPool, CaptureError> {
    let threads = available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    let built = ThreadPoolBuilder::new()
        .num_threads(threads)
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
        let Self { file, packer, desk, pool } = self;
        let (file, desk, threads) = (&*file, *desk, pool.current_num_threads());
        let mut left = blocks.ones().filter_map(|block| u32::try_from(block).ok()).peekable();
        pool.in_place_scope(|scope| {
            let (mut reading, mut packing) = (Line::new(scope), Line::new(scope));
            let mut spare = Vec::new();
            loop {
                if desk.is_stopped() {
                    return Err(CaptureError::Abandoned);
                }
                while reading.len() < 2 * threads + AHEAD && left.peek().is_some() {
                    let mut chunk = emptied(&mut spare, layout, packer.is_some());
                    for block in left.by_ref().take(chunk::BLOCKS) {
                        let known = packer.as_ref().and_then(|p| p.known().sum_of(layout, block));
                        chunk.add(block, layout.offset_of(block), known);
                    }
                    reading.put(chunk, |chunk| chunk.begin(file));
                }
                // The disk works on the chunks behind while these are packed.
                while packing.len() <= threads
                    && let Some(chunk) = reading.take()?
                {
                    if chunk.is_captured() {
                        packing.pass(chunk);
                    } else {
                        packing.put(chunk, |chunk| chunk.finish(file, desk));
                    }
                }
                let Some(mut chunk) = packing.take()? else { return Ok(()) };
                if let Some(packer) = packer.as_mut() {
                    packer.push(chunk.packed(), desk)?;
                }
                desk.tell(Report::Blocks(chunk.take_hashes()))?;
                spare.push(chunk);
            }
        })
    }

    /// Takes the blocks that were read under the lock, and ends the snapshot.
    fn finish(
        mut self,
        layout: BlockLayout,
        file: &File,
        blocks: &Receiver<Last>,
    ) -> Result<(), CaptureError> {
        let Some(mut packer) = self.packer.take() else { return Err(CaptureError::Abandoned) };
        let (desk, most) = (self.desk, 2 * self.pool.current_num_threads());
        let snapshot = self.pool.in_place_scope(|scope| {
            let mut packing = Line::new(scope);
            let mut spare = Vec::new();
            let mut chunk = emptied(&mut spare, layout, true);
            let mut complete = None;
            loop {
                match blocks.recv() {
                    Ok(Last::Block(block, offset)) => {
                        chunk.add(block, offset, packer.known().sum_of(layout, block));
                    }
                    Ok(Last::Complete(snapshot)) => complete = Some(snapshot),
                    Err(mpsc::RecvError) => return Err(CaptureError::Abandoned),
                }
                if chunk.is_full() || complete.is_some() {
                    let next = emptied(&mut spare, layout, true);
                    packing.put(mem::replace(&mut chunk, next), |chunk| chunk.take_from(file));
                }
                let under_way = if complete.is_some() { 0 } else { most };
                while packing.len() > under_way
                    && let Some(chunk) = packing.take()?
                {
                    packer.push(chunk.packed(), desk)?;
                    spare.push(chunk);
                }
                if let Some(snapshot) = complete {
                    return Ok(snapshot);
                }
            }
        })?;
        let manifest = packer.finish(snapshot, self.desk)?;
        self.desk.tell(Report::Stored(Box::new(manifest)))
    }
}

/// An empty chunk, in memory that is there if there is any.
fn emptied(spare: &mut Vec<Chunk>, layout: BlockLayout, is_packed: bool) -> Chunk {
    let mut chunk = spare.pop().unwrap_or_else(|| Chunk::new(layout, is_packed));
    chunk.clear(layout);
    chunk
}
