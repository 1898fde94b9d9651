//! The encoder of segments.

use thiserror::Error;

use super::encoding::Encoding;
use super::packer::Packer;
use super::{
    BadTransaction, FLAG_LATE, FRAGMENT_LEN, RECORD_LEN, TransactionHeader, TransactionKind,
};
use crate::id::Txid;
use crate::page::{PageHash, PageNumber, PageSize, StateHash};
use crate::part::{self, PartError, PartHeader, PartKind, Stamp};
use crate::position::WalPosition;

/// A call that would have written a segment that no decoder takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The part could not be put into its envelope.
    #[error("the part does not fit its envelope")]
    Part(#[from] PartError),
    /// The transaction says of itself what none may.
    #[error(transparent)]
    BadTransaction(#[from] BadTransaction),
    /// The transaction does not follow the one before.
    #[error("transaction {found} does not follow transaction {before}")]
    OutOfSequence {
        /// The transaction before.
        before: Txid,
        /// The transaction offered.
        found: Txid,
    },
    /// A page or a part was offered where no transaction is open, or one is still open.
    #[error("{records} page records are missing from transaction {txid}")]
    Incomplete {
        /// The open transaction.
        txid: Txid,
        /// Records that were announced and have not come.
        records: u32,
    },
    /// A page out of order, outside the database, or not of the database's page size.
    #[error("page {0} has no place in this transaction")]
    BadPage(PageNumber),
    /// A base that is not a page long, or one in a transaction that is no commit.
    #[error("page {0} can't be stored as a delta here")]
    BadBase(PageNumber),
    /// A page after the announced number of records.
    #[error("a page was offered where no transaction is open")]
    NotOpen,
}

/// How a page was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// By itself.
    Full,
    /// As the difference to its base.
    Delta,
}

/// The image of a page as it is stored, packed apart from the segment that it goes into: on whichever
/// thread there is.
#[derive(Debug, Clone)]
pub struct PackedPage {
    page_size: PageSize,
    encoding: Encoding,
    stored: Vec<u8>,
}

impl PackedPage {
    /// Packs an image, with a `base` as a delta to that where that pays, as [`SegmentEncoder::page`]
    /// does; `None` where one of them is not a page long.
    #[must_use]
    pub fn new(
        packer: &mut Packer,
        page_size: PageSize,
        image: &[u8],
        base: Option<&[u8]>,
    ) -> Option<Self> {
        let is_page = |bytes: &[u8]| bytes.len() == page_size.bytes();
        if !is_page(image) || !base.is_none_or(is_page) {
            return None;
        }
        let (encoding, stored) = packer.pack(page_size, image, base);
        Some(Self { page_size, encoding, stored: stored.to_vec() })
    }
}

/// Encodes transactions into the parts of a segment.
///
/// For each transaction: [`begin`](Self::begin), then [`page`](Self::page) for each page in
/// ascending order. Whenever [`len`](Self::len) is large enough, [`cut`](Self::cut) yields a part.
#[derive(Debug)]
pub struct SegmentEncoder {
    page_size: PageSize,
    stamp: Stamp,
    last: Option<Current>,
    part: Option<OpenPart>,
    /// The memory for the next part's payload.
    spare: Vec<u8>,
    before: StateHash,
    stored: Option<Txid>,
    packer: Packer,
}

/// The newest transaction: open while fewer records have come than were announced.
#[derive(Debug, Clone, Copy)]
struct Current {
    header: TransactionHeader,
    /// The state before the transaction.
    before: StateHash,
    position: Option<WalPosition>,
    written: u32,
    last_page: Option<PageNumber>,
}

/// The part that is being written: it holds at least one fragment.
#[derive(Debug)]
struct OpenPart {
    first: Txid,
    /// The state before the first transaction.
    before: StateHash,
    last: Txid,
    /// The state and the place in the WAL after the last transaction.
    after: StateHash,
    position: Option<WalPosition>,
    payload: Vec<u8>,
    /// Where the count of the newest fragment stands in the payload, and what it is.
    count_at: usize,
    count: u32,
}

impl SegmentEncoder {
    /// An encoder for what follows the state `before`.
    #[must_use]
    pub fn new(page_size: PageSize, stamp: Stamp, before: StateHash) -> Self {
        let (last, part, stored) = (None, None, None);
        let (spare, packer) = (Vec::new(), Packer::default());
        Self { page_size, stamp, last, part, spare, before, stored, packer }
    }

    /// Bytes that wait for the next [`cut`](Self::cut).
    #[must_use]
    pub fn len(&self) -> usize {
        self.part.as_ref().map_or(0, |part| part.payload.len())
    }

    /// Whether nothing waits for a [`cut`](Self::cut).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.part.is_none()
    }

    /// Begins a transaction. `position` is the place in the WAL after it.
    ///
    /// # Errors
    /// [`EncodeError::BadTransaction`], [`EncodeError::OutOfSequence`] or [`EncodeError::Incomplete`]; nothing
    /// is written then.
    pub fn begin(
        &mut self,
        header: TransactionHeader,
        position: Option<WalPosition>,
    ) -> Result<(), EncodeError> {
        if let Some(last) = self.last {
            last.ended()?;
            if last.header.txid.next() != Some(header.txid) {
                let (before, found) = (last.header.txid, header.txid);
                return Err(EncodeError::OutOfSequence { before, found });
            }
        }
        header.check(self.last.map(|last| last.header.time))?;
        let before = self.last.map_or(self.before, |last| last.header.state);
        let current = Current { header, before, position, written: 0, last_page: None };
        self.last = Some(current);
        // A fragment begins with its first page, as a cut may come before that.
        if header.records == 0 {
            self.open_fragment(&current);
        }
        Ok(())
    }

    /// Adds the image of a page to the open transaction. With a `base` it is stored as a delta where
    /// that pays: only a commit may have one, and it must be the page's bytes in the state before this
    /// transaction.
    ///
    /// # Errors
    /// [`EncodeError::NotOpen`], [`EncodeError::BadPage`] or [`EncodeError::BadBase`]; nothing is written
    /// then.
    pub fn page(
        &mut self,
        number: PageNumber,
        hash: PageHash,
        image: &[u8],
        base: Option<&[u8]>,
    ) -> Result<Stored, EncodeError> {
        if base.is_some_and(|base| base.len() != image.len()) {
            return Err(EncodeError::BadBase(number));
        }
        let mut packer = std::mem::take(&mut self.packer);
        let (encoding, stored) = packer.pack(self.page_size, image, base);
        let record = Record { number, hash, encoding, stored };
        let added = self.add(&record, image.len(), base.is_some());
        self.packer = packer;
        added
    }

    /// Adds a page that was [packed](PackedPage::new) before. Else as [`page`](Self::page).
    ///
    /// # Errors
    /// As there; nothing is written then.
    pub fn packed_page(
        &mut self,
        number: PageNumber,
        hash: PageHash,
        page: &PackedPage,
    ) -> Result<Stored, EncodeError> {
        let PackedPage { page_size, encoding, ref stored } = *page;
        let record = Record { number, hash, encoding, stored };
        self.add(&record, page_size.bytes(), encoding.is_delta())
    }

    /// Adds the record of a page so many bytes long to the open transaction.
    fn add(
        &mut self,
        record: &Record<'_>,
        len: usize,
        has_base: bool,
    ) -> Result<Stored, EncodeError> {
        let number = record.number;
        let mut current = self.last.ok_or(EncodeError::NotOpen)?;
        if current.written == current.header.records {
            return Err(EncodeError::NotOpen);
        }
        let fits = current.last_page < Some(number)
            && number.get() <= current.header.pages
            && number != self.page_size.lock_page()
            && len == self.page_size.bytes();
        if !fits {
            return Err(EncodeError::BadPage(number));
        }
        if has_base && current.header.kind != TransactionKind::Commit {
            return Err(EncodeError::BadBase(number));
        }
        if self.part.is_none() || current.written == 0 {
            self.open_fragment(&current);
        }
        current.written += 1;
        current.last_page = Some(number);
        self.last = Some(current);
        let Some(part) = &mut self.part else {
            return Err(EncodeError::NotOpen);
        };
        part.count += 1;
        record.append_to(&mut part.payload);
        Ok(if record.encoding.is_delta() { Stored::Delta } else { Stored::Full })
    }

    /// Says up to which transaction everything is stored, for the parts that end from here on.
    pub fn tell_stored(&mut self, stored: Txid) {
        self.stored = Some(stored);
    }

    /// Ends the part, and appends it to `out`. The open transaction goes on in the next one. Nothing
    /// happens when nothing waits.
    ///
    /// # Errors
    /// [`EncodeError::Part`] when the part grew over the limit of its envelope.
    pub fn cut(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Some(mut part) = self.part.take() else {
            return Ok(());
        };
        part.patch_count();
        let header = PartHeader {
            kind: PartKind::Segment,
            page_size: self.page_size,
            stamp: self.stamp,
            first: part.first,
            last: part.last,
            position: part.position,
            stored: self.stored,
            before: part.before,
            after: part.after,
        };
        let encoded = part::encode(&header, &part.payload, out);
        part.payload.clear();
        self.spare = part.payload;
        Ok(encoded?)
    }

    /// Ends the segment: cuts the last part.
    ///
    /// # Errors
    /// [`EncodeError::Incomplete`] when a transaction is still open.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(last) = self.last {
            last.ended()?;
        }
        self.cut(out)
    }

    fn open_fragment(&mut self, current: &Current) {
        let part = self.part.get_or_insert_with(|| OpenPart {
            first: current.header.txid,
            before: current.before,
            last: current.header.txid,
            after: current.header.state,
            position: current.position,
            payload: std::mem::take(&mut self.spare),
            count_at: 0,
            count: 0,
        });
        part.patch_count();
        part.last = current.header.txid;
        part.after = current.header.state;
        part.position = current.position;
        part.count = 0;
        part.count_at = part.payload.len() + FRAGMENT_LEN - 12;
        append_fragment(&mut part.payload, &current.header, current.written);
    }
}

impl Current {
    fn ended(&self) -> Result<(), EncodeError> {
        match self.header.records - self.written {
            0 => Ok(()),
            records => Err(EncodeError::Incomplete { txid: self.header.txid, records }),
        }
    }
}

impl OpenPart {
    fn patch_count(&mut self) {
        if let Some(place) = self.payload.get_mut(self.count_at..self.count_at + 4)
            && self.count_at > 0
        {
            place.copy_from_slice(&self.count.to_le_bytes());
        }
    }
}

fn append_fragment(out: &mut Vec<u8>, header: &TransactionHeader, first_record: u32) {
    let flags = if header.late { FLAG_LATE } else { 0 };
    out.extend_from_slice(&header.txid.0.to_le_bytes());
    out.extend_from_slice(&[header.kind.code(), flags, 0, 0]);
    out.extend_from_slice(&header.commits.to_le_bytes());
    out.extend_from_slice(&header.time.0.to_le_bytes());
    out.extend_from_slice(&header.since.0.to_le_bytes());
    for number in [header.pages, header.records, first_record, 0] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&header.state.0.to_le_bytes());
}

/// The record of a page.
struct Record<'a> {
    number: PageNumber,
    hash: PageHash,
    encoding: Encoding,
    stored: &'a [u8],
}

impl Record<'_> {
    fn append_to(&self, out: &mut Vec<u8>) {
        let stored = self.stored;
        let less_one = u16::try_from(stored.len().saturating_sub(1)).unwrap_or(u16::MAX);
        out.reserve(RECORD_LEN + stored.len());
        out.extend_from_slice(&self.number.get().to_le_bytes());
        out.push(self.encoding.code());
        out.extend_from_slice(&less_one.to_le_bytes());
        out.extend_from_slice(&self.hash.0.to_le_bytes());
        out.extend_from_slice(stored);
    }
}
