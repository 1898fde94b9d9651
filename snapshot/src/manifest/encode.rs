//! The encoder of manifests.

use genesis_wal::id::Generation;
use genesis_wal::part::{self, PartHeader};

use super::{
    BLOCK_ENTRY_LEN, FLAG_PARENT, MAX_PAYLOAD, Manifest, ManifestBlock, ManifestError, NO_PARENT,
    PACK_LEN, PackRef, RUN_LEN, VERSION,
};

impl Manifest {
    /// Appends the manifest to `out`.
    ///
    /// # Errors
    /// [`ManifestError`] when its blocks are not complete, lie outside of their packs or do not add
    /// up to its state; `out` is left alone then.
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), ManifestError> {
        self.encode_in_parts(MAX_PAYLOAD, out)
    }

    fn encode_in_parts(&self, limit: usize, out: &mut Vec<u8>) -> Result<(), ManifestError> {
        self.check()?;
        let packs = u32::try_from(self.packs.len());
        let packs = packs.map_err(|_too_many| ManifestError::BadCount)?;
        let mut parts = Parts { header: self.header(), limit, payload: Vec::new(), out };
        self.append_head(packs, &mut parts.payload);
        for pack in &self.packs {
            parts.make_room(PACK_LEN)?;
            append_pack(pack, &mut parts.payload);
        }
        for run in self.blocks.chunk_by(follows) {
            parts.append_run(run)?;
        }
        parts.cut()
    }

    fn append_head(&self, packs: u32, out: &mut Vec<u8>) {
        let flags = if self.parent.is_some() { FLAG_PARENT } else { 0 };
        let (generation, txid) = self.parent.unwrap_or(NO_PARENT);
        out.extend_from_slice(&[VERSION, flags, 0, 0]);
        out.extend_from_slice(&self.layout.pages.to_le_bytes());
        out.extend_from_slice(&self.time.0.to_le_bytes());
        append_generation(generation, out);
        out.extend_from_slice(&txid.0.to_le_bytes());
        out.extend_from_slice(&packs.to_le_bytes());
        out.extend_from_slice(&self.layout.blocks().to_le_bytes());
    }
}

/// Whether a block lies right after another. That its number is the next one is checked before.
fn follows(before: &ManifestBlock, after: &ManifestBlock) -> bool {
    before.pack == after.pack && before.entry.end() == Some(after.entry.offset)
}

/// Cuts a sequence of records into parts.
struct Parts<'a> {
    header: PartHeader,
    limit: usize,
    payload: Vec<u8>,
    out: &'a mut Vec<u8>,
}

impl Parts<'_> {
    fn make_room(&mut self, len: usize) -> Result<(), ManifestError> {
        if self.payload.len() + len > self.limit {
            self.cut()?;
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<(), ManifestError> {
        part::encode(&self.header, &self.payload, self.out)?;
        self.payload.clear();
        Ok(())
    }

    fn append_run(&mut self, mut run: &[ManifestBlock]) -> Result<(), ManifestError> {
        while let Some(first) = run.first() {
            self.make_room(RUN_LEN + BLOCK_ENTRY_LEN)?;
            let room = self.limit.saturating_sub(self.payload.len() + RUN_LEN) / BLOCK_ENTRY_LEN;
            let (here, rest) = run.split_at(run.len().min(room.max(1)));
            run = rest;
            let count = u32::try_from(here.len()).unwrap_or(u32::MAX);
            for number in [first.entry.block, count, first.pack] {
                self.payload.extend_from_slice(&number.to_le_bytes());
            }
            self.payload.extend_from_slice(&first.entry.offset.to_le_bytes());
            for block in here {
                append_block(block, &mut self.payload);
            }
        }
        Ok(())
    }
}

fn append_generation(generation: Generation, out: &mut Vec<u8>) {
    out.extend_from_slice(&generation.epoch.0.to_le_bytes());
    out.extend_from_slice(&generation.random.to_le_bytes());
}

fn append_pack(pack: &PackRef, out: &mut Vec<u8>) {
    append_generation(pack.name.generation, out);
    for number in [pack.name.epoch.0, pack.name.attempt, pack.name.part] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&pack.size.to_le_bytes());
}

fn append_block(block: &ManifestBlock, out: &mut Vec<u8>) {
    let entry = &block.entry;
    let less_one = u16::try_from(entry.stored_len.saturating_sub(1)).unwrap_or(u16::MAX);
    out.extend_from_slice(&less_one.to_le_bytes());
    out.push(entry.encoding.code());
    out.extend_from_slice(&entry.crc.to_le_bytes());
    out.extend_from_slice(&entry.sum.0.to_le_bytes());
}
