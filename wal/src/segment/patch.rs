//! LZ4 blocks of pages of which little changed, made without a search.
//!
//! A page that was changed in place is its base but for a few bytes. What both have in common stands at
//! the same place in both: in the block's dictionary, and as far back as the dictionary is long. So a
//! comparison finds the whole block. What moved within the page is not found: then there are many literals,
//! and LZ4's own search may be the better way.
//!
//! The blocks keep LZ4's rules for the end of a block: its last five bytes are literals, and the last
//! match begins at least twelve bytes before the end.

/// A page of which more changed than one part in so many is left to a search.
const LITERAL_PART: usize = 4;

/// Bytes that are compared at once.
const RUN: usize = 64;

/// The shortest match that LZ4 has.
const SHORTEST_MATCH: usize = 4;

/// Bytes at the end of a block that are literals, and bytes in which no match begins.
const LAST_LITERALS: usize = 5;
const NO_MATCH_BEGINS: usize = 12;

/// Appends an LZ4 block of `image` whose dictionary is `base`, of the same length, at most 32 KiB; the
/// number of literals in it. `None` when more than a quarter changed, and for lengths that are no multiple of
/// 64; `out` is as it may be then.
pub(super) fn patch(image: &[u8], base: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let ((runs, []), (base_runs, [])) = (image.as_chunks(), base.as_chunks()) else {
        return None;
    };
    if runs.len() != base_runs.len() {
        return None;
    }
    let distance = u16::try_from(base.len()).ok()?;
    let mut block = Block { image, distance, packed: 0, literals: 0, out };
    // Since there the image is like its base.
    let mut since = 0;
    for (from, (run, base_run)) in (0..).step_by(RUN).zip(runs.iter().zip(base_runs)) {
        let differing = differing(run, base_run);
        // To look at all words at once is cheaper than to stop at the first one.
        if differing.iter().fold(0, |all, differing| all | differing) == 0 {
            continue;
        }
        for (start, differing) in (from..).step_by(8).zip(differing) {
            if differing != 0 {
                block.common(since, start + differing.trailing_zeros() as usize / 8)?;
                since = start + 8 - differing.leading_zeros() as usize / 8;
            }
        }
    }
    block.common(since, image.len())?;
    block.end()
}

/// The bits in which two runs differ, by words; a word's lowest bits are its first byte's.
fn differing(run: &[u8; RUN], base: &[u8; RUN]) -> [u64; RUN / 8] {
    let (words, base_words) = (run.as_chunks().0, base.as_chunks().0);
    let word = |words: &[[u8; 8]], n| words.get(n).copied().map_or(0, u64::from_le_bytes);
    std::array::from_fn(|n| word(words, n) ^ word(base_words, n))
}

/// A block that is being made.
struct Block<'a> {
    image: &'a [u8],
    /// How far back the same place in the base is.
    distance: u16,
    /// Bytes of the image that are in the block.
    packed: usize,
    literals: usize,
    out: &'a mut Vec<u8>,
}

impl Block<'_> {
    /// Takes in that the image is like its base from `from` to `to`, and was not before that.
    fn common(&mut self, from: usize, to: usize) -> Option<()> {
        let len = to.min(self.image.len().checked_sub(LAST_LITERALS)?).saturating_sub(from);
        if len < SHORTEST_MATCH || from + NO_MATCH_BEGINS > self.image.len() {
            let literals = self.literals + to.checked_sub(self.packed)?;
            return (literals <= self.most_literals()).then_some(());
        }
        let (literals, matched) = (from.checked_sub(self.packed)?, len - SHORTEST_MATCH);
        self.literals += literals;
        if self.literals > self.most_literals() {
            return None;
        }
        self.out.push(nibble(literals) << 4 | nibble(matched));
        self.append_literals(from)?;
        self.out.extend_from_slice(&self.distance.to_le_bytes());
        self.append_rest(matched);
        self.packed += len;
        Some(())
    }

    /// Ends the block: what is left of the image are literals. How many there are in all.
    fn end(mut self) -> Option<usize> {
        let literals = self.image.len().checked_sub(self.packed)?;
        self.out.push(nibble(literals) << 4);
        self.append_literals(self.image.len())?;
        Some(self.literals + literals)
    }

    fn most_literals(&self) -> usize {
        self.image.len() / LITERAL_PART
    }

    /// Appends how many literals there are up to `to`, beyond what the token tells, and them.
    fn append_literals(&mut self, to: usize) -> Option<()> {
        let literals = self.image.get(self.packed..to)?;
        self.append_rest(literals.len());
        self.out.extend_from_slice(literals);
        self.packed = to;
        Some(())
    }

    /// Appends what a token does not tell of a length.
    fn append_rest(&mut self, len: usize) {
        let Some(mut rest) = len.checked_sub(15) else { return };
        while rest >= 255 {
            self.out.push(255);
            rest -= 255;
        }
        self.out.extend(u8::try_from(rest));
    }
}

/// What a token tells of a length.
fn nibble(len: usize) -> u8 {
    u8::try_from(len.min(15)).unwrap_or(15)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn block(image: &[u8], base: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        patch(image, base, &mut out).map(|_literals| out)
    }

    fn unpacked(block: &[u8], base: &[u8]) -> Vec<u8> {
        lz4_flex::block::decompress_with_dict(block, base.len(), base).unwrap()
    }

    /// Bytes in which no four come twice.
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    /// Where the last match of a block begins and how many literals end it.
    fn end_of(block: &[u8]) -> (usize, usize) {
        let (mut at, mut unpacked, mut last) = (0, 0, 0);
        let length = |at: &mut usize, short: u8| {
            let mut len = usize::from(short);
            while len >= 15 && (len == 15 || block[*at - 1] == 255) {
                len += usize::from(block[*at]);
                *at += 1;
                if block[*at - 1] != 255 {
                    break;
                }
            }
            len
        };
        loop {
            let token = block[at];
            at += 1;
            let literals = length(&mut at, token >> 4);
            at += literals;
            if at == block.len() {
                return (last, literals);
            }
            unpacked += literals;
            last = unpacked;
            at += 2;
            unpacked += length(&mut at, token & 15) + SHORTEST_MATCH;
        }
    }

    #[test]
    fn an_unchanged_page_is_one_match_and_the_literals_that_end_a_block() {
        for len in [512, 4096, 32_768] {
            let base = noise(len);
            let block = block(&base, &base).unwrap();
            assert_eq!(block.len(), 1 + 2 + (len - 5 - 4 - 15) / 255 + 1 + 1 + 5);
            assert_eq!(unpacked(&block, &base), base);
        }
    }

    #[test]
    fn a_byte_changed_at_every_place_unpacks_and_ends_as_a_block_must() {
        let base = noise(512);
        for at in 0..base.len() {
            let mut image = base.clone();
            image[at] ^= 0x80;
            let block = block(&image, &base).unwrap();
            assert_eq!(unpacked(&block, &base), image, "{at}");
            let (last_match, literals) = end_of(&block);
            assert!(last_match + NO_MATCH_BEGINS <= 512 && literals >= LAST_LITERALS, "{at}");
            assert!(block.len() <= 20, "{at}: {}", block.len());
        }
    }

    #[test]
    fn what_changed_too_much_or_has_an_odd_length_is_left_to_a_search() {
        let base = noise(4096);
        let mut moved = base.clone();
        moved.rotate_right(1);
        assert_eq!(block(&moved, &base), None);
        assert_eq!(block(&base[..4095], &base[..4095]), None);
        assert_eq!(block(&base[..4032], &base), None);
        for apart in [1, 2] {
            let mut changed = base.clone();
            (0..=1024 / apart).for_each(|n| changed[n * apart] ^= 1);
            assert_eq!(block(&changed, &base), None);
            changed[1024] ^= 1;
            assert_eq!(patch(&changed, &base, &mut Vec::new()), Some(1025 - apart + LAST_LITERALS));
        }
    }

    proptest! {
        #[test]
        fn whatever_is_packed_unpacks(
            len in (8_usize..=64).prop_map(|n| n * RUN),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), 1_usize..40), 0..6),
        ) {
            let base = noise(len);
            let mut image = base.clone();
            for (at, count) in changes {
                image.iter_mut().skip(at.index(len)).take(count).for_each(|byte| *byte ^= 0x55);
            }
            if let Some(block) = block(&image, &base) {
                prop_assert_eq!(unpacked(&block, &base), image);
                let (last_match, literals) = end_of(&block);
                prop_assert!(last_match + NO_MATCH_BEGINS <= len && literals >= LAST_LITERALS);
            }
        }
    }
}
