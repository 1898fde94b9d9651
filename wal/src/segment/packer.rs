//! How the images of pages are packed: by themselves, or as deltas to their bases.

use super::encoding::{Encoding, HALF};
use super::patch::patch;
use crate::page::PageSize;

/// Packs images; it keeps the memory for that, and knows whether it pays to search for what moved.
#[derive(Debug, Default)]
pub struct Packer {
    full: Vec<u8>,
    delta: Vec<u8>,
    search: Search,
}

impl Packer {
    /// The image as it is stored.
    pub(super) fn pack<'a>(
        &'a mut self,
        page_size: PageSize,
        image: &'a [u8],
        base: Option<&[u8]>,
    ) -> (Encoding, &'a [u8]) {
        let Self { full, delta, search } = self;
        let encoding = Encoding::of_deltas(page_size);
        let delta = base.and_then(|base| pack_delta(encoding, image, base, search, delta));
        let delta = delta.filter(|delta| encoding.fits(delta.len(), page_size));
        if let Some(delta) = delta.filter(|delta| delta.len() <= page_size.bytes() / 8) {
            return (encoding, delta);
        }
        full.resize(lz4_flex::block::get_maximum_output_size(image.len()), 0);
        let packed = lz4_flex::block::compress_into(image, full).ok();
        let packed = packed.filter(|&len| Encoding::Lz4.fits(len, page_size));
        let full = match packed.and_then(|len| full.get(..len)) {
            Some(packed) => (Encoding::Lz4, packed),
            None => (Encoding::Raw, image),
        };
        match delta {
            Some(delta) if delta.len() <= full.1.len() / 4 * 3 => (encoding, delta),
            _ => full,
        }
    }
}

/// Packs an image as a delta into `scratch`.
fn pack_delta<'a>(
    encoding: Encoding,
    image: &[u8],
    base: &[u8],
    search: &mut Search,
    scratch: &'a mut Vec<u8>,
) -> Option<&'a [u8]> {
    scratch.clear();
    if encoding == Encoding::Delta {
        append_block(image, base, search, scratch)?;
        return Some(scratch);
    }
    let (first, second) = image.split_at_checked(HALF)?;
    let (base_first, base_second) = base.split_at_checked(HALF)?;
    scratch.extend_from_slice(&[0; 2]);
    append_block(first, base_first, search, scratch)?;
    let len = u16::try_from(scratch.len() - 2).ok()?;
    *scratch.first_chunk_mut()? = len.to_le_bytes();
    append_block(second, base_second, search, scratch)?;
    Some(scratch)
}

/// Appends an LZ4 block of `image` whose dictionary is `base`: what changed in its place, or what a search
/// finds, whichever is shorter.
fn append_block(image: &[u8], base: &[u8], search: &mut Search, out: &mut Vec<u8>) -> Option<()> {
    let start = out.len();
    match patch(image, base, out) {
        None => out.truncate(start),
        Some(literals) if literals <= FEW_LITERALS || !search.is_due() => return Some(()),
        Some(_) => {}
    }
    let patched = out.len();
    out.resize(patched + lz4_flex::block::get_maximum_output_size(image.len()), 0);
    let room = out.get_mut(patched..)?;
    let found = lz4_flex::block::compress_into_with_dict(image, room, base).ok()?;
    out.truncate(patched + found);
    if patched > start {
        search.found(found, patched - start);
        let worse = if found < patched - start { start..patched } else { patched..out.len() };
        out.drain(worse);
    }
    Some(())
}

/// Of so few literals a search finds little elsewhere.
const FEW_LITERALS: usize = 64;

/// Whether it pays to search in a page for what is not in its old place.
///
/// What an application adds to its pages is of a kind: noise is nowhere else, and a row that resembles its
/// neighbours is. So each search that finds nothing doubles the number of those that are left out, and one
/// that finds something ends that.
#[derive(Debug, Clone, Copy, Default)]
struct Search {
    /// How many found nothing, one after another.
    vain: u32,
    /// How many are left out from here on.
    skipped: u32,
}

impl Search {
    /// The most searches that are left out, as a power of two.
    const MOST_SKIPPED: u32 = 5;

    fn is_due(&mut self) -> bool {
        let is_due = self.skipped == 0;
        self.skipped = self.skipped.saturating_sub(1);
        is_due
    }

    /// A search made a block of `found` bytes of what took `patched` without.
    fn found(&mut self, found: usize, patched: usize) {
        if found < patched - patched / 8 {
            *self = Self::default();
        } else {
            self.vain = (self.vain + 1).min(Self::MOST_SKIPPED);
            self.skipped = (1 << self.vain) - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// Rows of noise with the same words between them, from the page's end on as SQLite has them.
    fn page(rows: usize, seed: u32, words: &[u8]) -> Vec<u8> {
        let mut state = seed;
        let mut noise = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let mut page = vec![0; PAGE];
        for row in page.rchunks_mut(256).take(rows) {
            row.fill_with(&mut noise);
            row[16..16 + words.len()].copy_from_slice(words);
        }
        page
    }

    /// The bytes that a new row takes, in a page of some.
    fn added(packer: &mut Packer, seed: u32, words: &[u8]) -> usize {
        let (base, image) = (page(4, seed, words), page(5, seed, words));
        let size = PageSize::new(4096).unwrap();
        let (encoding, stored) = packer.pack(size, &image, Some(&base));
        assert_eq!(encoding, Encoding::Delta);
        let unpacked = lz4_flex::block::decompress_with_dict(stored, PAGE, &base).unwrap();
        assert_eq!(unpacked, image);
        stored.len()
    }

    #[test]
    fn rows_that_resemble_one_another_are_found() {
        let mut packer = Packer::default();
        assert!(added(&mut packer, 1, &[]) > 256);
        let words = page(1, 9, &[]).split_off(PAGE - 200);
        let sizes: Vec<_> = (0..40).map(|seed| added(&mut packer, seed, &words)).collect();
        // The first one after a search in vain is left out.
        assert!(sizes[0] > 256 && sizes[1..].iter().all(|size| *size < 120), "{sizes:?}");
    }

    #[test]
    fn fewer_searches_are_made_the_more_find_nothing() {
        let mut search = Search::default();
        let mut due = |found, times| {
            let is_due = |search: &mut Search| {
                let is_due = search.is_due();
                if is_due {
                    search.found(found, 100);
                }
                is_due
            };
            (0..times).filter(|_| is_due(&mut search)).count()
        };
        assert_eq!(due(50, 100), 100);
        assert_eq!(due(88, 62), 5);
        assert_eq!(due(88, 3201), 101);
        // Up to the next one that is due.
        assert_eq!(due(87, 100), 100 - 31);
        assert_eq!(due(87, 100), 100);
    }
}
