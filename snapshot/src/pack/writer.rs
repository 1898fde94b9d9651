//! The encoder of packs.

use genesis_wal::id::Txid;
use genesis_wal::page::{PageHash, StateHash};
use genesis_wal::part::{self, MAX_PAYLOAD, PartError, PartHeader, PartKind, Stamp, TRAILER_LEN};

use super::entry::{BlockEntry, PackedBlock, pack_block};
use super::{DIRECTORY_ENTRY_LEN, FOOTER_HEAD_LEN, HASH_LEN, PackError};
use crate::block::BlockLayout;

/// Bytes of an envelope beside its payload.
const ENVELOPE_LEN: usize = PartHeader::LEN + TRAILER_LEN;

/// The largest payload of a part of blocks, in bytes.
const PART_BYTES: usize = 1 << 20;

/// The most bytes of parts of blocks in one pack: what a writer holds in memory.
const MAX_BYTES: usize = 64 << 20;

/// Puts blocks into a pack. [`push`](Self::push) them in ascending order, and
/// [`finish`](Self::finish) when [`stored_len`](Self::stored_len) is large enough.
#[derive(Debug)]
pub struct PackWriter {
    layout: BlockLayout,
    stamp: Stamp,
    /// The parts that are complete.
    parts: Vec<u8>,
    /// The payload of the part that is not, and the sum of its page hashes.
    payload: Vec<u8>,
    payload_sum: StateHash,
    entries: Vec<BlockEntry>,
    hashes: Vec<PageHash>,
    sum: StateHash,
}

impl PackWriter {
    /// A pack of blocks of a database.
    #[must_use]
    pub fn new(layout: BlockLayout, stamp: Stamp) -> Self {
        Self {
            layout,
            stamp,
            parts: Vec::new(),
            payload: Vec::new(),
            payload_sum: StateHash::default(),
            entries: Vec::new(),
            hashes: Vec::new(),
            sum: StateHash::default(),
        }
    }

    /// Bytes that the whole object has if it is finished now.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        let open = if self.payload.is_empty() { 0 } else { ENVELOPE_LEN + self.payload.len() };
        self.parts.len() + open + ENVELOPE_LEN + self.footer_len()
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
        let bytes = self.parts.len() + self.payload.len() + packed.stored.len() + 2 * ENVELOPE_LEN;
        if bytes > MAX_BYTES || footer_len > MAX_PAYLOAD as usize {
            return Err(PackError::Full);
        }
        if self.payload.len() + packed.stored.len() > PART_BYTES {
            self.cut()?;
        }
        self.entries.push(BlockEntry {
            block,
            offset: (self.parts.len() + PartHeader::LEN + self.payload.len()) as u64,
            stored_len: u32::try_from(packed.stored.len()).unwrap_or(u32::MAX),
            encoding: packed.encoding,
            crc: packed.crc,
            sum: packed.sum,
        });
        self.payload.extend_from_slice(&packed.stored);
        self.payload_sum = self.payload_sum.plus(packed.sum);
        self.hashes.extend_from_slice(&packed.hashes);
        self.sum = self.sum.plus(packed.sum);
        Ok(())
    }

    /// Appends the pack to `out`; nothing when it is empty. Gives back where each block lies in it.
    ///
    /// # Errors
    /// [`PackError::Part`] when a part does not fit its envelope.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<Vec<BlockEntry>, PackError> {
        if self.is_empty() {
            return Ok(self.entries);
        }
        self.cut()?;
        let header = self.header(PartKind::PackFooter, self.sum);
        part::encode(&header, &self.footer(), &mut self.parts)?;
        out.extend_from_slice(&self.parts);
        Ok(self.entries)
    }

    /// Completes the part of blocks that is open.
    fn cut(&mut self) -> Result<(), PartError> {
        let header = self.header(PartKind::PackBlocks, self.payload_sum);
        part::encode(&header, &self.payload, &mut self.parts)?;
        self.payload.clear();
        self.payload_sum = StateHash::default();
        Ok(())
    }

    fn header(&self, kind: PartKind, sum: StateHash) -> PartHeader {
        PartHeader {
            kind,
            page_size: self.layout.page_size,
            stamp: self.stamp,
            first: Txid(0),
            last: Txid(0),
            position: None,
            stored: None,
            before: StateHash::default(),
            after: sum,
        }
    }

    fn footer_len(&self) -> usize {
        FOOTER_HEAD_LEN + self.entries.len() * DIRECTORY_ENTRY_LEN + self.hashes.len() * HASH_LEN
    }

    fn footer(&self) -> Vec<u8> {
        // No pack is longer than `MAX_BYTES`, and no footer than a payload may be.
        let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
        let mut footer = Vec::with_capacity(self.footer_len());
        footer.extend_from_slice(&self.layout.pages.to_le_bytes());
        footer.extend_from_slice(&number(self.entries.len() as u64));
        for entry in &self.entries {
            footer.extend_from_slice(&entry.block.to_le_bytes());
            footer.extend_from_slice(&number(entry.offset));
            footer.extend_from_slice(&entry.stored_len.to_le_bytes());
            footer.extend_from_slice(&entry.crc.to_le_bytes());
            footer.push(entry.encoding.code());
        }
        for hash in &self.hashes {
            footer.extend_from_slice(&hash.0.to_le_bytes());
        }
        footer
    }
}
