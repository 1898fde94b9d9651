//! The decoder of manifests.

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::PackName;
use genesis_wal::page::StateHash;
use genesis_wal::part::{Part, PartHeader, PartKind};
use genesis_wal::reader::{ReadError, Reader};
use genesis_wal::time::Micros;

use super::{
    BLOCK_ENTRY_LEN, FLAG_PARENT, HEAD_LEN, MAX_PAYLOAD, Manifest, ManifestBlock, ManifestError,
    NO_PARENT, PACK_LEN, PackRef, VERSION,
};
use crate::block::BlockLayout;
use crate::pack::{BlockEncoding, BlockEntry};

impl Manifest {
    /// Reads and proves a manifest from exactly its bytes.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let mut parts = Reader::new(bytes);
        let first = decode_part(&mut parts)?;
        let mut records = Reader::new(first.payload);
        let head = Head::decode(&mut records)?;
        let mut manifest = head.manifest(&first.header, bytes.len())?;
        head.take_records(&mut manifest, records)?;
        while !parts.rest().is_empty() {
            let part = decode_part(&mut parts)?;
            if part.header != first.header {
                return Err(ManifestError::Mixed);
            }
            if part.payload.is_empty() {
                return Err(ManifestError::BadCount);
            }
            head.take_records(&mut manifest, Reader::new(part.payload))?;
        }
        if manifest.packs.len() != head.packs {
            return Err(ManifestError::BadCount);
        }
        manifest.check()?;
        Ok(manifest)
    }
}

fn decode_part<'a>(reader: &mut Reader<'a>) -> Result<Part<'a>, ManifestError> {
    let part = Part::decode(reader)?;
    let header = &part.header;
    if header.kind != PartKind::Manifest || header.first != header.last {
        return Err(ManifestError::WrongKind);
    }
    if header.before != header.after {
        return Err(ManifestError::BadSum);
    }
    if part.payload.len() > MAX_PAYLOAD {
        return Err(ManifestError::TooLong(part.payload.len()));
    }
    Ok(part)
}

struct Head {
    pages: u32,
    time: Micros,
    parent: Option<(Generation, Txid)>,
    packs: usize,
    blocks: usize,
}

impl Head {
    fn decode(reader: &mut Reader<'_>) -> Result<Self, ManifestError> {
        let mut reader = Reader::new(reader.take(HEAD_LEN)?);
        let [version, flags, reserved_low, reserved_high] = reader.array()?;
        if version != VERSION {
            return Err(ManifestError::UnknownVersion(version));
        }
        let unknown = [flags & !FLAG_PARENT, reserved_low, reserved_high, 0];
        if unknown != [0; 4] {
            return Err(ManifestError::UnknownFlags(u32::from_le_bytes(unknown)));
        }
        let (pages, time) = (reader.u32()?, Micros(reader.u64()?));
        let parent = (decode_generation(&mut reader)?, Txid(reader.u64()?));
        let has_parent = flags & FLAG_PARENT != 0;
        if !has_parent && parent != NO_PARENT {
            return Err(ManifestError::StrayParent);
        }
        Ok(Self {
            pages,
            time,
            parent: has_parent.then_some(parent),
            packs: reader.u32()? as usize,
            blocks: reader.u32()? as usize,
        })
    }

    /// The manifest before its packs and blocks have come. `bytes` is the length of all of it: no
    /// more is allocated than can be in it.
    fn manifest(&self, header: &PartHeader, bytes: usize) -> Result<Manifest, ManifestError> {
        let layout = BlockLayout { page_size: header.page_size, pages: self.pages };
        if self.blocks != layout.blocks() as usize
            || self.blocks > bytes / BLOCK_ENTRY_LEN
            || self.packs > bytes / PACK_LEN
        {
            return Err(ManifestError::BadCount);
        }
        Ok(Manifest {
            layout,
            stamp: header.stamp,
            txid: header.first,
            position: header.position,
            time: self.time,
            state: header.after,
            parent: self.parent,
            packs: Vec::with_capacity(self.packs),
            blocks: Vec::with_capacity(self.blocks),
        })
    }

    /// Reads the records of one part.
    fn take_records(
        &self,
        manifest: &mut Manifest,
        mut records: Reader<'_>,
    ) -> Result<(), ManifestError> {
        while !records.rest().is_empty() {
            if manifest.packs.len() < self.packs {
                manifest.packs.push(decode_pack(&mut records)?);
            } else {
                self.take_run(&mut manifest.blocks, &mut records)?;
            }
        }
        Ok(())
    }

    fn take_run(
        &self,
        blocks: &mut Vec<ManifestBlock>,
        records: &mut Reader<'_>,
    ) -> Result<(), ManifestError> {
        let (first, count, pack) = (records.u32()?, records.u32()?, records.u32()?);
        let mut offset = records.u64()?;
        if first as usize != blocks.len() {
            return Err(ManifestError::BadBlock(first));
        }
        if count == 0 || blocks.len().saturating_add(count as usize) > self.blocks {
            return Err(ManifestError::BadCount);
        }
        for block in (first..).take(count as usize) {
            let entry = decode_block(records, block, offset)?;
            offset = entry.end().ok_or(ManifestError::OutsidePack(block))?;
            blocks.push(ManifestBlock { pack, entry });
        }
        Ok(())
    }
}

fn decode_generation(reader: &mut Reader<'_>) -> Result<Generation, ReadError> {
    Ok(Generation { epoch: Epoch(reader.u32()?), random: reader.u64()? })
}

fn decode_pack(reader: &mut Reader<'_>) -> Result<PackRef, ReadError> {
    let name = PackName {
        generation: decode_generation(reader)?,
        epoch: Epoch(reader.u32()?),
        attempt: reader.u32()?,
        part: reader.u32()?,
        repair: 0,
    };
    Ok(PackRef { name, size: reader.u64()? })
}

fn decode_block(
    reader: &mut Reader<'_>,
    block: u32,
    offset: u64,
) -> Result<BlockEntry, ManifestError> {
    let stored_len = u32::from(reader.u16()?) + 1;
    let encoding = reader.u8()?;
    Ok(BlockEntry {
        block,
        offset,
        stored_len,
        encoding: BlockEncoding::from_code(encoding)
            .ok_or(ManifestError::UnknownEncoding(encoding))?,
        crc: reader.u32()?,
        sum: StateHash(reader.u64()?),
    })
}
