//! Records committed transactions: pages out of the WAL, through the page table, into segments.

use std::collections::HashSet;
use std::io;

use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::position::WalPosition;
use genesis_wal::scan::{FrameRef, Transaction};
use genesis_wal::segment::{EncodeError, SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;
use thiserror::Error;

use super::cursor::Doubt;
use super::ship::ShippingEnded;
use super::spool::{OpenSegment, Spool};
use super::table::PageTable;
use crate::sqlite::{FrameReader, Source, SourceError};

/// A part is cut when it has grown to this many bytes, within a transaction if need be.
const PART_BYTES: usize = 1 << 20;

/// Why a transaction was not recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It does not continue what was recorded.
    #[error("{0}")]
    Doubt(Doubt),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The spool cannot be written.
    #[error("cannot write the spool")]
    Spool(#[from] io::Error),
    /// The segment cannot be encoded.
    #[error("cannot encode a segment")]
    Encode(#[from] EncodeError),
    /// Nothing more is shipped.
    #[error(transparent)]
    Outbox(#[from] ShippingEnded),
    /// No transaction id is left.
    #[error("the last transaction id is used up")]
    TxidsExhausted,
}

/// When transactions were committed, as far as anybody can tell.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// The wall clock when they were seen.
    pub wall: Micros,
    /// Seen first after an absence: committed at this time or later.
    pub late_since: Option<Micros>,
}

/// The recorded state, and the segment that is open on it.
#[derive(Debug)]
pub struct Recorder {
    spool: Spool,
    stamp: Stamp,
    page_size: PageSize,
    table: PageTable,
    last: Txid,
    last_time: Micros,
    encoder: SegmentEncoder,
    open: Option<Open>,
    buffer: Vec<u8>,
    /// Pages recorded since the database file was last known to hold all of them.
    touched: HashSet<PageNumber>,
}

/// What a transaction wrote.
struct Images {
    hashed: Vec<(FrameRef, PageHash)>,
    /// The pages one after another; nothing when they are more than a part holds.
    pages: Vec<u8>,
}

#[derive(Debug)]
struct Open {
    first: Txid,
    segment: OpenSegment,
}

impl Recorder {
    /// A recorder of what follows transaction `last`, committed at `last_time`, whose pages `table`
    /// describes.
    #[must_use]
    pub fn new(
        spool: Spool,
        stamp: Stamp,
        page_size: PageSize,
        table: PageTable,
        last: Txid,
        last_time: Micros,
    ) -> Self {
        let encoder = SegmentEncoder::new(page_size, stamp, table.state());
        let (open, buffer, touched) = (None, Vec::new(), HashSet::new());
        Self { spool, stamp, page_size, table, last, last_time, encoder, open, buffer, touched }
    }

    /// The last transaction recorded.
    #[must_use]
    pub fn last(&self) -> Txid {
        self.last
    }

    /// When it was committed.
    #[must_use]
    pub fn last_time(&self) -> Micros {
        self.last_time
    }

    /// Bytes recorded since the last [`seal`](Self::seal).
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.segment.len()) + self.encoder.len() as u64
    }

    /// Records a transaction; `position` is the place after it.
    ///
    /// # Errors
    /// [`RecordError`]. After [`RecordError::Doubt`] nothing of this transaction is recorded, and this
    /// recorder is of use only to [`seal`](Self::seal) what was recorded before.
    pub fn record(
        &mut self,
        transaction: &Transaction,
        position: WalPosition,
        frames: &mut FrameReader<'_>,
        seen: Seen,
    ) -> Result<(), RecordError> {
        let images = self.read_images(transaction, frames)?;
        let before = self.table.state();
        let header = self.advance(transaction, &images.hashed, seen)?;
        if self.open.is_none() {
            self.open = Some(Open { first: header.txid, segment: self.spool.begin()? });
        }
        // A transaction of several parts begins with one, so that it can be taken back.
        let mark = if images.pages.is_empty() { Some(self.cut()?) } else { None };
        let encoded = self.encode(header, position, &images, frames);
        if let (Err(RecordError::Doubt(_)), Some(mark)) = (&encoded, mark) {
            self.take_back(mark, before)?;
        }
        encoded?;
        self.touched.extend(images.hashed.iter().map(|(image, _)| image.page));
        self.last = header.txid;
        self.last_time = header.time;
        Ok(())
    }

    /// Pages that the database file does not hold as they were recorded. To be asked when everything
    /// recorded has been backfilled, and nothing else can be.
    ///
    /// # Errors
    /// When the file cannot be read; the pages are looked at again then.
    pub fn misplaced(&mut self, source: &Source) -> Result<Vec<PageNumber>, SourceError> {
        let mut buffer = vec![0; self.page_size.bytes()];
        let mut misplaced = Vec::new();
        for &page in &self.touched {
            let Some(recorded) = self.table.hash(page) else { continue };
            source.read_page(page, &mut buffer)?;
            if PageHash::of(page, &buffer) != recorded {
                misplaced.push(page);
            }
        }
        self.touched.clear();
        Ok(misplaced)
    }

    /// Ends the open segment and puts it into the spool; `None` when nothing was recorded.
    ///
    /// # Errors
    /// When the spool cannot be written.
    pub fn seal(&mut self) -> Result<Option<SegmentName>, RecordError> {
        self.encoder.finish(&mut self.buffer)?;
        self.flush()?;
        let Some(Open { first, segment }) = self.open.take() else {
            return Ok(None);
        };
        let name = SegmentName {
            generation: self.stamp.generation,
            level: 0,
            first,
            last: self.last,
            time: self.last_time.ceil_millis(),
            epoch: self.stamp.epoch,
            repair: 0,
        };
        segment.seal(&name)?;
        Ok(Some(name))
    }

    /// The images of a transaction with their hashes, and the pages themselves where they fit one
    /// part: what was read is then encoded without reading again.
    fn read_images(
        &self,
        transaction: &Transaction,
        frames: &mut FrameReader<'_>,
    ) -> Result<Images, RecordError> {
        let fits = transaction.images.len() * self.page_size.bytes() <= PART_BYTES;
        let hashed = Vec::with_capacity(transaction.images.len());
        let mut images = Images { hashed, pages: Vec::new() };
        let lock_page = self.page_size.lock_page();
        // The frames of a transaction lie together: the window is set once, at the first of them.
        if let Some(first) = transaction.images.iter().map(|image| image.frame).min() {
            frames.frames_from(first)?;
        }
        for image in transaction.images.iter().filter(|image| image.page != lock_page) {
            let page = page_of(frames, image.frame)?;
            images.hashed.push((*image, PageHash::of(image.page, page)));
            if fits {
                images.pages.extend_from_slice(page);
            }
        }
        Ok(images)
    }

    fn encode(
        &mut self,
        header: TransactionHeader,
        position: WalPosition,
        images: &Images,
        frames: &mut FrameReader<'_>,
    ) -> Result<(), RecordError> {
        self.encoder.begin(header, Some(position))?;
        let mut read = images.pages.chunks_exact(self.page_size.bytes());
        for (image, hash) in &images.hashed {
            match read.next() {
                Some(page) => self.encoder.page(image.page, *hash, page)?,
                None => self.encoder.page(image.page, *hash, page_of(frames, image.frame)?)?,
            }
            if self.encoder.len() >= PART_BYTES {
                self.cut()?;
            }
        }
        Ok(())
    }

    /// Drops everything that was encoded since the segment had `mark` bytes.
    fn take_back(&mut self, mark: u64, before: StateHash) -> Result<(), RecordError> {
        self.encoder = SegmentEncoder::new(self.page_size, self.stamp, before);
        self.buffer.clear();
        match &mut self.open {
            Some(open) if mark > 0 => Ok(open.segment.truncate(mark)?),
            _ => {
                self.open = None;
                Ok(())
            }
        }
    }

    /// Moves the page table on and describes the transaction.
    fn advance(
        &mut self,
        transaction: &Transaction,
        images: &[(FrameRef, PageHash)],
        seen: Seen,
    ) -> Result<TransactionHeader, RecordError> {
        let txid = self.last.next().ok_or(RecordError::TxidsExhausted)?;
        let hashes = images.iter().map(|(image, hash)| (image.page, *hash));
        let state = self.table.advance(hashes, transaction.pages);
        let state = state.map_err(|page| RecordError::Doubt(Doubt::MissingPage(page)))?;
        // The wall clock may be set back; recorded times never go back.
        let time = seen.wall.max(self.last_time);
        Ok(TransactionHeader {
            txid,
            kind: TransactionKind::Commit,
            late: seen.late_since.is_some(),
            commits: 1,
            time,
            since: seen.late_since.unwrap_or(time).min(time),
            pages: transaction.pages,
            records: u32::try_from(images.len()).unwrap_or(u32::MAX),
            state,
        })
    }

    /// Ends the part; bytes in the segment with it.
    fn cut(&mut self) -> Result<u64, RecordError> {
        self.encoder.cut(&mut self.buffer)?;
        self.flush()?;
        Ok(self.open.as_ref().map_or(0, |open| open.segment.len()))
    }

    fn flush(&mut self) -> Result<(), RecordError> {
        if let Some(open) = &mut self.open {
            open.segment.append(&self.buffer)?;
        }
        self.buffer.clear();
        Ok(())
    }
}

fn page_of<'a>(frames: &'a mut FrameReader<'_>, frame: u32) -> Result<&'a [u8], RecordError> {
    frames.page(frame)?.ok_or(RecordError::Doubt(Doubt::Vanished(frame)))
}
