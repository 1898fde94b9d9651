//! Page images that wait to be written, as they are stored.

use std::collections::BTreeMap;

use genesis_wal::id::Txid;
use genesis_wal::page::{PageNumber, PageSize};
use genesis_wal::segment::PageRecord;

use super::{ApplyError, PageSink};

/// What an image takes beside its bytes, roughly: so that many tiny images are a full batch too.
const IMAGE_OVERHEAD: usize = 128;

/// The most bytes of adjacent pages that are written at once.
const WRITE_BYTES: usize = 1 << 20;

/// What it takes to have the last image of each page: a full one with the deltas after it, or deltas
/// whose first builds on what was written.
#[derive(Debug, Default)]
pub(super) struct Batch {
    chains: BTreeMap<PageNumber, Vec<Image>>,
    bytes: usize,
}

#[derive(Debug)]
struct Image {
    txid: Txid,
    record: PageRecord<'static>,
    stored: Box<[u8]>,
}

impl Image {
    fn bytes(&self) -> usize {
        self.stored.len() + IMAGE_OVERHEAD
    }

    fn unpack<E: std::error::Error>(
        &self,
        base: Option<&[u8]>,
        page: &mut [u8],
    ) -> Result<(), ApplyError<E>> {
        let unpacked = self.record.over(&self.stored).unpack(base, page);
        unpacked.map_err(|source| ApplyError::Image { txid: self.txid, source })
    }
}

fn bytes(chain: &[Image]) -> usize {
    chain.iter().map(Image::bytes).sum()
}

impl Batch {
    /// Bytes that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds an image. A full one takes the place of all earlier ones of its page.
    pub(super) fn insert(&mut self, txid: Txid, record: &PageRecord<'_>) {
        let image = Image { txid, record: record.over(&[]), stored: record.stored().into() };
        self.bytes += image.bytes();
        let chain = self.chains.entry(record.number).or_default();
        if !record.is_delta() {
            self.bytes -= bytes(chain);
            chain.clear();
        }
        chain.push(image);
    }

    /// Drops every page after the first `pages`.
    pub(super) fn truncate(&mut self, pages: u32) {
        let Some(first_cut) = pages.checked_add(1).and_then(PageNumber::new) else {
            return;
        };
        let cut = self.chains.split_off(&first_cut);
        self.bytes -= cut.values().map(|chain| bytes(chain)).sum::<usize>();
    }

    /// Unpacks, proves and writes what waits, in ascending order, adjacent pages together.
    pub(super) fn flush<S: PageSink>(
        &mut self,
        page_size: PageSize,
        sink: &mut S,
    ) -> Result<(), ApplyError<S::Error>> {
        self.bytes = 0;
        let mut base = vec![0; page_size.bytes()];
        let (mut run, mut start) = (Vec::new(), 0);
        for (number, chain) in std::mem::take(&mut self.chains) {
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
                image.unpack(Some(&base), page)?;
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
