//! The clear header of a part: encoder and decoder.

use super::{MAX_PAYLOAD, PartError};
use crate::id::{Epoch, Generation, Txid};
use crate::page::{PageSize, StateHash};
use crate::position::WalPosition;
use crate::reader::{ReadError, Reader};

const MAGIC: [u8; 4] = *b"GRPT";
const VERSION: u8 = 1;
const FLAG_POSITION: u8 = 1;
const FLAG_STORED: u8 = 8;

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
    pub(super) fn code(self) -> u8 {
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
    /// Up to which transaction everything was stored when the part was made; it stands behind the payload.
    /// None where nobody told, and in all but segments.
    pub stored: Option<Txid>,
    /// The state hash before the first transaction; 0 in packs.
    pub before: StateHash,
    /// The state hash after the last transaction; in packs the sum of the blocks' page hashes.
    pub after: StateHash,
}

/// What stands in front of a payload.
pub(super) struct Front {
    /// The header. Where what was stored stands behind the payload, it is not told yet: 0.
    pub(super) header: PartHeader,
    /// Bytes in the payload.
    pub(super) payload_len: u32,
}

impl PartHeader {
    /// Bytes in a part's header.
    pub const LEN: usize = 96;

    pub(super) fn encode(&self, payload_len: u32, out: &mut Vec<u8>) {
        let position = if self.position.is_some() { FLAG_POSITION } else { 0 };
        let flags = position | if self.stored.is_some() { FLAG_STORED } else { 0 };
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
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Front, PartError> {
        if reader.array()? != MAGIC {
            return Err(PartError::BadMagic);
        }
        let [kind, version, flags, page_size] = reader.array()?;
        if version != VERSION {
            return Err(PartError::UnknownVersion(version));
        }
        let kind = PartKind::from_code(kind).ok_or(PartError::UnknownKind(kind))?;
        if flags & !(FLAG_POSITION | FLAG_STORED) != 0 {
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
        let stored = (flags & FLAG_STORED != 0).then_some(Txid(0));
        let header = Self { kind, page_size, stamp, first, last, position, stored, before, after };
        header.check()?;
        Ok(Front { header, payload_len })
    }

    /// What encoder and decoder both hold.
    pub(super) fn check(&self) -> Result<(), PartError> {
        if self.last < self.first {
            return Err(PartError::BadRange);
        }
        let names_state = self.last != Txid(0)
            || self.position.is_some()
            || self.stored.is_some()
            || self.before != StateHash(0);
        match self.kind {
            PartKind::PackBlocks | PartKind::PackFooter if names_state => {
                Err(PartError::StrayState)
            }
            PartKind::Manifest if self.stored.is_some() => {
                Err(PartError::UnknownFlags(FLAG_STORED))
            }
            PartKind::Segment if self.stored >= Some(self.first) => Err(PartError::StrayStored),
            _ => Ok(()),
        }
    }
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

pub(super) fn encode_stamp(stamp: Stamp) -> [u8; 16] {
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
