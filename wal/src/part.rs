//! The envelope of every object in a replica: a sequence of *parts*, each of them provable alone.
//! Objects are merged by putting their parts one after another.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | magic `GRPT` |
//! | 4 | 1 | kind: 1 segment, 2 blocks of a pack, 3 footer of a pack, 4 manifest |
//! | 5 | 1 | version, 1 |
//! | 6 | 1 | flags: bit 0, a WAL position is there; bit 1 (encrypted) and bit 2 (MAC) are reserved, see below |
//! | 7 | 1 | page size, as its logarithm to base two |
//! | 8 | 4 | epoch of the writer |
//! | 12 | 4 | generation: epoch |
//! | 16 | 8 | generation: random number |
//! | 24 | 8 | first transaction id; 0 in packs |
//! | 32 | 8 | last transaction id; 0 in packs |
//! | 40 | 36 | [`WalPosition`] after the last transaction; zeros when there is none, as in packs |
//! | 76 | 8 | state hash before the first transaction; 0 in packs |
//! | 84 | 8 | state hash after the last transaction; in packs the sum of the blocks' page hashes |
//! | 92 | 4 | bytes in the payload as stored, at most 64 MiB |
//! | 96 | n | payload |
//! | 96 + n | 4 | bytes in the whole part, CRC included |
//! | 100 + n | 4 | CRC-32 (ISO-HDLC) of all bytes before it |
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

use thiserror::Error;

use crate::id::{Epoch, Generation, Txid};
use crate::page::{BadPageSize, PageSize, StateHash};
use crate::position::WalPosition;
use crate::reader::{ReadError, Reader};

const MAGIC: [u8; 4] = *b"GRPT";
const VERSION: u8 = 1;
const FLAG_POSITION: u8 = 1;
const STAMP_OFFSET: usize = 8;
const CRC_LEN: usize = 4;

/// Bytes of a part beside its payload.
const ENVELOPE_LEN: u32 = 104;

/// Bytes after a part's payload: its length, and the CRC.
pub const TRAILER_LEN: usize = 8;

/// The largest payload, in bytes.
pub const MAX_PAYLOAD: u32 = 64 << 20;

/// What a part holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// Transactions; see [`crate::segment`].
    Segment,
    /// Compressed page blocks of a snapshot.
    PackBlocks,
    /// The page hashes of a pack.
    PackFooter,
    /// The list of a snapshot's blocks.
    Manifest,
}

impl PartKind {
    fn code(self) -> u8 {
        match self {
            Self::Segment => 1,
            Self::PackBlocks => 2,
            Self::PackFooter => 3,
            Self::Manifest => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Segment,
            2 => Self::PackBlocks,
            3 => Self::PackFooter,
            4 => Self::Manifest,
            _ => return None,
        })
    }
}

/// Why bytes are no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PartError {
    /// The bytes end within the part.
    #[error("the part is cut off")]
    Truncated(#[from] ReadError),
    /// The first four bytes are not `GRPT`.
    #[error("this is no part of a replica's object")]
    BadMagic,
    /// A format version that this program does not know.
    #[error("format version {0} is not known to this program")]
    UnknownVersion(u8),
    /// A kind of part that this program does not know.
    #[error("part kind {0} is not known to this program")]
    UnknownKind(u8),
    /// Flags that this program does not know.
    #[error("part flags {0:#04x} are not known to this program")]
    UnknownFlags(u8),
    /// A page size that SQLite does not have.
    #[error("the part has a bad page size")]
    BadPageSize(#[from] BadPageSize),
    /// The payload is longer than the format allows.
    #[error("a payload of {0} bytes is over the limit of {MAX_PAYLOAD}")]
    TooLong(u64),
    /// A WAL position where the flags say that there is none.
    #[error("the part has a WAL position that it does not announce")]
    StrayPosition,
    /// The last transaction comes before the first.
    #[error("the part ends before it begins")]
    BadRange,
    /// A transaction, a WAL position or a state before in a part of a pack.
    #[error("a part of a pack names a transaction, a WAL position or a state before it")]
    StrayState,
    /// The bytes are not those that were written.
    #[error("the part's CRC does not fit")]
    BadCrc,
    /// The length at the end of the part is not its length, or that of no part.
    #[error("a part does not have the {0} bytes that its end tells")]
    BadLength(u32),
}

/// Who uploaded an object, and into which line of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The line of history.
    pub generation: Generation,
    /// The writer.
    pub epoch: Epoch,
}

/// The clear header of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartHeader {
    /// What the payload holds.
    pub kind: PartKind,
    /// Bytes in a page of the database.
    pub page_size: PageSize,
    /// Who uploaded it, and where it belongs.
    pub stamp: Stamp,
    /// The first transaction; 0 in packs.
    pub first: Txid,
    /// The last transaction; 0 in packs.
    pub last: Txid,
    /// The place in the source's WAL after the last transaction; none in packs.
    pub position: Option<WalPosition>,
    /// The state hash before the first transaction; 0 in packs.
    pub before: StateHash,
    /// The state hash after the last transaction; in packs the sum of the blocks' page hashes.
    pub after: StateHash,
}

impl PartHeader {
    /// Bytes in a part's header.
    pub const LEN: usize = 96;

    fn encode(&self, payload_len: u32, out: &mut Vec<u8>) {
        let flags = if self.position.is_some() { FLAG_POSITION } else { 0 };
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.kind.code(), VERSION, flags, self.page_size.log2()]);
        out.extend_from_slice(&encode_stamp(self.stamp));
        out.extend_from_slice(&self.first.0.to_le_bytes());
        out.extend_from_slice(&self.last.0.to_le_bytes());
        match self.position {
            Some(position) => position.encode(out),
            None => out.extend_from_slice(&[0; WalPosition::LEN]),
        }
        out.extend_from_slice(&self.before.0.to_le_bytes());
        out.extend_from_slice(&self.after.0.to_le_bytes());
        out.extend_from_slice(&payload_len.to_le_bytes());
    }

    /// Decodes a header and the length of its payload. Nothing is proven yet: the CRC stands after
    /// the payload.
    fn decode(reader: &mut Reader<'_>) -> Result<(Self, u32), PartError> {
        if reader.array()? != MAGIC {
            return Err(PartError::BadMagic);
        }
        let [kind, version, flags, page_size] = reader.array()?;
        if version != VERSION {
            return Err(PartError::UnknownVersion(version));
        }
        let kind = PartKind::from_code(kind).ok_or(PartError::UnknownKind(kind))?;
        if flags & !FLAG_POSITION != 0 {
            return Err(PartError::UnknownFlags(flags));
        }
        let page_size = PageSize::from_log2(page_size)?;
        let stamp = decode_stamp(reader)?;
        let (first, last) = (Txid(reader.u64()?), Txid(reader.u64()?));
        let position = decode_position(reader, flags)?;
        let (before, after) = (StateHash(reader.u64()?), StateHash(reader.u64()?));
        let payload_len = reader.u32()?;
        if payload_len > MAX_PAYLOAD {
            return Err(PartError::TooLong(payload_len.into()));
        }
        let header = Self { kind, page_size, stamp, first, last, position, before, after };
        header.check()?;
        Ok((header, payload_len))
    }

    /// What encoder and decoder both hold.
    fn check(&self) -> Result<(), PartError> {
        if self.last < self.first {
            return Err(PartError::BadRange);
        }
        let names_state =
            self.last != Txid(0) || self.position.is_some() || self.before != StateHash(0);
        match self.kind {
            PartKind::PackBlocks | PartKind::PackFooter if names_state => {
                Err(PartError::StrayState)
            }
            _ => Ok(()),
        }
    }
}

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
        let (header, payload_len) = PartHeader::decode(reader)?;
        let payload_len = payload_len as usize;
        let payload = reader.take(payload_len)?;
        let told_len = reader.u32()?;
        let summed = summed.take(PartHeader::LEN + payload_len + TRAILER_LEN - CRC_LEN)?;
        if reader.u32()? != crc32fast::hash(summed) {
            return Err(PartError::BadCrc);
        }
        if told_len as usize != summed.len() + CRC_LEN {
            return Err(PartError::BadLength(told_len));
        }
        Ok(Self { header, payload })
    }
}

/// Appends a part to `out`.
///
/// # Errors
/// [`PartError::TooLong`] when the payload is over [`MAX_PAYLOAD`], [`PartError::BadRange`] when the
/// last transaction comes before the first, [`PartError::StrayState`] when a part of a pack names a
/// state; `out` is left alone then.
pub fn encode(header: &PartHeader, payload: &[u8], out: &mut Vec<u8>) -> Result<(), PartError> {
    let too_long = PartError::TooLong(payload.len() as u64);
    let payload_len = u32::try_from(payload.len()).ok().filter(|&n| n <= MAX_PAYLOAD);
    let payload_len = payload_len.ok_or(too_long)?;
    header.check()?;
    let start = out.len();
    out.reserve(part_len(payload_len) as usize);
    header.encode(payload_len, out);
    out.extend_from_slice(payload);
    out.extend_from_slice(&part_len(payload_len).to_le_bytes());
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
    let (_, payload_len) = PartHeader::decode(&mut Reader::new(header))?;
    Ok(part_len(payload_len) as usize)
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
    if (part_len(0)..=part_len(MAX_PAYLOAD)).contains(&len) {
        Ok(len as usize)
    } else {
        Err(PartError::BadLength(len))
    }
}

/// Bytes in a part whose payload has `payload_len`, at most [`MAX_PAYLOAD`].
fn part_len(payload_len: u32) -> u32 {
    ENVELOPE_LEN + payload_len
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

fn decode_position(reader: &mut Reader<'_>, flags: u8) -> Result<Option<WalPosition>, PartError> {
    let bytes: [u8; WalPosition::LEN] = reader.array()?;
    if flags & FLAG_POSITION != 0 {
        Ok(Some(WalPosition::decode(&mut Reader::new(&bytes))?))
    } else if bytes == [0; WalPosition::LEN] {
        Ok(None)
    } else {
        Err(PartError::StrayPosition)
    }
}

fn encode_stamp(stamp: Stamp) -> [u8; 16] {
    let Stamp { generation, epoch } = stamp;
    let fields = (u128::from(generation.random) << 64)
        | (u128::from(generation.epoch.0) << 32)
        | u128::from(epoch.0);
    fields.to_le_bytes()
}

fn decode_stamp(reader: &mut Reader<'_>) -> Result<Stamp, ReadError> {
    let epoch = Epoch(reader.u32()?);
    let generation = Generation { epoch: Epoch(reader.u32()?), random: reader.u64()? };
    Ok(Stamp { generation, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checksum::Checksum;
    use crate::header::Salts;
    use crate::position::WalIdentity;

    fn header() -> PartHeader {
        let generation = Generation { epoch: Epoch(3), random: 0x1234 };
        PartHeader {
            kind: PartKind::Segment,
            page_size: PageSize::new(4096).unwrap(),
            stamp: Stamp { generation, epoch: Epoch(4) },
            first: Txid(10),
            last: Txid(12),
            position: Some(WalPosition {
                identity: WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(2, 3) },
                frame: 4,
                checksum: Checksum(5, 6),
                change: 7,
                pages: 8,
            }),
            before: StateHash(20),
            after: StateHash(21),
        }
    }

    fn encoded(header: &PartHeader, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(header, payload, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn round_trips_one_after_another() {
        let one = header();
        let two = PartHeader { position: None, kind: PartKind::Manifest, ..one };
        let bytes = [encoded(&one, b"payload"), encoded(&two, b"")].concat();
        let mut reader = Reader::new(&bytes);
        let part = Part::decode(&mut reader).unwrap();
        assert_eq!((part.header, part.payload), (one, &b"payload"[..]));
        let part = Part::decode(&mut reader).unwrap();
        assert_eq!((part.header, part.payload), (two, &b""[..]));
        assert_eq!(reader.finish(), Ok(()));
        assert_eq!(stored_len(&bytes), Ok(PartHeader::LEN + 7 + TRAILER_LEN));
        assert_eq!(trailing_len(&bytes), Ok(PartHeader::LEN + TRAILER_LEN));
    }

    #[test]
    fn every_flipped_byte_and_every_truncation_is_refused() {
        let good = encoded(&header(), b"payload");
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x41;
            assert!(Part::decode(&mut Reader::new(&bad)).is_err(), "byte {at} flipped");
            assert!(Part::decode(&mut Reader::new(&good[..at])).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn a_wrong_length_at_the_end_is_refused() {
        let good = encoded(&header(), b"payload");
        let (payload_end, len) = (good.len() - TRAILER_LEN, u32::try_from(good.len()).unwrap());
        for wrong in [0, len - 1, len + 1, u32::MAX] {
            let mut bad = good[..payload_end].to_vec();
            bad.extend_from_slice(&wrong.to_le_bytes());
            bad.extend_from_slice(&crc32fast::hash(&bad).to_le_bytes());
            let decoded = Part::decode(&mut Reader::new(&bad));
            assert_eq!(decoded, Err(PartError::BadLength(wrong)));
        }
    }

    #[test]
    fn the_end_of_an_object_tells_no_absurd_length() {
        let tail = |len: u32| [&len.to_le_bytes()[..], &[0; 4]].concat();
        for len in [104, 104 + MAX_PAYLOAD] {
            assert_eq!(trailing_len(&tail(len)), Ok(len as usize));
        }
        for len in [0, 103, 105 + MAX_PAYLOAD, u32::MAX] {
            assert_eq!(trailing_len(&tail(len)), Err(PartError::BadLength(len)));
        }
        assert!(matches!(trailing_len(&tail(104)[1..]), Err(PartError::Truncated(_))));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let with = |at: usize, byte: u8| {
            let mut bytes = encoded(&header(), b"");
            bytes[at] = byte;
            Part::decode(&mut Reader::new(&bytes)).unwrap_err()
        };
        assert_eq!(with(0, b'X'), PartError::BadMagic);
        assert_eq!(with(4, 9), PartError::UnknownKind(9));
        assert_eq!(with(5, 2), PartError::UnknownVersion(2));
        assert_eq!(with(6, 3), PartError::UnknownFlags(3));
        assert_eq!(with(6, 5), PartError::UnknownFlags(5));
        assert_eq!(with(7, 40), PartError::BadPageSize(BadPageSize(0)));
        assert_eq!(with(95, 0xff), PartError::TooLong(0xff00_0000));
        assert_eq!(with(32, 0), PartError::BadRange);
        assert_eq!(with(6, 0), PartError::StrayPosition);
    }

    #[test]
    fn packs_name_no_state_on_either_side() {
        let none = PartHeader {
            kind: PartKind::PackBlocks,
            first: Txid(0),
            last: Txid(0),
            position: None,
            before: StateHash(0),
            ..header()
        };
        let footer = PartHeader { kind: PartKind::PackFooter, ..none };
        for good in [none, footer] {
            let part = Part::decode(&mut Reader::new(&encoded(&good, b"payload"))).unwrap().header;
            assert_eq!(part, good);
            let some = [
                PartHeader { last: Txid(1), ..good },
                PartHeader { position: header().position, ..good },
                PartHeader { before: StateHash(1), ..good },
            ];
            for bad in some {
                let refused = encode(&bad, b"", &mut Vec::new());
                assert_eq!(refused, Err(PartError::StrayState));
                let mut bytes = encoded(&PartHeader { kind: PartKind::Segment, ..bad }, b"");
                bytes[4] = good.kind.code();
                let refused = Part::decode(&mut Reader::new(&bytes));
                assert_eq!(refused, Err(PartError::StrayState));
            }
        }
    }

    #[test]
    fn a_new_stamp_changes_the_stamp_alone() {
        let mut bytes = encoded(&header(), b"payload");
        let generation = Generation { epoch: Epoch(7), random: 0x99 };
        let stamp = Stamp { generation, epoch: Epoch(8) };
        restamp(&mut bytes, stamp).unwrap();
        let part = Part::decode(&mut Reader::new(&bytes)).unwrap();
        assert_eq!(part.header, PartHeader { stamp, ..header() });
        assert_eq!(part.payload, b"payload");

        bytes.push(0);
        assert!(restamp(&mut bytes, stamp).is_err());
    }
}
