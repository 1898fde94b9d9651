//! A place in one WAL, kept at the end of every segment: what a restart proves continuity with.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | salts of the WAL |
//! | 8 | 8 | checksum of the WAL's header |
//! | 16 | 4 | frame: the last one read; 0 at the start of the WAL |
//! | 20 | 8 | cumulative checksum at that frame |
//! | 28 | 4 | `iChange` of the wal-index when the frame was read |
//! | 32 | 4 | pages in the database |
//!
//! Numbers are little-endian.

use crate::checksum::Checksum;
use crate::header::{Salts, WalHeader};
use crate::reader::{ReadError, Reader};

/// What tells one WAL from another. The salts alone do not: a header may be rewritten under the
/// same salts with another checksum, which seeds another chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalIdentity {
    /// The salts of the header and of every frame.
    pub salts: Salts,
    /// The header's checksum: the seed of the frames' chain.
    pub header_checksum: Checksum,
}

impl From<&WalHeader> for WalIdentity {
    fn from(header: &WalHeader) -> Self {
        Self { salts: header.salts, header_checksum: header.checksum }
    }
}

/// A committed place in one WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalPosition {
    /// Which WAL.
    pub identity: WalIdentity,
    /// The last frame read; 0 at the start of the WAL.
    pub frame: u32,
    /// The cumulative checksum at that frame; at frame 0 the header's own.
    pub checksum: Checksum,
    /// `iChange` of the wal-index when the frame was read.
    pub change: u32,
    /// Pages in the database.
    pub pages: u32,
}

impl WalPosition {
    /// Bytes in an encoded position.
    pub const LEN: usize = 36;

    /// Appends the position's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.identity.salts.0);
        encode_checksum(self.identity.header_checksum, out);
        out.extend_from_slice(&self.frame.to_le_bytes());
        encode_checksum(self.checksum, out);
        out.extend_from_slice(&self.change.to_le_bytes());
        out.extend_from_slice(&self.pages.to_le_bytes());
    }

    /// Reads a position.
    ///
    /// # Errors
    /// [`ReadError::Truncated`] when fewer than 36 bytes are left.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        Ok(Self {
            identity: WalIdentity {
                salts: Salts(reader.array()?),
                header_checksum: Checksum(reader.u32()?, reader.u32()?),
            },
            frame: reader.u32()?,
            checksum: Checksum(reader.u32()?, reader.u32()?),
            change: reader.u32()?,
            pages: reader.u32()?,
        })
    }
}

fn encode_checksum(checksum: Checksum, out: &mut Vec<u8>) {
    out.extend_from_slice(&checksum.0.to_le_bytes());
    out.extend_from_slice(&checksum.1.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let position = WalPosition {
            identity: WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(2, 3) },
            frame: 4,
            checksum: Checksum(5, 6),
            change: 7,
            pages: 8,
        };
        let mut bytes = Vec::new();
        position.encode(&mut bytes);
        assert_eq!(bytes.len(), WalPosition::LEN);
        let mut reader = Reader::new(&bytes);
        assert_eq!(WalPosition::decode(&mut reader), Ok(position));
        assert_eq!(reader.finish(), Ok(()));
    }
}
