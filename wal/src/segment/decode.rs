//! The decoder of segments.

use smallvec::SmallVec;
use thiserror::Error;

use super::encoding::{Encoding, HALF};
use super::{
    BadTransaction, FLAG_LATE, FRAGMENT_LEN, RECORD_LEN, TransactionHeader, TransactionKind,
};
use crate::id::Txid;
use crate::page::{PageHash, PageNumber, PageSize, StateHash};
use crate::part::{Part, PartKind};
use crate::reader::{ReadError, Reader};
use crate::time::Micros;

/// Why the payload of a part holds no transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// The part holds something else.
    #[error("the part is no part of a segment")]
    WrongKind,
    /// The payload ends within a fragment or a record.
    #[error("the payload is cut off")]
    Truncated(#[from] ReadError),
    /// A kind of transaction that this program does not know.
    #[error("transaction kind {0} is not known to this program")]
    UnknownKind(u8),
    /// Flags of a transaction that this program does not know.
    #[error("transaction flags {0:#06x} are not known to this program")]
    UnknownFlags(u32),
    /// A transaction says of itself what none may.
    #[error(transparent)]
    BadTransaction(#[from] BadTransaction),
    /// A page encoding that this program does not know.
    #[error("page encoding {0} is not known to this program")]
    UnknownEncoding(u8),
    /// The transactions are not those that the part's header announces.
    #[error("transaction {0} has no place in this part")]
    OutOfSequence(Txid),
    /// More page records than the transaction or the payload has, or none where some must be.
    #[error("transaction {0} announces page records that it does not have")]
    BadCount(Txid),
    /// A page out of order, outside the database or at the lock page.
    #[error("page {0} has no place in its transaction")]
    BadPage(u32),
    /// The stored image has a length that its encoding does not allow, or does not unpack to exactly
    /// a page.
    #[error("the image of page {0} does not unpack")]
    BadImage(PageNumber),
    /// The image unpacks to another page than was stored.
    #[error("the image of page {0} does not have its hash")]
    BadHash(PageNumber),
    /// A delta in a transaction that may have none, or of a page that was not there before.
    #[error("the image of page {0} builds on an earlier one, and there is none")]
    NoBase(PageNumber),
}

/// A transaction, or the piece of one that stands in one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment<'a> {
    /// The transaction.
    pub header: TransactionHeader,
    /// The place of the first page here among all of the transaction, from 0.
    pub first_record: u32,
    /// The pages here, ascending. Most transactions have few.
    pub pages: SmallVec<[PageRecord<'a>; 3]>,
}

impl Fragment<'_> {
    /// Whether the transaction ends with this fragment.
    #[must_use]
    pub fn is_last(&self) -> bool {
        let here = u32::try_from(self.pages.len()).unwrap_or(u32::MAX);
        self.first_record.checked_add(here) == Some(self.header.records)
    }
}

/// The stored image of one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRecord<'a> {
    /// The page.
    pub number: PageNumber,
    /// The hash of the page that the image unpacks to.
    pub hash: PageHash,
    encoding: Encoding,
    stored: &'a [u8],
}

impl<'a> PageRecord<'a> {
    /// Bytes of the image as stored.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.stored.len()
    }

    /// The image as stored.
    #[must_use]
    pub fn stored(&self) -> &'a [u8] {
        self.stored
    }

    /// The same record over another copy of the image as stored, so that it can outlive its part.
    /// Other bytes are noticed by [`unpack`](Self::unpack).
    #[must_use]
    pub fn over<'b>(&self, stored: &'b [u8]) -> PageRecord<'b> {
        PageRecord { number: self.number, hash: self.hash, encoding: self.encoding, stored }
    }

    /// Whether it takes the page's base to unpack it: its bytes in the state before the transaction.
    #[must_use]
    pub fn is_delta(&self) -> bool {
        self.encoding.is_delta()
    }

    /// Unpacks the page into `out`, which is a page long, and proves its hash. A full image does not
    /// look at `base`, and any other base than a delta's own is noticed.
    ///
    /// # Errors
    /// [`SegmentError::NoBase`], [`SegmentError::BadImage`] or [`SegmentError::BadHash`]; `out` holds
    /// no page then.
    pub fn unpack(&self, base: Option<&[u8]>, out: &mut [u8]) -> Result<(), SegmentError> {
        let base = base.filter(|base| base.len() == out.len());
        if self.is_delta() && base.is_none() {
            return Err(SegmentError::NoBase(self.number));
        }
        let unpacked = self.encoding.unpack(self.stored, base.unwrap_or_default(), out);
        unpacked.ok_or(SegmentError::BadImage(self.number))?;
        if PageHash::of(self.number, out) == self.hash {
            Ok(())
        } else {
            Err(SegmentError::BadHash(self.number))
        }
    }
}

impl Encoding {
    /// Unpacks exactly `out`; `None` when the image is not one of that length.
    fn unpack(self, stored: &[u8], base: &[u8], out: &mut [u8]) -> Option<()> {
        match self {
            Self::Raw if stored.len() == out.len() => {
                out.copy_from_slice(stored);
                Some(())
            }
            Self::Raw => None,
            Self::Lz4 => {
                let len = lz4_flex::block::decompress_into(stored, out).ok()?;
                (len == out.len()).then_some(())
            }
            Self::Delta => unpack_delta(stored, base, out),
            Self::Halves => {
                let (first_len, blocks) = stored.split_first_chunk::<2>()?;
                let first_len = usize::from(u16::from_le_bytes(*first_len));
                let (first, second) = blocks.split_at_checked(first_len)?;
                let (base_first, base_second) = base.split_at_checked(HALF)?;
                let (out_first, out_second) = out.split_at_mut_checked(HALF)?;
                unpack_delta(first, base_first, out_first)?;
                unpack_delta(second, base_second, out_second)
            }
        }
    }
}

fn unpack_delta(stored: &[u8], base: &[u8], out: &mut [u8]) -> Option<()> {
    let len = lz4_flex::block::decompress_into_with_dict(stored, out, base).ok()?;
    (len == out.len()).then_some(())
}

/// The fragments of a part, in order. After an error nothing more comes.
pub fn fragments<'a>(
    part: &Part<'a>,
) -> impl Iterator<Item = Result<Fragment<'a>, SegmentError>> + use<'a> {
    let mut decoder = Some(Decoder {
        page_size: part.header.page_size,
        expected: Some(part.header.first),
        first: part.header.first,
        last: part.header.last,
        kind: part.header.kind,
        time: None,
        open: false,
        rest: Reader::new(part.payload),
    });
    std::iter::from_fn(move || {
        let fragment = decoder.as_mut()?.next_fragment().transpose();
        if !matches!(fragment, Some(Ok(_))) {
            decoder = None;
        }
        fragment
    })
}

struct Decoder<'a> {
    page_size: PageSize,
    /// The transaction that must come next; `None` after the last possible id.
    expected: Option<Txid>,
    first: Txid,
    last: Txid,
    kind: PartKind,
    /// When the transaction before was committed.
    time: Option<Micros>,
    /// The fragment before leaves its transaction unfinished: nothing may follow in this part.
    open: bool,
    rest: Reader<'a>,
}

impl<'a> Decoder<'a> {
    fn next_fragment(&mut self) -> Result<Option<Fragment<'a>>, SegmentError> {
        if self.kind != PartKind::Segment {
            return Err(SegmentError::WrongKind);
        }
        if self.rest.rest().is_empty() {
            return match self.expected {
                Some(missing) if missing <= self.last => Err(SegmentError::OutOfSequence(missing)),
                _ => Ok(None),
            };
        }
        let (header, first_record, count) = decode_header(&mut self.rest)?;
        header.check(self.time)?;
        let txid = header.txid;
        let continues = first_record > 0;
        let in_sequence = self.expected == Some(txid) && txid <= self.last && !self.open;
        if !in_sequence || (continues && txid != self.first) {
            return Err(SegmentError::OutOfSequence(txid));
        }
        let end = first_record.checked_add(count).filter(|&end| end <= header.records);
        let end = end.ok_or(SegmentError::BadCount(txid))?;
        let is_empty = count == 0 && header.records > 0;
        if is_empty || (self.rest.rest().len() / RECORD_LEN) < count as usize {
            return Err(SegmentError::BadCount(txid));
        }
        let pages = self.decode_pages(&header, count)?;
        self.open = end < header.records;
        self.time = Some(header.time);
        self.expected = txid.next();
        Ok(Some(Fragment { header, first_record, pages }))
    }

    fn decode_pages(
        &mut self,
        header: &TransactionHeader,
        count: u32,
    ) -> Result<SmallVec<[PageRecord<'a>; 3]>, SegmentError> {
        let mut pages: SmallVec<[PageRecord<'a>; 3]> = SmallVec::with_capacity(count as usize);
        for _ in 0..count {
            let record = decode_record(&mut self.rest, self.page_size)?;
            let fits = pages.last().is_none_or(|before| before.number < record.number)
                && record.number.get() <= header.pages
                && record.number != self.page_size.lock_page();
            if !fits {
                return Err(SegmentError::BadPage(record.number.get()));
            }
            if record.is_delta() && header.kind != TransactionKind::Commit {
                return Err(SegmentError::NoBase(record.number));
            }
            pages.push(record);
        }
        Ok(pages)
    }
}

fn decode_header(reader: &mut Reader<'_>) -> Result<(TransactionHeader, u32, u32), SegmentError> {
    let mut reader = Reader::new(reader.take(FRAGMENT_LEN)?);
    let txid = Txid(reader.u64()?);
    let kind = reader.u8()?;
    let kind = TransactionKind::from_code(kind).ok_or(SegmentError::UnknownKind(kind))?;
    let [flags, reserved_low, reserved_high] = reader.array()?;
    let unknown = u32::from_le_bytes([flags & !FLAG_LATE, reserved_low, reserved_high, 0]);
    if unknown != 0 {
        return Err(SegmentError::UnknownFlags(unknown));
    }
    let commits = reader.u32()?;
    let (time, since) = (Micros(reader.u64()?), Micros(reader.u64()?));
    let (pages, records) = (reader.u32()?, reader.u32()?);
    let (first_record, count) = (reader.u32()?, reader.u32()?);
    let state = StateHash(reader.u64()?);
    let late = flags & FLAG_LATE != 0;
    let header =
        TransactionHeader { txid, kind, late, commits, time, since, pages, records, state };
    Ok((header, first_record, count))
}

fn decode_record<'a>(
    reader: &mut Reader<'a>,
    page_size: PageSize,
) -> Result<PageRecord<'a>, SegmentError> {
    let number = PageNumber::new(reader.u32()?).ok_or(SegmentError::BadPage(0))?;
    let encoding = reader.u8()?;
    let encoding = Encoding::from_code(encoding).ok_or(SegmentError::UnknownEncoding(encoding))?;
    let stored_len = usize::from(reader.u16()?) + 1;
    if !encoding.fits(stored_len, page_size) {
        return Err(SegmentError::BadImage(number));
    }
    let hash = PageHash(reader.u64()?);
    Ok(PageRecord { number, hash, encoding, stored: reader.take(stored_len)? })
}
