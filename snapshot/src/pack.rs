//! Packs: objects that hold page blocks and the hashes of their pages.
//!
//! A pack is one or more [parts](genesis_wal::part) of kind *pack blocks* and, at the end, one of kind
//! *pack footer*. They name no transaction, as a snapshot of a database in use knows only at its end
//! which one it is of. The payload of a part of blocks is stored blocks one after another; it is at
//! most 1 MiB when it is written, and no block is cut by its end. The state hash after it is the sum
//! of the page hashes of its blocks, and that of the footer is the sum of all of them. So each part
//! can be proven alone. The footer is found from the pack's end. Its payload:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | pages in the database |
//! | 4 | 4 | n: blocks in the pack |
//! | 8 | 17 · n | directory |
//! | 8 + 17 · n | 8 · p | XXH3-64 of each page of each block, seeded with its number; 0 for the lock page |
//!
//! An entry of the directory:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | block number |
//! | 4 | 4 | where the block's stored bytes begin, from the start of the object |
//! | 8 | 4 | bytes of the block as stored |
//! | 12 | 4 | CRC-32 (ISO-HDLC) of these bytes |
//! | 16 | 1 | encoding: 0 the block itself, 1 an LZ4 block of it |
//!
//! Numbers are little-endian. Encoder and decoder hold: blocks and their places go up, after the
//! first part's header and without overlap; blocks are blocks of the database; a block is stored as
//! it is where LZ4 would not shorten it; the lock page is stored as zeros; the sums add up to the one
//! in the header.

mod entry;
mod footer;
mod packed;
mod writer;

pub use entry::{BlockEncoding, BlockEntry, unpack_block};
pub use footer::PackFooter;
pub use packed::PackedBlocks;
pub use writer::PackWriter;

use genesis_wal::part::PartError;
use genesis_wal::reader::ReadError;
use thiserror::Error;

const FOOTER_HEAD_LEN: usize = 8;
const DIRECTORY_ENTRY_LEN: usize = 17;
const HASH_LEN: usize = 8;

/// Why bytes are no pack, or a block can't be packed or unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PackError {
    /// The envelope is not valid.
    #[error("the envelope of the pack is not valid")]
    Part(#[from] PartError),
    /// The footer ends too early, or goes on after its end.
    #[error("the pack's footer does not have the length that it announces")]
    BadLength(#[from] ReadError),
    /// The part holds something else.
    #[error("the part is no footer of a pack")]
    WrongKind,
    /// A block encoding that this program does not know.
    #[error("block encoding {0} is not known to this program")]
    UnknownEncoding(u8),
    /// The footer announces more blocks or pages than it has room for.
    #[error("the pack's footer announces blocks that it does not have")]
    BadCount,
    /// A block that the database does not have, or that does not come after the one before, in the
    /// database and in the pack.
    #[error("block {0} has no place in this pack")]
    OutOfOrder(u32),
    /// The block is not as long as its pages.
    #[error("block {block} has {found} bytes instead of {wanted}")]
    BadBlockLength {
        /// The block.
        block: u32,
        /// Bytes that it must have.
        wanted: usize,
        /// Bytes that it has.
        found: usize,
    },
    /// The stored bytes are not those that were written.
    #[error("the CRC of block {0} does not fit")]
    BadCrc(u32),
    /// The stored bytes do not unpack to a block, or the lock page in it is not zero.
    #[error("block {0} does not unpack")]
    BadImage(u32),
    /// The block unpacks to other pages than were stored.
    #[error("the pages of block {0} do not have their hashes")]
    BadSum(u32),
    /// The page hashes do not add up to the sum in the part's header.
    #[error("the page hashes of the pack do not add up")]
    BadTotal,
    /// One more block would make the pack, or the part, longer than it may be.
    #[error("the pack is full")]
    Full,
}
