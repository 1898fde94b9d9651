//! One stored block: how it is packed, described and unpacked.

use std::borrow::Cow;

use genesis_wal::page::{PageHash, StateHash};

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

/// A block as a pack stores it. Packing blocks needs no order and no pack, so that it can be done on
/// many cores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedBlock {
    pub(super) block: u32,
    pub(super) layout: BlockLayout,
    pub(super) encoding: BlockEncoding,
    pub(super) crc: u32,
    pub(super) sum: StateHash,
    pub(super) hashes: Vec<PageHash>,
    pub(super) stored: Vec<u8>,
}

impl PackedBlock {
    /// The block.
    #[must_use]
    pub fn block(&self) -> u32 {
        self.block
    }

    /// The hashes of its pages; 0 for the lock page.
    #[must_use]
    pub fn hashes(&self) -> &[PageHash] {
        &self.hashes
    }

    /// The sum of its page hashes.
    #[must_use]
    pub fn sum(&self) -> StateHash {
        self.sum
    }
}

/// Packs the bytes of a block. Whatever stands in the lock page is stored as zeros.
///
/// # Errors
/// [`PackError::OutOfOrder`] for a block that the database does not have, and
/// [`PackError::BadBlockLength`] when `raw` is not [`BlockLayout::bytes`] long.
pub fn pack_block(layout: BlockLayout, block: u32, raw: &[u8]) -> Result<PackedBlock, PackError> {
    if layout.first_page(block).is_none() {
        return Err(PackError::OutOfOrder(block));
    }
    check_len(layout, block, raw)?;
    let mut raw = Cow::Borrowed(raw);
    if let Some(place) = layout.lock_page_in(block)
        && let Some(lock_page) = raw.to_mut().get_mut(place)
    {
        lock_page.fill(0);
    }
    let (hashes, sum) = hash_block(layout, block, &raw);
    let packed = lz4_flex::block::compress(&raw);
    let (encoding, stored) = if packed.len() < raw.len() {
        (BlockEncoding::Lz4, packed)
    } else {
        (BlockEncoding::Raw, raw.into_owned())
    };
    Ok(PackedBlock { block, layout, encoding, crc: crc32fast::hash(&stored), sum, hashes, stored })
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

fn check_len(layout: BlockLayout, block: u32, raw: &[u8]) -> Result<(), PackError> {
    let (wanted, found) = (layout.bytes(block), raw.len());
    if wanted == found { Ok(()) } else { Err(PackError::BadBlockLength { block, wanted, found }) }
}
