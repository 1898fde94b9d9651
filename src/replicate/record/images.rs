//! Where the images come from that are recorded.

use genesis_wal::header::Salts;
use genesis_wal::page::{PageHash, PageNumber, PageSize};
use genesis_wal::scan::FrameRef;
use genesis_wal::segment::Stored;

use super::RecordError;
use crate::replicate::base::{Bases, Earlier};
use crate::replicate::cursor::Doubt;
use crate::replicate::segments::{Image, Images};
use crate::replicate::table::PageTable;
use crate::sqlite::{FrameReader, SourceError, StateReader};

/// The frames of a WAL, and the database file behind them.
pub trait Frames: Earlier<Error = SourceError> {
    /// Makes ready to read the frames of one transaction: those that fit into memory are
    /// [held](Self::held) then.
    ///
    /// # Errors
    /// When they cannot be read.
    fn go_to(&mut self, first: u32, last: u32) -> Result<(), SourceError>;

    /// The page that was seen in a frame of the WAL with these salts; `None` where it is not there any
    /// more, as far as the frame's header tells.
    ///
    /// # Errors
    /// When it cannot be read.
    fn page(&mut self, image: FrameRef, salts: Salts) -> Result<Option<&[u8]>, SourceError>;

    /// The page in a frame, where that is in memory.
    fn held(&self, frame: u32) -> Option<&[u8]>;
}

impl Frames for FrameReader<'_> {
    fn go_to(&mut self, first: u32, last: u32) -> Result<(), SourceError> {
        self.hold(first, last)
    }

    fn page(&mut self, image: FrameRef, salts: Salts) -> Result<Option<&[u8]>, SourceError> {
        self.image(image, salts)
    }

    fn held(&self, frame: u32) -> Option<&[u8]> {
        self.held(frame)
    }
}

/// A database in one state.
pub trait State {
    /// Reads consecutive pages from `first` on into `buffer`, which is a whole number of pages long.
    ///
    /// # Errors
    /// When they cannot be read.
    fn read(&mut self, first: PageNumber, buffer: &mut [u8]) -> Result<(), SourceError>;
}

impl State for StateReader<'_> {
    fn read(&mut self, first: PageNumber, buffer: &mut [u8]) -> Result<(), SourceError> {
        self.read(first, buffer)
    }
}

/// What a transaction wrote.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) frames: Vec<FrameRef>,
    pub(super) hashed: Vec<(PageNumber, PageHash)>,
    /// The hashes of the same pages before it.
    pub(super) before: Vec<Option<PageHash>>,
    /// The pages one after another, where they fit one part and are not all held by the reader.
    pub(super) pages: Vec<u8>,
}

impl Written {
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.hashed.clear();
        self.before.clear();
        self.pages.clear();
    }
}

/// The images of a transaction: as they were read, or read again where they were too many to be held. Those
/// are proven by the hashes that the page table has of them.
pub(super) struct FrameImages<'a, F> {
    pub(super) written: &'a Written,
    pub(super) salts: Salts,
    pub(super) page_size: PageSize,
    pub(super) frames: &'a mut F,
    pub(super) bases: &'a mut Bases,
}

impl<F: Frames> Images for FrameImages<'_, F> {
    type Error = RecordError;

    fn image(&mut self, index: usize, page: PageNumber) -> Result<Image<'_>, RecordError> {
        let before = self.written.before.get(index).copied().flatten();
        // A base that cannot be read is none: the image is stored in full.
        let base = self.bases.base_of(page, before, self.frames).unwrap_or(None);
        let len = self.page_size.bytes();
        let written = self.written.frames.get(index).zip(self.written.hashed.get(index));
        let (&image, &(_, hash)) = written.ok_or(RecordError::Doubt(Doubt::Misread(page)))?;
        let bytes = if let Some(kept) = self.written.pages.get(index * len..(index + 1) * len) {
            kept
        } else if self.frames.held(image.frame).is_some() {
            // Held since it was hashed.
            self.frames.held(image.frame).unwrap_or_default()
        } else {
            let read = page_of(self.frames, image, self.salts)?;
            if PageHash::of(page, read) != hash {
                return Err(RecordError::Doubt(Doubt::Vanished(image.frame)));
            }
            read
        };
        Ok(Image { bytes, base })
    }

    fn stored(&mut self, index: usize, page: PageNumber, stored: Stored) {
        self.bases.stored(page, stored);
        let written = self.written.frames.get(index).zip(self.written.hashed.get(index));
        if let Some((image, &(_, hash))) = written
            && let Some(bytes) = self.frames.held(image.frame)
        {
            self.bases.keep(page, hash, bytes);
        }
    }
}

/// Images of the state that was last seen, which are proven by the page table. They are stored in full:
/// what the pages were before is not known.
pub(super) struct StateImages<'a, S> {
    pub(super) state: &'a mut S,
    pub(super) table: &'a PageTable,
    pub(super) buffer: Vec<u8>,
    pub(super) bases: &'a mut Bases,
}

impl<S: State> Images for StateImages<'_, S> {
    type Error = RecordError;

    fn image(&mut self, _index: usize, page: PageNumber) -> Result<Image<'_>, RecordError> {
        self.state.read(page, &mut self.buffer)?;
        if Some(PageHash::of(page, &self.buffer)) == self.table.hash(page) {
            Ok(Image { bytes: &self.buffer, base: None })
        } else {
            Err(RecordError::Doubt(Doubt::Misread(page)))
        }
    }

    fn stored(&mut self, _index: usize, page: PageNumber, stored: Stored) {
        self.bases.stored(page, stored);
    }
}

pub(super) fn page_of(
    frames: &mut impl Frames,
    image: FrameRef,
    salts: Salts,
) -> Result<&[u8], RecordError> {
    frames.page(image, salts)?.ok_or(RecordError::Doubt(Doubt::Vanished(image.frame)))
}
