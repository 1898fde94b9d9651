//! Page images that wait to be written, as they are stored.

use std::collections::BTreeMap;
use std::mem;
use std::ops::Range;

use genesis_wal::id::Txid;
use genesis_wal::page::{PageNumber, PageSize};
use genesis_wal::segment::PageRecord;

use super::{ApplyError, PageSink};

/// What an image takes beside its bytes, and what its page takes, roughly: so that many tiny images are a
/// full batch, too.
const IMAGE_OVERHEAD: usize = 112;
const PAGE_OVERHEAD: usize = 256;

/// Images of a page that there is room for from the start.
const FEW_IMAGES: usize = 4;

/// The most bytes of adjacent pages that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// Bytes of replaced images that are not worth to be got rid of: a processor's cache has room for them.
const SMALL_WASTE: usize = 1 << 20;

/// Memory of so many bytes is kept for the next time that images are gathered.
const MOST_SPARE: usize = 8 << 20;

/// What it takes to have the last image of each page: a full one with the deltas after it, or deltas
/// whose first builds on what was written.
#[derive(Debug)]
pub(super) struct Batch {
    /// So many bytes are enough.
    limit: usize,
    chains: BTreeMap<PageNumber, Vec<Image>>,
    /// Images in the chains.
    images: usize,
    /// Their bytes, one after the other, among those of images that were replaced.
    stored: Vec<u8>,
    /// How many of these bytes are of replaced images.
    wasted: usize,
    /// Room for the next time that the others are gathered.
    spare: Vec<u8>,
}

#[derive(Debug)]
struct Image {
    txid: Txid,
    record: PageRecord<'static>,
    /// Its bytes among those of the batch.
    place: Range<usize>,
}

impl Image {
    fn unpack<E: std::error::Error>(
        &self,
        stored: &[u8],
        base: Option<&[u8]>,
        page: &mut [u8],
    ) -> Result<(), ApplyError<E>> {
        let bytes = stored.get(self.place.clone()).unwrap_or_default();
        let unpacked = self.record.over(bytes).unpack(base, page);
        unpacked.map_err(|source| ApplyError::Image { txid: self.txid, source })
    }
}

impl Batch {
    /// One that is full with so many bytes.
    pub(super) fn new(limit: usize) -> Self {
        let (chains, stored, spare) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self { limit, chains, images: 0, stored, wasted: 0, spare }
    }

    /// Whether it is to be flushed before more comes.
    pub(super) fn is_full(&mut self) -> bool {
        if self.bytes() >= self.limit && self.wasted >= self.stored.len() / 4 {
            self.gather();
        }
        self.bytes() >= self.limit
    }

    /// Bytes that wait, with what is in their way.
    fn bytes(&self) -> usize {
        self.stored.len() + self.images * IMAGE_OVERHEAD + self.chains.len() * PAGE_OVERHEAD
    }

    /// Adds an image. A full one takes the place of all earlier ones of its page.
    pub(super) fn insert(&mut self, txid: Txid, record: &PageRecord<'_>) {
        let start = self.stored.len();
        self.stored.extend_from_slice(record.stored());
        let image = Image { txid, record: record.over(&[]), place: start..self.stored.len() };
        let chain = self.chains.entry(record.number).or_default();
        if !record.is_delta() {
            self.images -= chain.len();
            self.wasted += chain.drain(..).map(|image| image.place.len()).sum::<usize>();
            chain.shrink_to(FEW_IMAGES);
        }
        chain.push(image);
        self.images += 1;
        self.gather_if_due();
    }

    /// Drops every page after the first `pages`.
    pub(super) fn truncate(&mut self, pages: u32) {
        let Some(first_cut) = pages.checked_add(1).and_then(PageNumber::new) else {
            return;
        };
        for image in self.chains.split_off(&first_cut).values().flatten() {
            self.images -= 1;
            self.wasted += image.place.len();
        }
        self.gather_if_due();
    }

    /// Gathers the images once half of the bytes are of replaced ones.
    fn gather_if_due(&mut self) {
        let small = SMALL_WASTE.min(self.limit / 4);
        if self.wasted >= small.max(self.stored.len() / 2) {
            self.gather();
        }
    }

    /// Gets rid of the bytes of replaced images.
    fn gather(&mut self) {
        let gathered = &mut self.spare;
        gathered.clear();
        gathered.reserve(self.stored.len() - self.wasted);
        for image in self.chains.values_mut().flatten() {
            let start = gathered.len();
            gathered.extend_from_slice(self.stored.get(image.place.clone()).unwrap_or_default());
            image.place = start..gathered.len();
        }
        mem::swap(&mut self.stored, &mut self.spare);
        self.wasted = 0;
        if self.spare.capacity() > MOST_SPARE {
            self.spare = Vec::new();
        }
    }

    /// Unpacks, proves and writes what waits, in ascending order, adjacent pages together.
    pub(super) fn flush<S: PageSink>(
        &mut self,
        page_size: PageSize,
        sink: &mut S,
    ) -> Result<(), ApplyError<S::Error>> {
        let Self { chains, stored, .. } = mem::replace(self, Self::new(self.limit));
        let mut base = vec![0; page_size.bytes()];
        let (mut run, mut start) = (Vec::new(), 0);
        for (number, chain) in chains {
            let offset = page_size.offset_of(number);
            if start + run.len() as u64 != offset || run.len() >= WRITE_BYTES {
                write(&run, start, sink)?;
                run.clear();
                start = offset;
            }
            let at = run.len();
            run.resize(at + page_size.bytes(), 0);
            let page = run.get_mut(at..).unwrap_or_default();
            if chain.first().is_some_and(|first| first.record.is_delta()) {
                sink.read_at(offset, page).map_err(ApplyError::Sink)?;
            }
            for image in &chain {
                if image.record.is_delta() {
                    base.copy_from_slice(page);
                }
                image.unpack(&stored, Some(&base), page)?;
            }
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
