//! What a page is stored as a delta to: its bytes in the state recorded last.
//!
//! They stand in the last frame of the page that was recorded from the current WAL, else in the database
//! file: nothing that is not recorded reaches it, for the older lock is given up after. Whatever is found
//! is a base only if it has the hash that the page table tells. Else, or where none was looked for, the
//! page is stored in full. Images that were recorded a moment ago are still in memory, with the hash that
//! was made of them.

mod pages;
mod recent;

use genesis_wal::page::{PageHash, PageNumber, PageSize};
use genesis_wal::position::WalIdentity;
use genesis_wal::scan::FrameRef;
use genesis_wal::segment::Stored;

use self::pages::PageMap;
use self::recent::Recent;
use crate::sqlite::{FrameReader, SourceError};

/// So many deltas of a page may follow one another.
const LONGEST_RUN: u8 = 32;

/// The most pages that something is remembered of: 4.5 MiB for each of the two things.
const MOST_PAGES: usize = 448 << 10;

/// Where earlier images of pages are.
pub trait Earlier {
    /// Why they cannot be read.
    type Error;

    /// Reads the page in a frame of the current WAL; false when the WAL ends before.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_frame(&mut self, frame: u32, page: &mut [u8]) -> Result<bool, Self::Error>;

    /// Reads a page of the database file; what it does not reach is zeros.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read_file(&mut self, number: PageNumber, page: &mut [u8]) -> Result<(), Self::Error>;
}

/// Finds bases, and says which pages may have one.
#[derive(Debug)]
pub struct Bases {
    most_pages: usize,
    wal: Option<WalIdentity>,
    /// The last recorded frame of each page in the current WAL. Of pages beyond the limit the file is
    /// read, which has another hash.
    frames: PageMap<u32>,
    /// How many deltas of each page follow its last full image.
    runs: PageMap<u8>,
    /// Whether a page without a run has its last image in a snapshot. Else nobody knows how many
    /// deltas it has behind it.
    others_are_full: bool,
    unmatched: u64,
    recent: Recent,
    page: Vec<u8>,
}

impl Bases {
    /// Bases of pages of this size. Of every page the next image is stored in full.
    #[must_use]
    pub fn new(page_size: PageSize) -> Self {
        Self {
            most_pages: MOST_PAGES,
            wal: None,
            frames: PageMap::default(),
            runs: PageMap::default(),
            others_are_full: false,
            unmatched: 0,
            recent: Recent::new(page_size),
            page: vec![0; page_size.bytes()],
        }
    }

    /// Learns that a line begins with a snapshot, which has the last image of every page.
    pub fn begin_line(&mut self) {
        self.runs.clear();
        self.others_are_full = true;
    }

    /// Learns which WAL is read. Before another one begins, all of the one before is in the file.
    pub fn follow(&mut self, wal: WalIdentity) {
        if self.wal.replace(wal) != Some(wal) {
            self.frames.clear();
        }
    }

    /// The base of a page whose last recorded image has the hash `recorded`, `None` where it had none;
    /// `None` when it is to be stored in full.
    ///
    /// # Errors
    /// When an earlier image cannot be read.
    pub fn base_of<E: Earlier>(
        &mut self,
        number: PageNumber,
        recorded: Option<PageHash>,
        earlier: &mut E,
    ) -> Result<Option<&[u8]>, E::Error> {
        let Some(recorded) = recorded.filter(|_| self.may_be_delta(number)) else {
            return Ok(None);
        };
        if let Some(place) = self.recent.find(number, recorded) {
            return Ok(self.recent.image(place));
        }
        let found = match self.frames.get(&number) {
            Some(&frame) => earlier.read_frame(frame, &mut self.page)?,
            None => earlier.read_file(number, &mut self.page).map(|()| true)?,
        };
        if found && PageHash::of(number, &self.page) == recorded {
            Ok(Some(&self.page))
        } else {
            self.unmatched += 1;
            Ok(None)
        }
    }

    /// Keeps the image of a page that was recorded, and its hash, for the next one of that page.
    pub fn keep(&mut self, number: PageNumber, hash: PageHash, image: &[u8]) {
        self.recent.keep(number, hash, image);
    }

    /// Learns how the next image of a page was stored.
    pub fn stored(&mut self, number: PageNumber, stored: Stored) {
        // A base may have been found before the runs were forgotten: nobody knows how long that run is.
        let unknown = if self.others_are_full { 0 } else { LONGEST_RUN };
        if self.runs.len() >= self.most_pages && !self.runs.contains_key(&number) {
            self.runs.clear();
            self.others_are_full = false;
        }
        let run = self.runs.entry(number).or_insert(unknown);
        *run = match stored {
            Stored::Full => 0,
            Stored::Delta => run.saturating_add(1),
        };
    }

    /// Learns which frames were recorded, of which the last ones of their pages are bases from now on.
    pub fn recorded(&mut self, images: impl IntoIterator<Item = FrameRef>) {
        for FrameRef { page, frame } in images {
            if self.frames.len() < self.most_pages || self.frames.contains_key(&page) {
                self.frames.insert(page, frame);
            }
        }
    }

    /// How often what was found was not the page that was recorded, since the last question.
    pub fn take_unmatched(&mut self) -> u64 {
        std::mem::take(&mut self.unmatched)
    }

    fn may_be_delta(&self, number: PageNumber) -> bool {
        self.runs.get(&number).map_or(self.others_are_full, |run| *run < LONGEST_RUN)
    }
}

impl Earlier for FrameReader<'_> {
    type Error = SourceError;

    fn read_frame(&mut self, frame: u32, page: &mut [u8]) -> Result<bool, SourceError> {
        let found = self.page(frame)?;
        if let Some(found) = found {
            page.copy_from_slice(found);
        }
        Ok(found.is_some())
    }

    fn read_file(&mut self, number: PageNumber, page: &mut [u8]) -> Result<(), SourceError> {
        self.source().read_page(number, page)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use genesis_wal::checksum::Checksum;
    use genesis_wal::header::Salts;

    use super::*;

    /// A WAL and a file with pages of one byte each, over and over.
    #[derive(Default)]
    struct Images {
        frames: HashMap<u32, u8>,
        file: HashMap<u32, u8>,
        reads: u32,
    }

    impl Earlier for Images {
        type Error = Infallible;

        fn read_frame(&mut self, frame: u32, page: &mut [u8]) -> Result<bool, Infallible> {
            self.reads += 1;
            let found = self.frames.get(&frame);
            page.fill(found.copied().unwrap_or_default());
            Ok(found.is_some())
        }

        fn read_file(&mut self, number: PageNumber, page: &mut [u8]) -> Result<(), Infallible> {
            self.reads += 1;
            page.fill(self.file.get(&number.get()).copied().unwrap_or_default());
            Ok(())
        }
    }

    fn number(page: u32) -> PageNumber {
        PageNumber::new(page).unwrap()
    }

    fn wal(n: u32) -> WalIdentity {
        WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(n, n) }
    }

    fn frame(page: u32, frame: u32) -> FrameRef {
        FrameRef { page: number(page), frame }
    }

    fn bases() -> Bases {
        let mut bases = Bases::new(PageSize::new(512).unwrap());
        bases.begin_line();
        bases.follow(wal(1));
        bases
    }

    /// The byte of the base that is found for a page whose recorded image is of `byte`.
    fn find(bases: &mut Bases, page: u32, byte: u8, images: &mut Images) -> Option<u8> {
        let recorded = PageHash::of(number(page), &[byte; 512]);
        let Ok(base) = bases.base_of(number(page), Some(recorded), images);
        base.map(|base| base[0])
    }

    #[test]
    fn the_last_frame_of_the_current_wal_comes_before_the_file() {
        let (mut bases, mut images) = (bases(), Images::default());
        images.file.extend([(1, 10), (2, 20)]);
        images.frames.extend([(5, 15), (7, 17)]);
        assert_eq!(find(&mut bases, 1, 10, &mut images), Some(10));
        bases.recorded([frame(1, 5)]);
        assert_eq!(find(&mut bases, 1, 15, &mut images), Some(15));
        bases.recorded([frame(1, 7)]);
        assert_eq!(find(&mut bases, 1, 17, &mut images), Some(17));
        assert_eq!(find(&mut bases, 2, 20, &mut images), Some(20));
        // The same WAL goes on; then another begins, and all of this one is in the file.
        bases.follow(wal(1));
        assert_eq!(find(&mut bases, 1, 17, &mut images), Some(17));
        bases.follow(wal(2));
        images.file.insert(1, 17);
        images.frames.clear();
        assert_eq!(find(&mut bases, 1, 17, &mut images), Some(17));
        assert_eq!(bases.take_unmatched(), 0);
    }

    #[test]
    fn what_is_found_must_be_what_was_recorded() {
        let (mut bases, mut images) = (bases(), Images::default());
        images.file.insert(1, 10);
        assert_eq!(find(&mut bases, 1, 11, &mut images), None);
        bases.recorded([frame(1, 5)]);
        // The frame is gone: not even the file is a base then.
        assert_eq!(find(&mut bases, 1, 10, &mut images), None);
        assert_eq!(bases.take_unmatched(), 2);
        assert_eq!(bases.take_unmatched(), 0);
    }

    #[test]
    fn an_image_in_memory_is_a_base_only_with_its_own_hash() {
        let (mut bases, mut images) = (bases(), Images::default());
        // What shares its place in memory.
        let far = number(1 + 2048);
        let image = |byte| (PageHash::of(number(1), &[byte; 512]), [byte; 512]);
        let (hash, bytes) = image(10);
        bases.keep(number(1), hash, &bytes);
        assert_eq!(find(&mut bases, 1, 10, &mut images), Some(10));
        assert_eq!(images.reads, 0);
        // Another image of the page was recorded, which is in the file.
        images.file.insert(1, 11);
        assert_eq!(find(&mut bases, 1, 11, &mut images), Some(11));
        assert_eq!((images.reads, bases.take_unmatched()), (1, 0));
        // A page that shares its place takes it.
        bases.keep(far, PageHash::of(far, &[12; 512]), &[12; 512]);
        assert_eq!(find(&mut bases, far.get(), 12, &mut images), Some(12));
        assert_eq!(find(&mut bases, 1, 10, &mut images), None);
        assert_eq!((images.reads, bases.take_unmatched()), (2, 1));
    }

    #[test]
    fn without_a_recorded_image_nothing_is_looked_for() {
        let (mut bases, mut images) = (bases(), Images::default());
        let Ok(base) = bases.base_of(number(1), None, &mut images);
        assert_eq!(base, None);
        assert_eq!((images.reads, bases.take_unmatched()), (0, 0));
    }

    #[test]
    fn every_33rd_image_in_a_row_is_full() {
        let (mut bases, mut images) = (bases(), Images::default());
        images.file.extend([(1, 10), (2, 20)]);
        let mut next = |bases: &mut Bases| {
            let found = find(bases, 1, 10, &mut images).is_some();
            bases.stored(number(1), if found { Stored::Delta } else { Stored::Full });
            found
        };
        for _ in 0..3 {
            let run: Vec<bool> = (0..33).map(|_| next(&mut bases)).collect();
            assert!(run[..32].iter().all(|is_delta| *is_delta) && !run[32], "{run:?}");
        }
        // A full image for another reason begins a new run, and other pages have their own.
        assert!((0..20).all(|_| next(&mut bases)));
        bases.stored(number(1), Stored::Full);
        assert!((0..32).all(|_| next(&mut bases)));
        assert!(!next(&mut bases));
        assert_eq!(find(&mut bases, 2, 20, &mut images), Some(20));
    }

    #[test]
    fn a_run_that_nobody_counted_ends_with_the_next_image() {
        let mut bases = Bases::new(PageSize::new(512).unwrap());
        let mut images = Images::default();
        images.file.insert(1, 10);
        assert_eq!(find(&mut bases, 1, 10, &mut images), None);
        assert_eq!((images.reads, bases.take_unmatched()), (0, 0));
        bases.stored(number(1), Stored::Full);
        assert_eq!(find(&mut bases, 1, 10, &mut images), Some(10));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgetting_is_safe() {
        let (mut bases, mut images) = (Bases { most_pages: 3, ..bases() }, Images::default());
        images.file.extend((1..=9).map(|page| (page, 10)));
        for page in 1..=4 {
            assert_eq!(find(&mut bases, page, 10, &mut images), Some(10));
            bases.stored(number(page), Stored::Delta);
        }
        // The runs of 1 to 3 were forgotten for the sake of 4: full images come next, of 5 too.
        assert!([1, 2, 3, 5].iter().all(|p| find(&mut bases, *p, 10, &mut images).is_none()));
        assert_eq!(find(&mut bases, 4, 10, &mut images), Some(10));
        // One that was found a base before that ends its run with what it is stored as.
        bases.stored(number(5), Stored::Delta);
        assert_eq!(find(&mut bases, 5, 10, &mut images), None);

        let mut bases = Bases { most_pages: 3, ..self::bases() };
        images.frames.extend((1..=9).map(|frame| (frame, 11)));
        bases.recorded((1..=4).map(|page| frame(page, page)));
        assert!((1..=3).all(|page| find(&mut bases, page, 11, &mut images).is_some()));
        assert_eq!(find(&mut bases, 4, 11, &mut images), None);
        assert_eq!((bases.frames.len(), bases.take_unmatched()), (3, 1));
        bases.recorded([frame(3, 9)]);
        assert_eq!(bases.frames.get(&number(3)), Some(&9));
    }
}
