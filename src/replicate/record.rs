//! Records committed transactions: pages out of the WAL, through the page table, into segments.
//!
//! What cannot be recorded as it comes opens a [`Gap`]: the table goes on, and one record of all that
//! may have changed closes it.

mod behind;
mod error;
mod images;
#[cfg(test)]
mod tests;

use std::io;

use genesis_wal::header::Salts;
use genesis_wal::name::SegmentName;
use genesis_wal::page::{PageHash, PageNumber, StateHash};
use genesis_wal::position::WalPosition;
use genesis_wal::scan::Transaction;
use genesis_wal::segment::{TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;

pub use self::behind::GapEnd;
pub use self::error::RecordError;
use self::images::{FrameImages, Written, page_of};
pub use self::images::{Frames, State};
use super::base::Bases;
use super::gap::Gap;
use super::passes::Passes;
use super::readback::{Misplaced, ReadBack};
use super::segments::{PART_BYTES, Segments, SegmentsError};
use super::table::{AsOf, PageTable};
use crate::sqlite::{Source, SourceError};

/// When transactions were committed, as far as anybody can tell.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The time when they were seen.
    pub time: Micros,
    /// Seen first after an absence: committed at this time or later.
    pub late_since: Option<Micros>,
    /// Their place in the WAL is one from which no restart can go on.
    pub unplaced: bool,
}

/// The state that is followed, and what was recorded of it.
#[derive(Debug)]
pub struct Recorder {
    table: PageTable,
    /// The line that is recorded on; none before the first snapshot.
    line: Option<Segments>,
    gap: Option<Gap>,
    /// What a running snapshot still needs.
    passes: Option<Passes>,
    read_back: ReadBack,
    bases: Bases,
    /// The memory for what a transaction wrote.
    written: Written,
}

impl Recorder {
    /// A recorder of what follows the end of `line`, whose pages `table` describes.
    #[must_use]
    pub fn continuing(table: PageTable, line: Segments) -> Self {
        let (read_back, bases) = (ReadBack::new(table.page_size()), Bases::new(table.page_size()));
        let written = Written::default();
        Self { table, line: Some(line), gap: None, passes: None, read_back, bases, written }
    }

    /// A recorder of what has become of the end of `line` while nobody looked. The table is as long as
    /// the database is now.
    #[must_use]
    pub fn after_absence(table: PageTable, line: Segments) -> Self {
        let gap = Some(Gap::unknown(table.pages(), line.last_time()));
        Self { gap, ..Self::continuing(table, line) }
    }

    /// A recorder of a database of `pages` pages of which nothing is known. `table` is empty.
    ///
    /// # Errors
    /// When there is no room for the page table.
    pub fn beginning(mut table: PageTable, pages: u32) -> io::Result<Self> {
        table.resize(pages)?;
        let gap = Some(Gap::unknown(pages, Micros(0)));
        let (read_back, bases) = (ReadBack::new(table.page_size()), Bases::new(table.page_size()));
        let written = Written::default();
        Ok(Self { table, line: None, gap, passes: None, read_back, bases, written })
    }

    /// The line that is recorded on.
    #[must_use]
    pub fn line(&self) -> Option<&Segments> {
        self.line.as_ref()
    }

    /// The page table.
    #[must_use]
    pub fn table(&self) -> &PageTable {
        &self.table
    }

    /// Which recorded state the page table describes; `None` while a gap is open.
    #[must_use]
    pub fn as_of(&self) -> Option<AsOf> {
        let line = self.line.as_ref().filter(|_| self.gap.is_none())?;
        let (generation, txid, time) = (line.stamp().generation, line.last(), line.last_time());
        Some(AsOf { generation, txid, time })
    }

    /// Whether the page table is that of the state that was last seen.
    #[must_use]
    pub fn is_believed(&self) -> bool {
        self.gap.as_ref().is_none_or(Gap::is_complete)
    }

    /// Whether a gap is open.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.gap.is_some()
    }

    /// Bytes recorded since the last [`seal`](Self::seal).
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.line.as_ref().map_or(0, Segments::waiting)
    }

    /// Records a transaction, or takes it into the open gap; `position` is the place after it.
    ///
    /// # Errors
    /// [`RecordError`]; the table has not moved then, but for [`RecordError::Doubt`], after which the
    /// recorder is to be [put in doubt](Self::doubt).
    pub fn record(
        &mut self,
        transaction: &Transaction,
        position: WalPosition,
        frames: &mut impl Frames,
        seen: Seen,
    ) -> Result<(), RecordError> {
        let mut written = std::mem::take(&mut self.written);
        let recorded = self.record_as(&mut written, transaction, position, frames, seen);
        self.written = written;
        recorded
    }

    fn record_as(
        &mut self,
        written: &mut Written,
        transaction: &Transaction,
        position: WalPosition,
        frames: &mut impl Frames,
        seen: Seen,
    ) -> Result<(), RecordError> {
        let salts = position.identity.salts;
        self.read(transaction, salts, frames, written)?;
        self.advance(&written.hashed, transaction.pages)?;
        self.bases.follow(position.identity);
        let recorded = self.append(transaction, position, written, frames, seen);
        self.bases.recorded(written.frames.iter().copied());
        recorded
    }

    /// Puts a transaction into a segment, or into the open gap.
    fn append(
        &mut self,
        transaction: &Transaction,
        position: WalPosition,
        written: &Written,
        frames: &mut impl Frames,
        seen: Seen,
    ) -> Result<(), RecordError> {
        let pages = || written.hashed.iter().map(|image| image.0);
        if let Some(gap) = &mut self.gap {
            if gap.is_counted() {
                gap.absorb(pages(), transaction.pages);
            }
            return Ok(());
        }
        let Some(line) = &mut self.line else { return Ok(()) };
        let state = self.table.state();
        let header = header_of(line, transaction, written.hashed.len(), state, seen)?;
        let page_size = self.table.page_size();
        let bases = &mut self.bases;
        let salts = position.identity.salts;
        let mut images = FrameImages { written, salts, page_size, frames, bases };
        let place = Some(position).filter(|_| !seen.unplaced);
        let Err(error) = line.append(header, place, &written.hashed, &mut images) else {
            return Ok(());
        };
        let mut gap = Gap::counted(transaction.pages, line.last_time());
        gap.absorb(pages(), transaction.pages);
        self.gap = Some(gap);
        // The table has gone on: what passes by itself is in the gap, once.
        match error {
            SegmentsError::Spool(error) => {
                tracing::error!(
                    %error,
                    "NOT PROTECTED: cannot write the spool; until it can be written again, commits are \
                     not recorded one by one"
                );
                Ok(())
            }
            error => match RecordError::from(error) {
                error if error.may_pass() => {
                    let error = crate::describe(&error);
                    tracing::error!(%error, "a commit is not recorded by itself, but with the next");
                    Ok(())
                }
                error => Err(error),
            },
        }
    }

    /// Whether the lock was parked, and no doubt has come since.
    #[must_use]
    pub fn was_parked(&self) -> bool {
        self.read_back.was_parked()
    }

    /// Whether the database file, in which a page has this hash, should hold another image of it.
    #[must_use]
    pub fn is_misplaced(&self, page: PageNumber, hash: PageHash) -> bool {
        self.read_back.has_arrived(page)
            && self.table.hash(page).is_some_and(|recorded| recorded != hash)
    }

    /// Begins another line with the state that was last seen, which a snapshot holds.
    pub fn begin_line(&mut self, line: Segments) {
        self.line = Some(line);
        self.gap = None;
        self.bases.begin_line();
    }

    /// Forgets the line: what follows is recorded on another.
    pub fn leave_line(&mut self) {
        self.line = None;
    }

    /// What the running snapshot still needs.
    pub fn passes(&mut self) -> Option<&mut Passes> {
        self.passes.as_mut()
    }

    /// Follows the passes of a snapshot, or of none.
    pub fn follow_passes(&mut self, passes: Option<Passes>) {
        self.passes = passes;
    }

    /// Takes what a snapshot captured of a block.
    pub fn captured(&mut self, block: u32, hashes: &[PageHash]) {
        let layout = self.table.layout();
        let Some(first) = layout.first_page(block) else { return };
        self.confirm(first, hashes);
        let pages = layout.pages_of(block).map(|(page, _)| self.table.hash(page));
        let is_current = pages.eq(hashes.iter().copied().map(Some));
        if let Some(passes) = self.passes.as_mut().filter(|_| is_current) {
            passes.captured(block);
        }
    }

    /// Learns that the lock was parked.
    pub fn park(&mut self) {
        self.read_back.park();
    }

    /// Learns that the database file may hold more than was recorded.
    pub fn postpone_read_back(&mut self) {
        self.read_back.postpone();
    }

    /// Whether pages are to be read back.
    #[must_use]
    pub fn is_read_back_due(&self) -> bool {
        self.read_back.is_due()
    }

    /// Reads some pages back. Only while the lock is parked.
    ///
    /// # Errors
    /// When the database file cannot be read.
    pub fn read_back(&mut self, source: &Source) -> Result<Misplaced, SourceError> {
        self.read_back.read_slice(&self.table, |page, buffer| source.read_page(page, buffer))
    }

    /// Reads those pages back that a transaction is about to change.
    ///
    /// # Errors
    /// When the database file cannot be read.
    pub fn read_back_before(
        &mut self,
        transaction: &Transaction,
        source: &Source,
    ) -> Result<Misplaced, SourceError> {
        let pages = transaction.images.iter().map(|image| image.page);
        self.read_back
            .read_before(pages, &self.table, |page, buffer| source.read_page(page, buffer))
    }

    /// Ends the open segment and puts it into the spool; `None` when nothing was recorded.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn seal(&mut self) -> Result<Option<SegmentName>, RecordError> {
        let Some(line) = &mut self.line else { return Ok(None) };
        let sealed = line.seal()?;
        if let Some(name) = sealed {
            let unmatched = self.bases.take_unmatched();
            tracing::debug!(segment = %name, unmatched, "sealed; so many pages had no base");
        }
        Ok(sealed)
    }

    /// Reads the images of a transaction and hashes them. Those of one that fits one part are in memory
    /// then: encoding it does not fail.
    fn read(
        &self,
        transaction: &Transaction,
        salts: Salts,
        frames: &mut impl Frames,
        written: &mut Written,
    ) -> Result<(), RecordError> {
        written.clear();
        // The frames of a transaction lie together.
        if let Some(first) = transaction.images.iter().map(|image| image.frame).min() {
            frames.go_to(first, transaction.frame)?;
        }
        let page_size = self.table.page_size();
        let fits = transaction.images.len() * page_size.bytes() <= PART_BYTES;
        let is_kept = fits && !transaction.images.iter().all(|i| frames.held(i.frame).is_some());
        let lock_page = page_size.lock_page();
        for image in transaction.images.iter().filter(|image| image.page != lock_page) {
            let page = page_of(frames, *image, salts)?;
            if is_kept {
                written.pages.extend_from_slice(page);
            }
            written.frames.push(*image);
            written.before.push(self.table.hash(image.page));
            written.hashed.push((image.page, PageHash::of(image.page, page)));
        }
        Ok(())
    }

    /// Moves the page table on.
    fn advance(
        &mut self,
        images: &[(PageNumber, PageHash)],
        pages: u32,
    ) -> Result<(), RecordError> {
        match &mut self.gap {
            Some(gap) if !gap.is_counted() => {
                for page in (pages + 1..=self.table.pages()).filter_map(PageNumber::new) {
                    gap.cut(page, self.table.hash(page));
                }
                self.table.resize(pages)?;
                gap.resize(pages);
                for &(page, hash) in images {
                    gap.write(page, self.table.hash(page), hash);
                    self.table.set(page, hash);
                }
            }
            _ => drop(self.table.advance(images, pages)?),
        }
        let written = || images.iter().map(|image| image.0);
        self.read_back.record(written());
        if let Some(passes) = &mut self.passes {
            passes.touch(written(), pages);
        }
        Ok(())
    }
}

/// What closed a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// What the record of it is.
    pub kind: TransactionKind,
    /// Pages in it.
    pub pages: usize,
}

fn header_of(
    line: &Segments,
    transaction: &Transaction,
    records: usize,
    state: StateHash,
    seen: Seen,
) -> Result<TransactionHeader, RecordError> {
    // A line may begin a fraction of a millisecond ahead of its clock.
    let time = seen.time.max(line.last_time());
    Ok(TransactionHeader {
        txid: line.last().next().ok_or(RecordError::TxidsExhausted)?,
        kind: TransactionKind::Commit,
        late: seen.late_since.is_some(),
        commits: 1,
        time,
        since: seen.late_since.unwrap_or(time).min(time),
        pages: transaction.pages,
        records: u32::try_from(records).unwrap_or(u32::MAX),
        state,
    })
}
