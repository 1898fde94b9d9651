//! Blocks as one part of a pack stores them.

use std::borrow::Cow;

use genesis_wal::page::{PageHash, StateHash};
use lz4_flex::block::{compress_into, get_maximum_output_size};

use super::PackError;
use super::entry::{BlockEncoding, BlockEntry, check_len};
use crate::block::{BlockLayout, HashedBlock};

/// The largest payload of a part of blocks, in bytes.
const PART_BYTES: usize = 1 << 20;

/// The blocks of one part, packed. To pack them needs no pack and none of the blocks before, so that it
/// can be done on many cores.
#[derive(Debug, Clone)]
pub struct PackedBlocks {
    layout: BlockLayout,
    /// The stored blocks, and room for more.
    bytes: Vec<u8>,
    /// Where they end.
    len: usize,
    /// The blocks, ascending, each with its place in the payload.
    pub(super) entries: Vec<BlockEntry>,
    /// The hashes of their pages, one block after another.
    pub(super) hashes: Vec<PageHash>,
    pub(super) sum: StateHash,
}

impl PackedBlocks {
    /// No blocks yet, of a database.
    #[must_use]
    pub fn new(layout: BlockLayout) -> Self {
        let (bytes, entries, hashes) = (Vec::new(), Vec::new(), Vec::new());
        Self { layout, bytes, len: 0, entries, hashes, sum: StateHash::default() }
    }

    /// Forgets its blocks, for others of a database. The memory is used again.
    pub fn clear(&mut self, layout: BlockLayout) {
        (self.layout, self.len, self.sum) = (layout, 0, StateHash::default());
        self.entries.clear();
        self.hashes.clear();
    }

    /// How the pages of the database lie in blocks.
    #[must_use]
    pub fn layout(&self) -> BlockLayout {
        self.layout
    }

    /// The blocks, ascending.
    pub fn blocks(&self) -> impl Iterator<Item = u32> {
        self.entries.iter().map(|entry| entry.block)
    }

    /// The first block and the last one; `None` without any.
    pub(super) fn ends(&self) -> Option<(u32, u32)> {
        Some((self.entries.first()?.block, self.entries.last()?.block))
    }

    /// The stored blocks, one after another.
    pub(super) fn payload(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Whether it has room for so many bytes, however little they may be shortened.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.len + len <= PART_BYTES
    }

    /// Packs a block and adds it. Whatever stands in the lock page is stored as zeros.
    ///
    /// # Errors
    /// [`PackError::OutOfOrder`] for a block that the database does not have, or that does not come
    /// after the one before; [`PackError::BadBlockLength`] when it is not [`BlockLayout::bytes`] long;
    /// [`PackError::Full`] after 1 MiB. Nothing is added then.
    pub fn push(&mut self, block: &HashedBlock<'_>) -> Result<(), PackError> {
        let HashedBlock { layout, block, raw, ref hashes, sum } = *block;
        let ascends = self.entries.last().is_none_or(|last| last.block < block);
        if layout != self.layout || !ascends || layout.first_page(block).is_none() {
            return Err(PackError::OutOfOrder(block));
        }
        check_len(layout, block, raw)?;
        if !self.has_room(raw.len()) {
            return Err(PackError::Full);
        }
        let (encoding, stored) = self.store(&without_lock_page(layout, block, raw));
        let (stored_len, crc) = (stored.len(), crc32fast::hash(stored));
        self.entries.push(BlockEntry {
            block,
            offset: self.len as u64,
            stored_len: u32::try_from(stored_len).unwrap_or(u32::MAX),
            encoding,
            crc,
            sum,
        });
        self.len += stored_len;
        self.hashes.extend_from_slice(hashes);
        self.sum = self.sum.plus(sum);
        Ok(())
    }

    /// Puts a block behind those that are stored: how, and the bytes.
    fn store(&mut self, raw: &[u8]) -> (BlockEncoding, &[u8]) {
        let end = self.len + get_maximum_output_size(raw.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let room = self.bytes.get_mut(self.len..end).unwrap_or_default();
        let (encoding, len) = match compress_into(raw, room) {
            Ok(len) if len < raw.len() => (BlockEncoding::Lz4, len),
            _ => {
                if let Some(room) = room.get_mut(..raw.len()) {
                    room.copy_from_slice(raw);
                }
                (BlockEncoding::Raw, raw.len())
            }
        };
        (encoding, room.get(..len).unwrap_or_default())
    }
}

fn without_lock_page(layout: BlockLayout, block: u32, raw: &[u8]) -> Cow<'_, [u8]> {
    let mut raw = Cow::Borrowed(raw);
    if let Some(place) = layout.lock_page_in(block)
        && let Some(lock_page) = raw.to_mut().get_mut(place)
    {
        lock_page.fill(0);
    }
    raw
}
