//! Manifests: a snapshot as the list of its blocks, wherever they lie.
//!
//! A manifest is one or more [parts](genesis_wal::part) of kind *manifest*, with payloads of at most
//! 1 MiB, so that it can be read as a stream. The parts have equal headers: first and last
//! transaction are the snapshot's own, the state hashes before and after are its state. The payloads
//! are a sequence of records, none of which is cut by the end of a part: the head, the packs, runs of
//! blocks.
//!
//! The head:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags: bit 0, a parent is there |
//! | 2 | 2 | zero |
//! | 4 | 4 | pages in the database |
//! | 8 | 8 | time from which the state was the current one, in microseconds since 1970 |
//! | 16 | 4 | parent, zeros when there is none: epoch of the generation |
//! | 20 | 8 | parent: random number of the generation |
//! | 28 | 8 | parent: transaction id |
//! | 36 | 4 | packs |
//! | 40 | 4 | blocks |
//!
//! A pack, by the name of its first copy:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | epoch of the generation that it was written for |
//! | 4 | 8 | random number of that generation |
//! | 12 | 4 | epoch of its writer |
//! | 16 | 4 | attempt |
//! | 20 | 4 | part |
//! | 24 | 8 | bytes in the object |
//!
//! A run, of consecutive blocks that lie one after another in one pack:
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | first block |
//! | 4 | 4 | n: blocks in the run, at least 1 |
//! | 8 | 4 | the pack's place in the list of packs, from 0 |
//! | 12 | 8 | where the first block begins in the pack |
//! | 20 | 15 · n | per block: bytes as stored, less one (2), encoding (1), CRC-32 (4), sum of its page hashes (8) |
//!
//! Numbers are little-endian; encodings are those of a [pack](crate::pack). Encoder and decoder hold:
//! every block of the database is there once, in order; every block lies within its pack; there are no
//! more packs than blocks; the sums add up to the state hash.

mod decode;
mod encode;

pub use decode::ManifestDecoder;

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::PackName;
use genesis_wal::page::StateHash;
use genesis_wal::part::{PartError, PartHeader, PartKind, Stamp};
use genesis_wal::position::WalPosition;
use genesis_wal::reader::ReadError;
use genesis_wal::time::Micros;
use thiserror::Error;

use crate::block::BlockLayout;
use crate::pack::BlockEntry;

/// The largest payload of a manifest's part, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

const VERSION: u8 = 1;
const FLAG_PARENT: u8 = 1;
/// What stands in the head when there is no parent.
const NO_PARENT: (Generation, Txid) = (Generation { epoch: Epoch(0), random: 0 }, Txid(0));
const HEAD_LEN: usize = 44;
const PACK_LEN: usize = 32;
const RUN_LEN: usize = 20;
const BLOCK_ENTRY_LEN: usize = 15;

/// A pack that holds blocks of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PackRef {
    /// The name of its first copy: repair is 0.
    pub name: PackName,
    /// Bytes in the object.
    pub size: u64,
}

/// Where a block of a snapshot lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ManifestBlock {
    /// The pack, by its place in [`Manifest::packs`].
    pub pack: u32,
    /// The place in the pack.
    pub entry: BlockEntry,
}

/// A snapshot: a full image of the database as of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Page size and pages of the database.
    pub layout: BlockLayout,
    /// The line of history that the snapshot belongs to, and who wrote it.
    pub stamp: Stamp,
    /// The transaction whose state it holds.
    pub txid: Txid,
    /// The place in the source's WAL after that transaction.
    pub position: Option<WalPosition>,
    /// From when on its state was the current one of its line: the commit time, or, where a line
    /// begins with an older state, the time at which it began.
    pub time: Micros,
    /// The state hash.
    pub state: StateHash,
    /// The state of another line that this one began with.
    pub parent: Option<(Generation, Txid)>,
    /// The packs that hold its blocks.
    pub packs: Vec<PackRef>,
    /// Every block of the database, in order.
    pub blocks: Vec<ManifestBlock>,
}

/// Why bytes are no manifest, or a manifest can't be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// An envelope is not valid.
    #[error("the envelope of the manifest is not valid")]
    Part(#[from] PartError),
    /// A part ends within a record.
    #[error("the manifest is cut off")]
    Truncated(#[from] ReadError),
    /// A part holds something else.
    #[error("the part is no part of a manifest")]
    WrongKind,
    /// A part belongs to another manifest than the first.
    #[error("the parts are not of one manifest")]
    Mixed,
    /// A payload that is longer than the format allows.
    #[error("a payload of {0} bytes is over the manifest's limit of {MAX_PAYLOAD}")]
    TooLong(usize),
    /// A format version that this program does not know.
    #[error("manifest version {0} is not known to this program")]
    UnknownVersion(u8),
    /// Flags that this program does not know.
    #[error("manifest flags {0:#08x} are not known to this program")]
    UnknownFlags(u32),
    /// A parent where the flags say that there is none.
    #[error("the manifest has a parent that it does not announce")]
    StrayParent,
    /// A block encoding that this program does not know.
    #[error("block encoding {0} is not known to this program")]
    UnknownEncoding(u8),
    /// Other numbers of packs or blocks than are announced, or than the database has.
    #[error("the manifest does not hold the packs and blocks that it announces")]
    BadCount,
    /// A pack that is named as a repaired copy: which copy is read is not for a manifest to say.
    #[error("pack {0} of the manifest is named as a repaired copy")]
    RepairedPack(PackName),
    /// A block that does not come next, or has a length that no stored block of its kind has.
    #[error("block {0} has no place in the manifest")]
    BadBlock(u32),
    /// A block that lies outside of its pack, or in a pack that is not named.
    #[error("block {0} lies outside of its pack")]
    OutsidePack(u32),
    /// The blocks' sums do not add up to the state hash.
    #[error("the sums of the blocks do not add up to the state hash")]
    BadSum,
}

impl Manifest {
    fn header(&self) -> PartHeader {
        PartHeader {
            kind: PartKind::Manifest,
            page_size: self.layout.page_size,
            stamp: self.stamp,
            first: self.txid,
            last: self.txid,
            position: self.position,
            stored: None,
            before: self.state,
            after: self.state,
        }
    }

    /// What encoder and decoder both hold.
    fn check(&self) -> Result<(), ManifestError> {
        if self.blocks.len() != self.layout.blocks() as usize
            || self.packs.len() > self.blocks.len()
        {
            return Err(ManifestError::BadCount);
        }
        if let Some(pack) = self.packs.iter().find(|pack| pack.name.repair != 0) {
            return Err(ManifestError::RepairedPack(pack.name));
        }
        let mut sum = StateHash::default();
        for (expected, ManifestBlock { pack, entry }) in (0..).zip(&self.blocks) {
            if entry.block != expected || !entry.fits(self.layout) {
                return Err(ManifestError::BadBlock(entry.block));
            }
            let size = self.packs.get(*pack as usize).map_or(0, |pack| pack.size);
            if entry.end().is_none_or(|end| end > size) {
                return Err(ManifestError::OutsidePack(entry.block));
            }
            sum = sum.plus(entry.sum);
        }
        if sum == self.state { Ok(()) } else { Err(ManifestError::BadSum) }
    }
}
