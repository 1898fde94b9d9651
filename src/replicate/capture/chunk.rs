//! Blocks that are captured together, as one part of a pack holds them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use genesis_snapshot::block::{BLOCK_LEN, BlockLayout, HashedBlock};
use genesis_snapshot::pack::{PackError, PackedBlocks};
use genesis_wal::page::{PageHash, StateHash};

use super::{CaptureError, Desk};
use crate::clock;
use crate::sqlite::{Missing, PageFile, SourceError};

/// Blocks in a chunk: 1 MiB, which always fits a part.
pub(super) const BLOCKS: usize = 16;

/// The pause before what could not be read is read again.
const READ_PAUSE: Duration = Duration::from_millis(500);

/// Blocks that are captured together.
pub(super) struct Chunk {
    layout: BlockLayout,
    blocks: Vec<Block>,
    /// The bytes of those that wait to be captured, [`BLOCK_LEN`] for each. One that is there is captured
    /// at once, so that its memory is at the processor's hand for the next.
    raw: Vec<u8>,
    captured: Captured,
}

struct Block {
    number: u32,
    /// Where it stands in the file that it is read from.
    offset: u64,
    /// The sum of page hashes with which it is stored already.
    known: Option<StateHash>,
    /// What of it is on its way.
    missing: Missing,
}

/// What was captured of a chunk: its first blocks.
struct Captured {
    /// Whether blocks are packed; else they are only hashed.
    is_packed: bool,
    /// Those that were not known, packed.
    packed: PackedBlocks,
    /// The hashes of the pages of each.
    hashes: Vec<(u32, Vec<PageHash>)>,
}

impl Chunk {
    /// An empty chunk.
    pub fn new(layout: BlockLayout, is_packed: bool) -> Self {
        let (packed, hashes) = (PackedBlocks::new(layout), Vec::new());
        let captured = Captured { is_packed, packed, hashes };
        Self { layout, blocks: Vec::new(), raw: Vec::new(), captured }
    }

    /// Empties it, for blocks of a database. The memory is used again.
    pub fn clear(&mut self, layout: BlockLayout) {
        self.layout = layout;
        self.blocks.clear();
        self.captured.hashes.clear();
        self.captured.packed.clear(layout);
    }

    /// Adds a block, which is not packed where it is as it is known.
    pub fn add(&mut self, block: u32, offset: u64, known: Option<StateHash>) {
        self.blocks.push(Block { number: block, offset, known, missing: Missing::default() });
    }

    pub fn is_full(&self) -> bool {
        self.blocks.len() >= BLOCKS
    }

    pub fn is_captured(&self) -> bool {
        self.captured.hashes.len() == self.blocks.len()
    }

    /// Those of its blocks that were not known, packed.
    pub fn packed(&self) -> &PackedBlocks {
        &self.captured.packed
    }

    /// The hashes of the pages of its blocks.
    pub fn take_hashes(&mut self) -> Vec<(u32, Vec<PageHash>)> {
        std::mem::take(&mut self.captured.hashes)
    }

    /// Has the blocks fetched, and captures the first ones that are there.
    pub fn begin(&mut self, file: &PageFile) -> Result<(), CaptureError> {
        for (at, block) in self.blocks.iter_mut().enumerate() {
            let waiting = at - self.captured.hashes.len();
            let raw = room(&mut self.raw, waiting, self.layout.bytes(block.number));
            block.missing = file.begin(block.offset, raw);
            if waiting == 0 && block.missing.is_empty() {
                self.captured.take(self.layout, block, raw)?;
            }
        }
        Ok(())
    }

    /// Waits for what was fetched, and captures the other blocks.
    pub fn finish(&mut self, file: &PageFile, desk: &Desk) -> Result<(), CaptureError> {
        let file = Reading { file, desk };
        let left = self.captured.hashes.len()..;
        for (waiting, block) in self.blocks.get(left).unwrap_or_default().iter().enumerate() {
            let raw = room(&mut self.raw, waiting, self.layout.bytes(block.number));
            file.finish(block.offset, raw, &block.missing)?;
            self.captured.take(self.layout, block, raw)?;
        }
        Ok(())
    }

    /// Captures blocks that stand in a file of ours.
    pub fn take_from(&mut self, file: &File) -> Result<(), CaptureError> {
        for block in &self.blocks {
            let raw = room(&mut self.raw, 0, self.layout.bytes(block.number));
            file.read_exact_at(raw, block.offset).map_err(CaptureError::Last)?;
            self.captured.take(self.layout, block, raw)?;
        }
        Ok(())
    }
}

impl Captured {
    /// Hashes a block, and packs it if it is not known.
    fn take(&mut self, layout: BlockLayout, block: &Block, raw: &[u8]) -> Result<(), PackError> {
        let hashed = HashedBlock::new(layout, block.number, raw);
        if self.is_packed && block.known != Some(hashed.sum()) {
            self.packed.push(&hashed)?;
        }
        self.hashes.push((block.number, hashed.into_hashes()));
        Ok(())
    }
}

/// The room for the bytes of a block behind others that wait.
fn room(raw: &mut Vec<u8>, waiting: usize, len: usize) -> &mut [u8] {
    let start = waiting * BLOCK_LEN as usize;
    if raw.len() < start + len {
        raw.resize(start + len, 0);
    }
    raw.get_mut(start..start + len).unwrap_or_default()
}

/// The file, as long as somebody waits for what is in it.
struct Reading<'a> {
    file: &'a PageFile,
    desk: &'a Desk,
}

impl Reading<'_> {
    /// Reads what was missing, and where that fails everything, again and again.
    fn finish(&self, offset: u64, raw: &mut [u8], missing: &Missing) -> Result<(), CaptureError> {
        let mut read = self.file.finish(offset, raw, missing);
        while let Err(error) = read {
            if self.desk.is_stopped() {
                return Err(CaptureError::Abandoned);
            }
            report_trouble(&error);
            clock::rest(READ_PAUSE);
            read = self.file.read(offset, raw);
        }
        Ok(())
    }
}

fn report_trouble(error: &SourceError) {
    tracing::warn!(%error, "cannot read the database for a snapshot; trying again");
}
