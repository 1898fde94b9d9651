//! Packs, written and read through the public interface.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use common::{layout, stamp};
use genesis_snapshot::block::{BlockLayout, HashedBlock, hash_block};
use genesis_snapshot::pack::{
    BlockEncoding, BlockEntry, PackError, PackFooter, PackWriter, PackedBlocks, unpack_block,
};
use genesis_wal::id::Txid;
use genesis_wal::page::{PageHash, StateHash};
use genesis_wal::part::{self, Part, PartKind};
use genesis_wal::reader::Reader;
use proptest::prelude::*;

/// Bytes that LZ4 shortens when `seed` is even, and that it does not when it is odd.
fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    if seed.is_multiple_of(2) {
        vec![u8::try_from(seed % 251).unwrap(); len]
    } else {
        std::iter::repeat_with(noise).take(len).collect()
    }
}

type Blocks = Vec<(u32, Vec<u8>)>;

/// Every block of the database but the second, even ones compressible.
fn blocks(layout: BlockLayout) -> Blocks {
    let numbers = (0..layout.blocks()).filter(|&block| block != 1);
    numbers.map(|block| (block, bytes(layout.bytes(block), u64::from(block)))).collect()
}

fn write(layout: BlockLayout, blocks: &Blocks) -> (Vec<u8>, Vec<BlockEntry>) {
    let mut writer = PackWriter::new(layout, stamp());
    for (block, raw) in blocks {
        writer.push(*block, raw).unwrap();
    }
    let announced = writer.stored_len();
    let (object, entries) = writer.finish().unwrap();
    assert_eq!(object.len(), announced);
    (object, entries)
}

/// Blocks as they are packed elsewhere.
fn packed(layout: BlockLayout, blocks: &[(u32, Vec<u8>)]) -> PackedBlocks {
    let mut packed = PackedBlocks::new(layout);
    for (block, raw) in blocks {
        packed.push(&HashedBlock::new(layout, *block, raw)).unwrap();
    }
    packed
}

fn footer_of(object: &[u8]) -> Result<PackFooter, PackError> {
    let len = part::trailing_len(object)?;
    PackFooter::decode(&object[object.len().saturating_sub(len)..])
}

/// The payload of a pack's footer.
fn footer_payload(object: &[u8]) -> (Part<'_>, Vec<u8>) {
    let len = part::trailing_len(object).unwrap();
    let part = Part::decode(&mut Reader::new(&object[object.len() - len..])).unwrap();
    (part, part.payload.to_vec())
}

/// A footer with another payload behind a valid envelope.
fn decode_payload(part: &Part<'_>, payload: &[u8]) -> Result<PackFooter, PackError> {
    let mut bytes = Vec::new();
    part::encode(&part.header, payload, &mut bytes).unwrap();
    PackFooter::decode(&bytes)
}

/// Every block that the footer names, unpacked from the object.
fn unpack_all(object: &[u8], footer: &PackFooter) -> Result<Blocks, PackError> {
    let unpack = |entry: &BlockEntry| {
        let start = usize::try_from(entry.offset).unwrap();
        let stored = object.get(start..start + entry.stored_len as usize);
        let mut out = vec![7; footer.layout.bytes(entry.block)];
        let unpacked = unpack_block(entry, footer.layout, stored.unwrap_or_default(), &mut out);
        unpacked.map(|()| (entry.block, out))
    };
    footer.blocks().map(|(entry, _)| unpack(entry)).collect()
}

#[test]
fn round_trips_at_every_page_size() {
    for log2 in 9..=16 {
        let layout = layout(log2, 3 * (65_536 >> log2) + 1);
        let blocks = blocks(layout);
        let (object, entries) = write(layout, &blocks);
        let footer = footer_of(&object).unwrap();
        assert_eq!(footer.layout, layout);
        assert_eq!(unpack_all(&object, &footer).unwrap(), blocks);
        for ((entry, hashes), (expected, (block, raw))) in
            footer.blocks().zip(entries.iter().zip(&blocks))
        {
            assert_eq!(entry, expected);
            assert_eq!((hashes.to_vec(), entry.sum), hash_block(layout, *block, raw));
        }
        assert_eq!(entries[0].encoding, BlockEncoding::Lz4);
        assert_eq!(entries[2].encoding, BlockEncoding::Raw);
    }
}

#[test]
fn blocks_lie_in_parts_that_are_proven_alone() {
    let layout = layout(16, 40);
    let noise = (0..40).map(|block| (block, bytes(65_536, 2 * u64::from(block) + 1)));
    let (object, entries) = write(layout, &noise.collect());
    let (mut reader, mut at, mut rest) = (Reader::new(&object), 0, entries.as_slice());
    let sum = |entries: &[BlockEntry]| {
        entries.iter().fold(StateHash::default(), |sum, entry| sum.plus(entry.sum))
    };
    for count in [16, 16, 8] {
        let part = Part::decode(&mut reader).unwrap();
        assert_eq!((part.header.kind, part.header.stamp), (PartKind::PackBlocks, stamp()));
        assert_eq!((part.header.first, part.header.last), (Txid(0), Txid(0)));
        assert_eq!(part.payload.len(), count << 16);
        let (here, others) = rest.split_at(count);
        assert_eq!(part.header.after, sum(here));
        for (n, entry) in (0u64..).zip(here) {
            assert_eq!(entry.offset, at + 96 + (n << 16));
        }
        at += 96 + part.payload.len() as u64 + 8;
        rest = others;
    }
    let footer = Part::decode(&mut reader).unwrap().header;
    assert_eq!((footer.kind, footer.after), (PartKind::PackFooter, sum(&entries)));
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(unpack_all(&object, &footer_of(&object).unwrap()).unwrap().len(), 40);
}

#[test]
fn places_that_overlap_or_go_back_are_refused() {
    let layout = layout(12, 40);
    let (object, entries) = write(layout, &blocks(layout));
    let (part, payload) = footer_payload(&object);
    let offset = |entry: usize| u32::try_from(entries[entry].offset).unwrap();
    for (entry, offset) in [(0, offset(0) - 1), (1, offset(1) - 1), (1, 0)] {
        let mut payload = payload.clone();
        let at = 8 + 17 * entry + 4;
        payload[at..at + 4].copy_from_slice(&offset.to_le_bytes());
        let refused = decode_payload(&part, &payload);
        assert_eq!(refused, Err(PackError::OutOfOrder(entries[entry].block)));
    }
}

#[test]
fn no_flipped_byte_and_no_truncation_yields_other_pages() {
    let layout = layout(9, 259);
    let blocks: Blocks = vec![(0, bytes(65_536, 2)), (2, bytes(1536, 3))];
    let (object, _) = write(layout, &blocks);
    let footer = footer_of(&object).unwrap();
    let footer_at = object.len() - part::trailing_len(&object).unwrap();
    for at in 0..object.len() {
        let mut bad = object.clone();
        bad[at] ^= 0x41;
        if at >= footer_at {
            assert!(footer_of(&bad).is_err(), "byte {at} flipped");
        } else if let Ok(unpacked) = unpack_all(&bad, &footer) {
            assert_eq!(unpacked, blocks, "byte {at} flipped");
            assert!(!(96..footer_at - part::TRAILER_LEN).contains(&at), "byte {at} is not covered");
        }
        assert!(footer_of(&object[..at]).is_err(), "cut at {at}");
        assert!(PackFooter::decode(&object[at..]).is_err() || at == footer_at);
    }
}

#[test]
fn no_flipped_byte_of_a_footer_behind_a_valid_envelope_yields_other_pages() {
    let layout = layout(12, 35);
    let blocks = blocks(layout);
    let (object, _) = write(layout, &blocks);
    let (part, payload) = footer_payload(&object);
    for at in 0..payload.len() {
        let mut bad = payload.clone();
        bad[at] ^= 0x41;
        if let Ok(footer) = decode_payload(&part, &bad) {
            let unpacked = unpack_all(&object, &footer);
            assert!(unpacked.is_err() || unpacked.as_ref() == Ok(&blocks), "byte {at}");
        }
        assert!(decode_payload(&part, &payload[..at]).is_err(), "cut at {at}");
    }
}

#[test]
fn absurd_counts_are_refused_before_they_are_allocated() {
    let layout = layout(12, 35);
    let (object, _) = write(layout, &blocks(layout));
    let (part, mut payload) = footer_payload(&object);
    payload[..8].fill(0xff);
    assert_eq!(decode_payload(&part, &payload), Err(PackError::BadCount));
}

#[test]
fn the_lock_page_is_stored_as_zeros_and_has_no_hash() {
    let page_size = layout(15, 0).page_size;
    let layout = layout(15, page_size.lock_page().get());
    let block = layout.block_of(page_size.lock_page());
    let mut raw = bytes(layout.bytes(block), 3);
    let (object, entries) = write(layout, &vec![(block, raw.clone())]);
    let footer = footer_of(&object).unwrap();
    let place = layout.lock_page_in(block).unwrap();
    let (_, hashes) = footer.blocks().next().unwrap();
    assert_eq!(hashes[place.start / page_size.bytes()], PageHash(0));
    raw[place].fill(0);
    assert_eq!(unpack_all(&object, &footer).unwrap(), [(block, raw.clone())]);

    let lock_page = layout.lock_page_in(block).unwrap();
    raw[lock_page].fill(1);
    let entry = BlockEntry {
        encoding: BlockEncoding::Raw,
        stored_len: u32::try_from(raw.len()).unwrap(),
        crc: crc32fast::hash(&raw),
        ..entries[0]
    };
    let mut out = vec![7; raw.len()];
    let unpacked = unpack_block(&entry, layout, &raw, &mut out);
    assert_eq!(unpacked, Err(PackError::BadImage(block)));
    let (wanted, found) = (raw.len(), raw.len() - 1);
    let unpacked = unpack_block(&entry, layout, &raw, &mut out[1..]);
    assert_eq!(unpacked, Err(PackError::BadBlockLength { block, wanted, found }));
}

#[test]
fn the_writer_refuses_what_no_reader_takes() {
    let layout = layout(16, 3);
    let mut writer = PackWriter::new(layout, stamp());
    let raw = bytes(65_536, 2);
    writer.push(1, &raw).unwrap();
    assert_eq!(writer.push(1, &raw), Err(PackError::OutOfOrder(1)));
    assert_eq!(writer.push(0, &raw), Err(PackError::OutOfOrder(0)));
    assert_eq!(writer.push(3, &raw), Err(PackError::OutOfOrder(3)));
    let short = PackError::BadBlockLength { block: 2, wanted: 65_536, found: 65_535 };
    assert_eq!(writer.push(2, &raw[1..]), Err(short));
    let other = BlockLayout { pages: 4, ..layout };
    for (layout, block) in [(other, 2), (layout, 1)] {
        let packed = packed(layout, &[(block, raw.clone())]);
        assert_eq!(writer.push_packed(&packed), Err(PackError::OutOfOrder(block)));
    }
    writer.push(2, &raw).unwrap();
    assert_eq!(writer.finish().unwrap().1.len(), 2);
}

#[test]
fn a_part_takes_no_more_than_its_mebibyte_and_is_used_again() {
    let layout = layout(16, 40);
    let block = |block: u32| (block, bytes(65_536, 2 * u64::from(block) + 1));
    let mut part = packed(layout, &(0..16).map(block).collect::<Vec<_>>());
    let (number, raw) = block(16);
    let next = HashedBlock::new(layout, number, &raw);
    assert_eq!(part.push(&next), Err(PackError::Full));
    assert_eq!(part.blocks().collect::<Vec<_>>(), (0..16).collect::<Vec<_>>());
    part.clear(layout);
    part.push(&next).unwrap();
    assert_eq!(part.push(&next), Err(PackError::OutOfOrder(16)));
    assert_eq!(part.blocks().collect::<Vec<_>>(), [16]);
}

#[test]
fn parts_that_were_packed_elsewhere_make_the_same_pack() {
    let layout = layout(16, 40);
    let noise: Blocks =
        (0..40).map(|block| (block, bytes(65_536, 2 * u64::from(block) + 1))).collect();
    let (one_by_one, entries) = write(layout, &noise);
    let mut writer = PackWriter::reusing(vec![7; 1000], layout, stamp());
    writer.push_packed(&PackedBlocks::new(layout)).unwrap();
    for blocks in noise.chunks(16) {
        writer.push_packed(&packed(layout, blocks)).unwrap();
    }
    assert_eq!((writer.last(), writer.stored_len()), (Some(39), one_by_one.len()));
    assert!(writer.finish().unwrap() == (one_by_one, entries));

    let mut writer = PackWriter::new(layout, stamp());
    writer.push(0, &noise[0].1).unwrap();
    writer.push_packed(&packed(layout, &noise[1..17])).unwrap();
    writer.push(17, &noise[17].1).unwrap();
    let (object, _) = writer.finish().unwrap();
    assert!(unpack_all(&object, &footer_of(&object).unwrap()).unwrap() == noise[..18]);
}

#[test]
fn an_empty_pack_is_nothing() {
    let writer = PackWriter::new(layout(12, 40), stamp());
    assert_eq!(writer.last(), None);
    assert_eq!(writer.finish(), Ok((Vec::new(), Vec::new())));
}

#[test]
fn a_full_pack_says_so_and_can_still_be_finished() {
    let layout = layout(16, 2000);
    let noise = bytes(65_536, 3);
    let mut writer = PackWriter::new(layout, stamp());
    writer.push(0, &bytes(65_536, 2)).unwrap();
    let full = (1..2000).find_map(|block| writer.push(block, &noise).err());
    assert_eq!(full, Some(PackError::Full));
    let next = packed(layout, &[(1999, noise.clone())]);
    assert_eq!(writer.push_packed(&next), Err(PackError::Full));
    assert!(writer.stored_len() <= (64 << 20) + 100_000);
    let (object, entries) = writer.finish().unwrap();
    assert_eq!(entries.len(), 1024);
    assert!(footer_of(&object).is_ok());
}

proptest! {
    #[test]
    fn no_payload_makes_the_decoder_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let layout = layout(12, 35);
        let (object, _) = write(layout, &blocks(layout));
        let (part, _) = footer_payload(&object);
        prop_assert!(decode_payload(&part, &payload).is_err());
    }

    #[test]
    fn no_stored_bytes_make_unpacking_panic(
        stored in prop::collection::vec(any::<u8>(), 1..400),
        block in 0u32..5,
        raw in any::<bool>(),
    ) {
        let entry = BlockEntry {
            block,
            offset: 96,
            stored_len: u32::try_from(stored.len()).unwrap(),
            encoding: if raw { BlockEncoding::Raw } else { BlockEncoding::Lz4 },
            crc: crc32fast::hash(&stored),
            sum: StateHash(1),
        };
        let mut out = vec![0; layout(12, 35).bytes(block)];
        prop_assert!(unpack_block(&entry, layout(12, 35), &stored, &mut out).is_err());
    }
}
