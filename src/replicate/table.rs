//! The page table: the hash of every page as of the last transaction that was seen, and their sum.

mod checkpoint;
mod keeper;
mod local;
mod mapped;
mod rebuild;

use std::fs::File;
use std::io;
use std::path::Path;

use genesis_snapshot::block::BlockLayout;
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use thiserror::Error;

pub use checkpoint::AsOf;
use checkpoint::Checkpoint;
pub use keeper::Keeper;
pub use local::at_local_end;
pub use rebuild::{Sources, at_tip};

use mapped::MappedHashes;

/// The table's name in the folder of local state.
const FILE_NAME: &str = "table";

/// Keeps a table in the folder of local state, durably.
///
/// # Errors
/// What the file system says; the one before is still there then.
pub fn keep(table: &PageTable, as_of: AsOf, folder: &Path) -> io::Result<()> {
    Checkpoint::write(table, as_of, folder)?.finish(&folder.join(FILE_NAME))
}

/// Why a table could not go on to the next state.
#[derive(Debug, Error)]
pub enum AdvanceError {
    /// The database grew by a page that was not written. Nothing has changed.
    #[error("page {0} was added to the database and never written")]
    Missing(PageNumber),
    /// There is no room for a longer table. Nothing has changed.
    #[error("cannot make room in the page table")]
    NoRoom(#[from] io::Error),
}

/// The hashes of all pages of one state.
#[derive(Debug)]
pub struct PageTable {
    page_size: PageSize,
    hashes: MappedHashes,
    state: StateHash,
}

impl PageTable {
    /// The table of a database without pages, kept in `file`: see [`MappedHashes::new`].
    #[must_use]
    pub fn new(page_size: PageSize, file: File) -> Self {
        Self { page_size, hashes: MappedHashes::new(file), state: StateHash::default() }
    }

    /// The hash of the whole state.
    #[must_use]
    pub fn state(&self) -> StateHash {
        self.state
    }

    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// Pages in the database.
    #[must_use]
    pub fn pages(&self) -> u32 {
        u32::try_from(self.hashes.len()).unwrap_or(u32::MAX)
    }

    /// How these pages lie in blocks.
    #[must_use]
    pub fn layout(&self) -> BlockLayout {
        BlockLayout { page_size: self.page_size, pages: self.pages() }
    }

    /// The hash of a page, 0 for the lock page; `None` where the database has none.
    #[must_use]
    pub fn hash(&self, page: PageNumber) -> Option<PageHash> {
        self.hashes.get(page.index())
    }

    /// The sum of the hashes of a block's pages.
    #[must_use]
    pub fn sum_of_block(&self, block: u32) -> StateHash {
        let pages = self.layout().pages_of(block).filter_map(|(page, _)| self.hash(page));
        pages.fold(StateHash::default(), StateHash::with)
    }

    /// Gives a page of the database another hash. The lock page's stays 0.
    pub fn set(&mut self, page: PageNumber, hash: PageHash) {
        let Some(before) = self.hash(page) else { return };
        let hash = self.counted(page, hash);
        self.state = self.state.without(before).with(hash);
        self.hashes.set(page.index(), hash);
    }

    /// Makes the database `pages` pages long. Pages that come to it get the hash 0.
    ///
    /// # Errors
    /// When there is no room; nothing has changed then.
    pub fn resize(&mut self, pages: u32) -> io::Result<()> {
        self.hashes.reserve(pages as usize)?;
        for cut_off in (pages as usize..self.hashes.len()).filter_map(|n| self.hashes.get(n)) {
            self.state = self.state.without(cut_off);
        }
        self.hashes.truncate(pages as usize);
        while self.pages() < pages {
            self.hashes.push(PageHash(0));
        }
        Ok(())
    }

    /// Goes on to the state after a transaction that wrote `images` (ascending by page, within
    /// `pages`) and left `pages` pages.
    ///
    /// # Errors
    /// [`AdvanceError`]; nothing has changed then.
    pub fn advance(
        &mut self,
        images: &[(PageNumber, PageHash)],
        pages: u32,
    ) -> Result<StateHash, AdvanceError> {
        if let Some(missing) = self.first_missing(images, pages) {
            return Err(AdvanceError::Missing(missing));
        }
        self.resize(pages)?;
        for &(page, hash) in images {
            self.set(page, hash);
        }
        Ok(self.state)
    }

    /// The first page that the database grows by and that is not among `images`.
    fn first_missing(&self, images: &[(PageNumber, PageHash)], pages: u32) -> Option<PageNumber> {
        if pages <= self.pages() {
            return None;
        }
        let lock = self.page_size.lock_page();
        let mut added = images.iter().map(|image| image.0).skip_while(|p| p.get() <= self.pages());
        let mut grown = (self.pages() + 1..=pages).filter_map(PageNumber::new);
        grown.find(|&page| page != lock && added.find(|&a| a != lock) != Some(page))
    }

    fn counted(&self, page: PageNumber, hash: PageHash) -> PageHash {
        if page == self.page_size.lock_page() { PageHash(0) } else { hash }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> PageNumber {
        PageNumber::new(number).unwrap()
    }

    fn empty(page_size: u32) -> PageTable {
        PageTable::new(PageSize::new(page_size).unwrap(), tempfile::tempfile().unwrap())
    }

    fn table(hashes: &[u64]) -> PageTable {
        let mut table = empty(4096);
        let images: Vec<_> = (1..).map(page).zip(hashes.iter().copied().map(PageHash)).collect();
        table.advance(&images, u32::try_from(hashes.len()).unwrap()).unwrap();
        table
    }

    fn missing(result: Result<StateHash, AdvanceError>) -> PageNumber {
        match result {
            Err(AdvanceError::Missing(page)) => page,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn growth_change_and_shrink_keep_the_sum() {
        let mut table = table(&[1, 2, 4]);
        let images = [(page(2), PageHash(20)), (page(4), PageHash(8)), (page(5), PageHash(16))];
        assert_eq!(table.advance(&images, 5).unwrap(), StateHash(1 + 20 + 4 + 8 + 16));
        assert_eq!(table.advance(&[(page(1), PageHash(3))], 2).unwrap(), StateHash(3 + 20));
        assert_eq!(table.pages(), 2);
        assert_eq!(table.sum_of_block(0), StateHash(23));
        assert_eq!(table.sum_of_block(1), StateHash(0));
    }

    #[test]
    fn growth_by_a_page_that_was_not_written_is_refused_and_changes_nothing() {
        let mut table = table(&[1]);
        assert_eq!(
            missing(table.advance(&[(page(1), PageHash(9)), (page(3), PageHash(1))], 3)),
            page(2)
        );
        assert_eq!(missing(table.advance(&[(page(2), PageHash(1))], 3)), page(3));
        assert_eq!((table.state(), table.pages()), (StateHash(1), 1));
    }

    #[test]
    fn the_lock_page_is_grown_over_and_never_counted() {
        let mut table = empty(65_536);
        let lock = table.page_size().lock_page().get();
        table.resize(lock - 1).unwrap();
        let beyond = [(page(lock + 1), PageHash(7))];
        assert_eq!(table.advance(&beyond, lock + 1).unwrap(), StateHash(7));
        table.set(page(lock), PageHash(5));
        assert_eq!(table.state(), StateHash(7));
        assert_eq!(table.advance(&[], lock).unwrap(), StateHash(0));
        assert_eq!(table.advance(&[], lock - 1).unwrap(), StateHash(0));
        assert_eq!(table.advance(&[], lock).unwrap(), StateHash(0));
        assert_eq!(missing(table.advance(&[], lock + 1)), page(lock + 1));
    }
}
