//! A transaction whose page records are still coming.

use std::error::Error;

use genesis_wal::page::{PageNumber, PageSize, StateHash};
use genesis_wal::segment::{Fragment, PageRecord, SegmentError, TransactionHeader};

use super::ApplyError;

#[derive(Debug)]
pub(super) struct Open {
    header: TransactionHeader,
    /// Records that have come.
    received: u32,
    last_page: Option<PageNumber>,
    /// Pages before the transaction.
    pages_before: u32,
    /// The first page that the database grew by and that has not come. 64 bits hold the one after
    /// the last possible page.
    next_new: u64,
    lock_page: PageNumber,
}

impl Open {
    pub(super) fn new(header: TransactionHeader, pages_before: u32, page_size: PageSize) -> Self {
        let mut open = Self {
            header,
            received: 0,
            last_page: None,
            pages_before,
            next_new: u64::from(pages_before),
            lock_page: page_size.lock_page(),
        };
        open.step();
        open
    }

    /// The state after the transaction.
    pub(super) fn state(&self) -> StateHash {
        self.header.state
    }

    /// Checks that a fragment goes on where the one before ended.
    pub(super) fn join<E: Error>(&mut self, fragment: &Fragment<'_>) -> Result<(), ApplyError<E>> {
        let here = u32::try_from(fragment.pages.len()).ok();
        let received = here.and_then(|here| self.received.checked_add(here));
        match received {
            Some(received)
                if fragment.header == self.header && fragment.first_record == self.received =>
            {
                self.received = received;
                Ok(())
            }
            _ => Err(ApplyError::BadFragment(fragment.header.txid)),
        }
    }

    /// Checks a page's place: after the one before, and without a hole where the database grows. What
    /// it grows by is there in full.
    pub(super) fn place<E: Error>(&mut self, record: &PageRecord<'_>) -> Result<(), ApplyError<E>> {
        let page = record.number;
        if self.last_page.replace(page) >= Some(page) {
            return Err(ApplyError::BadFragment(self.header.txid));
        }
        if page.get() > self.pages_before {
            if u64::from(page.get()) != self.next_new {
                return Err(self.missing_page());
            }
            if record.is_delta() {
                let source = SegmentError::NoBase(page);
                return Err(ApplyError::Image { txid: self.header.txid, source });
            }
            self.step();
        }
        Ok(())
    }

    /// Checks that every page came that the database grew by.
    pub(super) fn end<E: Error>(&self) -> Result<(), ApplyError<E>> {
        if self.next_new > u64::from(self.header.pages) { Ok(()) } else { Err(self.missing_page()) }
    }

    pub(super) fn incomplete<E: Error>(&self) -> ApplyError<E> {
        ApplyError::Incomplete {
            txid: self.header.txid,
            missing: self.header.records.saturating_sub(self.received),
        }
    }

    fn missing_page<E: Error>(&self) -> ApplyError<E> {
        ApplyError::MissingPage { txid: self.header.txid, page: self.next_new }
    }

    /// Goes on to the next page that no one may leave out: the lock page is never there.
    fn step(&mut self) {
        self.next_new += 1;
        if self.next_new == u64::from(self.lock_page.get()) {
            self.next_new += 1;
        }
    }
}
