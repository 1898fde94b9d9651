//! Why transactions can't be applied.

use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use genesis_wal::segment::SegmentError;
use thiserror::Error;

use crate::target::Target;

/// Why transactions can't be applied. `E` is the sink's error.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ApplyError<E: std::error::Error + 'static> {
    /// The sink failed.
    #[error("the restored file can't be written")]
    Sink(#[source] E),
    /// A part holds no transactions.
    #[error("a segment is not valid")]
    Segment(#[from] SegmentError),
    /// An image does not unpack to the page that was stored: it was damaged, or it builds on another
    /// page than it was made from.
    #[error("transaction {} can't be applied", txid.0)]
    Image {
        /// The transaction that the image is of.
        txid: Txid,
        /// What is wrong with it.
        source: SegmentError,
    },
    /// A part of another line of history.
    #[error("a part belongs to generation {found} instead of {wanted}")]
    OtherGeneration {
        /// The generation that is restored.
        wanted: Generation,
        /// The part's.
        found: Generation,
    },
    /// A part of a database with other pages.
    #[error("a part has pages of {found} bytes instead of {wanted}")]
    OtherPageSize {
        /// The page size of the database.
        wanted: PageSize,
        /// The part's.
        found: PageSize,
    },
    /// Transactions are missing.
    #[error("transaction {} follows transaction {}: what lies between is missing", found.0, after.0)]
    Missing {
        /// The last transaction that was applied.
        after: Txid,
        /// The one that was offered.
        found: Txid,
    },
    /// The state that a segment continues is not the one that was reached.
    #[error(
        "the state after transaction {} is {known}, but a segment says {said}: \
         they are not of one history", txid.0
    )]
    BrokenChain {
        /// The transaction.
        txid: Txid,
        /// The state that the segment tells.
        said: StateHash,
        /// The state that is known.
        known: StateHash,
    },
    /// The fragments of a transaction do not follow each other.
    #[error("the fragments of transaction {} do not join", .0.0)]
    BadFragment(Txid),
    /// A page that the database grew by is missing, or one stands at the wrong place.
    #[error("transaction {} does not hold page {page}, which it must", txid.0)]
    MissingPage {
        /// The transaction.
        txid: Txid,
        /// The page.
        page: u64,
    },
    /// The input ends within a transaction.
    #[error("{missing} page records are missing from transaction {}", txid.0)]
    Incomplete {
        /// The transaction.
        txid: Txid,
        /// Records that have not come.
        missing: u32,
    },
    /// The input ends before the last transaction that the objects are named for, and before the
    /// target.
    #[error(
        "the objects end with transaction {}, and by their names they go on to transaction {}",
        txid.0, reaches.0
    )]
    EndsEarly {
        /// The last transaction that was applied.
        txid: Txid,
        /// The last transaction in the objects, by their names.
        reaches: Txid,
    },
    /// The input ends before the target, or the snapshot is after it.
    #[error("{target} is not what the objects lead to: they lead to transaction {}", txid.0)]
    NotReached {
        /// What was asked for.
        target: Target,
        /// The last transaction that was applied.
        txid: Txid,
    },
    /// An error came before.
    #[error("nothing can be applied after an error")]
    Broken,
}
