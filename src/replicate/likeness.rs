//! How much of a recorded state a database holds.

use genesis_snapshot::block::{BLOCK_LEN, BlockLayout, hash_block};
use genesis_wal::page::PageHash;

use super::scan::Overlay;
use super::table::PageTable;
use crate::replica::AnotherDatabase;
use crate::sqlite::{Held, Source, SourceError, StateReader};

/// Blocks that are enough to tell a database from another: 16 MiB.
const SAMPLE: u32 = 256;

/// Blocks that are read at once, where all are: 4 MiB.
const TOGETHER: u32 = 64;

/// Of fewer pages, most may change in a day: they tell nothing.
const FEW_PAGES: u32 = 16;

/// How much is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoroughness {
    /// Every page.
    Whole,
    /// Some blocks all over the database, which are enough to know it again.
    Sample,
}

/// How much of a recorded state a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Likeness {
    /// Pages that are as they were recorded.
    pub(super) matching: u32,
    /// Pages that were compared: of those that both have.
    pub(super) of: u32,
    /// Whether all pages were compared, and are all that were recorded.
    pub(super) is_equal: bool,
}

impl Likeness {
    /// Whether every page is as it was recorded.
    #[must_use]
    pub fn is_equal(self) -> bool {
        self.is_equal
    }

    /// Takes the pages of a block.
    fn take(&mut self, layout: BlockLayout, block: u32, hashes: &[PageHash], recorded: &PageTable) {
        let numbers = layout.pages_of(block).map(|(page, _)| page);
        let is_same = |(page, hash): &(_, &PageHash)| recorded.hash(*page) == Some(**hash);
        let matching = numbers.zip(hashes).filter(is_same).count();
        self.matching += u32::try_from(matching).unwrap_or(0);
        self.of += u32::try_from(hashes.len()).unwrap_or(0);
    }

    /// Fewer than half of the pages that both have are the same: it is another database. One that has
    /// grown is not, nor one that has shrunk, and a few pages tell nothing.
    ///
    /// # Errors
    /// [`AnotherDatabase`].
    pub fn check(self) -> Result<(), AnotherDatabase> {
        let Self { matching, of, is_equal: _ } = self;
        if of >= FEW_PAGES && matching < of.div_ceil(2) {
            Err(AnotherDatabase { matching, of })
        } else {
            Ok(())
        }
    }
}

/// Compares what is held of a database with a recorded state; `None` where its WAL cannot be read.
///
/// # Errors
/// When the database cannot be read.
pub fn compare(
    source: &Source,
    held: &Held,
    recorded: &PageTable,
    thoroughness: Thoroughness,
) -> Result<Option<Likeness>, SourceError> {
    let (page_size, pages) = (source.page_size(), source.pages(&held.index)?);
    let common = pages.min(recorded.pages());
    if recorded.page_size() != page_size {
        return Ok(Some(Likeness { matching: 0, of: common.max(FEW_PAGES), is_equal: false }));
    }
    let Ok(overlay) = Overlay::of_held(source, held)? else { return Ok(None) };
    let mut state = StateReader::new(source, overlay.into_images(pages), pages);
    let layout = BlockLayout { page_size, pages: common };
    let (step, together) = match thoroughness {
        Thoroughness::Whole => (TOGETHER, TOGETHER),
        Thoroughness::Sample => (layout.blocks().div_ceil(SAMPLE).max(1), 1),
    };
    let (mut likeness, mut raw) = (Likeness::default(), Vec::new());
    for block in (0..layout.blocks()).step_by(step as usize) {
        let Some(first) = layout.first_page(block) else { continue };
        let blocks = block..layout.blocks().min(block + together);
        raw.resize(blocks.clone().map(|block| layout.bytes(block)).sum(), 0);
        state.read(first, &mut raw)?;
        for (block, raw) in blocks.zip(raw.chunks(BLOCK_LEN as usize)) {
            likeness.take(layout, block, &hash_block(layout, block, raw).0, recorded);
        }
    }
    let (matching, all) = (likeness.matching, recorded.pages());
    Ok(Some(Likeness { is_equal: matching == all && all == pages, ..likeness }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_pages_are_enough_to_know_a_database_again() {
        let check = |matching, of| Likeness { matching, of, is_equal: false }.check();
        assert_eq!((check(0, 15), check(50, 100), check(0, 0)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(check(7, 16), Err(AnotherDatabase { matching: 7, of: 16 }));
        assert_eq!(check(49, 99), Err(AnotherDatabase { matching: 49, of: 99 }));
    }
}
