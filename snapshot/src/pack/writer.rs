//! The encoder of packs.

use genesis_wal::id::Txid;
use genesis_wal::page::{PageHash, StateHash};
use genesis_wal::part::{self, MAX_PAYLOAD, PartHeader, PartKind, Stamp, TRAILER_LEN};
use genesis_wal::position::WalPosition;

use super::entry::{BlockEntry, PackedBlock, pack_block};
use super::{DIRECTORY_ENTRY_LEN, FOOTER_HEAD_LEN, HASH_LEN, PackError};
use crate::block::BlockLayout;

/// Bytes of an envelope beside its payload.
const ENVELOPE_LEN: usize = PartHeader::LEN + TRAILER_LEN;

/// Puts blocks into a pack. [`push`](Self::push) them in ascending order, and
/// [`finish`](Self::finish) when [`stored_len`](Self::stored_len) is large enough.
#[derive(Debug)]
pub struct PackWriter {
    layout: BlockLayout,
    stamp: Stamp,
    txid: Txid,
    position: Option<WalPosition>,
    payload: Vec<u8>,
    entries: Vec<BlockEntry>,
    hashes: Vec<PageHash>,
    sum: StateHash,
}

impl PackWriter {
    /// A pack of blocks of the state after `txid`. `position` is the place in the WAL behind it.
    #[must_use]
    pub fn new(
        layout: BlockLayout,
        stamp: Stamp,
        txid: Txid,
        position: Option<WalPosition>,
    ) -> Self {
        Self {
            layout,
            stamp,
            txid,
            position,
            payload: Vec::new(),
            entries: Vec::new(),
            hashes: Vec::new(),
            sum: StateHash::default(),
        }
    }

    /// Bytes that the whole object has if it is finished now.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        2 * ENVELOPE_LEN + self.payload.len() + self.footer_len()
    }

    /// Whether no block has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Packs a block and adds it. Whatever stands in the lock page is stored as zeros.
    ///
    /// # Errors
    /// [`PackError::OutOfOrder`], [`PackError::BadBlockLength`] or [`PackError::Full`]; nothing is
    /// added then.
    pub fn push(&mut self, block: u32, raw: &[u8]) -> Result<(), PackError> {
        let packed = pack_block(self.layout, block, raw)?;
        self.push_packed(&packed)
    }

    /// Adds a block that was packed before, with the same layout.
    ///
    /// # Errors
    /// [`PackError::OutOfOrder`] or [`PackError::Full`]; nothing is added then.
    pub fn push_packed(&mut self, packed: &PackedBlock) -> Result<(), PackError> {
        let block = packed.block;
        let ascends = self.entries.last().is_none_or(|last| last.block < block);
        if packed.layout != self.layout || !ascends {
            return Err(PackError::OutOfOrder(block));
        }
        let footer_len = self.footer_len() + DIRECTORY_ENTRY_LEN + packed.hashes.len() * HASH_LEN;
        let payload_len = self.payload.len() + packed.stored.len();
        if payload_len.max(footer_len) > MAX_PAYLOAD as usize {
            return Err(PackError::Full);
        }
        self.entries.push(BlockEntry {
            block,
            offset: (PartHeader::LEN + self.payload.len()) as u64,
            stored_len: u32::try_from(packed.stored.len()).unwrap_or(u32::MAX),
            encoding: packed.encoding,
            crc: packed.crc,
            sum: packed.sum,
        });
        self.payload.extend_from_slice(&packed.stored);
        self.hashes.extend_from_slice(&packed.hashes);
        self.sum = self.sum.plus(packed.sum);
        Ok(())
    }

    /// Appends the pack to `out`; nothing when it is empty. Gives back where each block lies in it.
    ///
    /// # Errors
    /// [`PackError::Part`] when a part does not fit its envelope.
    pub fn finish(self, out: &mut Vec<u8>) -> Result<Vec<BlockEntry>, PackError> {
        if self.is_empty() {
            return Ok(self.entries);
        }
        let header = |kind| PartHeader {
            kind,
            page_size: self.layout.page_size,
            stamp: self.stamp,
            first: self.txid,
            last: self.txid,
            position: self.position,
            before: StateHash::default(),
            after: self.sum,
        };
        part::encode(&header(PartKind::PackBlocks), &self.payload, out)?;
        part::encode(&header(PartKind::PackFooter), &self.footer(), out)?;
        Ok(self.entries)
    }

    fn footer_len(&self) -> usize {
        FOOTER_HEAD_LEN + self.entries.len() * DIRECTORY_ENTRY_LEN + self.hashes.len() * HASH_LEN
    }

    fn footer(&self) -> Vec<u8> {
        let number = |len: usize| u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes();
        let mut footer = Vec::with_capacity(self.footer_len());
        footer.extend_from_slice(&self.layout.pages.to_le_bytes());
        footer.extend_from_slice(&number(self.entries.len()));
        for entry in &self.entries {
            for field in [entry.block, entry.stored_len, entry.crc] {
                footer.extend_from_slice(&field.to_le_bytes());
            }
            footer.push(entry.encoding.code());
        }
        for hash in &self.hashes {
            footer.extend_from_slice(&hash.0.to_le_bytes());
        }
        footer
    }
}
