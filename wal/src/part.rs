//! The envelope of every object in a replica: a sequence of *parts*, each of them provable alone.
//! Objects are merged by putting their parts one after another.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `GRPT` |
//! | 4 | 1 | kind: 1 segment, 2 blocks of a pack, 3 footer of a pack, 4 manifest |
//! | 5 | 1 | version, 1 |
//! | 6 | 1 | flags: bit 0, a WAL position is there; bit 1 (encrypted) and bit 2 (MAC) are reserved, see below; bit 3, s is 8, in segments only |
//! | 7 | 1 | page size, as its logarithm to base two |
//! | 8 | 4 | epoch of the writer |
//! | 12 | 4 | generation: epoch |
//! | 16 | 8 | generation: random number |
//! | 24 | 8 | first transaction id; 0 in packs |
//! | 32 | 8 | last transaction id; 0 in packs |
//! | 40 | 36 | [`WalPosition`](crate::position::WalPosition) after the last transaction; zeros when there is none, as in packs |
//! | 76 | 8 | state hash before the first transaction; 0 in packs |
//! | 84 | 8 | state hash after the last transaction; in packs the sum of the blocks' page hashes |
//! | 92 | 4 | bytes in the payload as stored, at most 64 MiB |
//! | 96 | n | payload |
//! | 96 + n | s | up to which transaction everything was stored when the part was made: before its first |
//! | 96 + n + s | 4 | bytes in the whole part, CRC included |
//! | 100 + n + s | 4 | CRC-32 (ISO-HDLC) of all bytes before it |
//!
//! Numbers are little-endian. Bytes 8 to 23 are the *stamp*: they are written when the object is
//! uploaded, everything after them when it is sealed, so that what was sealed under one epoch can
//! be uploaded under the next. Unknown kinds, versions and flags are refused.
//!
//! Packs are written before anybody knows for which transaction, so their parts name none. Encoder and
//! decoder hold that, and that no part ends before it begins.
//!
//! The length at the end is for readers that have only the end of an object: the last eight bytes
//! tell where the last part begins ([`trailing_len`]).
//!
//! The reserved flags mean what follows. This version neither writes nor takes them.
//!
//! - *MAC*: 32 bytes stand between the payload and the length. They are not counted as payload. They
//!   cover everything before them, the stamp taken as zeros: who puts another stamp on a part needs
//!   no key.
//! - *Encrypted*: the WAL position (its 36 bytes, whether there is one or not) and both state hashes
//!   are zeros in the header and stand in front of the clear payload. The payload length is that of
//!   the stored payload.
//!
//! The limit of 64 MiB is one of the stored payload, which a decoder must hold whole. Encoders cut
//! well below it: what encryption adds must fit too.

mod error;
mod header;
#[cfg(test)]
mod tests;

use self::header::{Front, encode_stamp};
use crate::id::Txid;
use crate::reader::{ReadError, Reader};

pub use self::error::PartError;
pub use self::header::{PartHeader, PartKind, Stamp};

const STAMP_OFFSET: usize = 8;
const CRC_LEN: usize = 4;
const STORED_LEN: u32 = 8;

/// Bytes of a part beside its payload, and beside what was stored.
const ENVELOPE_LEN: u32 = 104;

/// Bytes after a part's payload: its length, and the CRC.
pub const TRAILER_LEN: usize = 8;

/// The largest payload, in bytes.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// A part whose CRC fits: its bytes are those that were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// The clear header.
    pub header: PartHeader,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Part<'a> {
    /// Reads and proves the part at the front of `reader`.
    ///
    /// # Errors
    /// [`PartError`] says what is wrong.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, PartError> {
        let mut summed = reader.clone();
        let front = PartHeader::decode(reader)?;
        let payload = reader.take(front.payload_len as usize)?;
        let mut header = front.header;
        if let Some(stored) = &mut header.stored {
            *stored = Txid(reader.u64()?);
        }
        let told_len = reader.u32()?;
        let summed = summed.take(front.part_len() as usize - CRC_LEN)?;
        if reader.u32()? != crc32fast::hash(summed) {
            return Err(PartError::BadCrc);
        }
        if told_len as usize != summed.len() + CRC_LEN {
            return Err(PartError::BadLength(told_len));
        }
        header.check()?;
        Ok(Self { header, payload })
    }
}

/// Appends a part to `out`.
///
/// # Errors
/// [`PartError::TooLong`] when the payload is over [`MAX_PAYLOAD`], [`PartError::BadRange`] when the
/// last transaction comes before the first, [`PartError::StrayState`] when a part of a pack names a
/// state, [`PartError::StrayStored`] when more is stored than comes before it; `out` is left alone then.
pub fn encode(header: &PartHeader, payload: &[u8], out: &mut Vec<u8>) -> Result<(), PartError> {
    let too_long = PartError::TooLong(payload.len() as u64);
    let payload_len = u32::try_from(payload.len()).ok().filter(|&n| n <= MAX_PAYLOAD);
    let payload_len = payload_len.ok_or(too_long)?;
    header.check()?;
    let (start, len) = (out.len(), Front { header: *header, payload_len }.part_len());
    out.reserve(len as usize);
    header.encode(payload_len, out);
    out.extend_from_slice(payload);
    if let Some(stored) = header.stored {
        out.extend_from_slice(&stored.0.to_le_bytes());
    }
    out.extend_from_slice(&len.to_le_bytes());
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// How many bytes the part that begins with `header` takes in all. Only the length is read from it:
/// nothing is proven.
///
/// # Errors
/// [`PartError`] when the bytes are no part's header.
pub fn stored_len(header: &[u8]) -> Result<usize, PartError> {
    Ok(PartHeader::decode(&mut Reader::new(header))?.part_len() as usize)
}

/// How many bytes the part that ends with `tail` takes in all: the last one of an object, where
/// `tail` is the object's end. Only the length is read from it: nothing is proven.
///
/// # Errors
/// [`PartError::Truncated`] when `tail` is shorter than [`TRAILER_LEN`], [`PartError::BadLength`]
/// when no part is as long.
pub fn trailing_len(tail: &[u8]) -> Result<usize, PartError> {
    let truncated = ReadError::Truncated { wanted: TRAILER_LEN, left: tail.len() };
    let trailer = tail.last_chunk::<TRAILER_LEN>().ok_or(truncated)?;
    let len = Reader::new(trailer).u32()?;
    if (ENVELOPE_LEN..=ENVELOPE_LEN + MAX_PAYLOAD + STORED_LEN).contains(&len) {
        Ok(len as usize)
    } else {
        Err(PartError::BadLength(len))
    }
}

impl Front {
    /// Bytes in the whole part, whose payload has at most [`MAX_PAYLOAD`].
    fn part_len(&self) -> u32 {
        let stored = if self.header.stored.is_some() { STORED_LEN } else { 0 };
        ENVELOPE_LEN + self.payload_len + stored
    }
}

/// Puts another stamp on one whole part, which is proven first.
///
/// # Errors
/// [`PartError`] when `bytes` is not exactly one valid part; it is left alone then.
pub fn restamp(bytes: &mut [u8], stamp: Stamp) -> Result<(), PartError> {
    let mut reader = Reader::new(bytes);
    Part::decode(&mut reader)?;
    reader.finish()?;
    let encoded = encode_stamp(stamp);
    if let Some(place) = bytes.get_mut(STAMP_OFFSET..STAMP_OFFSET + encoded.len()) {
        place.copy_from_slice(&encoded);
    }
    if let Some((summed, crc)) = bytes.split_last_chunk_mut::<CRC_LEN>() {
        *crc = crc32fast::hash(summed).to_le_bytes();
    }
    Ok(())
}
