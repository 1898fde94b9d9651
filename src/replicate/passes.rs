//! The passes of a snapshot over a database in use. A value without I/O.
//!
//! Works like a live migration: a pass captures blocks without holding anything, and what was captured
//! counts where its page hashes are those of the page table. Every commit takes the blocks that it
//! writes out again. What is missing after a pass is captured by the next one; the last one is made
//! under the lock, and fixes the transaction of the snapshot.

use fixedbitset::FixedBitSet;
use genesis_snapshot::block::{BLOCK_LEN, BlockLayout};
use genesis_wal::page::PageNumber;

/// So many missing bytes are captured under the lock.
const LAST_BYTES: u64 = 16 << 20;

/// After so many passes in a row that left little less than the best before, the next is the last. (What
/// they leave goes up and down: an eighth less is progress.)
const FRUITLESS_PASSES: u32 = 4;
const PROGRESS: usize = 8;

/// What is next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The pass is under way.
    Wait,
    /// Capture these blocks.
    Sweep(FixedBitSet),
    /// Capture what is missing under the lock.
    Last(LastBecause),
}

/// Why a pass is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastBecause {
    /// Little is missing.
    Little,
    /// Commits come in faster than blocks can be captured.
    NoProgress,
}

/// What a running snapshot still needs.
#[derive(Debug, Clone)]
pub struct Passes {
    layout: BlockLayout,
    missing: FixedBitSet,
    under_way: bool,
    /// The least that was missing after a pass, when that was progress.
    left: usize,
    fruitless: u32,
}

impl Passes {
    /// The passes of a snapshot that needs the blocks in `missing`.
    #[must_use]
    pub fn new(layout: BlockLayout, mut missing: FixedBitSet) -> Self {
        missing.grow(layout.blocks() as usize);
        Self { layout, missing, under_way: false, left: usize::MAX, fruitless: 0 }
    }

    /// Notes a commit that left `pages` pages.
    pub fn touch(&mut self, written: impl IntoIterator<Item = PageNumber>, pages: u32) {
        self.resize(pages);
        for page in written {
            self.miss(self.layout.block_of(page));
        }
    }

    /// Notes that what was captured of a block counts no more.
    pub fn miss(&mut self, block: u32) {
        if (block as usize) < self.missing.len() {
            self.missing.insert(block as usize);
        }
    }

    /// Notes that a block was captured as it is now.
    pub fn captured(&mut self, block: u32) {
        if (block as usize) < self.missing.len() {
            self.missing.set(block as usize, false);
        }
    }

    /// Notes that a pass is over.
    pub fn pass_over(&mut self) {
        self.under_way = false;
        let left = self.missing.count_ones(..);
        if left < self.left - self.left / PROGRESS {
            (self.left, self.fruitless) = (left, 0);
        } else {
            self.fruitless += 1;
        }
    }

    /// Decides what is next. What it answers is taken to be done.
    pub fn next(&mut self) -> Choice {
        if self.under_way {
            return Choice::Wait;
        }
        if self.missing_bytes() <= LAST_BYTES {
            return Choice::Last(LastBecause::Little);
        }
        if self.fruitless >= FRUITLESS_PASSES {
            return Choice::Last(LastBecause::NoProgress);
        }
        self.under_way = true;
        Choice::Sweep(self.missing.clone())
    }

    /// The blocks that are missing, ascending.
    pub fn missing(&self) -> impl Iterator<Item = u32> {
        self.missing.ones().filter_map(|block| u32::try_from(block).ok())
    }

    /// Whether a block is missing.
    #[must_use]
    pub fn is_missing(&self, block: u32) -> bool {
        self.missing.contains(block as usize)
    }

    /// How the pages lie in blocks now.
    #[must_use]
    pub fn layout(&self) -> BlockLayout {
        self.layout
    }

    fn missing_bytes(&self) -> u64 {
        self.missing.count_ones(..) as u64 * u64::from(BLOCK_LEN)
    }

    /// The block that was the last one and that which is the last one now are other blocks than before.
    fn resize(&mut self, pages: u32) {
        if pages == self.layout.pages {
            return;
        }
        let before = self.layout;
        self.layout.pages = pages;
        let blocks = self.layout.blocks() as usize;
        if blocks < self.missing.len() {
            let kept = self.missing.ones().take_while(|&block| block < blocks);
            let mut shorter = FixedBitSet::with_capacity(blocks);
            shorter.extend(kept);
            self.missing = shorter;
        } else {
            let grown = self.missing.len()..blocks;
            self.missing.grow(blocks);
            self.missing.insert_range(grown);
        }
        for last in [before, self.layout].map(BlockLayout::blocks) {
            self.miss(last.saturating_sub(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::page::PageSize;

    use super::*;

    /// Blocks of 16 pages.
    fn passes(blocks: u32) -> Passes {
        let layout = BlockLayout { page_size: PageSize::new(4096).unwrap(), pages: blocks * 16 };
        let mut missing = FixedBitSet::with_capacity(blocks as usize);
        missing.insert_range(..);
        Passes::new(layout, missing)
    }

    fn first_page(block: u32) -> PageNumber {
        PageNumber::new(block * 16 + 1).unwrap()
    }

    fn missing(passes: &Passes) -> Vec<u32> {
        passes.missing().collect()
    }

    #[test]
    fn what_is_written_while_it_is_captured_is_captured_again() {
        let mut passes = passes(1000);
        let Choice::Sweep(blocks) = passes.next() else { panic!() };
        assert_eq!(blocks.count_ones(..), 1000);
        assert_eq!(passes.next(), Choice::Wait);
        for block in 0..1000 {
            passes.captured(block);
            if block == 500 {
                passes.touch([first_page(3), first_page(700)], 16_000);
            }
        }
        passes.pass_over();
        assert_eq!(missing(&passes), [3]);
        assert_eq!(passes.next(), Choice::Last(LastBecause::Little));
    }

    #[test]
    fn passes_that_get_nowhere_come_to_an_end() {
        let mut passes = passes(1000);
        let mut sweeps = 0;
        while let Choice::Sweep(blocks) = passes.next() {
            sweeps += 1;
            for block in blocks.ones() {
                passes.captured(u32::try_from(block).unwrap());
            }
            // More or less, by turns.
            passes.touch((0..400 - sweeps % 2 * 10).map(first_page), 16_000);
            passes.pass_over();
        }
        assert_eq!(sweeps, 1 + FRUITLESS_PASSES);
        assert_eq!(passes.next(), Choice::Last(LastBecause::NoProgress));
    }

    #[test]
    fn a_shorter_or_longer_database_has_other_last_blocks() {
        let mut passes = passes(4);
        (0..4).for_each(|block| passes.captured(block));
        passes.touch([], 40);
        assert_eq!(missing(&passes), [2]);
        passes.captured(2);
        passes.touch((41..=80).filter_map(PageNumber::new), 80);
        assert_eq!(missing(&passes), [2, 3, 4]);
        passes.touch([], 32);
        assert_eq!(missing(&passes), [1]);
    }
}
