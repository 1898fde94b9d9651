//! Checksums as products: each word times how often it is in the sums.
//!
//! A word is added to both sums, and each of these to the other: so the word that `k` others follow is in
//! the first sum F(k) times and in the second F(k + 1) times, where F is the Fibonacci series with F(0) = 0
//! and F(1) = 1. What the sums were before is as if it stood in front of the words. No product waits for
//! another one, and eight are made at once where the processor can.

use multiversion::multiversion;
use multiversion::target::target_cfg_f;

use super::{ByteOrder, Checksum};

/// Words that are summed at once, at most.
const WORDS: usize = 1024;

/// F(1024) down to F(0), modulo 2^32.
static FIBONACCI: [u32; WORDS + 1] = fibonacci();

/// The fewest pairs of words of which products are quicker than sums.
pub(super) const FEWEST_PAIRS: usize = 16;

#[expect(clippy::indexing_slicing, reason = "it is evaluated by the compiler")]
const fn fibonacci() -> [u32; WORDS + 1] {
    let mut series = [0; WORDS + 1];
    let (mut at, mut this, mut next) = (WORDS, 0_u32, 1_u32);
    loop {
        series[at] = this;
        (this, next) = (next, this.wrapping_add(next));
        if at == 0 {
            return series;
        }
        at -= 1;
    }
}

/// Goes on from `before` over pairs of words; `None` where the processor does not multiply eight words at
/// once.
#[multiversion(targets("x86_64+avx2"))]
pub(super) fn sum(before: Checksum, order: ByteOrder, pairs: &[[u8; 8]]) -> Option<Checksum> {
    if target_cfg_f!(target_feature = "avx2") { Some(products(before, order, pairs)) } else { None }
}

/// As [`sum`], with whatever the processor has.
#[expect(clippy::inline_always, reason = "only what is inlined is compiled for that processor")]
#[inline(always)]
fn products(before: Checksum, order: ByteOrder, pairs: &[[u8; 8]]) -> Checksum {
    pairs.chunks(WORDS / 2).fold(before, |before, chunk| {
        let (words, _) = chunk.as_flattened().as_chunks::<4>();
        match order {
            ByteOrder::Little => chunk_sum(before, words, u32::from_le_bytes),
            ByteOrder::Big => chunk_sum(before, words, u32::from_be_bytes),
        }
    })
}

#[expect(clippy::inline_always, reason = "as above")]
#[inline(always)]
fn chunk_sum(before: Checksum, words: &[[u8; 4]], word: impl Fn([u8; 4]) -> u32) -> Checksum {
    let from = WORDS - words.len();
    let (of_second, of_first) = (FIBONACCI.iter().skip(from), FIBONACCI.iter().skip(from + 1));
    let (b, a) = (of_second.clone().next(), of_first.clone().next());
    let (a, b) = (a.copied().unwrap_or_default(), b.copied().unwrap_or_default());
    let product = |x: u32, y: u32| x.wrapping_mul(before.0).wrapping_add(y.wrapping_mul(before.1));
    let mut sums = Checksum(product(a, b), product(b, a.wrapping_add(b)));
    for ((bytes, first), second) in words.iter().zip(of_first).zip(of_second) {
        let word = word(*bytes);
        sums.0 = sums.0.wrapping_add(word.wrapping_mul(*first));
        sums.1 = sums.1.wrapping_add(word.wrapping_mul(*second));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways must agree on every processor, and this one takes only one of them.
    #[test]
    fn products_are_the_sum_in_order() {
        let bytes: Vec<u8> = (0..65_536_u32).map(|n| (n.pow(2) >> 3).to_le_bytes()[0]).collect();
        for len in
            (8..=1024).step_by(8).chain((12..=16).map(|log2| 1 << log2)).chain([4104, 65_528])
        {
            let bytes = &bytes[..len];
            let (pairs, _) = bytes.as_chunks();
            for order in [ByteOrder::Little, ByteOrder::Big] {
                let start = Checksum(0xFFFF_FFF0, 0x8000_0001);
                let in_order = bytes.chunks(8).fold(start, |sum, pair| sum.extend(order, pair));
                assert_eq!(products(start, order, pairs), in_order, "{len} bytes");
                assert_eq!(sum(start, order, pairs).unwrap_or(in_order), in_order, "{len} bytes");
            }
        }
    }
}
