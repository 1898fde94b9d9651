//! Captures blocks of the database file beside the follower: to learn the hashes of their pages, or to
//! make a snapshot of them.
//!
//! A capture is a thread of its own, and as many more as there are processors, up to eight, which run only
//! when nothing else wants to. It holds nothing and knows nothing of commits: it reads what stands in
//! the file and tells the hashes of what it has read. What they are worth is the follower's to say.

mod chunk;
mod known;
mod line;
mod packer;
mod worker;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::{io, thread};

use fixedbitset::FixedBitSet;
use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestError};
use genesis_snapshot::pack::PackError;
use genesis_wal::page::PageHash;
use thiserror::Error;

use self::worker::{Worker, pool};
pub use known::Known;
pub use packer::{Packer, Snapshot};

use super::ship::ShippingEnded;
use super::watch::Waker;
use crate::sqlite::PageFile;

/// Batches whose hashes may wait for the follower.
const REPORTS: usize = 64;

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
