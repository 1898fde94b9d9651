//! The proof of a finished file: the state hash of its bytes, read from the start to the end, or as
//! the sum of the hashes of stretches that are read side by side.

use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use thiserror::Error;

/// Why a file has no state hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// The file is longer or shorter than its pages.
    #[error("the file has {found} bytes instead of {wanted}")]
    BadLength {
        /// Bytes that the file must have.
        wanted: u64,
        /// Bytes that have come.
        found: u64,
    },
    /// The lock page, which no hash covers, is not all zeros.
    #[error("page {0}, which holds SQLite's lock bytes, is not empty")]
    LockPage(PageNumber),
}

/// Sums the pages of a file up. [`feed`](Self::feed) its bytes in order, in pieces of any size.
#[derive(Debug)]
pub struct StateVerifier {
    page_size: PageSize,
    wanted: u64,
    fed: u64,
    /// The number of the page that was read last.
    pages_done: u32,
    /// The start of a page whose end has not come yet.
    partial: Vec<u8>,
    sum: StateHash,
}

impl StateVerifier {
    /// Verifies a file of `pages` pages.
    #[must_use]
    pub fn new(page_size: PageSize, pages: u32) -> Self {
        Self::of_stretch(page_size, 0, pages)
    }

    /// Verifies the stretch of `pages` pages that begins after the first `skipped` pages of a file. The
    /// sum of all stretches of a file is its state hash.
    #[must_use]
    pub fn of_stretch(page_size: PageSize, skipped: u32, pages: u32) -> Self {
        Self {
            page_size,
            wanted: u64::from(pages) * u64::from(page_size.get()),
            fed: 0,
            pages_done: skipped,
            partial: Vec::new(),
            sum: StateHash::default(),
        }
    }

    /// The next bytes of the file.
    ///
    /// # Errors
    /// [`VerifyError`] when the file gets too long, or its lock page is not empty.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.feed_each(bytes, |_| ())
    }

    /// The next bytes of the file; `each` is told the hash of every page that they complete, 0 for the
    /// lock page.
    ///
    /// # Errors
    /// As [`feed`](Self::feed).
    pub fn feed_each(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(PageHash),
    ) -> Result<(), VerifyError> {
        self.fed = self.fed.saturating_add(bytes.len() as u64);
        if self.fed > self.wanted {
            return Err(self.bad_length());
        }
        let len = self.page_size.bytes();
        if !self.partial.is_empty() {
            let missing = len.saturating_sub(self.partial.len()).min(bytes.len());
            let (start, rest) = bytes.split_at(missing);
            self.partial.extend_from_slice(start);
            bytes = rest;
            if self.partial.len() < len {
                return Ok(());
            }
            let page = std::mem::take(&mut self.partial);
            each(self.add(&page)?);
        }
        let pages = bytes.chunks_exact(len);
        self.partial.extend_from_slice(pages.remainder());
        for page in pages {
            each(self.add(page)?);
        }
        Ok(())
    }

    /// The state hash of the whole file, or what the stretch adds to it.
    ///
    /// # Errors
    /// [`VerifyError::BadLength`] when bytes are missing.
    pub fn finish(self) -> Result<StateHash, VerifyError> {
        if self.fed == self.wanted { Ok(self.sum) } else { Err(self.bad_length()) }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<PageHash, VerifyError> {
        self.pages_done = self.pages_done.saturating_add(1);
        let Some(page) = PageNumber::new(self.pages_done) else {
            return Err(self.bad_length());
        };
        if page != self.page_size.lock_page() {
            let hash = PageHash::of(page, bytes);
            self.sum = self.sum.with(hash);
            return Ok(hash);
        }
        if bytes.iter().any(|&byte| byte != 0) {
            return Err(VerifyError::LockPage(page));
        }
        Ok(PageHash(0))
    }

    fn bad_length(&self) -> VerifyError {
        VerifyError::BadLength { wanted: self.wanted, found: self.fed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A verifier that has read everything before the lock page, which is the last one.
    fn before_the_lock_page(page_size: PageSize) -> StateVerifier {
        let pages = page_size.lock_page().get();
        StateVerifier::of_stretch(page_size, pages - 1, 1)
    }

    #[test]
    fn the_lock_page_has_no_hash_and_must_be_empty() {
        for log2 in 9..=16 {
            let size = PageSize::from_log2(log2).unwrap();
            let mut page = vec![0; size.bytes()];
            let mut verifier = before_the_lock_page(size);
            verifier.feed(&page).unwrap();
            assert_eq!(verifier.finish(), Ok(StateHash::default()));
            page[511] = 1;
            let fed = before_the_lock_page(size).feed(&page);
            assert_eq!(fed, Err(VerifyError::LockPage(size.lock_page())));
        }
    }
}
