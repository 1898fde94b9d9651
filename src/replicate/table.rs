//! The page table: the hash of every page as of the last recorded transaction, and their sum.

use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};

/// The hashes of all pages of one state.
#[derive(Debug, Clone)]
pub struct PageTable {
    lock_page: PageNumber,
    hashes: Vec<PageHash>,
    state: StateHash,
}

impl PageTable {
    /// The table of a database without pages.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        let lock_page = page_size.lock_page();
        Self { lock_page, hashes: Vec::new(), state: StateHash::default() }
    }

    /// The hash of the whole state.
    #[must_use]
    pub fn state(&self) -> StateHash {
        self.state
    }

    /// Pages in the database.
    #[must_use]
    pub fn pages(&self) -> u32 {
        u32::try_from(self.hashes.len()).unwrap_or(u32::MAX)
    }

    /// The hash of a page; `None` where the database has none.
    #[must_use]
    pub fn hash(&self, page: PageNumber) -> Option<PageHash> {
        self.hashes.get(page.index()).copied()
    }

    /// Appends the hash of the next page. The lock page's is not looked at.
    pub fn push(&mut self, hash: PageHash) {
        let number = self.pages().saturating_add(1);
        let is_lock_page = number == self.lock_page.get();
        let hash = if is_lock_page { PageHash(0) } else { hash };
        self.state = self.state.with(hash);
        self.hashes.push(hash);
    }

    /// Appends the hashes of the next pages.
    pub fn extend(&mut self, hashes: impl IntoIterator<Item = PageHash>) {
        for hash in hashes {
            self.push(hash);
        }
    }

    /// Goes on to the state after a transaction that wrote `images` (ascending by page) and left
    /// `pages` pages.
    ///
    /// # Errors
    /// The first page that the database grew by and that the transaction did not write; the table is
    /// of no use then.
    pub fn advance(
        &mut self,
        images: impl IntoIterator<Item = (PageNumber, PageHash)>,
        pages: u32,
    ) -> Result<StateHash, PageNumber> {
        for cut_off in self.hashes.drain((pages as usize).min(self.hashes.len())..) {
            self.state = self.state.without(cut_off);
        }
        for (page, hash) in images {
            if self.next_page() == Some(self.lock_page) && page > self.lock_page {
                self.push(PageHash(0));
            }
            let next = self.next_page();
            if next == Some(page) {
                self.push(hash);
            } else if let Some(entry) = self.hashes.get_mut(page.index()) {
                self.state = self.state.without(*entry).with(hash);
                *entry = hash;
            } else {
                return Err(next.unwrap_or(page));
            }
        }
        if self.next_page() == Some(self.lock_page) && self.lock_page.get() <= pages {
            self.push(PageHash(0));
        }
        match self.next_page() {
            Some(missing) if missing.get() <= pages => Err(missing),
            _ => Ok(self.state),
        }
    }

    fn next_page(&self) -> Option<PageNumber> {
        PageNumber::new(self.pages().saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> PageNumber {
        PageNumber::new(number).unwrap()
    }

    fn table(hashes: &[u64]) -> PageTable {
        let mut table = PageTable::new(PageSize::new(4096).unwrap());
        table.extend(hashes.iter().copied().map(PageHash));
        table
    }

    #[test]
    fn growth_change_and_shrink_keep_the_sum() {
        let mut table = table(&[1, 2, 4]);
        let images = [(page(2), PageHash(20)), (page(4), PageHash(8)), (page(5), PageHash(16))];
        assert_eq!(table.advance(images, 5), Ok(StateHash(1 + 20 + 4 + 8 + 16)));
        assert_eq!(table.advance([(page(1), PageHash(3))], 2), Ok(StateHash(3 + 20)));
        assert_eq!(table.pages(), 2);
    }

    #[test]
    fn growth_by_a_page_that_was_not_written_is_refused() {
        assert_eq!(table(&[1]).advance([(page(3), PageHash(1))], 3), Err(page(2)));
        assert_eq!(table(&[1]).advance([(page(2), PageHash(1))], 3), Err(page(3)));
    }

    #[test]
    fn the_lock_page_is_grown_over_and_never_counted() {
        let size = PageSize::new(65_536).unwrap();
        let lock = size.lock_page().get();
        let mut table = PageTable::new(size);
        table.extend((1..lock).map(|_| PageHash(0)));
        let beyond = [(page(lock + 1), PageHash(7))];
        assert_eq!(table.advance(beyond, lock + 1), Ok(StateHash(7)));
        assert_eq!(table.advance([], lock), Ok(StateHash(0)));
        assert_eq!(table.advance([], lock - 1), Ok(StateHash(0)));
        assert_eq!(table.advance([], lock), Ok(StateHash(0)));
        assert_eq!(table.advance([], lock + 1), Err(page(lock + 1)));
    }
}
