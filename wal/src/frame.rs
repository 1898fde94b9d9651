//! A WAL frame: a 24-byte header and one page. All numbers are big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | page number |
//! | 4 | 4 | pages in the database after the commit; 0 when the frame ends no transaction |
//! | 8 | 8 | the salts of the WAL header |
//! | 16 | 8 | cumulative checksum up to and with this frame |
//! | 24 | page size | the page |
//!
//! The checksum goes over bytes 0 to 7 of the header and then over the page, starting from the
//! checksum of the frame before, or of the WAL header.
//!
//! Source: <https://www.sqlite.org/fileformat2.html#walformat>.

use crate::checksum::{ByteOrder, Checksum};
use crate::header::{Salts, WalHeader};
use crate::page::PageSize;
use crate::reader::{ReadError, Reader};

/// The header of a frame, as it stands in the file: nothing of it is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The page's number; 0 never stands in a valid frame.
    pub page: u32,
    /// Pages in the database after the commit; 0 when the frame ends no transaction.
    pub commit: u32,
    /// The salts of the WAL that the frame was written for.
    pub salts: Salts,
    /// The cumulative checksum up to and with this frame.
    pub checksum: Checksum,
}

impl FrameHeader {
    /// Bytes in a frame header.
    pub const LEN: usize = 24;

    /// Decodes a frame header from the front of `bytes`.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 24 bytes are there.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReadError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            page: reader.u32_be()?,
            commit: reader.u32_be()?,
            salts: Salts(reader.array()?),
            checksum: Checksum(reader.u32_be()?, reader.u32_be()?),
        })
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&self.page.to_be_bytes());
        bytes.extend_from_slice(&self.commit.to_be_bytes());
        bytes.extend_from_slice(&self.salts.0);
        bytes.extend_from_slice(&self.checksum.0.to_be_bytes());
        bytes.extend_from_slice(&self.checksum.1.to_be_bytes());
        bytes
    }

    /// Whether SQLite wrote the frame without salts and checksum, to set them when the transaction is
    /// committed.
    #[must_use]
    pub fn is_unsummed(&self) -> bool {
        self.salts == Salts([0; 8]) && self.checksum == Checksum::NONE
    }

    /// The checksum that a frame with this header and `page` has after one with `before`.
    #[must_use]
    pub fn chained(&self, order: ByteOrder, before: Checksum, page: &[u8]) -> Checksum {
        let summed = (u64::from(self.page) << 32) | u64::from(self.commit);
        before.extend(order, &summed.to_be_bytes()).extend(order, page)
    }
}

/// Bytes in a frame of this page size.
#[must_use]
pub fn frame_len(page_size: PageSize) -> usize {
    FrameHeader::LEN + page_size.bytes()
}

/// Where frame `number`, counted from 1, begins in the WAL file, in bytes.
#[must_use]
pub fn frame_offset(page_size: PageSize, number: u32) -> u64 {
    let before = u64::from(number.saturating_sub(1));
    WalHeader::LEN as u64 + before * frame_len(page_size) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_a_short_header() {
        let header =
            FrameHeader { page: 3, commit: 9, salts: Salts([7; 8]), checksum: Checksum(1, 2) };
        let bytes = header.encode();
        assert_eq!(FrameHeader::decode(&bytes), Ok(header));
        for cut in 0..bytes.len() {
            assert!(FrameHeader::decode(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn frames_beyond_four_gibibytes_have_an_offset() {
        let size = PageSize::new(65_536).unwrap();
        assert_eq!(frame_offset(size, 1), 32);
        assert_eq!(frame_offset(size, u32::MAX), 32 + u64::from(u32::MAX - 1) * 65_560);
    }
}
