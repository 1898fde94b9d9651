//! Segments: transactions as images of the pages they changed.
//!
//! A segment object is a sequence of [parts](crate::part) of kind *segment*. A part's payload is a
//! sequence of *fragments*, each a header and page records. A transaction is one fragment, or, where
//! it does not fit one part, several: each but the last ends its part, and the next part goes on
//! with it. The parts of a transaction in fragments all carry the state hashes before and after the
//! whole transaction.
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
//! | 4 | 1 | encoding: 0 the page itself, 1 an LZ4 block of it; 2 and 3 are reserved for LZ4 blocks whose dictionary is the page before the transaction, whole and in halves of 32 KiB |
//! | 5 | 2 | bytes of the image as stored, less one |
//! | 7 | 8 | XXH3-64 of the page, seeded with its number |
//! | 15 | n | the image as stored |
//!
//! Numbers are little-endian. Encoder and decoder hold: transaction ids go up by one within a part
//! and fill the range in its header; pages go up within a transaction, stay within the database and
//! leave out the lock page; no stored image is longer than a page.
//!
//! LZ4 blocks: <https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md>.

mod decode;
mod encode;

pub use decode::{Fragment, PageRecord, SegmentError, fragments};
pub use encode::{EncodeError, SegmentEncoder};

use crate::id::Txid;
use crate::page::StateHash;
use crate::time::Micros;

const FRAGMENT_LEN: usize = 56;
const RECORD_LEN: usize = 15;
const FLAG_LATE: u8 = 1;
const ENCODING_RAW: u8 = 0;
const ENCODING_LZ4: u8 = 1;

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
