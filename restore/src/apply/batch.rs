//! Page images that wait to be written, as they are stored.

use std::collections::BTreeMap;

use genesis_wal::page::{PageNumber, PageSize};
use genesis_wal::segment::PageRecord;

use super::{ApplyError, PageSink};

/// What an image takes beside its bytes, roughly: so that many tiny images are a full batch too.
const IMAGE_OVERHEAD: usize = 96;

/// The most bytes of adjacent pages that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// The last image of each page.
#[derive(Debug, Default)]
pub(super) struct Batch {
    images: BTreeMap<PageNumber, Image>,
    bytes: usize,
}

#[derive(Debug)]
struct Image {
    record: PageRecord<'static>,
    stored: Box<[u8]>,
}

impl Image {
    fn bytes(&self) -> usize {
        self.stored.len() + IMAGE_OVERHEAD
    }
}

impl Batch {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an image, in the place of an earlier one of its page.
    pub(super) fn insert(&mut self, record: &PageRecord<'_>) {
        let image = Image { record: record.over(&[]), stored: record.stored().into() };
        self.bytes += image.bytes();
        if let Some(earlier) = self.images.insert(record.number, image) {
            self.bytes -= earlier.bytes();
        }
    }

    /// Drops every page after the first `pages`.
    pub(super) fn truncate(&mut self, pages: u32) {
        let Some(first_cut) = pages.checked_add(1).and_then(PageNumber::new) else {
            return;
        };
        let cut = self.images.split_off(&first_cut);
        self.bytes -= cut.values().map(Image::bytes).sum::<usize>();
    }

    /// Unpacks, proves and writes what waits, in ascending order, adjacent pages together.
    pub(super) fn flush<S: PageSink>(
        &mut self,
        page_size: PageSize,
        sink: &mut S,
    ) -> Result<(), ApplyError<S::Error>> {
        self.bytes = 0;
        let (mut run, mut start) = (Vec::new(), 0);
        for (number, image) in std::mem::take(&mut self.images) {
            let offset = page_size.offset_of(number);
            if start + run.len() as u64 != offset || run.len() >= WRITE_BYTES {
                write(&run, start, sink)?;
                run.clear();
                start = offset;
            }
            let at = run.len();
            run.resize(at + page_size.bytes(), 0);
            let page = run.get_mut(at..).unwrap_or_default();
            image.record.over(&image.stored).unpack(page)?;
        }
        write(&run, start, sink)
    }
}

fn write<S: PageSink>(run: &[u8], start: u64, sink: &mut S) -> Result<(), ApplyError<S::Error>> {
    if run.is_empty() {
        return Ok(());
    }
    sink.write_at(start, run).map_err(ApplyError::Sink)
}
