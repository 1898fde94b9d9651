//! One stored block: how it is described and unpacked.

use genesis_wal::page::StateHash;

use super::PackError;
use crate::block::{BlockLayout, hash_block};

const ENCODING_RAW: u8 = 0;
const ENCODING_LZ4: u8 = 1;

/// How a block's bytes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockEncoding {
    /// As they are.
    Raw,
    /// As one LZ4 block.
    Lz4,
}

impl BlockEncoding {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Raw => ENCODING_RAW,
            Self::Lz4 => ENCODING_LZ4,
        }
    }

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            ENCODING_RAW => Self::Raw,
            ENCODING_LZ4 => Self::Lz4,
            _ => return None,
        })
    }
}

/// Where a block lies in a pack, and what proves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockEntry {
    /// The block.
    pub block: u32,
    /// Where its stored bytes begin, from the start of the object.
    pub offset: u64,
    /// Its bytes as stored.
    pub stored_len: u32,
    /// How they are stored.
    pub encoding: BlockEncoding,
    /// CRC-32 of them.
    pub crc: u32,
    /// The sum of its page hashes.
    pub sum: StateHash,
}

impl BlockEntry {
    /// Where the stored bytes end, from the start of the object; `None` when no object is as long.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(u64::from(self.stored_len))
    }

    /// Whether the block is one of the database, and stored in as many bytes as its encoding allows.
    pub(crate) fn fits(&self, layout: BlockLayout) -> bool {
        let (stored, raw) = (self.stored_len as usize, layout.bytes(self.block));
        match self.encoding {
            BlockEncoding::Raw => 0 < raw && stored == raw,
            BlockEncoding::Lz4 => 0 < stored && stored < raw,
        }
    }
}

/// Unpacks a block from its stored bytes into `out`, which is [`BlockLayout::bytes`] long, and proves
/// it: the CRC, the length, the lock page and the sum of the page hashes.
///
/// # Errors
/// [`PackError`] says what does not fit; `out` holds no block then.
pub fn unpack_block(
    entry: &BlockEntry,
    layout: BlockLayout,
    stored: &[u8],
    out: &mut [u8],
) -> Result<(), PackError> {
    let bad = PackError::BadImage(entry.block);
    if !entry.fits(layout) || stored.len() != entry.stored_len as usize {
        return Err(bad);
    }
    check_len(layout, entry.block, out)?;
    if crc32fast::hash(stored) != entry.crc {
        return Err(PackError::BadCrc(entry.block));
    }
    match entry.encoding {
        BlockEncoding::Raw => out.copy_from_slice(stored),
        BlockEncoding::Lz4 => match lz4_flex::block::decompress_into(stored, out) {
            Ok(len) if len == out.len() => {}
            _ => return Err(bad),
        },
    }
    if let Some(place) = layout.lock_page_in(entry.block)
        && out.get(place).is_none_or(|page| page.iter().any(|&byte| byte != 0))
    {
        return Err(bad);
    }
    if hash_block(layout, entry.block, out).1 == entry.sum {
        Ok(())
    } else {
        Err(PackError::BadSum(entry.block))
    }
}

pub(super) fn check_len(layout: BlockLayout, block: u32, raw: &[u8]) -> Result<(), PackError> {
    let (wanted, found) = (layout.bytes(block), raw.len());
    if wanted == found { Ok(()) } else { Err(PackError::BadBlockLength { block, wanted, found }) }
}
