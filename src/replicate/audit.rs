//! The audit: the database file is read again, little by little, and compared with what was recorded.
//! So a page is found that changed on the disk without a write.
//!
//! While the WAL is held, only what was recorded reaches the file. When the lock was parked, the file
//! held all of it: from then on every page that was not recorded anew stands in it as the page table
//! says. Blocks are read by a thread that runs when nothing else wants to, without pushing anything out
//! of the page cache; what looks different is read once more by the follower, to whom the table belongs.
//!
//! The first pass is made as soon as the first snapshot is stored, whose pages were read from the file
//! only once; the later ones each within the interval.

mod pacer;
mod progress;

use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;
use std::{io, mem};

use genesis_snapshot::block::{BlockLayout, hash_block};
use genesis_wal::page::{PageHash, PageNumber};

use super::idle::be_idle;
use super::record::RecordError;
use super::segments::Segments;
use super::tail::Tail;
use super::watch::Waker;
use crate::clock;
use crate::sqlite::{PageFile, Source, SourceError};
use pacer::Pacer;
use progress::Progress;

/// The name, in the folder of local state, of the file that says how far the audit has come.
const FILE_NAME: &str = "audit";

/// So many pages are named in one alarm.
const NAMED: usize = 8;

/// The audit of one followed database.
#[derive(Debug)]
pub struct Audit {
    /// None where nothing is ever read again.
    pacer: Option<Pacer>,
    path: PathBuf,
    waker: Waker,
    progress: Progress,
    /// Pages of this pass that were not what was recorded, or could not be read.
    found: usize,
    reading: Option<Reading>,
}

/// Blocks that are being read.
#[derive(Debug)]
struct Reading {
    layout: BlockLayout,
    /// The block after them.
    end: u32,
    /// Another pass has begun since.
    is_past: bool,
    thread: JoinHandle<Blocks>,
}

/// Blocks, each with the hashes of its pages.
type Blocks = Vec<(u32, Result<Vec<PageHash>, SourceError>)>;

impl Audit {
    /// An audit that spreads over `interval`, or never reads; its progress is kept in `folder`.
    #[must_use]
    pub fn new(interval: Option<Duration>, folder: &std::path::Path, waker: Waker) -> Self {
        let path = folder.join(FILE_NAME);
        let (pacer, progress) = (interval.map(Pacer::new), Progress::read(&path));
        Self { pacer, path, waker, progress, found: 0, reading: None }
    }

    /// Begins with the first pass: another line has got its first snapshot.
    pub fn begin_anew(&mut self) {
        (self.progress, self.found) = (Progress::BEGINNING, 0);
        if let Some(reading) = &mut self.reading {
            reading.is_past = true;
        }
        self.keep();
    }

    /// Has more blocks read, when they are due.
    fn read_on(&mut self, file: PageFile, layout: BlockLayout) {
        let (Some(pacer), None) = (&mut self.pacer, &self.reading) else { return };
        let Progress { is_first, next } = self.progress;
        let blocks = layout.blocks();
        // The database may have got shorter since.
        let next = if next < blocks { next } else { 0 };
        let count = pacer.take(clock::monotonic(), blocks, blocks - next, is_first);
        if count == 0 {
            return;
        }
        let end = next + count;
        match read_beside(file, layout, next..end, self.waker.clone()) {
            Ok(thread) => {
                self.reading = Some(Reading { layout, end, is_past: false, thread });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot start a thread to read the database again");
            }
        }
    }

    /// What has been read by now; `None` while nothing has.
    fn take_read(&mut self) -> Option<(BlockLayout, u32, Blocks)> {
        let Reading { layout, end, is_past, thread } =
            self.reading.take_if(|reading| reading.thread.is_finished())?;
        let Ok(blocks) = thread.join() else {
            tracing::error!("the thread that reads the database again died");
            return None;
        };
        (!is_past).then_some((layout, end, blocks))
    }

    /// Goes on after what was compared; `blocks` is how many the database has.
    fn move_on(&mut self, next: u32, blocks: u32) {
        self.progress.next = next;
        if next >= blocks {
            let found = mem::take(&mut self.found);
            let is_first =
                mem::replace(&mut self.progress, Progress { is_first: false, next: 0 }).is_first;
            match (found, is_first) {
                (0, true) => tracing::info!(
                    "verified: a second look at every page of the first snapshot found what it holds"
                ),
                (0, false) => {
                    tracing::info!("every page was read again, and is as it was recorded");
                }
                (found, _) => tracing::error!(
                    pages = found,
                    "every page was read again: so many were not what was recorded, or not to be read"
                ),
            }
        }
        self.keep();
    }

    /// That it cannot be kept costs a second look, and nothing else.
    fn keep(&self) {
        if let Err(error) = self.progress.write(&self.path) {
            tracing::debug!(%error, "cannot keep in mind how far the audit has come");
        }
    }
}

impl Drop for Audit {
    /// What reads the file must be gone before the database is closed.
    fn drop(&mut self) {
        if let Some(Reading { thread, .. }) = self.reading.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that reads the database again died");
        }
    }
}

impl Tail {
    /// Compares what was read of the database again, and has more of it read.
    ///
    /// # Errors
    /// When a page that looks different cannot be read again, or there is no room for a record of it.
    pub(super) fn audit(&mut self, source: &Source) -> Result<(), RecordError> {
        if let Some((layout, end, blocks)) = self.tools.audit.take_read()
            && !self.recorder.is_behind()
        {
            self.compare(source, layout, blocks)?;
            self.tools.audit.move_on(end, self.recorder.table().layout().blocks());
        }
        let is_free = !self.recorder.is_behind() && self.tools.snapshots.running.is_none();
        if is_free && self.recorder.line().is_some() && self.recorder.was_parked() {
            self.tools.audit.read_on(source.page_file(), self.recorder.table().layout());
        }
        Ok(())
    }

    fn compare(
        &mut self,
        source: &Source,
        layout: BlockLayout,
        blocks: Blocks,
    ) -> Result<(), RecordError> {
        let mut differing = Vec::new();
        let mut buffer = vec![0; layout.page_size.bytes()];
        for (block, read) in blocks {
            let hashes = match read {
                Ok(hashes) => hashes,
                Err(error) => {
                    let first = layout.first_page(block).map(PageNumber::get);
                    let pages = layout.page_count(block);
                    tracing::error!(
                        %error, first, pages,
                        "THE DATABASE CANNOT BE READ; the replica has these pages as they were committed"
                    );
                    self.tools.audit.found += pages as usize;
                    continue;
                }
            };
            for ((page, _), hash) in layout.pages_of(block).zip(hashes) {
                if !self.recorder.is_misplaced(page, hash) {
                    continue;
                }
                // What was recorded since it was read is in the table by now: here nothing moves.
                source.read_page(page, &mut buffer)?;
                let hash = PageHash::of(page, &buffer);
                if self.recorder.is_misplaced(page, hash) {
                    differing.push((page, hash));
                }
            }
        }
        if !differing.is_empty() {
            self.tools.audit.found += differing.len();
            alarm(&differing, self.recorder.line());
            self.recorder.take_over(&differing);
        }
        Ok(())
    }
}

/// Says which pages changed.
fn alarm(differing: &[(PageNumber, PageHash)], line: Option<&Segments>) {
    let named: Vec<u32> = differing.iter().take(NAMED).map(|(page, _)| page.get()).collect();
    tracing::error!(
        count = differing.len(),
        pages = ?named,
        good_txid = line.map(|line| line.last().0),
        "THE DATABASE FILE CHANGED ON THE DISK, and nobody wrote to it: the replica has these pages as \
         they were committed up to this transaction, and what they are now comes after it"
    );
}

/// Reads blocks on a thread that runs when nothing else wants to.
fn read_beside(
    file: PageFile,
    layout: BlockLayout,
    blocks: std::ops::Range<u32>,
    waker: Waker,
) -> io::Result<JoinHandle<Blocks>> {
    let run = move || {
        be_idle();
        let mut raw = Vec::new();
        let read = |block| {
            raw.resize(layout.bytes(block), 0);
            let read = file.read(layout.offset_of(block), &mut raw);
            (block, read.map(|()| hash_block(layout, block, &raw).0))
        };
        let read = blocks.map(read).collect();
        waker.wake();
        read
    };
    thread::Builder::new().name("audit".into()).spawn(run)
}
