//! Captures blocks of the database file beside the follower: to learn the hashes of their pages, or to
//! make a snapshot of them.
//!
//! A capture is a thread of its own, and as many more as there are processors, all of which run only
//! when nothing else wants to. It holds nothing and knows nothing of commits: it reads what stands in
//! the file and tells the hashes of what it has read. What they are worth is the follower's to say.

mod known;
mod packer;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use fixedbitset::FixedBitSet;
use genesis_snapshot::block::{BlockLayout, hash_block};
use genesis_snapshot::manifest::{Manifest, ManifestError};
use genesis_snapshot::pack::{PackError, PackedBlock, pack_block};
use genesis_wal::page::PageHash;
use rayon::iter::{IntoParallelRefIterator, ParallelIterator};
use thiserror::Error;

pub use known::Known;
pub use packer::{Packer, Snapshot};

use super::idle::be_idle;
use super::ship::ShippingEnded;
use super::watch::Waker;
use crate::clock;
use crate::sqlite::{PageFile, SourceError};

/// Blocks that are captured at once: 4 MiB.
const BATCH: usize = 64;

/// Batches whose hashes may wait for the follower.
const REPORTS: usize = 64;

/// The pause before what could not be read is read again.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// Why nothing can be captured any more.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// A pack cannot be written.
    #[error("cannot write a pack")]
    Pack(#[from] PackError),
    /// The manifest cannot be written.
    #[error("cannot write a manifest")]
    Manifest(#[from] ManifestError),
    /// What was read under the lock cannot be read again.
    #[error("cannot read the blocks of the last pass")]
    Last(#[source] io::Error),
    /// A block that the database has was never captured.
    #[error("block {0} was not captured")]
    Missing(u32),
    /// Nothing more is shipped.
    #[error(transparent)]
    Shipping(#[from] ShippingEnded),
    /// The system gives no thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// Nobody waits for it any more.
    #[error("nobody waits for it")]
    Abandoned,
}

/// What a capture is to do.
#[derive(Debug)]
enum Order {
    /// Capture these blocks of the file.
    Sweep(BlockLayout, FixedBitSet),
    /// Take these, which were read under the lock, and end the snapshot.
    Finish(BlockLayout, File, Receiver<Last>),
}

/// What comes with the last order.
#[derive(Debug)]
enum Last {
    /// A block as of the snapshot's transaction, and where it stands in the file.
    Block(u32, u64),
    /// These were all.
    Complete(Snapshot),
}

/// What a capture tells.
#[derive(Debug)]
pub enum Report {
    /// Blocks as they stand in the file, with the hashes of their pages.
    Blocks(Vec<(u32, Vec<PageHash>)>),
    /// The sweep is over.
    SweepOver,
    /// The snapshot is stored.
    Stored(Box<Manifest>),
    /// The capture has ended.
    Failed(CaptureError),
}

/// A running capture. When it is dropped, the capture ends.
#[derive(Debug)]
pub struct Capture {
    orders: Option<Sender<Order>>,
    reports: Option<Receiver<Report>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The blocks that are handed over under the lock: through a file, so that whoever holds the lock waits
/// neither for room in memory nor for the store.
#[derive(Debug)]
pub struct LastBlocks {
    file: File,
    end: u64,
    blocks: Sender<Last>,
}

impl LastBlocks {
    /// Hands a block over.
    ///
    /// # Errors
    /// What the file system says; the snapshot fails then.
    pub fn block(&mut self, block: u32, raw: &[u8]) -> io::Result<()> {
        self.file.write_all_at(raw, self.end)?;
        // One that has ended tells why in its reports.
        self.blocks.send(Last::Block(block, self.end)).ok();
        self.end += raw.len() as u64;
        Ok(())
    }

    /// Says that these were all, and what they make.
    pub fn complete(self, snapshot: Snapshot) {
        self.blocks.send(Last::Complete(snapshot)).ok();
    }
}

impl Capture {
    /// Starts a capture of `file`; with a packer, of a snapshot. `waker` is woken for each report.
    ///
    /// # Errors
    /// [`CaptureError::Thread`].
    pub fn start(
        file: PageFile,
        packer: Option<Packer>,
        waker: Waker,
    ) -> Result<Self, CaptureError> {
        let (orders, received) = mpsc::channel();
        let (sender, reports) = mpsc::sync_channel(REPORTS);
        let stop = Arc::new(AtomicBool::new(false));
        let desk = Desk { reports: sender, waker, stop: Arc::clone(&stop) };
        let span = tracing::Span::current();
        let run = move || {
            let _said_of_this_database = span.entered();
            let ended =
                pool().and_then(|pool| Worker { file, packer, desk: &desk, pool }.run(&received));
            if let Err(error) = ended {
                // Nobody is told when nobody is there.
                desk.tell(Report::Failed(error)).ok();
            }
        };
        let spawned = thread::Builder::new().name("capture".into()).spawn(run);
        let thread = Some(spawned.map_err(CaptureError::Thread)?);
        Ok(Self { orders: Some(orders), reports: Some(reports), stop, thread })
    }

    /// Has blocks captured. Several sweeps are made one after another.
    pub fn sweep(&self, layout: BlockLayout, blocks: FixedBitSet) {
        self.order(Order::Sweep(layout, blocks));
    }

    /// Ends the snapshot: with the blocks that are handed over through `file`, which has no name.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(&self, layout: BlockLayout, file: File) -> io::Result<LastBlocks> {
        let (sender, blocks) = mpsc::channel();
        self.order(Order::Finish(layout, file.try_clone()?, blocks));
        Ok(LastBlocks { file, end: 0, blocks: sender })
    }

    /// The next report; `None` while there is none.
    #[must_use]
    pub fn report(&self) -> Option<Report> {
        match self.reports.as_ref()?.try_recv() {
            Ok(report) => Some(report),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Report::Failed(CaptureError::Abandoned)),
        }
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // One that has ended tells why in its reports.
            orders.send(order).ok();
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.orders = None;
        self.reports = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the capture of a snapshot died");
        }
    }
}

/// Where reports go.
#[derive(Debug)]
pub struct Desk {
    reports: SyncSender<Report>,
    waker: Waker,
    stop: Arc<AtomicBool>,
}

impl Desk {
    /// Whether nobody waits any more.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn tell(&self, report: Report) -> Result<(), CaptureError> {
        self.reports.send(report).map_err(|_gone| CaptureError::Abandoned)?;
        self.waker.wake();
        Ok(())
    }
}

/// Threads that run when nothing else wants to.
fn pool() -> Result<rayon::ThreadPool, CaptureError> {
    let built = rayon::ThreadPoolBuilder::new()
        .thread_name(|n| format!("capture-{n}"))
        .start_handler(|_| be_idle())
        .build();
    built.map_err(|error| CaptureError::Thread(io::Error::other(error)))
}

struct Worker<'a> {
    file: PageFile,
    packer: Option<Packer>,
    desk: &'a Desk,
    pool: rayon::ThreadPool,
}

/// A block as it was captured.
struct Captured {
    block: u32,
    hashes: Vec<PageHash>,
    /// As it is to be stored; nothing where that is known or no snapshot is made.
    packed: Option<PackedBlock>,
}

impl Worker<'_> {
    fn run(mut self, orders: &Receiver<Order>) -> Result<(), CaptureError> {
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
        for batch in blocks.chunks(BATCH) {
            if self.desk.is_stopped() {
                return Err(CaptureError::Abandoned);
            }
            let captured = self.capture(layout, batch)?;
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

    fn capture(&self, layout: BlockLayout, batch: &[u32]) -> Result<Vec<Captured>, CaptureError> {
        let known = self.packer.as_ref().map(Packer::known);
        let file = Reading { file: &self.file, desk: self.desk };
        let read = |block: &u32| {
            let mut raw = vec![0; layout.bytes(*block)];
            file.read(layout.offset_of(*block), &mut raw)?;
            pack(known, layout, *block, &raw)
        };
        self.pool.install(|| batch.par_iter().map(read).collect())
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
    /// Reads, and for as long as that fails again and again.
    fn read(&self, offset: u64, raw: &mut [u8]) -> Result<(), CaptureError> {
        loop {
            match self.file.read(offset, raw) {
                Ok(()) => return Ok(()),
                Err(_) if self.desk.is_stopped() => return Err(CaptureError::Abandoned),
                Err(error) => {
                    report_trouble(&error);
                    clock::rest(READ_PAUSE);
                }
            }
        }
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
