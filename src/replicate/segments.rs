//! Segments on one line of history, as they are encoded and sealed in the spool.

use std::convert::Infallible;
use std::io;

use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::position::WalPosition;
use genesis_wal::segment::{
    EncodeError, SegmentEncoder, Stored, TransactionHeader, TransactionKind,
};
use genesis_wal::time::Micros;
use thiserror::Error;

use super::packing::Batch;
use super::spool::{OpenSegment, Spool};

/// A part is cut when it has grown to this many bytes, within a transaction if need be.
pub const PART_BYTES: usize = 1 << 20;

/// Why a transaction did not go into a segment. Nothing of it is in one then.
#[derive(Debug, Error)]
pub enum SegmentsError<E> {
    /// The spool cannot be written.
    #[error("cannot write the spool")]
    Spool(#[source] io::Error),
    /// The segment cannot be encoded.
    #[error("cannot encode a segment")]
    Encode(#[source] EncodeError),
    /// A page could not be had.
    #[error("cannot read a page")]
    Image(#[source] E),
}

/// Where the images of a transaction's pages come from.
pub trait Images {
    /// Why one could not be had.
    type Error;

    /// The image of a page, which is the transaction's page number `index`, from 0.
    ///
    /// # Errors
    /// When it cannot be had.
    fn image(&mut self, index: usize, page: PageNumber) -> Result<Image<'_>, Self::Error>;

    /// Learns how the image of a page, the transaction's page number `index`, was stored.
    fn stored(&mut self, index: usize, page: PageNumber, stored: Stored);
}

/// The image of a page.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// The page.
    pub bytes: &'a [u8],
    /// The page in the state before, where it may be stored as a delta to that.
    pub base: Option<&'a [u8]>,
}

/// The end of a line of history, and the segment that is open on it.
#[derive(Debug)]
pub struct Segments {
    spool: Spool,
    stamp: Stamp,
    page_size: PageSize,
    /// The last transaction in a sealed segment.
    sealed: Txid,
    /// The last recorded transaction.
    last: Txid,
    last_time: Micros,
    state: StateHash,
    encoder: SegmentEncoder,
    open: Option<Open>,
    /// Parts that are complete and not in the spool yet.
    complete: Vec<u8>,
    /// The last transaction in them, where they end with a whole one.
    completed: Option<(Txid, Micros)>,
}

#[derive(Debug)]
struct Open {
    first: Txid,
    segment: OpenSegment,
    /// The last whole transaction that is written, and the bytes to its end.
    written: Option<(Txid, Micros, u64)>,
}

impl Segments {
    /// Segments of what follows transaction `last`, whose state is `state`.
    #[must_use]
    pub fn new(
        spool: Spool,
        stamp: Stamp,
        page_size: PageSize,
        (last, last_time, state): (Txid, Micros, StateHash),
    ) -> Self {
        let encoder = SegmentEncoder::new(page_size, stamp, state);
        let (open, complete, completed) = (None, Vec::new(), None);
        let sealed = last;
        Self {
            spool,
            stamp,
            page_size,
            sealed,
            last,
            last_time,
            state,
            encoder,
            open,
            complete,
            completed,
        }
    }

    /// The line, and who writes it.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// The last recorded transaction.
    #[must_use]
    pub fn last(&self) -> Txid {
        self.last
    }

    /// When it was committed.
    #[must_use]
    pub fn last_time(&self) -> Micros {
        self.last_time
    }

    /// The state after it.
    #[must_use]
    pub fn state(&self) -> StateHash {
        self.state
    }

    /// Bytes since the last [`seal`](Self::seal).
    #[must_use]
    pub fn waiting(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, |open| open.segment.len());
        open + (self.complete.len() + self.encoder.len()) as u64
    }

    /// Appends a transaction whose pages, ascending, are `pages`.
    ///
    /// # Errors
    /// [`SegmentsError`]; nothing of the transaction is recorded then.
    pub fn append<I: Images>(
        &mut self,
        header: TransactionHeader,
        position: Option<WalPosition>,
        pages: &[(PageNumber, PageHash)],
        images: &mut I,
    ) -> Result<(), SegmentsError<I::Error>> {
        if self.open.is_none() {
            self.begin().map_err(SegmentsError::Spool)?;
        }
        self.flush().map_err(SegmentsError::Spool)?;
        // A transaction of several parts, or one whose images may fail to be had, begins with a part,
        // so that it can be taken back.
        let long = header.kind != TransactionKind::Commit
            || pages.len() * self.page_size.bytes() > PART_BYTES;
        let mark = if long { Some(self.mark().map_err(lift)?) } else { None };
        if let Err(error) = self.encode(header, position, pages, images, long) {
            self.take_back(mark);
            return Err(error);
        }
        (self.last, self.last_time, self.state) = (header.txid, header.time, header.state);
        // Its last page may have ended a part, which is written.
        if self.encoder.is_empty()
            && self.complete.is_empty()
            && let Some(open) = &mut self.open
        {
            open.written = Some((header.txid, header.time, open.segment.len()));
        }
        Ok(())
    }

    /// Ends the open segment and puts it into the spool; `None` when nothing was recorded. Where the rest
    /// of it cannot be written, what is written is sealed, and the rest begins the next.
    ///
    /// # Errors
    /// When the spool cannot be written; it can be tried again.
    pub fn seal(&mut self) -> Result<Option<SegmentName>, SegmentsError<Infallible>> {
        self.tell_stored();
        self.encoder.finish(&mut self.complete).map_err(SegmentsError::Encode)?;
        if !self.complete.is_empty() {
            self.completed = Some((self.last, self.last_time));
        }
        let flushed = self.flush().map_err(SegmentsError::Spool);
        match self.seal_written()? {
            None => flushed.map(|()| None),
            sealed => Ok(sealed),
        }
    }

    /// Seals the open segment, where what is written of it ends with a whole transaction.
    fn seal_written(&mut self) -> Result<Option<SegmentName>, SegmentsError<Infallible>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let len = open.segment.len();
        let Some((last, time, _)) = open.written.filter(|written| written.2 == len) else {
            self.open = Some(open).filter(|_| len > 0);
            return Ok(None);
        };
        let name = SegmentName {
            generation: self.stamp.generation,
            level: 0,
            first: open.first,
            last,
            time: time.ceil_millis(),
            epoch: self.stamp.epoch,
            repair: 0,
        };
        match open.segment.seal(&name) {
            Ok(()) => {
                self.sealed = last;
                Ok(Some(name))
            }
            Err((segment, error)) => {
                self.open = Some(Open { segment, ..open });
                Err(SegmentsError::Spool(error))
            }
        }
    }

    /// Has the parts that end now tell what is stored.
    fn tell_stored(&mut self) {
        let before_waiting =
            self.spool.first_waiting().map(|first| Txid(first.0.saturating_sub(1)));
        self.encoder.tell_stored(self.sealed.min(before_waiting.unwrap_or(self.sealed)));
    }

    /// Begins the next segment.
    fn begin(&mut self) -> io::Result<()> {
        let first = self.sealed.next().unwrap_or(self.sealed);
        self.open = Some(Open { first, segment: self.spool.begin()?, written: None });
        Ok(())
    }

    fn encode<I: Images>(
        &mut self,
        header: TransactionHeader,
        position: Option<WalPosition>,
        pages: &[(PageNumber, PageHash)],
        images: &mut I,
        long: bool,
    ) -> Result<(), SegmentsError<I::Error>> {
        self.encoder.begin(header, position).map_err(SegmentsError::Encode)?;
        if long {
            self.encode_together(pages, images)?;
        } else {
            for (index, &(page, hash)) in pages.iter().enumerate() {
                let image = images.image(index, page).map_err(SegmentsError::Image)?;
                let stored = self.encoder.page(page, hash, image.bytes, image.base);
                images.stored(index, page, stored.map_err(SegmentsError::Encode)?);
            }
        }
        if self.encoder.len() >= PART_BYTES {
            self.tell_stored();
            self.encoder.cut(&mut self.complete).map_err(SegmentsError::Encode)?;
            self.completed = Some((header.txid, header.time));
        }
        Ok(())
    }

    /// Encodes the pages of a long transaction, of about one part at a time.
    fn encode_together<I: Images>(
        &mut self,
        pages: &[(PageNumber, PageHash)],
        images: &mut I,
    ) -> Result<(), SegmentsError<I::Error>> {
        let step = PART_BYTES / self.page_size.bytes();
        let mut batch = Batch::new(self.page_size);
        for (first, pages) in (0..).step_by(step).zip(pages.chunks(step)) {
            for (index, &(page, _)) in (first..).zip(pages) {
                let image = images.image(index, page).map_err(SegmentsError::Image)?;
                batch.push(image.bytes, image.base);
            }
            for ((index, &(page, hash)), packed) in (first..).zip(pages).zip(batch.pack()) {
                let packed = packed.ok_or(EncodeError::BadPage(page));
                let stored =
                    packed.and_then(|packed| self.encoder.packed_page(page, hash, &packed));
                images.stored(index, page, stored.map_err(SegmentsError::Encode)?);
                if self.encoder.len() >= PART_BYTES {
                    self.cut().map_err(lift)?;
                }
            }
        }
        Ok(())
    }

    /// Drops what was encoded of a transaction that is not whole: everything since the segment had
    /// `mark` bytes. One without a mark fails, if at all, before anything of it is encoded.
    fn take_back(&mut self, mark: Option<u64>) {
        let Some(mark) = mark else { return };
        self.encoder = SegmentEncoder::new(self.page_size, self.stamp, self.state);
        self.complete.clear();
        self.completed = None;
        match &mut self.open {
            Some(open) if mark > 0 => open.segment.truncate(mark),
            _ => self.open = None,
        }
    }

    /// Ends the part after a whole transaction; bytes in the segment with it.
    fn mark(&mut self) -> Result<u64, SegmentsError<Infallible>> {
        if !self.encoder.is_empty() {
            self.completed = Some((self.last, self.last_time));
        }
        self.cut()?;
        Ok(self.open.as_ref().map_or(0, |open| open.segment.len()))
    }

    /// Ends the part.
    fn cut(&mut self) -> Result<(), SegmentsError<Infallible>> {
        self.tell_stored();
        self.encoder.cut(&mut self.complete).map_err(SegmentsError::Encode)?;
        self.flush().map_err(SegmentsError::Spool)
    }

    /// Writes the complete parts into the spool; what cannot be written stays.
    fn flush(&mut self) -> io::Result<()> {
        if self.complete.is_empty() {
            return Ok(());
        }
        if self.open.is_none() {
            self.begin()?;
        }
        if let Some(open) = &mut self.open {
            open.segment.append(&self.complete)?;
            if let Some((last, time)) = self.completed.take() {
                open.written = Some((last, time, open.segment.len()));
            }
        }
        self.complete.clear();
        Ok(())
    }
}

fn lift<E>(error: SegmentsError<Infallible>) -> SegmentsError<E> {
    match error {
        SegmentsError::Spool(error) => SegmentsError::Spool(error),
        SegmentsError::Encode(error) => SegmentsError::Encode(error),
        SegmentsError::Image(never) => match never {},
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::id::{Epoch, Generation};
    use genesis_wal::part::Part;
    use genesis_wal::reader::Reader;

    use super::super::spool::Limits;
    use super::*;

    const LIMITS: Limits = Limits { keep: 0, wait: None };

    /// Pages that do not compress.
    struct Noise(Vec<u8>);

    impl Images for Noise {
        type Error = Infallible;

        fn image(&mut self, index: usize, _page: PageNumber) -> Result<Image<'_>, Infallible> {
            Ok(Image { bytes: &self.0[index * 4096..(index + 1) * 4096], base: None })
        }

        fn stored(&mut self, _index: usize, _page: PageNumber, _stored: Stored) {}
    }

    fn noise(bytes: usize) -> Noise {
        let mut state = 1_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        Noise((0..bytes / 8).flat_map(|_| next()).collect())
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().join("spool"), LIMITS).unwrap();
        (folder, spool)
    }

    fn rebase(txid: u64, pages: &[(PageNumber, PageHash)]) -> TransactionHeader {
        let count = u32::try_from(pages.len()).unwrap();
        TransactionHeader {
            txid: Txid(txid),
            kind: TransactionKind::Rebase,
            late: false,
            commits: 0,
            time: Micros(1),
            since: Micros(1),
            pages: count,
            records: count,
            state: pages.iter().fold(StateHash::default(), |sum, (_, hash)| sum.with(*hash)),
        }
    }

    fn segments(spool: &Spool, random: u64) -> Segments {
        let generation = Generation { epoch: Epoch(1), random };
        let stamp = Stamp { generation, epoch: Epoch(1) };
        let start = (Txid(0), Micros(0), StateHash::default());
        Segments::new(spool.clone(), stamp, PageSize::new(4096).unwrap(), start)
    }

    fn pages_of(images: &mut Noise, count: u32) -> Vec<(PageNumber, PageHash)> {
        let mut page = |number| {
            let page = PageNumber::new(number).unwrap();
            (page, PageHash::of(page, images.image(number as usize - 1, page).unwrap().bytes))
        };
        (1..=count).map(&mut page).collect()
    }

    #[test]
    fn a_transaction_is_sealed_wherever_its_last_part_ends() {
        let (_folder, spool) = spool();
        let mut images = noise(270 * 4096);
        for count in 240..270_u32 {
            let mut segments = segments(&spool, count.into());
            let pages = pages_of(&mut images, count);
            segments.append(rebase(1, &pages), None, &pages, &mut images).unwrap();
            let sealed = segments.seal().unwrap();
            assert_eq!(sealed.map(|name| name.last), Some(Txid(1)), "{count} pages");
            assert_eq!(segments.waiting(), 0);
        }
    }

    #[test]
    fn a_segment_says_up_to_where_all_was_stored() {
        let (_folder, spool) = spool();
        let mut images = noise(4096);
        let pages = pages_of(&mut images, 1);
        let mut segments = segments(&spool, 1);
        let mut seal = |txid| {
            segments.append(rebase(txid, &pages), None, &pages, &mut images).unwrap();
            let name = segments.seal().unwrap().unwrap();
            let bytes = std::fs::read(spool.path(&name)).unwrap();
            let part = Part::decode(&mut Reader::new(&bytes)).unwrap();
            (name, part.header.stored.unwrap().0)
        };
        let (first, stored) = seal(1);
        assert_eq!(stored, 0);
        let (second, stored) = seal(2);
        assert_eq!(stored, 0, "the first one waits");
        // The second one overtakes it: nothing is stored with all before it.
        spool.keep(&second).unwrap();
        let (third, stored) = seal(3);
        assert_eq!(stored, 0);
        spool.keep(&first).unwrap();
        assert_eq!(seal(4).1, 2, "the third one waits");
        spool.keep(&third).unwrap();
        assert_eq!(seal(5).1, 3, "the fourth one waits");
        // What waits is known after a restart, too.
        let spool = Spool::open(spool.path(&third).ancestors().nth(4).unwrap().into(), LIMITS);
        assert_eq!(spool.unwrap().first_waiting(), Some(Txid(4)));
    }
}
