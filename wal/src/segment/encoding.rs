//! How the image of a page is stored.

use crate::page::PageSize;

const RAW: u8 = 0;
const LZ4: u8 = 1;

/// How the image of a page is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// As it is.
    Raw,
    /// As one LZ4 block.
    Lz4,
}

impl Encoding {
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Raw => RAW,
            Self::Lz4 => LZ4,
        }
    }

    pub(super) fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            RAW => Self::Raw,
            LZ4 => Self::Lz4,
            _ => return None,
        })
    }

    /// Whether an image may take so many bytes.
    pub(super) fn fits(self, stored_len: usize, page_size: PageSize) -> bool {
        match self {
            Self::Raw => stored_len == page_size.bytes(),
            Self::Lz4 => 0 < stored_len && stored_len < page_size.bytes(),
        }
    }
}
