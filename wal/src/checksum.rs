//! SQLite's cumulative WAL checksum: two 32-bit sums over pairs of 32-bit words, taken in the byte
//! order that the WAL's magic names.
//!
//! Source: <https://www.sqlite.org/fileformat2.html#checksum_algorithm>.

mod products;

/// The byte order in which the words of a WAL are summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteOrder {
    /// Magic `0x377f0682`, written on little-endian machines.
    Little,
    /// Magic `0x377f0683`, written on big-endian machines.
    Big,
}

/// The running pair of sums. The default is the seed of a WAL header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checksum(pub u32, pub u32);

impl Checksum {
    /// What stands in a frame for which SQLite made none.
    pub const NONE: Self = Self(0, 0);

    /// Goes on over `bytes`, eight at a time. SQLite only ever sums multiples of eight bytes; what
    /// is left over is not summed.
    #[must_use]
    pub fn extend(self, order: ByteOrder, bytes: &[u8]) -> Self {
        let (pairs, _) = bytes.as_chunks::<8>();
        let pairs_are_many = pairs.len() >= products::FEWEST_PAIRS;
        if let Some(sum) = pairs_are_many.then(|| products::sum(self, order, pairs)).flatten() {
            return sum;
        }
        match order {
            ByteOrder::Little => self.sum(pairs, u32::from_le_bytes),
            ByteOrder::Big => self.sum(pairs, u32::from_be_bytes),
        }
    }

    /// Sums pairs of words. Each sum waits for the one before, so long runs are summed as four quarters
    /// side by side, which are then put one after another.
    fn sum(self, pairs: &[[u8; 8]], word: impl Fn([u8; 4]) -> u32 + Copy) -> Self {
        let quarter = pairs.len() / 4;
        let Some(after_quarter) = Steps::of(quarter).filter(|_| pairs.len().is_multiple_of(4))
        else {
            return pairs.iter().fold(self, |sum, pair| sum.next(*pair, word));
        };
        Self::quarters(pairs, word).into_iter().fold(self, |before, sum| {
            let Self(s0, s1) = after_quarter.after(before);
            Self(s0.wrapping_add(sum.0), s1.wrapping_add(sum.1))
        })
    }

    /// The sum of each quarter. A function of its own, as its eight sums need the registers.
    #[inline(never)]
    fn quarters(pairs: &[[u8; 8]], word: impl Fn([u8; 4]) -> u32 + Copy) -> [Self; 4] {
        let quarter = pairs.len() / 4;
        let (a, rest) = pairs.split_at(quarter);
        let (b, rest) = rest.split_at(quarter);
        let (c, d) = rest.split_at(quarter);
        let mut sums = [Self::default(); 4];
        for (((a, b), c), d) in a.iter().zip(b).zip(c).zip(d) {
            let [of_a, of_b, of_c, of_d] = sums;
            sums = [
                of_a.next(*a, word),
                of_b.next(*b, word),
                of_c.next(*c, word),
                of_d.next(*d, word),
            ];
        }
        sums
    }

    fn next(self, pair: [u8; 8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let [w0, w1, w2, w3, x0, x1, x2, x3] = pair;
        let s0 = self.0.wrapping_add(self.1).wrapping_add(word([w0, w1, w2, w3]));
        Self(s0, self.1.wrapping_add(s0).wrapping_add(word([x0, x1, x2, x3])))
    }
}

/// What a number of pairs of zeros makes of a sum `(s0, s1)`: `(a s0 + b s1, b s0 + d s1)`. One pair
/// makes `(s0 + s1, s0 + 2 s1)` of it.
#[derive(Debug, Clone, Copy)]
struct Steps {
    a: u32,
    b: u32,
    d: u32,
}

impl Steps {
    /// Those of 1, 2, 4 pairs and so on, up to those of a quarter of the largest page.
    const DOUBLED: [Self; 12] = [
        Self::doubled(0),
        Self::doubled(1),
        Self::doubled(2),
        Self::doubled(3),
        Self::doubled(4),
        Self::doubled(5),
        Self::doubled(6),
        Self::doubled(7),
        Self::doubled(8),
        Self::doubled(9),
        Self::doubled(10),
        Self::doubled(11),
    ];

    /// Those of one pair, doubled so often.
    const fn doubled(times: u32) -> Self {
        match times {
            0 => Self { a: 1, b: 1, d: 2 },
            _ => Self::doubled(times - 1).twice(),
        }
    }

    /// `None` for a number that is no power of two, or a larger one.
    fn of(pairs: usize) -> Option<Self> {
        let exponent = pairs.checked_ilog2().filter(|_| pairs.is_power_of_two())?;
        Self::DOUBLED.get(exponent as usize).copied()
    }

    const fn twice(self) -> Self {
        let Self { a, b, d } = self;
        let square = b.wrapping_mul(b);
        Self {
            a: a.wrapping_mul(a).wrapping_add(square),
            b: b.wrapping_mul(a.wrapping_add(d)),
            d: d.wrapping_mul(d).wrapping_add(square),
        }
    }

    fn after(self, Checksum(s0, s1): Checksum) -> Checksum {
        let Self { a, b, d } = self;
        let sum = |x: u32, y: u32| x.wrapping_mul(s0).wrapping_add(y.wrapping_mul(s1));
        Checksum(sum(a, b), sum(b, d))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_by_hand_in_both_orders() {
        let bytes = [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0];
        // s0 = 1, s1 = 2 + 1 = 3; then s0 = 1 + 3 + 3 = 7, s1 = 3 + 4 + 7 = 14.
        assert_eq!(Checksum::default().extend(ByteOrder::Little, &bytes), Checksum(7, 14));
        let shift = |n: u32| n << 24;
        let big = Checksum::default().extend(ByteOrder::Big, &bytes);
        assert_eq!(big, Checksum(shift(7), shift(14)));
    }

    #[test]
    fn a_sum_in_two_steps_is_the_sum_in_one() {
        let bytes: Vec<u8> = (0..64).collect();
        let (head, tail) = bytes.split_at(24);
        let whole = Checksum(5, 6).extend(ByteOrder::Little, &bytes);
        let steps = Checksum(5, 6).extend(ByteOrder::Little, head).extend(ByteOrder::Little, tail);
        assert_eq!(whole, steps);
    }

    #[test]
    fn quarters_side_by_side_are_the_sum_in_order() {
        let bytes: Vec<u8> = (0..65_536_u32).map(|n| (n.pow(2) >> 3).to_le_bytes()[0]).collect();
        let pages = (9..=16).map(|log2| 1 << log2);
        for len in [0, 8, 16, 24, 32, 40, 64, 96, 520].into_iter().chain(pages) {
            let bytes = &bytes[..len];
            let start = Checksum(0xFFFF_FFF0, 0x8000_0001);
            let in_order = |order| bytes.chunks(8).fold(start, |sum, pair| sum.extend(order, pair));
            let (pairs, _) = bytes.as_chunks();
            let little = start.sum(pairs, u32::from_le_bytes);
            assert_eq!(little, in_order(ByteOrder::Little), "{len} bytes");
            let big = start.sum(pairs, u32::from_be_bytes);
            assert_eq!(big, in_order(ByteOrder::Big), "{len} bytes");
        }
    }
}
