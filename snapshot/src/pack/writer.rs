//! The encoder of packs.

use genesis_wal::id::Txid;
use genesis_wal::page::{PageHash, StateHash};
use genesis_wal::part::{self, MAX_PAYLOAD, PartHeader, PartKind, Stamp, TRAILER_LEN};

use super::entry::BlockEntry;
use super::packed::PackedBlocks;
use super::{DIRECTORY_ENTRY_LEN, FOOTER_HEAD_LEN, HASH_LEN, PackError};
use crate::block::{BlockLayout, HashedBlock};

/// Bytes of an envelope beside its payload.
const ENVELOPE_LEN: usize = PartHeader::LEN + TRAILER_LEN;

/// The most bytes of parts of blocks in one pack: what a writer holds in memory.
const MAX_BYTES: usize = 64 << 20;

/// Puts blocks into a pack. Add them in ascending order, one by one or in parts that were packed
/// elsewhere, and [`finish`](Self::finish) when [`stored_len`](Self::stored_len) is large enough.
#[derive(Debug)]
pub struct PackWriter {
    layout: BlockLayout,
    stamp: Stamp,
    /// The parts that are complete.
    object: Vec<u8>,
    /// The part that is not.
    open: PackedBlocks,
    /// What the complete parts hold.
    entries: Vec<BlockEntry>,
    hashes: Vec<PageHash>,
    sum: StateHash,
}

impl PackWriter {
    /// A pack of blocks of a database.
    #[must_use]
    pub fn new(layout: BlockLayout, stamp: Stamp) -> Self {
        Self::reusing(Vec::new(), layout, stamp)
    }

    /// The same, in memory that is there already. What it holds is forgotten.
    #[must_use]
    pub fn reusing(mut memory: Vec<u8>, layout: BlockLayout, stamp: Stamp) -> Self {
        memory.clear();
        Self {
            layout,
            stamp,
            object: memory,
            open: PackedBlocks::new(layout),
            entries: Vec::new(),
            hashes: Vec::new(),
            sum: StateHash::default(),
        }
    }

    /// Bytes that the whole object has if it is finished now.
    #[must_use]
    pub fn stored_len(&self) -> usize {
        self.parts_len() + ENVELOPE_LEN + self.footer_len()
    }

    /// The last block; `None` while there is none.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        let open = self.open.ends().map(|(_, last)| last);
        open.or(self.entries.last().map(|last| last.block))
    }

    /// Packs a block and adds it. Whatever stands in the lock page is stored as zeros.
    ///
    /// # Errors
    /// [`PackError::OutOfOrder`], [`PackError::BadBlockLength`] or [`PackError::Full`]; nothing is
    /// added then.
    pub fn push(&mut self, block: u32, raw: &[u8]) -> Result<(), PackError> {
        self.check(self.layout, block, raw.len(), 1, self.layout.page_count(block) as usize)?;
        if !self.open.has_room(raw.len()) {
            self.cut()?;
        }
        self.open.push(&HashedBlock::new(self.layout, block, raw))
    }

    /// Adds blocks that were packed before, as one part.
    ///
    /// # Errors
    /// [`PackError::OutOfOrder`] or [`PackError::Full`]; nothing is added then.
    pub fn push_packed(&mut self, packed: &PackedBlocks) -> Result<(), PackError> {
        let Some((first, _)) = packed.ends() else { return Ok(()) };
        let (bytes, blocks) = (packed.payload().len(), packed.entries.len());
        self.check(packed.layout(), first, bytes, blocks, packed.hashes.len())?;
        self.cut()?;
        self.append(packed)
    }

    /// The pack, and where each block lies in it; nothing when it is empty.
    ///
    /// # Errors
    /// [`PackError::Part`] when a part does not fit its envelope.
    pub fn finish(mut self) -> Result<(Vec<u8>, Vec<BlockEntry>), PackError> {
        self.cut()?;
        if !self.entries.is_empty() {
            let header = self.header(PartKind::PackFooter, self.sum);
            let footer = self.footer();
            part::encode(&header, &footer, &mut self.object)?;
        }
        Ok((self.object, self.entries))
    }

    /// Whether blocks may be added of which `first` is the first.
    fn check(
        &self,
        layout: BlockLayout,
        first: u32,
        bytes: usize,
        blocks: usize,
        pages: usize,
    ) -> Result<(), PackError> {
        if layout != self.layout || self.last().is_some_and(|last| last >= first) {
            return Err(PackError::OutOfOrder(first));
        }
        let footer_len = self.footer_len() + blocks * DIRECTORY_ENTRY_LEN + pages * HASH_LEN;
        let is_full = self.parts_len() + bytes + ENVELOPE_LEN > MAX_BYTES;
        if is_full || footer_len > MAX_PAYLOAD as usize {
            return Err(PackError::Full);
        }
        Ok(())
    }

    /// Completes the part that is open.
    fn cut(&mut self) -> Result<(), PackError> {
        if self.open.ends().is_some() {
            let mut open = std::mem::replace(&mut self.open, PackedBlocks::new(self.layout));
            self.append(&open)?;
            open.clear(self.layout);
            self.open = open;
        }
        Ok(())
    }

    fn append(&mut self, packed: &PackedBlocks) -> Result<(), PackError> {
        let payload_at = (self.object.len() + PartHeader::LEN) as u64;
        let header = self.header(PartKind::PackBlocks, packed.sum);
        part::encode(&header, packed.payload(), &mut self.object)?;
        let place = |entry: &BlockEntry| BlockEntry { offset: payload_at + entry.offset, ..*entry };
        self.entries.extend(packed.entries.iter().map(place));
        self.hashes.extend_from_slice(&packed.hashes);
        self.sum = self.sum.plus(packed.sum);
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

    /// Bytes of the parts of blocks.
    fn parts_len(&self) -> usize {
        let open = self.open.payload().len();
        self.object.len() + if open == 0 { 0 } else { ENVELOPE_LEN + open }
    }

    fn footer_len(&self) -> usize {
        let blocks = self.entries.len() + self.open.entries.len();
        let pages = self.hashes.len() + self.open.hashes.len();
        FOOTER_HEAD_LEN + blocks * DIRECTORY_ENTRY_LEN + pages * HASH_LEN
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
