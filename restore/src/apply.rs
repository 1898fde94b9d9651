//! Transactions onto the pages of a snapshot: each transaction checked against the one before it,
//! each page of a batch written once.
//!
//! The pages of a transaction do not depend on its other pages, so their order is free: images wait
//! as they are stored, a later full image of a page takes the place of the earlier ones, deltas line
//! up behind what they build on, and a full batch is unpacked, proven against its hashes and written
//! in ascending order. The base of a delta is the last image of its page: the one before it in the
//! batch, else what the file holds, which is what earlier batches or the snapshot left there. What a
//! shrink cuts off is dropped from the batch; the file gets its length at the end.
//!
//! What is proven here: the generation and page size; that no transaction and no fragment of one is
//! missing; that state hashes chain from the snapshot on; that a database which grows is given every
//! page that it grows by, in full; the hash of each page that is written and of each that one builds on. That the file as a whole has the state hash is for
//! [`crate::verify`] to prove.

mod applier;
mod batch;
mod error;
mod open;

pub use applier::{Applier, BATCH_BYTES};
pub use error::ApplyError;

use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use genesis_wal::time::Micros;

/// Where the pages go: a file that holds the pages of the snapshot already.
pub trait PageSink {
    /// Why reading or writing fails.
    type Error: std::error::Error + 'static;

    /// Fills `buffer` with what stands at `offset`: what was written there last, else the snapshot.
    ///
    /// # Errors
    /// When it could not be filled, also where the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;

    /// Writes all of `bytes` at `offset`, which may lie beyond the end; a hole reads as zeros. The
    /// same place may be written several times, and the last write counts.
    ///
    /// # Errors
    /// When not everything could be written.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Cuts the file off at `len` bytes, or makes it as long with zeros.
    ///
    /// # Errors
    /// When the length could not be set.
    fn set_len(&mut self, len: u64) -> Result<(), Self::Error>;
}

/// The state that the sink holds before the first transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The line of history.
    pub generation: Generation,
    /// The transaction whose state it is.
    pub txid: Txid,
    /// The state hash.
    pub state: StateHash,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub pages: u32,
    /// From when on it was the current state.
    pub time: Micros,
}

impl From<&Manifest> for Base {
    fn from(manifest: &Manifest) -> Self {
        Self {
            generation: manifest.stamp.generation,
            txid: manifest.txid,
            state: manifest.state,
            page_size: manifest.layout.page_size,
            pages: manifest.layout.pages,
            time: manifest.time,
        }
    }
}

/// Whether more parts are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The target may lie in the next part.
    Continue,
    /// Nothing after this part belongs to the target.
    Reached,
}

/// The state that was put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The last transaction.
    pub txid: Txid,
    /// When it was committed: when it was first seen.
    pub time: Micros,
    /// The state hash that the file must have.
    pub state: StateHash,
    /// Pages in the database.
    pub pages: u32,
    /// When the last transaction was seen late: the interval in which it was committed.
    pub late: Option<(Micros, Micros)>,
    /// When the first transaction left out was seen late, and may have been committed by the time
    /// asked for: the interval in which it was committed.
    pub left_out: Option<(Micros, Micros)>,
}
