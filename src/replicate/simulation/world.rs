//! The world: the files, the shared memory and the locks of one database in WAL mode, and what the
//! oracle knows of them. Every method is one atomic operation.

use std::collections::HashSet;
use std::ops::Range;
use std::time::Duration;

use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::{FrameHeader, frame_len, frame_offset};
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::index::IndexHeader;
use genesis_wal::page::PageSize;
use genesis_wal::position::WalPosition;
use genesis_wal::reader::Reader;
use genesis_wal::scan::{Scanner, Step};

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

/// The lock bytes.
pub const WRITE: usize = 0;
pub const CHECKPOINT: usize = 1;
pub const RECOVER: usize = 2;
/// The lock of a read mark.
pub const fn read_lock(mark: usize) -> usize {
    3 + mark
}
/// The locks of all the marks that let readers read the WAL.
pub const READ_MARKS: Range<usize> = 4..8;

/// The locks on one byte, each with the step at which it was taken.
#[derive(Debug, Default)]
struct Lock {
    shared: Vec<(Owner, u64)>,
    exclusive: Option<(Owner, u64)>,
}

/// The holder of what is reserved for a whole process.
const RESERVED: u8 = 8;

/// A commit that was published.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    /// Its number.
    pub id: u64,
    /// The database behind it.
    pub state: State,
}

/// Where a life of ours left off: the end of the last sealed segment.
#[derive(Debug, Clone, Copy)]
pub struct Tip {
    /// Commits up to there.
    pub commits: usize,
    /// The place in the WAL.
    pub position: Option<WalPosition>,
}

/// What we have copied, as the oracle sees it.
#[derive(Debug, Default)]
pub struct Replica {
    /// Commits copied, of those that were published.
    pub commits: usize,
    /// The database that came of them.
    pub state: State,
    /// The step at which the wal-index was read up to which everything was copied; `None` while
    /// nothing is promised.
    pub as_of: Option<u64>,
    /// No procedure is running, and the lock is believed to be parked.
    pub parked: bool,
    /// The end of what was sealed.
    pub tip: Option<Tip>,
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
    locks: [Lock; 8],
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
            locks: Default::default(),
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

    /// Tries to share a lock.
    pub fn share(&mut self, owner: Owner, byte: usize) -> bool {
        let (lock, step) = (&mut self.locks[byte], self.step);
        let free = lock.exclusive.is_none();
        if free {
            lock.shared.push((owner, step));
        }
        self.note(owner, || format!("share {} {free}", name(byte)));
        free
    }

    /// Gives a shared lock back.
    pub fn unshare(&mut self, owner: Owner, byte: usize) {
        self.locks[byte].shared.retain(|(holder, _)| *holder != owner);
        self.note(owner, || format!("unshare {}", name(byte)));
    }

    /// Tries to have all of several locks alone.
    pub fn exclude(&mut self, owner: Owner, bytes: Range<usize>) -> bool {
        let step = self.step;
        let locks = &mut self.locks[bytes.clone()];
        let others = |lock: &Lock| lock.shared.iter().any(|(holder, _)| *holder != owner);
        let reserved = Owner { connection: RESERVED, ..owner };
        let taken = |lock: &Lock| lock.exclusive.is_some_and(|(holder, _)| holder != reserved);
        let free = locks.iter().all(|lock| !taken(lock) && !others(lock));
        if free {
            for lock in locks {
                lock.exclusive = Some((owner, step));
            }
        }
        self.note(owner, || format!("exclude {}.. {free}", name(bytes.start)));
        free
    }

    /// Gives locks back that were held alone.
    pub fn unexclude(&mut self, owner: Owner, bytes: Range<usize>) {
        for lock in &mut self.locks[bytes.clone()] {
            assert_eq!(lock.exclusive.map(|(holder, _)| holder), Some(owner), "not its lock");
            lock.exclusive = None;
        }
        self.note(owner, || format!("unexclude {}..", name(bytes.start)));
    }

    /// Tries to have a lock alone for the whole of our process: its SQLite takes it for its own, and
    /// gives it back for both.
    pub fn reserve(&mut self, byte: usize) -> bool {
        let lock = &mut self.locks[byte];
        let others = lock.shared.iter().any(|(holder, _)| holder.process != OURS);
        let free = !others && lock.exclusive.is_none_or(|(holder, _)| holder.process == OURS);
        let owner = Owner { process: OURS, connection: RESERVED };
        if free {
            lock.exclusive = Some((owner, self.step));
        }
        self.note(owner, || format!("reserve {} {free}", name(byte)));
        free
    }

    /// Gives back what our process has of a lock.
    pub fn end_reservation(&mut self, byte: usize) {
        let lock = &mut self.locks[byte];
        lock.exclusive = lock.exclusive.filter(|(holder, _)| holder.process != OURS);
        let owner = Owner { process: OURS, connection: RESERVED };
        self.note(owner, || format!("end the reservation of {}", name(byte)));
    }

    /// Whether another process than ours has a lock alone.
    pub fn is_held_by_another(&self, byte: usize) -> bool {
        self.locks[byte].exclusive.is_some_and(|(holder, _)| holder.process != OURS)
    }

    /// Whether our process has a lock alone.
    pub fn is_held_by_us(&self, byte: usize) -> bool {
        self.locks[byte].exclusive.is_some_and(|(holder, _)| holder.process == OURS)
    }

    /// Whether a process shares a lock.
    pub fn is_shared_by(&self, process: usize, byte: usize) -> bool {
        self.locks[byte].shared.iter().any(|(holder, _)| holder.process == process)
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
        for lock in &mut self.locks {
            lock.shared.retain(|(holder, _)| holder.process != process);
            lock.exclusive = lock.exclusive.filter(|(holder, _)| holder.process != process);
        }
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

    /// A number for a transaction.
    pub fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// The database as of the last published commit.
    pub fn state(&self) -> State {
        self.published.last().map_or([0; PAGES], |commit| commit.state)
    }

    /// The database as of so many published commits.
    pub fn state_at(&self, commits: usize) -> State {
        commits.checked_sub(1).map_or([0; PAGES], |last| self.published[last].state)
    }

    /// A commit is published.
    pub fn publish(&mut self, id: u64, images: &[(usize, u64)]) {
        let mut state = self.state();
        for (page, stamp) in images {
            state[*page] = *stamp;
        }
        assert!(self.ids.insert(id), "published twice");
        self.published.push(Commit { id, state });
        self.tally.commits += 1;
    }

    /// The WAL is restarted. What was not copied is lost.
    pub fn restart(&mut self, owner: Owner) {
        self.note(owner, || "restarts the WAL".to_owned());
        self.tally.restarts += 1;
        self.spared = Some(owner.process);
        assert_eq!(self.database, self.state(), "restarted before everything was backfilled");
        if self.replica.as_of.is_some() {
            let (copied, all) = (self.replica.commits, self.published.len());
            assert_eq!(copied, all, "the WAL is restarted over commits that were not copied");
        }
    }

    /// Recovers the wal-index header from the file, as `walIndexRecover` does. Commits that nobody
    /// had published, published by that.
    pub fn recovered(&self) -> (IndexHeader, Option<WalHeader>, Vec<Found>) {
        let mut index = IndexHeader {
            change: 0,
            page_size: Some(page_size()),
            max_frame: 0,
            pages: 0,
            frame_checksum: Checksum::default(),
            salts: Salts::default(),
        };
        let header = self.wal_header().filter(|_| self.wal.len() > WalHeader::LEN);
        let mut found = Vec::new();
        if let Some(header) = header {
            index.salts = header.salts;
            let unbounded = IndexHeader { max_frame: UNUSED, ..index };
            let mut scanner = Scanner::new(header, 0, header.checksum, &unbounded);
            let mut bytes = Reader::new(self.frames_from(1, UNUSED));
            while let Step::Commit(commit) = scanner.step(&mut bytes) {
                let stamps =
                    commit.images.iter().map(|i| (index_of(i.page.get()), self.stamp(i.frame)));
                let images: Vec<_> = stamps.collect();
                found.push(Found { id: images[0].1 >> 8, images });
                index.max_frame = commit.frame;
                index.frame_checksum = commit.checksum;
                index.pages = commit.pages;
            }
        }
        (index, header, found)
    }

    /// The recovered header is published, and what nobody had published before with it.
    pub fn publish_recovered(&mut self, owner: Owner, found: &[Found]) {
        self.recoveries += 1;
        self.tally.recoveries += 1;
        self.note(owner, || format!("recovers the index with {} commits", found.len()));
        let known = found.iter().take_while(|f| self.ids.contains(&f.id)).count();
        let tail = self.published[self.published.len() - known..].iter().map(|commit| commit.id);
        assert!(tail.eq(found[..known].iter().map(|f| f.id)), "recovery brought back an old WAL");
        for ghost in &found[known..] {
            self.publish(ghost.id, &ghost.images);
            self.tally.ghosts += 1;
        }
    }

    fn stamp(&self, frame: u32) -> u64 {
        self.frame(frame).expect("a frame that was scanned").1
    }

    /// The invariant, from the table of locks: something is held that was acquired before the
    /// wal-index was read up to which everything was copied.
    pub fn check(&self) {
        let Some(as_of) = self.replica.as_of else { return };
        let proven = |(owner, since): &(Owner, u64)| owner.process == OURS && *since <= as_of;
        let reads = self.locks[read_lock(0)..].iter().any(|lock| lock.shared.iter().any(proven));
        let writes = self.locks[WRITE].exclusive.iter().any(proven);
        assert!(reads || writes, "nothing that is proven is held");
    }
}

/// A commit found by recovery.
#[derive(Debug)]
pub struct Found {
    id: u64,
    images: Vec<(usize, u64)>,
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

fn name(byte: usize) -> &'static str {
    ["WRITE", "CKPT", "RECOVER", "READ0", "READ1", "READ2", "READ3", "READ4"][byte]
}
