//! Blocks: 64 KiB of consecutive pages, one LZ4 window, compressed as one.
//!
//! Blocks are numbered from 0. The last block of a database is as short as its pages. The lock page
//! stands in its block as zeros and is left out of every hash and sum: its hash is written as 0.

use std::ops::Range;

use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};

/// Bytes in a block, but for the last one of a database.
pub const BLOCK_LEN: u32 = 65_536;

/// How the pages of one database state lie in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockLayout {
    /// Bytes in a page.
    pub page_size: PageSize,
    /// Pages in the database.
    pub pages: u32,
}

impl BlockLayout {
    /// Pages in every block but the last: 1 to 128.
    #[must_use]
    pub fn pages_per_block(self) -> u32 {
        BLOCK_LEN / self.page_size.get()
    }

    /// Blocks in the database.
    #[must_use]
    pub fn blocks(self) -> u32 {
        self.pages.div_ceil(self.pages_per_block())
    }

    /// The block that holds a page.
    #[must_use]
    pub fn block_of(self, page: PageNumber) -> u32 {
        (page.get() - 1) / self.pages_per_block()
    }

    /// The first page of a block; `None` for a block that the database does not have.
    #[must_use]
    pub fn first_page(self, block: u32) -> Option<PageNumber> {
        let before = block.checked_mul(self.pages_per_block())?;
        (before < self.pages).then(|| PageNumber::new(before + 1))?
    }

    /// Pages in a block; 0 for a block that the database does not have.
    #[must_use]
    pub fn page_count(self, block: u32) -> u32 {
        self.first_page(block)
            .map_or(0, |first| (self.pages - (first.get() - 1)).min(self.pages_per_block()))
    }

    /// Bytes in a block; 0 for a block that the database does not have.
    #[must_use]
    pub fn bytes(self, block: u32) -> usize {
        self.page_count(block) as usize * self.page_size.bytes()
    }

    /// Where a block begins in the database file, in bytes.
    #[must_use]
    pub fn offset_of(self, block: u32) -> u64 {
        u64::from(block) * u64::from(BLOCK_LEN)
    }

    /// The pages of a block, each with its place in the block's bytes.
    pub fn pages_of(self, block: u32) -> impl Iterator<Item = (PageNumber, Range<usize>)> {
        let first = self.first_page(block).map_or(0, PageNumber::get);
        let len = self.page_size.bytes();
        let numbers = (0..self.page_count(block)).filter_map(move |n| PageNumber::new(first + n));
        numbers.zip(0usize..).map(move |(page, n)| (page, n * len..(n + 1) * len))
    }

    /// Where the lock page stands in a block's bytes, if it does.
    #[must_use]
    pub fn lock_page_in(self, block: u32) -> Option<Range<usize>> {
        let lock = self.page_size.lock_page();
        if self.block_of(lock) != block {
            return None;
        }
        self.pages_of(block).find_map(|(page, place)| (page == lock).then_some(place))
    }
}

/// The hashes of a block's pages, 0 for the lock page, and their sum. `raw` is the block:
/// [`BlockLayout::bytes`] long; of a shorter one, only the whole pages are hashed.
#[must_use]
pub fn hash_block(layout: BlockLayout, block: u32, raw: &[u8]) -> (Vec<PageHash>, StateHash) {
    let lock = layout.page_size.lock_page();
    let hash = |(page, place)| match raw.get(place) {
        Some(_) if page == lock => Some(PageHash(0)),
        Some(bytes) => Some(PageHash::of(page, bytes)),
        None => None,
    };
    let hashes: Vec<PageHash> = layout.pages_of(block).map_while(hash).collect();
    let sum = sum_of(&hashes);
    (hashes, sum)
}

/// A block and the hashes of its pages.
#[derive(Debug, Clone)]
pub struct HashedBlock<'a> {
    pub(crate) layout: BlockLayout,
    pub(crate) block: u32,
    pub(crate) raw: &'a [u8],
    pub(crate) hashes: Vec<PageHash>,
    pub(crate) sum: StateHash,
}

impl<'a> HashedBlock<'a> {
    /// Hashes a block, as [`hash_block`] does.
    #[must_use]
    pub fn new(layout: BlockLayout, block: u32, raw: &'a [u8]) -> Self {
        let (hashes, sum) = hash_block(layout, block, raw);
        Self { layout, block, raw, hashes, sum }
    }

    /// The sum of its page hashes.
    #[must_use]
    pub fn sum(&self) -> StateHash {
        self.sum
    }

    /// The hashes of its pages, 0 for the lock page.
    #[must_use]
    pub fn into_hashes(self) -> Vec<PageHash> {
        self.hashes
    }
}

/// The sum of a block's page hashes.
pub(crate) fn sum_of(hashes: &[PageHash]) -> StateHash {
    hashes.iter().fold(StateHash::default(), |sum, &hash| sum.with(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(page_size: u32, pages: u32) -> BlockLayout {
        BlockLayout { page_size: PageSize::new(page_size).unwrap(), pages }
    }

    #[test]
    fn blocks_cover_every_page_once_and_in_order_at_every_page_size() {
        for log2 in 9..=16 {
            for pages in [0, 1, 127, 128, 129, 300] {
                let layout = layout(1 << log2, pages);
                let numbers: Vec<u32> = (0..layout.blocks())
                    .flat_map(|block| {
                        layout.pages_of(block).map(move |(page, place)| {
                            assert_eq!(layout.block_of(page), block);
                            let start = layout.offset_of(block) + place.start as u64;
                            assert_eq!(start, layout.page_size.offset_of(page));
                            page.get()
                        })
                    })
                    .collect();
                assert_eq!(numbers, (1..=pages).collect::<Vec<_>>(), "{layout:?}");
                let bytes: usize = (0..layout.blocks()).map(|b| layout.bytes(b)).sum();
                assert_eq!(bytes, pages as usize * layout.page_size.bytes());
            }
        }
    }

    #[test]
    fn a_block_beyond_the_end_is_empty() {
        for pages in [0, 128, u32::MAX] {
            let layout = layout(512, pages);
            for block in [layout.blocks(), u32::MAX] {
                assert_eq!(layout.first_page(block), None);
                assert_eq!((layout.page_count(block), layout.bytes(block)), (0, 0));
                assert_eq!(layout.lock_page_in(block), None);
            }
        }
        assert_eq!(layout(512, u32::MAX).page_count(u32::MAX / 128), 127);
    }

    #[test]
    fn the_lock_page_has_no_hash() {
        let layout = layout(32_768, 40_000);
        let lock = layout.page_size.lock_page();
        let block = layout.block_of(lock);
        let place = layout.lock_page_in(block).unwrap();
        let mut raw = vec![7; layout.bytes(block)];
        let (hashes, sum) = hash_block(layout, block, &raw);
        assert_eq!(hashes.iter().filter(|hash| **hash == PageHash(0)).count(), 1);
        raw[place].fill(9);
        assert_eq!(hash_block(layout, block, &raw), (hashes, sum));
    }
}
