//! What is committed, what we have of it, and what must hold.

use genesis_wal::checksum::Checksum;
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::index::IndexHeader;
use genesis_wal::position::WalPosition;
use genesis_wal::reader::Reader;
use genesis_wal::scan::{Scanner, Step};

use super::{Owner, PAGES, State, UNUSED, World, index_of, page_size};

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

/// A commit found by recovery.
#[derive(Debug)]
pub struct Found {
    id: u64,
    images: Vec<(usize, u64)>,
}

impl World {
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
                // SQLite knows no other frames than those that a checksum proves.
                if !scanner.unsummed().is_empty() {
                    break;
                }
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
        assert!(self.is_kept_since(as_of), "nothing that is proven is held");
    }
}
