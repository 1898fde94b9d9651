//! What can be wrong with a part.

use thiserror::Error;

use super::MAX_PAYLOAD;
use crate::page::BadPageSize;
use crate::reader::ReadError;

/// Why bytes are no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PartError {
    /// The bytes end within the part.
    #[error("the part is cut off")]
    Truncated(#[from] ReadError),
    /// The first four bytes are not `GRPT`.
    #[error("this is no part of a replica's object")]
    BadMagic,
    /// A format version that this program does not know.
    #[error("format version {0} is not known to this program")]
    UnknownVersion(u8),
    /// A kind of part that this program does not know.
    #[error("part kind {0} is not known to this program")]
    UnknownKind(u8),
    /// Flags that this program does not know.
    #[error("part flags {0:#04x} are not known to this program")]
    UnknownFlags(u8),
    /// A page size that SQLite does not have.
    #[error("the part has a bad page size")]
    BadPageSize(#[from] BadPageSize),
    /// The payload is longer than the format allows.
    #[error("a payload of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong(u64),
    /// A WAL position where the flags say that there is none.
    #[error("the part has a WAL position that it does not announce")]
    StrayPosition,
    /// The last transaction comes before the first.
    #[error("the part ends before it begins")]
    BadRange,
    /// A part says that its own transactions were stored when it was made.
    #[error("the part tells of transactions of its own as stored")]
    StrayStored,
    /// A transaction, a WAL position, what was stored or a state before in a part of a pack.
    #[error("a part of a pack names a transaction, a WAL position or a state before it")]
    StrayState,
    /// The bytes are not those that were written.
    #[error("the part's CRC does not fit")]
    BadCrc,
    /// The length at the end of the part is not its length, or that of no part.
    #[error("a part does not have the {0} bytes that its end tells")]
    BadLength(u32),
}
