//! What was not recorded as it came: after an absence, a doubt or a full disk. A value without I/O.
//!
//! While a gap is open, the page table goes on with what is committed, and nothing is recorded. Which
//! pages may differ from the last recorded state is kept here. It is closed by one record of those
//! pages, or by a snapshot that begins another line.
//!
//! After an absence every page is *unconfirmed*: what the table says of it may be out of date. A page
//! is confirmed by a commit that writes it, or by a look at the database file. That look may come at
//! any time: a page that no commit in the WAL has written stands still in the file for as long as the
//! WAL is held, and one that a commit has written is confirmed by then. A WAL that is read from its
//! start may tell of a database that was longer once: pages that it grows by then are unconfirmed, too.
//! It may also tell of commits that were recorded: what such a page was when the gap opened is kept, so
//! that one that is the same in the end does not differ.

use std::collections::HashMap;

use fixedbitset::FixedBitSet;
use genesis_wal::page::{PageHash, PageNumber};
use genesis_wal::segment::TransactionKind;
use genesis_wal::time::Micros;

/// The most pages of which is kept what they were, 32 MiB. Others differ once they are written.
const MOST_KEPT: usize = 1 << 20;

/// The pages of which not everything was recorded.
#[derive(Debug, Clone)]
pub struct Gap {
    unconfirmed: FixedBitSet,
    left: usize,
    differing: FixedBitSet,
    /// What pages were when they were first written or cut off, where that is what was recorded.
    recorded: HashMap<PageNumber, Option<PageHash>>,
    /// Commits in it; `None` when nobody knows.
    commits: Option<u32>,
    since: Micros,
}

impl Gap {
    /// A gap after which nothing is known of any of `pages` pages.
    #[must_use]
    pub fn unknown(pages: u32, since: Micros) -> Self {
        let mut unconfirmed = FixedBitSet::with_capacity(pages as usize);
        unconfirmed.insert_range(..);
        let differing = FixedBitSet::with_capacity(pages as usize);
        let recorded = HashMap::new();
        Self { unconfirmed, left: pages as usize, differing, recorded, commits: None, since }
    }

    /// A gap of which every commit is seen.
    #[must_use]
    pub fn counted(pages: u32, since: Micros) -> Self {
        let unconfirmed = FixedBitSet::with_capacity(pages as usize);
        let differing = unconfirmed.clone();
        let recorded = HashMap::new();
        Self { unconfirmed, left: 0, differing, recorded, commits: Some(0), since }
    }

    /// A gap that no commit accounts for, in a database of `pages` pages.
    #[must_use]
    pub fn unaccounted(pages: u32, since: Micros) -> Self {
        Self { commits: None, ..Self::counted(pages, since) }
    }

    /// Takes a commit in that was seen, and left `pages` pages.
    pub fn absorb(&mut self, written: impl IntoIterator<Item = PageNumber>, pages: u32) {
        self.resize(pages);
        for page in written {
            self.mark(page);
        }
        self.commits = self.commits.map(|commits| commits.saturating_add(1));
    }

    /// Follows the database to a length of so many pages.
    pub fn resize(&mut self, pages: u32) {
        let pages = pages as usize;
        if pages < self.unconfirmed.len() {
            self.left -= self.unconfirmed.count_ones(pages..);
            self.unconfirmed = shortened(&self.unconfirmed, pages);
            self.differing = shortened(&self.differing, pages);
        } else {
            let before = self.unconfirmed.len();
            self.unconfirmed.grow(pages);
            self.differing.grow(pages);
            if self.commits.is_none() {
                self.unconfirmed.insert_range(before..);
                self.left += pages - before;
            }
        }
    }

    /// Notes what a page is now, and what it was before as far as the page table tells. It differs unless
    /// it is what was recorded.
    pub fn write(&mut self, page: PageNumber, before: Option<PageHash>, now: PageHash) {
        self.confirm(page);
        let index = page.index();
        if index >= self.differing.len() {
            return;
        }
        if !self.differing.contains(index) {
            self.keep(page, before);
        }
        let recorded = self.recorded.get(&page).copied().flatten();
        self.differing.set(index, recorded != Some(now));
    }

    /// Keeps what a page was that is about to be cut off: the database may grow again.
    pub fn cut(&mut self, page: PageNumber, before: Option<PageHash>) {
        if !self.differing.contains(page.index()) {
            self.keep(page, before);
        }
    }

    fn keep(&mut self, page: PageNumber, before: Option<PageHash>) {
        if self.recorded.len() < MOST_KEPT {
            self.recorded.entry(page).or_insert(before);
        }
    }

    /// Notes that a page may differ from what was recorded, and what it is now.
    pub fn mark(&mut self, page: PageNumber) {
        self.confirm(page);
        if page.index() < self.differing.len() {
            self.differing.insert(page.index());
        }
    }

    /// The pages that are unconfirmed, ascending.
    pub fn unconfirmed(&self) -> impl Iterator<Item = PageNumber> {
        pages_of(&self.unconfirmed)
    }

    /// Confirms a page; whether it was unconfirmed.
    pub fn confirm(&mut self, page: PageNumber) -> bool {
        let was = self.unconfirmed.contains(page.index());
        if was {
            self.unconfirmed.set(page.index(), false);
            self.left -= 1;
        }
        was
    }

    /// Whether every commit in it was seen.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.commits.is_some()
    }

    /// Whether a page is unconfirmed.
    #[cfg(test)]
    fn is_unconfirmed(&self, page: PageNumber) -> bool {
        self.unconfirmed.contains(page.index())
    }

    /// Whether no page is unconfirmed: the page table is that of the state that was last seen.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Forgets what was confirmed, after a doubt; what may differ is kept.
    pub fn distrust(&mut self, pages: u32) {
        let (differing, recorded) =
            (std::mem::take(&mut self.differing), std::mem::take(&mut self.recorded));
        *self = Self { differing, recorded, ..Self::unknown(pages, self.since) };
        self.differing.grow(pages as usize);
    }

    /// The pages that may differ, ascending.
    pub fn differing(&self) -> impl Iterator<Item = PageNumber> {
        pages_of(&self.differing)
    }

    /// How many pages may differ.
    #[must_use]
    pub fn differs_by(&self) -> usize {
        self.differing.count_ones(..)
    }

    /// What a record of it is, and for how many commits it stands; 0 when nobody knows.
    #[must_use]
    pub fn kind(&self) -> (TransactionKind, u32) {
        match self.commits {
            Some(commits) if commits > 0 => (TransactionKind::Coarse, commits),
            _ => (TransactionKind::Rebase, 0),
        }
    }

    /// The last recorded time before it.
    #[must_use]
    pub fn since(&self) -> Micros {
        self.since
    }
}

fn pages_of(bits: &FixedBitSet) -> impl Iterator<Item = PageNumber> {
    let numbers = bits.ones().filter_map(|index| u32::try_from(index + 1).ok());
    numbers.filter_map(PageNumber::new)
}

fn shortened(bits: &FixedBitSet, len: usize) -> FixedBitSet {
    let mut shorter = FixedBitSet::with_capacity(len);
    shorter.extend(bits.ones().take_while(|&index| index < len));
    shorter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(number: u32) -> PageNumber {
        PageNumber::new(number).unwrap()
    }

    fn differing(gap: &Gap) -> Vec<u32> {
        gap.differing().map(PageNumber::get).collect()
    }

    /// A commit that leaves so many pages, of which these are new.
    fn write(gap: &mut Gap, pages: &[u32], len: u32) {
        gap.resize(len);
        for &number in pages {
            gap.write(page(number), Some(PageHash(0)), PageHash(1));
        }
    }

    #[test]
    fn a_page_that_is_as_it_was_recorded_does_not_differ() {
        let mut gap = Gap::unknown(3, Micros(5));
        gap.write(page(1), Some(PageHash(9)), PageHash(7));
        gap.write(page(2), Some(PageHash(9)), PageHash(9));
        assert_eq!((differing(&gap), gap.is_unconfirmed(page(2))), (vec![1], false));
        // A doubt does not change what was recorded.
        gap.distrust(3);
        gap.write(page(1), Some(PageHash(7)), PageHash(9));
        gap.write(page(2), Some(PageHash(9)), PageHash(8));
        assert_eq!(differing(&gap), [2]);
        // Of what may differ for another reason nobody knows what was recorded.
        gap.mark(page(3));
        gap.write(page(3), Some(PageHash(9)), PageHash(9));
        assert_eq!(differing(&gap), [2, 3]);
    }

    #[test]
    fn a_page_that_is_cut_off_and_comes_back_as_it_was_does_not_differ() {
        let mut gap = Gap::unknown(3, Micros(5));
        gap.cut(page(3), Some(PageHash(9)));
        write(&mut gap, &[1], 2);
        gap.resize(4);
        gap.write(page(3), Some(PageHash(0)), PageHash(9));
        gap.write(page(4), Some(PageHash(0)), PageHash(9));
        assert_eq!(differing(&gap), [1, 4]);
        gap.cut(page(4), Some(PageHash(9)));
        gap.resize(3);
        gap.resize(4);
        gap.write(page(4), Some(PageHash(0)), PageHash(9));
        assert_eq!(differing(&gap), [1, 4], "it was not recorded");
    }

    #[test]
    fn a_page_is_confirmed_once_by_a_commit_or_by_a_look() {
        let mut gap = Gap::unknown(3, Micros(5));
        write(&mut gap, &[2], 3);
        assert!(!gap.confirm(page(2)), "the look at the file comes too late");
        assert!(gap.confirm(page(1)) && !gap.is_complete());
        assert!(gap.confirm(page(3)) && gap.is_complete());
        assert_eq!(differing(&gap), [2]);
        assert_eq!(gap.kind(), (TransactionKind::Rebase, 0));
    }

    #[test]
    fn pages_that_are_cut_off_need_no_look_and_grown_ones_do_unless_they_were_written() {
        let mut gap = Gap::unknown(5, Micros(5));
        write(&mut gap, &[1, 5], 5);
        write(&mut gap, &[2], 2);
        assert!(gap.is_complete());
        write(&mut gap, &[3, 4], 5);
        assert_eq!((gap.is_complete(), gap.is_unconfirmed(page(5))), (false, true));
        assert!(gap.confirm(page(5)) && gap.is_complete());
        assert_eq!(differing(&gap), [1, 2, 3, 4]);
    }

    #[test]
    fn a_gap_that_was_watched_counts_its_commits_until_a_doubt() {
        let mut gap = Gap::counted(4, Micros(5));
        gap.absorb([page(1)], 4);
        gap.absorb([page(3)], 4);
        assert!(gap.is_complete());
        assert_eq!(gap.kind(), (TransactionKind::Coarse, 2));
        gap.distrust(6);
        assert!(!gap.is_complete() && gap.is_unconfirmed(page(1)));
        assert_eq!(gap.kind(), (TransactionKind::Rebase, 0));
        assert_eq!((differing(&gap), gap.differs_by()), (vec![1, 3], 2));
    }
}
