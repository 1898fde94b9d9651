//! The images of pages that were recorded last, in memory: what an application changes now it changed a
//! moment ago.

use std::ops::Range;

use genesis_wal::page::{PageHash, PageNumber, PageSize};

/// The most bytes of images that are kept, and the most images.
const KEPT_BYTES: usize = 8 << 20;
const KEPT_IMAGES: usize = 2048;

/// An image for each remainder of the page's number: the last one that was recorded.
#[derive(Debug)]
pub(super) struct Recent {
    page_size: usize,
    /// Which page and image is in a place, told by the hash of the very bytes that are there.
    places: Vec<Option<(PageNumber, PageHash)>>,
    /// The images, one place after another. The memory of places that were never used is only promised.
    images: Vec<u8>,
}

impl Recent {
    pub(super) fn new(page_size: PageSize) -> Self {
        let page_size = page_size.bytes();
        let count = (KEPT_BYTES / page_size).min(KEPT_IMAGES);
        Self { page_size, places: vec![None; count], images: vec![0; count * page_size] }
    }

    /// Where the image of a page with this hash is.
    pub(super) fn find(&self, page: PageNumber, hash: PageHash) -> Option<Range<usize>> {
        let place = self.place(page);
        let is_there = self.places.get(place).copied().flatten() == Some((page, hash));
        is_there.then(|| self.range(place))
    }

    /// The image that was found there.
    pub(super) fn image(&self, range: Range<usize>) -> Option<&[u8]> {
        self.images.get(range)
    }

    /// Keeps an image, which has this hash.
    pub(super) fn keep(&mut self, page: PageNumber, hash: PageHash, image: &[u8]) {
        let place = self.place(page);
        let range = self.range(place);
        if let (Some(kept), Some(room)) = (self.places.get_mut(place), self.images.get_mut(range))
            && room.len() == image.len()
        {
            room.copy_from_slice(image);
            *kept = Some((page, hash));
        }
    }

    fn place(&self, page: PageNumber) -> usize {
        page.index() % self.places.len()
    }

    fn range(&self, place: usize) -> Range<usize> {
        place * self.page_size..(place + 1) * self.page_size
    }
}
