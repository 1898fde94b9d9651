//! Maps by page number, looked into several times for every page that is recorded.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use genesis_wal::page::PageNumber;

pub(super) type PageMap<T> = HashMap<PageNumber, T, BuildHasherDefault<PageHasher>>;

/// Spreads page numbers by one multiplication (Knuth's, by the golden ratio). Whoever chooses which
/// pages a database has gains nothing by collisions: it writes the pages, too.
#[derive(Debug, Default)]
pub(super) struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.0 = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
