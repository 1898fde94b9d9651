//! The read-back: whether the database file holds what was recorded. An SQLite with the WAL-reset bug
//! loses commits on their way out of the WAL: what was recorded is right then, and the database is not.
//!
//! While the lock is parked (on read mark 0, taken when the whole WAL had been backfilled) nothing can
//! reach the file, and it holds everything that was recorded until then. So from each parking on, the
//! pages that were recorded since the one before are *due*: they are read in order, a slice at a time.
//! A due page that is recorded anew is read first, for the file will hold another image of it. That goes
//! wherever the lock stands: up to its mark no frame holds a due page, and past it nothing reaches the file.
//! Only a pin is no such limit: what is recorded after one may be in the file already, and so what was due is
//! due at the next parking. What was not read when the lock moves on stays due.

use std::time::Duration;

use genesis_wal::page::{PageHash, PageNumber, PageSize};
use roaring::RoaringBitmap;

use super::table::PageTable;
use crate::clock;

/// How long pages are read at a time.
const SLICE: Duration = Duration::from_millis(2);

/// Pages that the file does not hold as they were recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Misplaced {
    /// How many.
    pub pages: u64,
    /// One of them.
    pub first: Option<PageNumber>,
}

impl Misplaced {
    fn add(&mut self, page: PageNumber) {
        self.pages += 1;
        self.first = self.first.or(Some(page));
    }
}

/// The pages to be read back.
#[derive(Debug)]
pub struct ReadBack {
    /// Recorded since the lock was last parked.
    recorded: RoaringBitmap,
    /// Held by the file since then, and not read yet.
    due: RoaringBitmap,
    /// The lock was parked since the books were begun: what is in neither is in the file.
    was_parked: bool,
    buffer: Vec<u8>,
}

impl ReadBack {
    /// Nothing to be read back.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        let (recorded, due) = (RoaringBitmap::new(), RoaringBitmap::new());
        Self { recorded, due, was_parked: false, buffer: vec![0; page_size.bytes()] }
    }

    /// These pages were recorded anew.
    pub fn record(&mut self, pages: impl IntoIterator<Item = PageNumber>) {
        for page in pages {
            self.due.remove(page.get());
            self.recorded.insert(page.get());
        }
    }

    /// The lock was parked.
    pub fn park(&mut self) {
        self.due |= std::mem::take(&mut self.recorded);
        self.was_parked = true;
    }

    /// Believes no more that the file holds anything of what was recorded.
    pub fn doubt(&mut self) {
        self.was_parked = false;
        self.postpone();
    }

    /// The file may hold more than was recorded: what is due is due at the next parking.
    pub fn postpone(&mut self) {
        self.recorded |= std::mem::take(&mut self.due);
    }

    /// Whether the lock was parked, and no doubt has come since.
    #[must_use]
    pub fn was_parked(&self) -> bool {
        self.was_parked
    }

    /// Whether the file is known to hold a page as it was recorded, and that is not still to be seen.
    #[must_use]
    pub fn has_arrived(&self, page: PageNumber) -> bool {
        self.was_parked && !self.recorded.contains(page.get()) && !self.due.contains(page.get())
    }

    /// Whether pages are due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// Reads a slice of what is due, with `read_page`. Only while the lock is parked.
    ///
    /// # Errors
    /// Those of `read_page`; the pages stay due then.
    pub fn read_slice<E>(
        &mut self,
        table: &PageTable,
        read_page: impl FnMut(PageNumber, &mut [u8]) -> Result<(), E>,
    ) -> Result<Misplaced, E> {
        let until = clock::monotonic() + SLICE;
        self.read(table, read_page, || clock::monotonic() < until)
    }

    /// Reads those of these pages that are due, before they are recorded anew.
    ///
    /// # Errors
    /// Those of `read_page`.
    pub fn read_before<E>(
        &mut self,
        pages: impl IntoIterator<Item = PageNumber>,
        table: &PageTable,
        mut read_page: impl FnMut(PageNumber, &mut [u8]) -> Result<(), E>,
    ) -> Result<Misplaced, E> {
        let mut misplaced = Misplaced::default();
        for page in pages {
            if self.due.contains(page.get()) {
                if is_misplaced(page, table, &mut self.buffer, &mut read_page)? {
                    misplaced.add(page);
                }
                self.due.remove(page.get());
            }
        }
        Ok(misplaced)
    }

    /// Reads what is due, ascending: at least one page, and for as long as there is time.
    fn read<E>(
        &mut self,
        table: &PageTable,
        mut read_page: impl FnMut(PageNumber, &mut [u8]) -> Result<(), E>,
        mut has_time: impl FnMut() -> bool,
    ) -> Result<Misplaced, E> {
        let (mut misplaced, mut read) = (Misplaced::default(), 0);
        for page in self.due.iter().map(PageNumber::new) {
            if let Some(page) = page
                && is_misplaced(page, table, &mut self.buffer, &mut read_page)?
            {
                misplaced.add(page);
            }
            read += 1;
            if !has_time() {
                break;
            }
        }
        self.due.remove_smallest(read);
        Ok(misplaced)
    }
}

/// Whether the file holds another image of a page than was recorded. A page that was cut off since is
/// not looked for.
fn is_misplaced<E>(
    page: PageNumber,
    table: &PageTable,
    buffer: &mut [u8],
    read_page: impl FnOnce(PageNumber, &mut [u8]) -> Result<(), E>,
) -> Result<bool, E> {
    let Some(recorded) = table.hash(page) else { return Ok(false) };
    read_page(page, buffer)?;
    Ok(PageHash::of(page, buffer) != recorded)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const PAGES: u32 = 6;

    fn page(number: u32) -> PageNumber {
        PageNumber::new(number).unwrap()
    }

    /// What the file holds of a page that arrived.
    fn fill(page: PageNumber, buffer: &mut [u8]) {
        buffer.fill(u8::try_from(page.get()).unwrap());
    }

    /// The table of a file in which every page arrived, and a read-back of these pages.
    fn recorded(pages: &[u32]) -> (PageTable, ReadBack) {
        let size = PageSize::new(512).unwrap();
        let mut table = PageTable::new(size, tempfile::tempfile().unwrap());
        table.resize(PAGES).unwrap();
        let mut buffer = vec![0; size.bytes()];
        for page in (1..=PAGES).map(page) {
            fill(page, &mut buffer);
            table.set(page, PageHash::of(page, &buffer));
        }
        let mut read_back = ReadBack::new(size);
        read_back.record(pages.iter().copied().map(page));
        (table, read_back)
    }

    /// Reads so many pages of a file to which page `lost` never got: which were read, and what was found.
    fn read(
        read_back: &mut ReadBack,
        table: &PageTable,
        most: usize,
        lost: u32,
    ) -> (Vec<u32>, Misplaced) {
        let pages = std::cell::RefCell::new(Vec::new());
        let file = |page: PageNumber, buffer: &mut [u8]| {
            pages.borrow_mut().push(page.get());
            fill(page, buffer);
            if page.get() == lost {
                buffer.fill(0);
            }
            Ok::<_, Infallible>(())
        };
        let found = read_back.read(table, file, || pages.borrow().len() < most).unwrap();
        (pages.into_inner(), found)
    }

    #[test]
    fn pages_are_due_once_the_lock_was_parked_and_are_read_in_order_once() {
        let (table, mut read_back) = recorded(&[5, 2, 4, 1]);
        assert!(!read_back.is_due());
        read_back.park();
        assert!(read_back.is_due());
        assert_eq!(read(&mut read_back, &table, 3, 0), (vec![1, 2, 4], Misplaced::default()));
        assert_eq!(read(&mut read_back, &table, 3, 0).0, [5]);
        assert!(!read_back.is_due());
    }

    #[test]
    fn a_page_that_never_arrived_is_found() {
        let (table, mut read_back) = recorded(&[1, 2, 3]);
        read_back.park();
        let found = Misplaced { pages: 1, first: Some(page(2)) };
        assert_eq!(read(&mut read_back, &table, 9, 2), (vec![1, 2, 3], found));
    }

    #[test]
    fn what_was_not_read_is_carried_over_and_what_is_recorded_anew_waits() {
        let (table, mut read_back) = recorded(&[1, 2, 3]);
        read_back.park();
        assert_eq!(read(&mut read_back, &table, 1, 0).0, [1]);
        read_back.record([page(1), page(3), page(6)]);
        assert_eq!(read(&mut read_back, &table, 9, 0).0, [2]);
        assert!(!read_back.is_due());
        read_back.park();
        assert_eq!(read(&mut read_back, &table, 9, 0).0, [1, 3, 6]);
    }

    /// The application may have read the lost page, and written it anew from what it read.
    #[test]
    fn a_lost_page_is_found_before_it_is_recorded_anew() {
        let (table, mut read_back) = recorded(&[2, 3]);
        read_back.park();
        let lost = |_, buffer: &mut [u8]| {
            buffer.fill(0);
            Ok::<_, Infallible>(())
        };
        let found = read_back.read_before([1, 2].map(page), &table, lost).unwrap();
        assert_eq!(found, Misplaced { pages: 1, first: Some(page(2)) });
        assert_eq!(read(&mut read_back, &table, 9, 0).0, [3]);
    }

    /// The file may hold what comes next already.
    #[test]
    fn what_was_due_when_a_pin_took_over_is_due_at_the_next_parking() {
        let (table, mut read_back) = recorded(&[2, 3]);
        read_back.park();
        read_back.postpone();
        assert!(!read_back.is_due() && !read_back.has_arrived(page(2)));
        let ahead = |_, _: &mut [u8]| Err("it is not to be read");
        assert_eq!(read_back.read_before([page(2)], &table, ahead), Ok(Misplaced::default()));
        read_back.park();
        assert_eq!(read(&mut read_back, &table, 9, 0).0, [2, 3]);
    }

    #[test]
    fn a_page_that_was_cut_off_is_not_looked_for() {
        let (mut table, mut read_back) = recorded(&[2, PAGES]);
        read_back.park();
        table.advance(&[], PAGES - 1).unwrap();
        assert_eq!(read(&mut read_back, &table, 9, PAGES), (vec![2], Misplaced::default()));
        assert!(!read_back.is_due());
    }

    #[test]
    fn pages_that_cannot_be_read_stay_due() {
        let (table, mut read_back) = recorded(&[1, 2]);
        read_back.park();
        read_back.read(&table, |_, _| Err("no"), || true).unwrap_err();
        assert_eq!(read(&mut read_back, &table, 9, 0).0, [1, 2]);
    }
}
