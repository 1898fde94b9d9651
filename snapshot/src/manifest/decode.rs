//! The decoder of manifests.

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::PackName;
use genesis_wal::page::StateHash;
use genesis_wal::part::{Part, PartHeader, PartKind};
use genesis_wal::reader::{ReadError, Reader};
use genesis_wal::time::Micros;

use super::{
    FLAG_PARENT, HEAD_LEN, MAX_PAYLOAD, Manifest, ManifestBlock, ManifestError, NO_PARENT, PackRef,
    VERSION,
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
        let mut decoder = ManifestDecoder::begin(&Part::decode(&mut parts)?)?;
        while !parts.rest().is_empty() {
            decoder.push(&Part::decode(&mut parts)?)?;
        }
        decoder.finish()
    }
}

/// Reads a manifest part by part. What is kept is never more than the parts held that came, and never
/// more than the first one announces.
#[derive(Debug)]
pub struct ManifestDecoder {
    header: PartHeader,
    head: Head,
    manifest: Manifest,
}

impl ManifestDecoder {
    /// Begins with the first part.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong.
    pub fn begin(first: &Part<'_>) -> Result<Self, ManifestError> {
        check_part(first)?;
        let mut records = Reader::new(first.payload);
        let head = Head::decode(&mut records)?;
        let mut manifest = head.manifest(&first.header)?;
        head.take_records(&mut manifest, records)?;
        Ok(Self { header: first.header, head, manifest })
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`ManifestError`] says what is wrong; nothing can be read any more then.
    pub fn push(&mut self, part: &Part<'_>) -> Result<(), ManifestError> {
        check_part(part)?;
        if part.header != self.header {
            return Err(ManifestError::Mixed);
        }
        if part.payload.is_empty() {
            return Err(ManifestError::BadCount);
        }
        self.head.take_records(&mut self.manifest, Reader::new(part.payload))
    }

    /// The manifest, when all parts have come.
    ///
    /// # Errors
    /// [`ManifestError`] when parts are missing, or do not make a snapshot together.
    pub fn finish(self) -> Result<Manifest, ManifestError> {
        if self.manifest.packs.len() != self.head.packs {
            return Err(ManifestError::BadCount);
        }
        self.manifest.check()?;
        Ok(self.manifest)
    }
}

fn check_part(part: &Part<'_>) -> Result<(), ManifestError> {
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
    Ok(())
}

#[derive(Debug)]
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

    /// The manifest before its packs and blocks have come.
    fn manifest(&self, header: &PartHeader) -> Result<Manifest, ManifestError> {
        let layout = BlockLayout { page_size: header.page_size, pages: self.pages };
        if self.blocks != layout.blocks() as usize || self.packs > self.blocks {
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
            packs: Vec::new(),
            blocks: Vec::new(),
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
