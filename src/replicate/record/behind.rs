//! What could not be recorded as it came: how a gap opens, what is learnt of it, and how it is closed.

use std::io;

use fixedbitset::FixedBitSet;
use genesis_wal::page::{PageHash, PageNumber};
use genesis_wal::position::WalPosition;
use genesis_wal::segment::TransactionHeader;
use genesis_wal::time::Micros;

use super::images::{State, StateImages};
use super::{Closed, RecordError, Recorder};
use crate::replicate::base::Bases;
use crate::replicate::gap::Gap;
use crate::replicate::segments::Segments;

/// What is to become of a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapEnd {
    /// Pages are still unconfirmed.
    Open,
    /// One record closes it.
    Record,
    /// So much differs, or nothing was recorded before, that a snapshot begins another line.
    Snapshot,
}

impl Recorder {
    /// Believes nothing any more of what is known of the pages: a gap is open, or opened, in which all
    /// of them are unconfirmed. The database has `pages` pages now.
    ///
    /// # Errors
    /// When there is no room for the page table.
    pub fn doubt(&mut self, pages: u32) -> io::Result<()> {
        self.table.resize(pages)?;
        let since = self.line.as_ref().map_or(Micros(0), Segments::last_time);
        let known = self.table.pages();
        let gap = self.gap.get_or_insert_with(|| Gap::counted(known, since));
        gap.resize(pages);
        gap.distrust(pages);
        self.passes = None;
        self.read_back.doubt();
        self.bases = Bases::new(self.table.page_size());
        Ok(())
    }

    /// Takes what was read of consecutive pages in the database file, from `first` on.
    pub fn confirm(&mut self, first: PageNumber, hashes: &[PageHash]) {
        let Some(gap) = &mut self.gap else { return };
        let pages = (first.get()..).filter_map(PageNumber::new);
        for (page, &hash) in pages.zip(hashes) {
            let before = self.table.hash(page);
            if gap.confirm(page) && before != Some(hash) {
                self.table.set(page, hash);
                gap.write(page, before, hash);
                if let Some(passes) = &mut self.passes {
                    passes.touch([page], self.table.pages());
                }
            }
        }
    }

    /// Takes pages over as the file holds them, though no commit wrote them: a gap is open then.
    pub fn take_over(&mut self, pages: &[(PageNumber, PageHash)]) {
        let since = self.line.as_ref().map_or(Micros(0), Segments::last_time);
        let known = self.table.pages();
        let gap = self.gap.get_or_insert_with(|| Gap::unaccounted(known, since));
        for &(page, hash) in pages {
            self.table.set(page, hash);
            gap.mark(page);
        }
        if let Some(passes) = &mut self.passes {
            passes.touch(pages.iter().map(|image| image.0), known);
        }
    }

    /// What is to become of the open gap; `None` when none is open.
    #[must_use]
    pub fn gap_end(&self) -> Option<GapEnd> {
        let gap = self.gap.as_ref()?;
        let pages = self.table.pages() as usize;
        let half_differs = gap.differs_by() * 2 > pages;
        Some(match &self.line {
            None => GapEnd::Snapshot,
            Some(_) if !gap.is_complete() => GapEnd::Open,
            Some(_) if half_differs && !gap.is_counted() => GapEnd::Snapshot,
            Some(_) => GapEnd::Record,
        })
    }

    /// The blocks with pages that are unconfirmed.
    #[must_use]
    pub fn unconfirmed(&self) -> FixedBitSet {
        let layout = self.table.layout();
        let pages = self.gap.iter().flat_map(Gap::unconfirmed);
        let blocks = pages.map(|page| layout.block_of(page) as usize);
        blocks.fold(FixedBitSet::with_capacity(layout.blocks() as usize), |mut set, block| {
            set.insert(block);
            set
        })
    }

    /// Closes the gap with one record of the pages that may differ, read from `state`, which is the
    /// state that was last seen; `position` is the place after it. Nothing is recorded when nothing
    /// differs.
    ///
    /// # Errors
    /// [`RecordError`]; the gap stays open then.
    pub fn close_gap(
        &mut self,
        state: &mut impl State,
        position: Option<WalPosition>,
        now: Micros,
    ) -> Result<Option<Closed>, RecordError> {
        let (Some(gap), Some(line)) = (&self.gap, &mut self.line) else { return Ok(None) };
        let lock = self.table.page_size().lock_page();
        let hash = |page| self.table.hash(page).map(|hash| (page, hash));
        let pages: Vec<_> = gap.differing().filter(|&p| p != lock).filter_map(hash).collect();
        let closed = Closed { kind: gap.kind().0, pages: pages.len() };
        if !pages.is_empty() || self.table.state() != line.state() {
            let (kind, commits) = gap.kind();
            let time = now.max(line.last_time());
            let header = TransactionHeader {
                txid: line.last().next().ok_or(RecordError::TxidsExhausted)?,
                kind,
                late: true,
                commits,
                time,
                since: gap.since().min(time),
                pages: self.table.pages(),
                records: u32::try_from(pages.len()).unwrap_or(u32::MAX),
                state: self.table.state(),
            };
            let buffer = vec![0; self.table.page_size().bytes()];
            let bases = &mut self.bases;
            let mut images = StateImages { state, table: &self.table, buffer, bases };
            line.append(header, position, &pages, &mut images)?;
        }
        self.gap = None;
        Ok(Some(closed))
    }
}
