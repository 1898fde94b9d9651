//! How the image of a page is stored.

use crate::page::PageSize;

const RAW: u8 = 0;
const LZ4: u8 = 1;
const DELTA: u8 = 2;
const HALVES: u8 = 3;

/// Bytes of a page, and of its base, that one LZ4 block covers: together they must lie within LZ4's
/// reach of 64 KiB.
pub(super) const HALF: usize = 32 << 10;

/// How the image of a page is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Raw,
    /// As one LZ4 block.
    Lz4,
    /// As one LZ4 block whose dictionary is the page before the transaction.
    Delta,
    /// As two LZ4 blocks, each of one half, with the same half before the transaction.
    Halves,
}

impl Encoding {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Raw => RAW,
            Self::Lz4 => LZ4,
            Self::Delta => DELTA,
            Self::Halves => HALVES,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            RAW => Self::Raw,
            LZ4 => Self::Lz4,
            DELTA => Self::Delta,
            HALVES => Self::Halves,
            _ => return None,
        })
    }

    /// Whether it takes the page before the transaction to unpack the image.
    pub(super) fn is_delta(self) -> bool {
        matches!(self, Self::Delta | Self::Halves)
    }

    /// The encoding of deltas between pages of this size.
    pub(super) fn of_deltas(page_size: PageSize) -> Self {
        if page_size.bytes() > HALF { Self::Halves } else { Self::Delta }
    }

    /// Whether an image may take so many bytes.
    pub(super) fn fits(self, stored_len: usize, page_size: PageSize) -> bool {
        let is_packed = 0 < stored_len && stored_len < page_size.bytes();
        match self {
            Self::Raw => stored_len == page_size.bytes(),
            Self::Lz4 => is_packed,
            Self::Delta | Self::Halves => is_packed && self == Self::of_deltas(page_size),
        }
    }
}
