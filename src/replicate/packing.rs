//! Packs the pages of a long transaction on all processors.
//!
//! Other threads than the tail's take pages at a priority below the application's. What they have not
//! taken the tail packs itself: it waits for nobody but for a page that is being packed.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use genesis_wal::page::PageSize;
use genesis_wal::segment::{PackedPage, Packer};

use super::idle::give_way;

/// So many bytes of pages are worth a thread.
const WORTH_A_THREAD: usize = 128 << 10;

/// The most threads beside the tail's.
const MOST_THREADS: usize = 7;

/// Images of pages, and their bases.
#[derive(Debug)]
pub struct Batch {
    page_size: PageSize,
    images: Vec<u8>,
    /// As many pages, of which those without a base are zeros.
    bases: Vec<u8>,
    has_base: Vec<bool>,
}

impl Batch {
    /// An empty one.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self { page_size, images: Vec::new(), bases: Vec::new(), has_base: Vec::new() }
    }

    /// Adds the image of a page, and its base where it may be packed as a delta to that. Both are a page
    /// long.
    pub fn push(&mut self, image: &[u8], base: Option<&[u8]>) {
        self.images.extend_from_slice(image);
        self.bases.extend_from_slice(base.unwrap_or_default());
        self.bases.resize(self.images.len(), 0);
        self.has_base.push(base.is_some());
    }

    /// Takes all of it out, packed, in the order in which it came; a page is `None` where it was not a
    /// page long.
    pub fn pack(&mut self) -> Vec<Option<PackedPage>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        let others = (self.images.len() / WORTH_A_THREAD).min(processors - 1).min(MOST_THREADS);
        let packed = self.pack_beside(others);
        self.images.clear();
        self.bases.clear();
        self.has_base.clear();
        packed
    }

    fn pack_beside(&self, others: usize) -> Vec<Option<PackedPage>> {
        let packed: Vec<OnceLock<PackedPage>> =
            self.has_base.iter().map(|_| OnceLock::new()).collect();
        let next = AtomicUsize::new(0);
        let work = || {
            let mut scratch = Packer::default();
            while let index = next.fetch_add(1, Ordering::Relaxed)
                && let Some(place) = packed.get(index)
            {
                if let Some(page) = self.pack_one(&mut scratch, index) {
                    // Nobody else took this one.
                    place.set(page).ok();
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..others {
                let thread = thread::Builder::new().name("pack".into());
                let run = || {
                    give_way();
                    work();
                };
                if let Err(error) = thread.spawn_scoped(scope, run) {
                    tracing::debug!(%error, "no thread to pack on");
                    break;
                }
            }
            work();
        });
        packed.into_iter().map(OnceLock::into_inner).collect()
    }

    fn pack_one(&self, packer: &mut Packer, index: usize) -> Option<PackedPage> {
        let len = self.page_size.bytes();
        let place = index * len..(index + 1) * len;
        let base =
            self.bases.get(place.clone()).filter(|_| self.has_base.get(index) == Some(&true));
        PackedPage::new(packer, self.page_size, self.images.get(place)?, base)
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::id::{Epoch, Generation, Txid};
    use genesis_wal::page::{PageHash, PageNumber, StateHash};
    use genesis_wal::part::Stamp;
    use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
    use genesis_wal::time::Micros;

    use super::*;

    const PAGES: u32 = 100;

    fn page_size() -> PageSize {
        PageSize::new(4096).unwrap()
    }

    /// Pages of text that differs, and what they were before; none of every fourth.
    fn pages() -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let page = |n: u32| {
            let mut image =
                format!("{n} is {} ", n.wrapping_mul(2_654_435_761)).repeat(1000).into_bytes();
            image.truncate(4096);
            let mut base = image.clone();
            base[n as usize * 7] ^= 1;
            (image, (!n.is_multiple_of(4)).then_some(base))
        };
        (0..PAGES).map(page).collect()
    }

    /// A segment with these pages, which are put in as told.
    fn segment(mut put: impl FnMut(&mut SegmentEncoder, u32, PageNumber)) -> Vec<u8> {
        let stamp =
            Stamp { generation: Generation { epoch: Epoch(1), random: 1 }, epoch: Epoch(1) };
        let mut encoder = SegmentEncoder::new(page_size(), stamp, StateHash::default());
        let header = TransactionHeader {
            txid: Txid(1),
            kind: TransactionKind::Commit,
            late: false,
            commits: 1,
            time: Micros(1),
            since: Micros(1),
            pages: PAGES,
            records: PAGES,
            state: StateHash::default(),
        };
        encoder.begin(header, None).unwrap();
        (0..PAGES).for_each(|n| put(&mut encoder, n, PageNumber::new(n + 1).unwrap()));
        let mut segment = Vec::new();
        encoder.finish(&mut segment).unwrap();
        segment
    }

    #[test]
    fn what_is_packed_on_other_threads_is_what_is_packed_in_turn() {
        let pages = pages();
        let in_turn = segment(|encoder, n, number| {
            let (image, base) = &pages[n as usize];
            encoder.page(number, PageHash(n.into()), image, base.as_deref()).unwrap();
        });
        for others in 0..3 {
            let mut batch = Batch::new(page_size());
            for (image, base) in &pages {
                batch.push(image, base.as_deref());
            }
            let packed = batch.pack_beside(others);
            let together = segment(|encoder, n, number| {
                let packed = packed[n as usize].as_ref().unwrap();
                encoder.packed_page(number, PageHash(n.into()), packed).unwrap();
            });
            assert!(together == in_turn, "beside {others} others");
        }
    }

    #[test]
    fn a_batch_is_used_again() {
        let mut batch = Batch::new(page_size());
        assert!(batch.pack().is_empty());
        for (image, base) in &pages() {
            batch.push(image, base.as_deref());
            assert!(matches!(batch.pack()[..], [Some(_)]));
        }
    }
}
