//! The whole database as of one committed frame, page by page.

use genesis_wal::page::{PageNumber, PageSize};
use genesis_wal::scan::FrameRef;

use super::{FrameReader, PageFile, Source, SourceError};

/// Reads the database as of a frame: the last image up to it where the WAL has one, else what stands
/// in the file. It holds for as long as nothing after that frame can reach the file.
#[derive(Debug)]
pub struct StateReader<'a> {
    source: &'a Source,
    file: PageFile,
    frames: FrameReader<'a>,
    /// The images that lie over the file, ascending by page.
    overlay: Vec<FrameRef>,
    pages: u32,
}

impl<'a> StateReader<'a> {
    /// A reader of a database of `pages` pages with the images of `overlay` (ascending by page, one
    /// for each) over the file.
    #[must_use]
    pub fn new(source: &'a Source, overlay: Vec<FrameRef>, pages: u32) -> Self {
        let max_frame = overlay.iter().map(|image| image.frame).max().unwrap_or(0);
        let (file, frames) = (source.page_file(), FrameReader::new(source, max_frame));
        Self { source, file, frames, overlay, pages }
    }

    /// Bytes in a page.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.source.page_size()
    }

    /// Pages in the database.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.pages
    }

    /// Reads consecutive pages from `first` on into `buffer`, which is a whole number of pages long.
    /// What the file does not reach is zeros.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(&mut self, first: PageNumber, buffer: &mut [u8]) -> Result<(), SourceError> {
        let size = self.page_size().bytes();
        self.file.read(self.page_size().offset_of(first), buffer)?;
        let at = self.overlay.partition_point(|image| image.page < first);
        let images = self.overlay.get(at..).unwrap_or_default();
        for image in images {
            let ahead = image.page.index() - first.index();
            let Some(place) = buffer.get_mut(ahead * size..(ahead + 1) * size) else {
                break;
            };
            let page = self.frames.page(image.frame)?.ok_or_else(|| cut_off(self.source))?;
            place.copy_from_slice(page);
        }
        Ok(())
    }
}

fn cut_off(source: &Source) -> SourceError {
    let error = std::io::ErrorKind::UnexpectedEof.into();
    SourceError::Io { action: "read", path: source.wal_path(), source: error }
}
