//! The header of the wal-index, the `-shm` file: the one authority on how much of a WAL is
//! committed. Numbers are in the byte order of the machine that writes them.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 48 | the index header, first copy |
//! | 48 | 48 | the index header, second copy |
//! | 96 | 4 | `nBackfill`: frames copied into the database |
//! | 100 | 20 | `aReadMark`: five read marks |
//! | 120 | 8 | the lock bytes, no data |
//! | 128 | 4 | `nBackfillAttempted` |
//! | 132 | 4 | reserved |
//!
//! and within each copy
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | format version, 3007000 |
//! | 8 | 4 | `iChange`: counts commits, across restarts of the WAL |
//! | 12 | 1 | 1 when the index is initialised |
//! | 13 | 1 | 1 when checksums are summed big-endian |
//! | 14 | 2 | page size; 1 stands for 65536 |
//! | 16 | 4 | `mxFrame`: the last committed frame |
//! | 20 | 4 | pages in the database |
//! | 24 | 8 | the cumulative checksum at `mxFrame` |
//! | 32 | 8 | the salts, as their bytes in the WAL |
//! | 40 | 8 | checksum of bytes 0 to 39, in native words |
//!
//! The page number of each frame follows, as 4 bytes: of the first 4,062 frames from byte 136 on, of the
//! next 4,096 from byte 32,768 on, of the next from byte 65,536 on, and so forth.
//!
//! A writer fills the second copy before the first, a reader reads the first before the second:
//! two equal copies with a fitting checksum were published.
//!
//! Source: <https://www.sqlite.org/walformat.html#the_wal_index_file_format>.

use thiserror::Error;

use crate::checksum::{ByteOrder, Checksum};
use crate::header::{FORMAT_VERSION, Salts};
use crate::page::PageSize;
use crate::reader::{ReadError, Reader};

/// Why the bytes hold no published wal-index header. All but the version pass: read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IndexError {
    /// Fewer than [`WalIndex::LEN`] bytes.
    #[error("the wal-index header is not complete")]
    Truncated(#[from] ReadError),
    /// A writer is between the two copies.
    #[error("the two copies of the wal-index header differ")]
    CopiesDiffer,
    /// Nobody has initialised the index yet.
    #[error("the wal-index is not initialised")]
    Uninitialised,
    /// The checksum does not fit.
    #[error("the wal-index header's checksum does not fit")]
    BadChecksum,
    /// A version other than 3007000.
    #[error("wal-index version {0} is not known")]
    UnknownVersion(u32),
}

/// A published wal-index header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexHeader {
    /// Commits so far; wraps, and restarts when the index is rebuilt.
    pub change: u32,
    /// Bytes in a page; `None` before the first commit into a new database.
    pub page_size: Option<PageSize>,
    /// The last committed frame; 0 when the WAL holds no commit.
    pub max_frame: u32,
    /// Pages in the database.
    pub pages: u32,
    /// The cumulative checksum at [`Self::max_frame`].
    pub frame_checksum: Checksum,
    /// The salts of the WAL.
    pub salts: Salts,
}

/// The wal-index header with what the checkpoints have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalIndex {
    /// The header, equal in both copies.
    pub header: IndexHeader,
    /// Frames that have been copied into the database and synced.
    pub backfilled: u32,
    /// The five read marks; `u32::MAX` where unused.
    pub read_marks: [u32; 5],
    /// Frames that a checkpoint has begun to copy.
    pub backfill_attempted: u32,
}

impl WalIndex {
    /// Bytes to read from the front of the `-shm` file.
    pub const LEN: usize = 136;

    /// Bytes of both copies of the header, which stand at the front.
    pub const HEADER_LEN: usize = 2 * Self::COPY_LEN;

    const COPY_LEN: usize = 48;

    /// Frames that are committed and not in the database yet.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.header.max_frame.saturating_sub(self.backfilled)
    }

    /// Where the page number of `frame`, counted from 1, stands in the `-shm` file.
    #[must_use]
    pub fn page_number_offset(frame: u32) -> u64 {
        // The header takes the place of 34 numbers in the first region.
        let slot = u64::from(frame.saturating_sub(1)) + 34;
        slot / 4096 * 32_768 + slot % 4096 * 4
    }

    /// Decodes and checks the front of a `-shm` file.
    ///
    /// # Errors
    /// [`IndexError`] says why there is no published header to be had from these bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader::new(bytes);
        let first = reader.take(Self::COPY_LEN)?;
        let second = reader.take(Self::COPY_LEN)?;
        let backfilled = native(&mut reader)?;
        let mut read_marks = [0; 5];
        for mark in &mut read_marks {
            *mark = native(&mut reader)?;
        }
        reader.take(8)?;
        let backfill_attempted = native(&mut reader)?;
        reader.take(4)?;
        if first != second {
            return Err(IndexError::CopiesDiffer);
        }
        let header = decode_copy(first)?;
        Ok(Self { header, backfilled, read_marks, backfill_attempted })
    }
}

fn decode_copy(bytes: &[u8]) -> Result<IndexHeader, IndexError> {
    let mut reader = Reader::new(bytes);
    let summed = reader.clone().take(WalIndex::COPY_LEN - 8)?;
    let version = native(&mut reader)?;
    reader.take(4)?;
    let change = native(&mut reader)?;
    let initialised = reader.u8()? != 0;
    reader.take(1)?;
    let page_size = u16::from_ne_bytes(reader.array()?);
    let max_frame = native(&mut reader)?;
    let pages = native(&mut reader)?;
    let frame_checksum = Checksum(native(&mut reader)?, native(&mut reader)?);
    let salts = Salts(reader.array()?);
    let checksum = Checksum(native(&mut reader)?, native(&mut reader)?);
    if !initialised {
        return Err(IndexError::Uninitialised);
    }
    if checksum != Checksum::default().extend(NATIVE, summed) {
        return Err(IndexError::BadChecksum);
    }
    if version != FORMAT_VERSION {
        return Err(IndexError::UnknownVersion(version));
    }
    let page_size = PageSize::new(u32::from(page_size & 0xfe00) | (u32::from(page_size & 1) << 16));
    Ok(IndexHeader { change, page_size: page_size.ok(), max_frame, pages, frame_checksum, salts })
}

const NATIVE: ByteOrder =
    if cfg!(target_endian = "big") { ByteOrder::Big } else { ByteOrder::Little };

fn native(reader: &mut Reader<'_>) -> Result<u32, ReadError> {
    reader.array().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy() -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [FORMAT_VERSION, 0, 42] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&4096u16.to_ne_bytes());
        for word in [7u32, 3, 11, 12] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes.extend_from_slice(&[9; 8]);
        let sum = Checksum::default().extend(NATIVE, &bytes);
        bytes.extend_from_slice(&sum.0.to_ne_bytes());
        bytes.extend_from_slice(&sum.1.to_ne_bytes());
        bytes
    }

    fn index() -> Vec<u8> {
        let mut bytes = [copy(), copy()].concat();
        for word in [5u32, 0, 7, u32::MAX, u32::MAX, u32::MAX, 0, 0, 6, 0] {
            bytes.extend_from_slice(&word.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn reads_what_was_published() {
        let index = WalIndex::decode(&index()).unwrap();
        assert_eq!(index.header.change, 42);
        assert_eq!(index.header.page_size, PageSize::new(4096).ok());
        assert_eq!((index.header.max_frame, index.header.pages), (7, 3));
        assert_eq!(index.header.frame_checksum, Checksum(11, 12));
        assert_eq!(index.header.salts, Salts([9; 8]));
        assert_eq!((index.backfilled, index.backfill_attempted), (5, 6));
        assert_eq!(index.read_marks, [0, 7, u32::MAX, u32::MAX, u32::MAX]);
    }

    #[test]
    fn every_flipped_byte_of_one_copy_is_noticed() {
        let good = index();
        for at in 0..96 {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            assert_eq!(WalIndex::decode(&bad), Err(IndexError::CopiesDiffer), "byte {at}");
        }
    }

    #[test]
    fn every_flipped_byte_of_both_copies_is_noticed() {
        let good = index();
        for at in 0..48 {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            bad[at + 48] ^= 0x41;
            assert_eq!(WalIndex::decode(&bad), Err(IndexError::BadChecksum), "byte {at}");
        }
    }

    #[test]
    fn page_numbers_stand_at_the_front_of_each_region() {
        let offsets = [1, 2, 4062, 4063, 8158, 8159].map(WalIndex::page_number_offset);
        assert_eq!(offsets, [136, 140, 16_380, 32_768, 32_768 + 16_380, 65_536]);
    }

    #[test]
    fn every_truncation_is_noticed_and_zeros_are_uninitialised() {
        let good = index();
        for cut in 0..WalIndex::LEN {
            assert!(matches!(WalIndex::decode(&good[..cut]), Err(IndexError::Truncated(_))));
        }
        assert_eq!(WalIndex::decode(&[0; WalIndex::LEN]), Err(IndexError::Uninitialised));
    }
}
