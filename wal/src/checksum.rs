//! SQLite's cumulative WAL checksum: two 32-bit sums over pairs of 32-bit words, taken in the byte
//! order that the WAL's magic names.
//!
//! Source: <https://www.sqlite.org/fileformat2.html#checksum_algorithm>.

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
        match order {
            ByteOrder::Little => self.sum(pairs, u32::from_le_bytes),
            ByteOrder::Big => self.sum(pairs, u32::from_be_bytes),
        }
    }

    fn sum(self, pairs: &[[u8; 8]], word: impl Fn([u8; 4]) -> u32) -> Self {
        let Self(mut s0, mut s1) = self;
        for &[a, b, c, d, e, f, g, h] in pairs {
            s0 = s0.wrapping_add(word([a, b, c, d])).wrapping_add(s1);
            s1 = s1.wrapping_add(word([e, f, g, h])).wrapping_add(s0);
        }
        Self(s0, s1)
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
}
