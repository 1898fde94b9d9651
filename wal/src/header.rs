//! The 32-byte header of a WAL file. All numbers are big-endian.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic: `0x377f0682`, or `0x377f0683` when checksums are summed big-endian |
//! | 4 | 4 | format version, 3007000 |
//! | 8 | 4 | page size |
//! | 12 | 4 | checkpoint sequence number |
//! | 16 | 8 | salt 1 and salt 2 |
//! | 24 | 8 | checksum of bytes 0 to 23 |
//!
//! Source: <https://www.sqlite.org/fileformat2.html#walformat>.

use thiserror::Error;

use crate::checksum::{ByteOrder, Checksum};
use crate::page::{BadPageSize, PageSize};
use crate::reader::{ReadError, Reader};

const MAGIC_LITTLE: u32 = 0x377f_0682;
const MAGIC_BIG: u32 = 0x377f_0683;

/// The format version of WAL and wal-index, unchanged since SQLite 3.7.0.
pub const FORMAT_VERSION: u32 = 3_007_000;

/// The two salts, as the eight bytes that stand in the WAL header and in each of its frames. They
/// change with each restart of the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Salts(pub [u8; 8]);

/// Why 32 bytes are no WAL header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// Fewer than 32 bytes: the WAL has not been started.
    #[error("the WAL header is not complete")]
    Truncated(#[from] ReadError),
    /// The first four bytes are no WAL magic.
    #[error("{0:#010x} is no WAL magic")]
    BadMagic(u32),
    /// A version other than 3007000.
    #[error("WAL format version {0} is not known")]
    UnknownVersion(u32),
    /// A page size that SQLite does not have.
    #[error("the WAL header has a bad page size")]
    BadPageSize(#[from] BadPageSize),
    /// The checksum does not fit: a torn or damaged header.
    #[error("the WAL header's checksum does not fit")]
    BadChecksum,
}

/// A checked WAL header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalHeader {
    /// How the checksums of this WAL are summed.
    pub order: ByteOrder,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// How often this WAL was restarted, as its writers know it.
    pub checkpoint_sequence: u32,
    /// The salts of every frame of this WAL.
    pub salts: Salts,
    /// The header's own checksum: the seed of the frames' chain.
    pub checksum: Checksum,
}

impl WalHeader {
    /// Bytes in a WAL header.
    pub const LEN: usize = 32;

    /// Decodes and checks a header from the front of `bytes`.
    ///
    /// # Errors
    /// [`HeaderError`] says what is wrong; the checksum is looked at last.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut reader = Reader::new(bytes);
        let summed = reader.clone().take(Self::LEN - 8)?;
        let order = match reader.u32_be()? {
            MAGIC_LITTLE => ByteOrder::Little,
            MAGIC_BIG => ByteOrder::Big,
            other => return Err(HeaderError::BadMagic(other)),
        };
        let version = reader.u32_be()?;
        if version != FORMAT_VERSION {
            return Err(HeaderError::UnknownVersion(version));
        }
        let page_size = PageSize::new(reader.u32_be()?)?;
        let checkpoint_sequence = reader.u32_be()?;
        let salts = Salts(reader.array()?);
        let checksum = Checksum(reader.u32_be()?, reader.u32_be()?);
        if checksum != Checksum::default().extend(order, summed) {
            return Err(HeaderError::BadChecksum);
        }
        Ok(Self { order, page_size, checkpoint_sequence, salts, checksum })
    }

    /// A header with the checksum that belongs to the other fields.
    #[must_use]
    pub fn new(
        order: ByteOrder,
        page_size: PageSize,
        checkpoint_sequence: u32,
        salts: Salts,
    ) -> Self {
        let unsummed =
            Self { order, page_size, checkpoint_sequence, salts, checksum: Checksum::default() };
        let checksum = Checksum::default().extend(order, &unsummed.summed());
        Self { checksum, ..unsummed }
    }

    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.summed();
        bytes.extend_from_slice(&self.checksum.0.to_be_bytes());
        bytes.extend_from_slice(&self.checksum.1.to_be_bytes());
        bytes
    }

    /// The bytes that the header's checksum is taken over.
    fn summed(&self) -> Vec<u8> {
        let magic = match self.order {
            ByteOrder::Little => MAGIC_LITTLE,
            ByteOrder::Big => MAGIC_BIG,
        };
        let mut bytes = Vec::with_capacity(Self::LEN);
        for word in [magic, FORMAT_VERSION, self.page_size.get(), self.checkpoint_sequence] {
            bytes.extend_from_slice(&word.to_be_bytes());
        }
        bytes.extend_from_slice(&self.salts.0);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(order: ByteOrder) -> WalHeader {
        let page_size = PageSize::new(65_536).unwrap();
        WalHeader::new(order, page_size, 7, Salts([1, 2, 3, 4, 5, 6, 7, 8]))
    }

    #[test]
    fn round_trips_in_both_byte_orders() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let header = header(order);
            assert_eq!(WalHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        for order in [ByteOrder::Little, ByteOrder::Big] {
            let good = header(order).encode();
            for at in 0..good.len() {
                let mut bad = good.clone();
                bad[at] ^= 0x41;
                assert!(WalHeader::decode(&bad).is_err(), "byte {at} flipped");
                assert!(WalHeader::decode(&good[..at]).is_err(), "cut at {at}");
            }
        }
    }
}
