//! Records committed transactions: pages out of the WAL, through the page table, into segments.

use std::io;

use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;
use genesis_wal::page::{PageHash, PageSize};
use genesis_wal::part::Stamp;
use genesis_wal::position::WalPosition;
use genesis_wal::scan::{FrameRef, Transaction};
use genesis_wal::segment::{EncodeError, SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;
use thiserror::Error;

use super::cursor::Doubt;
use super::spool::{OpenSegment, Spool};
use super::table::PageTable;
use crate::sqlite::{FrameReader, SourceError};

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
        let (open, buffer) = (None, Vec::new());
        Self { spool, stamp, page_size, table, last, last_time, encoder, open, buffer }
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

    /// Records a transaction; `position` is the place behind it.
    ///
    /// # Errors
    /// [`RecordError`]; after an error this recorder is of no more use but to [`seal`](Self::seal)
    /// what was recorded before.
    pub fn record(
        &mut self,
        transaction: &Transaction,
        position: WalPosition,
        frames: &mut FrameReader<'_>,
        seen: Seen,
    ) -> Result<(), RecordError> {
        let lock_page = self.page_size.lock_page();
        let mut images = Vec::with_capacity(transaction.images.len());
        for image in transaction.images.iter().filter(|image| image.page != lock_page) {
            images.push((*image, PageHash::of(image.page, page_of(frames, image.frame)?)));
        }
        let header = self.advance(transaction, &images, seen)?;
        if self.open.is_none() {
            self.open = Some(Open { first: header.txid, segment: self.spool.begin()? });
        }
        self.encoder.begin(header, Some(position))?;
        for (image, hash) in images {
            self.encoder.page(image.page, hash, page_of(frames, image.frame)?)?;
            if self.encoder.len() >= PART_BYTES {
                self.cut()?;
            }
        }
        self.last = header.txid;
        self.last_time = header.time;
        Ok(())
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
        };
        segment.seal(&name)?;
        Ok(Some(name))
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

    fn cut(&mut self) -> Result<(), RecordError> {
        self.encoder.cut(&mut self.buffer)?;
        self.flush()
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
