//! Segments: transactions as images of the pages they changed.
//!
//! A segment object is a sequence of [parts](crate::part) of kind *segment*. A part's payload is a
//! sequence of *fragments*, each a header and page records. A transaction is one fragment, or, where
//! it does not fit one part, several: each but the last ends its part, and the next part goes on
//! with it. The parts of a transaction in fragments all carry the state hashes before and after the
//! whole transaction. A segment object begins and ends with a whole transaction; within it, the parts
//! follow one another by the rule of [`Sequence`].
//!
//! A fragment's header:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | transaction id |
//! | 8 | 1 | kind: 1 commit, 2 rebase, 3 coarse |
//! | 9 | 1 | flags: bit 0, late: first seen after an absence |
//! | 10 | 2 | zero |
//! | 12 | 4 | commits that the record stands for; 0 when nobody knows |
//! | 16 | 8 | commit time: when it was first seen, in microseconds since 1970 |
//! | 24 | 8 | the earliest time at which it can have been committed; the commit time unless late |
//! | 32 | 4 | pages in the database after it |
//! | 36 | 4 | page records of the whole transaction |
//! | 40 | 4 | place of this fragment's first record among them, from 0 |
//! | 44 | 4 | page records in this fragment |
//! | 48 | 8 | state hash after the transaction |
//!
//! A page record:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | page number |
//! | 4 | 1 | encoding, see below |
//! | 5 | 2 | bytes of the image as stored, less one |
//! | 7 | 8 | XXH3-64 of the page, seeded with its number |
//! | 15 | n | the image as stored |
//!
//! Encodings 2 and 3 are *deltas*. They take the page's *base*: its bytes in the state before the
//! transaction, and nothing else.
//!
//! | encoding | the image as stored |
//! | --- | --- |
//! | 0 | the page itself |
//! | 1 | an LZ4 block of the page |
//! | 2 | an LZ4 block of the page whose dictionary is the base; pages of at most 32 KiB |
//! | 3 | two LZ4 blocks, of the page's first and second 32 KiB, whose dictionaries are the same halves of the base; 2 bytes before them tell the length of the first block. Pages of 64 KiB: LZ4 reaches back no further than that, and so past a whole page to little of its base |
//!
//! The encoder stores a delta where it takes at most an eighth of the page, or at most three quarters
//! of what the full image takes: what saves less is not worth a base to read at a restore. When a page
//! has had enough deltas in a row is for its caller to say, who offers no base then.
//!
//! Numbers are little-endian. Encoder and decoder hold:
//!
//! - Transaction ids begin at 1, go up by one within a part and fill the range in its header.
//! - A commit stands for one commit, a rebase for an unknown number, which is 0, and a coarse record
//!   for at least one.
//! - The earliest commit time is at or before the commit time, and equal to it unless late. Commit
//!   times never go back within a part.
//! - A fragment holds at least one page record, unless its transaction has none.
//! - Pages go up within a transaction, stay within the database and leave out the lock page.
//! - An image that is stored as it is has exactly a page's bytes, and every other one fewer.
//! - Only commits hold deltas: what a rebase or a coarse record starts from need not be at hand.
//!
//! LZ4 blocks: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

mod decode;
mod encode;
mod encoding;
mod packer;
mod patch;
mod sequence;

pub use decode::{Fragment, PageRecord, SegmentError, fragments};
pub use encode::{EncodeError, PackedPage, SegmentEncoder, Stored};
pub use packer::Packer;
pub use sequence::{Reached, Sequence, SequenceError};

use thiserror::Error;

use crate::id::Txid;
use crate::page::StateHash;
use crate::time::Micros;

const FRAGMENT_LEN: usize = 56;
const RECORD_LEN: usize = 15;
const FLAG_LATE: u8 = 1;

/// What a record stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionKind {
    /// One commit, as the application made it.
    Commit,
    /// The difference to the last recorded state, where nobody knows how many commits made it.
    Rebase,
    /// Several commits in one record.
    Coarse,
}

impl TransactionKind {
    fn code(self) -> u8 {
        match self {
            Self::Commit => 1,
            Self::Rebase => 2,
            Self::Coarse => 3,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Commit,
            2 => Self::Rebase,
            3 => Self::Coarse,
            _ => return None,
        })
    }
}

/// What a segment says of a transaction beside its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransactionHeader {
    /// The transaction's number.
    pub txid: Txid,
    /// What the record stands for.
    pub kind: TransactionKind,
    /// First seen after an absence: committed between [`Self::since`] and [`Self::time`].
    pub late: bool,
    /// Commits that the record stands for; 0 when nobody knows.
    pub commits: u32,
    /// When it was first seen.
    pub time: Micros,
    /// The earliest time at which it can have been committed.
    pub since: Micros,
    /// Pages in the database after it.
    pub pages: u32,
    /// Page records of the whole transaction.
    pub records: u32,
    /// The state hash after it.
    pub state: StateHash,
}

/// What no transaction may say of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadTransaction {
    /// The number that stands before the first.
    #[error("a transaction has number 0")]
    NoTxid,
    /// A number of commits that the kind of record can't stand for.
    #[error("transaction {} is recorded as {kind:?}, and as {commits} commits", txid.0)]
    BadCommits {
        /// The transaction.
        txid: Txid,
        /// What the record stands for.
        kind: TransactionKind,
        /// Its number of commits.
        commits: u32,
    },
    /// The earliest commit time is after the commit time, or differs though the record is not late.
    #[error("the commit times of transaction {} contradict each other", .0.0)]
    BadInterval(Txid),
    /// Committed before the transaction before it.
    #[error("transaction {} is recorded as committed before the one before it", .0.0)]
    TimeGoesBack(Txid),
}

impl TransactionHeader {
    /// What encoder and decoder both hold of one transaction, and of the one before it.
    fn check(&self, before: Option<Micros>) -> Result<(), BadTransaction> {
        let Self { txid, kind, commits, .. } = *self;
        let commits_fit = match kind {
            TransactionKind::Commit => commits == 1,
            TransactionKind::Rebase => commits == 0,
            TransactionKind::Coarse => commits > 0,
        };
        if txid == Txid(0) {
            return Err(BadTransaction::NoTxid);
        }
        if !commits_fit {
            return Err(BadTransaction::BadCommits { txid, kind, commits });
        }
        if self.since > self.time || (!self.late && self.since != self.time) {
            return Err(BadTransaction::BadInterval(txid));
        }
        if before.is_some_and(|before| self.time < before) {
            return Err(BadTransaction::TimeGoesBack(txid));
        }
        Ok(())
    }
}
