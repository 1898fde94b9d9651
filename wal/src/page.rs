//! Pages: their numbers, sizes and hashes, and the hash of a whole database state.

use std::fmt;
use std::num::NonZeroU32;

use thiserror::Error;
use twox_hash::XxHash3_64;

/// The byte offset of SQLite's lock bytes. The page that holds it is never written.
const LOCK_BYTE: u32 = 0x4000_0000;

/// A number of bytes that is no SQLite page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} is no page size: a power of two from 512 to 65536 is")]
pub struct BadPageSize(pub u32);

/// Bytes in a page: a power of two from 512 to 65536.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageSize(u32);

impl PageSize {
    /// The largest page size, in bytes.
    pub const MAX: usize = 65_536;

    /// Checks a page size in bytes.
    ///
    /// # Errors
    /// [`BadPageSize`] when SQLite has no such page size.
    pub fn new(bytes: u32) -> Result<Self, BadPageSize> {
        match bytes {
            512..=65_536 if bytes.is_power_of_two() => Ok(Self(bytes)),
            _ => Err(BadPageSize(bytes)),
        }
    }

    /// The page size whose logarithm to base two is `log2` (9 to 16).
    ///
    /// # Errors
    /// [`BadPageSize`] when SQLite has no such page size.
    pub fn from_log2(log2: u8) -> Result<Self, BadPageSize> {
        Self::new(1u32.checked_shl(u32::from(log2)).unwrap_or(0))
    }

    /// The logarithm to base two, 9 to 16.
    #[must_use]
    pub fn log2(self) -> u8 {
        u8::try_from(self.0.trailing_zeros()).unwrap_or(u8::MAX)
    }

    /// Bytes in a page.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0 as usize
    }

    /// Bytes in a page, as the 32-bit number that SQLite's files hold.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// The page that holds SQLite's lock bytes. No frame ever carries it, it is all zeros in the
    /// file, and it is left out of every hash.
    #[must_use]
    pub fn lock_page(self) -> PageNumber {
        PageNumber(NonZeroU32::MIN.saturating_add(LOCK_BYTE / self.0))
    }

    /// Where a page begins in the database file, in bytes.
    #[must_use]
    pub fn offset_of(self, page: PageNumber) -> u64 {
        u64::from(page.get() - 1) * u64::from(self.0)
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number of a page, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(NonZeroU32);

impl PageNumber {
    /// A page number; `None` for zero, which numbers no page.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number, from 1.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The place of the page in a list of all pages, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

impl fmt::Display for PageNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// XXH3-64 of a page's bytes, seeded with the page's number: equal pages at different places hash
/// differently, so pages that changed places are noticed.
///
/// Source: <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PageHash(pub u64);

impl PageHash {
    /// Hashes the bytes of page `number`.
    #[must_use]
    pub fn of(number: PageNumber, bytes: &[u8]) -> Self {
        Self(XxHash3_64::oneshot_with_seed(u64::from(number.get()), bytes))
    }
}

/// The hash of a whole database: the wrapping sum of the hashes of pages 1 to n, the lock page left
/// out. A change of one page changes it in constant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StateHash(pub u64);

impl StateHash {
    /// The sum with one more page.
    #[must_use]
    pub fn with(self, page: PageHash) -> Self {
        Self(self.0.wrapping_add(page.0))
    }

    /// The sum with one page less.
    #[must_use]
    pub fn without(self, page: PageHash) -> Self {
        Self(self.0.wrapping_sub(page.0))
    }

    /// The sum of two disjoint sets of pages.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.wrapping_add(other.0))
    }
}

impl fmt::Display for StateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_sizes_are_those_of_sqlite() {
        let sizes: Vec<u32> = (0..=70_000).filter(|&n| PageSize::new(n).is_ok()).collect();
        assert_eq!(sizes, [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]);
        for bytes in sizes {
            let size = PageSize::new(bytes).unwrap();
            assert_eq!(PageSize::from_log2(size.log2()), Ok(size));
        }
        assert_eq!(PageSize::from_log2(8), Err(BadPageSize(256)));
        assert_eq!(PageSize::from_log2(200), Err(BadPageSize(0)));
    }

    #[test]
    fn the_lock_page_holds_the_lock_byte() {
        let lock_page = |bytes| PageSize::new(bytes).unwrap().lock_page().get();
        assert_eq!(lock_page(512), 2_097_153);
        assert_eq!(lock_page(4096), 262_145);
        assert_eq!(lock_page(65_536), 16_385);
    }

    #[test]
    fn equal_pages_at_different_places_hash_differently() {
        let one = PageHash::of(PageNumber::new(1).unwrap(), &[0; 512]);
        let two = PageHash::of(PageNumber::new(2).unwrap(), &[0; 512]);
        assert_ne!(one, two);
        let state = StateHash::default().with(one).with(two);
        assert_eq!(state.without(one), StateHash::default().with(two));
    }
}
