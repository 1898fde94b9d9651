//! Targets for `genesis-snapshot`.

use genesis_snapshot::block::{BlockLayout, hash_block};
use genesis_snapshot::manifest::Manifest;
use genesis_snapshot::pack::{BlockEncoding, BlockEntry, PackError, PackFooter, unpack_block};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use genesis_wal::part::{self, PartHeader, PartKind, Stamp};
use genesis_wal::reader::{ReadError, Reader};

/// The payload of a manifest behind two bytes: the page size, and where the first part ends
/// (0: there is only one). The envelopes and the state hash are made to fit. What decodes is whole,
/// and is read the same after it was encoded again.
pub fn manifest_decode(data: &[u8]) {
    let [log2, cut, payload @ ..] = data else {
        return;
    };
    let Ok(page_size) = PageSize::from_log2(9 + log2 % 8) else {
        return;
    };
    let state = sum_of_blocks(payload).unwrap_or_default();
    let header =
        PartHeader { first: Txid(8), last: Txid(8), before: state, ..header(page_size, state) };
    let (head, tail) = payload.split_at(usize::from(*cut).min(payload.len()));
    let mut bytes = Vec::new();
    for payload in [head, tail].into_iter().filter(|part| !part.is_empty()) {
        assert_eq!(part::encode(&header, payload, &mut bytes), Ok(()));
    }
    let Ok(manifest) = Manifest::decode(&bytes) else {
        return;
    };
    assert_eq!(manifest.state, header.after);
    assert_eq!(manifest.blocks.len(), manifest.layout.blocks() as usize);
    for block in &manifest.blocks {
        let pack = manifest.packs.get(block.pack as usize);
        assert!(pack.is_some_and(|pack| block.entry.end().is_some_and(|end| end <= pack.size)));
    }
    let mut again = Vec::new();
    assert_eq!(manifest.encode(&mut again), Ok(()));
    assert_eq!(Manifest::decode(&again), Ok(manifest));
}

/// The payload of a pack's footer behind a byte: the page size. The envelope and the sum are made to
/// fit. What decodes are blocks of the database that lie one after another, each with its hashes.
pub fn pack_footer(data: &[u8]) {
    let [log2, payload @ ..] = data else {
        return;
    };
    let Ok(page_size) = PageSize::from_log2(9 + log2 % 8) else {
        return;
    };
    let sum = sum_of_hashes(payload).unwrap_or_default();
    let header = PartHeader { kind: PartKind::PackFooter, ..header(page_size, sum) };
    let mut bytes = Vec::new();
    assert_eq!(part::encode(&header, payload, &mut bytes), Ok(()));
    assert_eq!(part::trailing_len(&bytes), Ok(bytes.len()));
    let Ok(footer) = PackFooter::decode(&bytes) else {
        return;
    };
    let (mut end, mut sum) = (PartHeader::LEN as u64, StateHash(0));
    for (entry, hashes) in footer.blocks() {
        assert!(end <= entry.offset && entry.block < footer.layout.blocks());
        assert_eq!(hashes.len(), footer.layout.page_count(entry.block) as usize);
        end = entry.offset + u64::from(entry.stored_len);
        sum = sum.plus(entry.sum);
    }
    assert_eq!(sum, footer.header.after);
}

/// A stored block behind four bytes: the page size, the pages of the database, the block and its
/// encoding. The CRC is made to fit. It is unpacked to a block's length, or refused.
pub fn block_unpack(data: &[u8]) {
    let [log2, pages, block, encoding, stored @ ..] = data else {
        return;
    };
    let (Ok(page_size), Ok(stored_len)) =
        (PageSize::from_log2(9 + log2 % 8), u32::try_from(stored.len()))
    else {
        return;
    };
    let (layout, block) = (BlockLayout { page_size, pages: u32::from(*pages) }, u32::from(*block));
    let encoding = if *encoding == 0 { BlockEncoding::Raw } else { BlockEncoding::Lz4 };
    let crc = crc32fast::hash(stored);
    let mut entry = BlockEntry { block, offset: 96, stored_len, encoding, crc, sum: StateHash(0) };
    let mut raw = vec![1; layout.bytes(block)];
    if unpack_block(&entry, layout, stored, &mut raw) == Err(PackError::BadSum(block)) {
        entry.sum = hash_block(layout, block, &raw).1;
        assert_eq!(unpack_block(&entry, layout, stored, &mut raw), Ok(()));
    }
}

fn header(page_size: PageSize, after: StateHash) -> PartHeader {
    let generation = Generation { epoch: Epoch(5), random: 6 };
    PartHeader {
        kind: PartKind::Manifest,
        page_size,
        stamp: Stamp { generation, epoch: Epoch(7) },
        first: Txid(0),
        last: Txid(0),
        position: None,
        stored: None,
        before: StateHash(0),
        after,
    }
}

/// The sum of the page hashes that stand in a payload, read without any check.
fn sum_of_hashes(payload: &[u8]) -> Result<StateHash, ReadError> {
    let mut reader = Reader::new(payload);
    reader.take(4)?;
    let blocks = reader.u32()? as usize;
    reader.take(blocks.saturating_mul(17))?;
    let mut sum = 0u64;
    while !reader.rest().is_empty() {
        sum = sum.wrapping_add(reader.u64()?);
    }
    Ok(StateHash(sum))
}

/// The sum of the blocks that stand in a payload, read without any check.
fn sum_of_blocks(payload: &[u8]) -> Result<StateHash, ReadError> {
    let mut reader = Reader::new(payload);
    reader.take(36)?;
    let packs = reader.u32()? as usize;
    reader.take(4)?;
    reader.take(packs.saturating_mul(32))?;
    let mut sum = 0u64;
    while !reader.rest().is_empty() {
        reader.take(4)?;
        let blocks = reader.u32()?;
        reader.take(12)?;
        for _ in 0..blocks {
            reader.take(7)?;
            sum = sum.wrapping_add(reader.u64()?);
        }
    }
    Ok(StateHash(sum))
}
