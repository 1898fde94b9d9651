//! The world: the files, the shared memory and the locks of one database in WAL mode, and what the
//! oracle knows of them. Every method is one atomic operation.

mod locks;
mod oracle;

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::{FrameHeader, frame_len, frame_offset};
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::index::IndexHeader;
use genesis_wal::page::PageSize;

use self::locks::Locks;
pub use self::locks::{CHECKPOINT, READ_MARKS, RECOVER, WRITE, read_lock};
pub use self::oracle::Tip;
use self::oracle::{Commit, Replica};
use super::tally::Tally;
use crate::simulated::Random;

/// Pages in the database; it neither grows nor shrinks.
pub const PAGES: usize = 5;

/// Bytes in a page, the fewest that SQLite has.
const PAGE: usize = 512;

/// A mark that is not in use.
pub const UNUSED: u32 = u32::MAX;

/// The process of ours.
pub const OURS: usize = 0;

/// The stamp of what was written last to each page.
pub type State = [u64; PAGES];

/// A connection, or a descriptor with locks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// Its process.
    pub process: usize,
    /// Its number in the process.
    pub connection: u8,
}

/// The world.
#[derive(Debug)]
pub struct World {
    /// Chance.
    pub random: Random,
    /// The time.
    pub now: Duration,
    /// Steps taken.
    pub step: u64,
    /// The WAL file.
    pub wal: Vec<u8>,
    /// How often it was written to.
    pub wal_writes: u64,
    /// The database file.
    pub database: State,
    /// The two copies of the wal-index header.
    pub copies: [Option<IndexHeader>; 2],
    /// `nBackfill`.
    pub backfilled: u32,
    /// `nBackfillAttempted`.
    pub attempted: u32,
    /// `aReadMark`.
    pub marks: [u32; 5],
    locks: Locks,
    /// Readers on a mark, with the last frame that each may need from the WAL.
    pub snapshots: Vec<(Owner, u32)>,
    /// Every commit that was published, in order.
    pub published: Vec<Commit>,
    ids: HashSet<u64>,
    last_id: u64,
    /// Recoveries of the wal-index.
    pub recoveries: u64,
    /// What we copied.
    pub replica: Replica,
    /// What happened how often.
    pub tally: Tally,
    /// Once in so many chances a process dies in the middle of something delicate.
    pub peril: u64,
    /// How long the actor that yields wants to rest.
    pub rest: Duration,
    /// The actor that yields dies.
    pub dying: bool,
    /// The process that does not die now: it has restarted the WAL, and not yet said that nothing of
    /// the new one is backfilled. SQLite itself does not survive that.
    pub spared: Option<usize>,
    /// What happened, where that is wanted.
    pub trace: Option<Vec<String>>,
}

impl World {
    /// A database that was just switched to WAL mode. Its index has counted `change` commits.
    pub fn new(mut random: Random, change: u32) -> Self {
        let header = IndexHeader {
            change,
            page_size: Some(page_size()),
            max_frame: 0,
            pages: pages(),
            frame_checksum: Checksum::default(),
            salts: Salts(random.bits().to_be_bytes()),
        };
        Self {
            random,
            now: Duration::from_secs(1),
            step: 0,
            wal: Vec::new(),
            wal_writes: 0,
            database: [0; PAGES],
            copies: [Some(header); 2],
            backfilled: 0,
            attempted: 0,
            marks: [0, 0, UNUSED, UNUSED, UNUSED],
            locks: Locks::default(),
            snapshots: Vec::new(),
            published: Vec::new(),
            ids: HashSet::new(),
            last_id: 0,
            recoveries: 0,
            replica: Replica::default(),
            tally: Tally::default(),
            peril: 0,
            rest: Duration::ZERO,
            dying: false,
            spared: None,
            trace: None,
        }
    }

    /// Notes what happens, where that is wanted.
    pub fn note(&mut self, owner: Owner, what: impl FnOnce() -> String) {
        let Some(trace) = &mut self.trace else { return };
        let who =
            if owner.process == OURS { "us".to_owned() } else { format!("#{}", owner.process) };
        let (step, micros) = (self.step, self.now.as_micros());
        trace.push(format!("{step:>6} {micros:>9}µs {who}.{}: {}", owner.connection, what()));
    }

    /// Whether the process that is at something delicate dies of it.
    pub fn is_doomed(&mut self) -> bool {
        self.dying = self.random.once_in(self.peril);
        self.dying
    }

    /// Whether a connection of ours is told that the database is busy.
    pub fn is_refused(&mut self) -> bool {
        self.random.once_in(self.peril)
    }

    /// A process dies: all of its locks go.
    pub fn bury(&mut self, process: usize) {
        self.drop_locks_of(process);
        self.snapshots.retain(|(holder, _)| holder.process != process);
        self.note(Owner { process, connection: 0 }, || "dies".to_owned());
        if process == OURS {
            self.replica.as_of = None;
        }
    }

    /// The header of the WAL file.
    pub fn wal_header(&self) -> Option<WalHeader> {
        WalHeader::decode(&self.wal).ok()
    }

    /// Writes the header of the WAL file.
    pub fn write_wal_header(&mut self, header: &WalHeader) {
        self.write_wal(0, &header.encode());
    }

    /// Writes a frame, or its header where there is no page.
    pub fn write_frame(&mut self, frame: u32, header: Option<FrameHeader>, stamp: Option<u64>) {
        let at = usize::try_from(frame_offset(page_size(), frame)).unwrap();
        if let Some(header) = header {
            self.write_wal(at, &header.encode());
        }
        if let Some(stamp) = stamp {
            self.write_wal(at + FrameHeader::LEN, &page_of(stamp));
        }
    }

    fn write_wal(&mut self, at: usize, bytes: &[u8]) {
        self.wal_writes += 1;
        self.wal.resize(self.wal.len().max(at + bytes.len()), 0);
        self.wal[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// Up to `count` whole frames from `frame` on.
    pub fn frames_from(&self, frame: u32, count: u32) -> &[u8] {
        let at = usize::try_from(frame_offset(page_size(), frame)).unwrap();
        let rest = self.wal.get(at..).unwrap_or_default();
        let whole = rest.len() - rest.len() % frame_len(page_size());
        &rest[..whole.min(count as usize * frame_len(page_size()))]
    }

    /// The header of a frame, and the stamp of its page.
    pub fn frame(&self, frame: u32) -> Option<(FrameHeader, u64)> {
        let bytes = self.frames_from(frame, 1);
        let stamp = bytes.get(FrameHeader::LEN..FrameHeader::LEN + 8)?;
        Some((FrameHeader::decode(bytes).ok()?, u64::from_le_bytes(stamp.try_into().unwrap())))
    }

    /// The last frame of a page among `frames`.
    pub fn last_frame_of(&self, page: usize, frames: Range<u32>) -> Option<u32> {
        let is_of = |frame: &u32| self.frame(*frame).is_some_and(|(h, _)| index_of(h.page) == page);
        frames.rev().find(is_of)
    }

    /// Writes a page into the database file.
    pub fn backfill(&mut self, owner: Owner, page: usize, frame: u32) {
        let (_, stamp) = self.frame(frame).expect("a frame to backfill");
        assert!(self.ids.contains(&(stamp >> 8)), "frame {frame} is backfilled and not committed");
        let behind = self.snapshots.iter().find(|(_, last)| *last < frame);
        assert!(behind.is_none(), "frame {frame} is backfilled under {behind:?}");
        self.database[page] = stamp;
        self.note(owner, || format!("backfill page {page} from frame {frame}"));
    }

    /// Fills the second copy of the wal-index header, which comes first.
    pub fn write_second_copy(&mut self, owner: Owner, header: IndexHeader) {
        self.copies[1] = Some(header);
        let at = (header.max_frame, header.change, header.salts.0);
        self.note(owner, || format!("write index copy 1 {at:x?}"));
    }

    /// Fills the first copy: what the header says is published.
    pub fn write_first_copy(&mut self, owner: Owner, header: IndexHeader) {
        self.copies[0] = Some(header);
        self.note(owner, || format!("write index copy 0: frame {}", header.max_frame));
    }
}

/// The page size of everything here.
pub fn page_size() -> PageSize {
    PageSize::new(u32::try_from(PAGE).unwrap()).unwrap()
}

/// Pages in the database.
pub fn pages() -> u32 {
    u32::try_from(PAGES).unwrap()
}

/// The page, from 0, with a number, from 1.
pub fn index_of(page: u32) -> usize {
    (page as usize).wrapping_sub(1)
}

/// The bytes of a page with a stamp.
pub fn page_of(stamp: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page[..8].copy_from_slice(&stamp.to_le_bytes());
    page
}

/// The byte order of the checksums.
pub const ORDER: ByteOrder = ByteOrder::Little;
