//! Manifests, written and read through the public interface.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod common;

use std::collections::BTreeSet;

use common::{layout, stamp};
use genesis_snapshot::manifest::{
    MAX_PAYLOAD, Manifest, ManifestBlock, ManifestDecoder, ManifestError, PackRef,
};
use genesis_snapshot::pack::{BlockEncoding, BlockEntry};
use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::PackName;
use genesis_wal::page::StateHash;
use genesis_wal::part::{self, Part};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::reader::Reader;
use genesis_wal::time::Micros;
use proptest::prelude::*;

fn position() -> WalPosition {
    WalPosition {
        identity: WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(2, 3) },
        frame: 4,
        checksum: Checksum(5, 6),
        change: 7,
        pages: 8,
    }
}

fn pack(part: u32, size: u64) -> PackRef {
    PackRef {
        name: PackName {
            generation: Generation { epoch: Epoch(part), random: 0xabc },
            epoch: Epoch(part + 1),
            attempt: part + 2,
            part,
            repair: 0,
        },
        size,
    }
}

/// A manifest of 64 KiB pages whose block n lies in the pack that has the place of `packs[n]` among
/// them, after the others there.
fn manifest(packs: &[u32]) -> Manifest {
    let used: BTreeSet<u32> = packs.iter().copied().collect();
    let place = |pack: &u32| u32::try_from(used.range(..pack).count()).unwrap();
    let packs: Vec<u32> = packs.iter().map(place).collect();
    let pages = u32::try_from(packs.len()).unwrap();
    let mut ends = vec![96u64; used.len()];
    let mut state = StateHash::default();
    let blocks = (0..).zip(packs).map(|(block, pack)| {
        let end = &mut ends[pack as usize];
        let raw = block % 3 == 0;
        let entry = BlockEntry {
            block,
            offset: *end,
            stored_len: if raw { 65_536 } else { 10 + block % 9 },
            encoding: if raw { BlockEncoding::Raw } else { BlockEncoding::Lz4 },
            crc: block * 5,
            sum: StateHash(u64::from(block) << 40 | 9),
        };
        *end = entry.end().unwrap();
        state = state.plus(entry.sum);
        ManifestBlock { pack, entry }
    });
    let blocks: Vec<_> = blocks.collect();
    let packs = (0..).zip(&ends).map(|(part, &end)| pack(part, end + 50));
    Manifest {
        layout: layout(16, pages),
        stamp: stamp(),
        txid: Txid(17),
        position: Some(position()),
        time: Micros(1_700_000_000_123_456),
        state,
        parent: Some((stamp().generation, Txid(12))),
        packs: packs.collect(),
        blocks,
    }
}

fn encode(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = Vec::new();
    manifest.encode(&mut bytes).unwrap();
    bytes
}

fn parts(bytes: &[u8]) -> Vec<Part<'_>> {
    let mut reader = Reader::new(bytes);
    let mut parts = Vec::new();
    while !reader.rest().is_empty() {
        parts.push(Part::decode(&mut reader).unwrap());
    }
    parts
}

/// Decodes a manifest of one part with another payload behind a valid envelope.
fn decode_payload(part: &Part<'_>, payload: &[u8]) -> Result<Manifest, ManifestError> {
    let mut bytes = Vec::new();
    part::encode(&part.header, payload, &mut bytes).unwrap();
    Manifest::decode(&bytes)
}

#[test]
fn round_trips_with_and_without_what_is_optional() {
    let full = manifest(&[0, 0, 1, 0, 1, 1, 1]);
    let bare = Manifest { parent: None, position: None, ..full.clone() };
    for manifest in [full, bare, manifest(&[])] {
        assert_eq!(Manifest::decode(&encode(&manifest)), Ok(manifest));
    }
}

#[test]
fn round_trips_at_every_page_size() {
    for log2 in 9..=16 {
        let mut manifest = manifest(&[0, 1, 1, 1]);
        manifest.layout = layout(log2, 4 * (65_536 >> log2));
        assert_eq!(Manifest::decode(&encode(&manifest)), Ok(manifest));
    }
}

#[test]
fn blocks_that_lie_one_after_another_share_their_place() {
    let one_run = encode(&manifest(&[0; 50])).len();
    let two_runs = encode(&manifest(&[&[0; 25][..], &[1; 25]].concat())).len();
    assert_eq!(two_runs, one_run + 20 + 32);
    assert_eq!(one_run, 96 + 8 + 44 + 32 + 20 + 50 * 15);
}

#[test]
fn a_large_manifest_is_cut_into_parts_between_records() {
    let scattered: Vec<u32> = (0..40_000).map(|block| block % 7).collect();
    for packs in [vec![0; 140_000], scattered] {
        let mut manifest = manifest(&packs);
        manifest.packs.extend((10..40_000).map(|part| pack(part, 1)));
        let bytes = encode(&manifest);
        let parts = parts(&bytes);
        assert!(parts.len() >= 3);
        for part in &parts {
            assert!(part.payload.len() <= MAX_PAYLOAD);
            assert_eq!(part.header, parts[0].header);
        }
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
    }
}

#[test]
fn every_flipped_byte_and_every_truncation_is_refused() {
    let good = encode(&manifest(&[0, 0, 1, 0]));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        assert!(Manifest::decode(&bad).is_err(), "byte {at} flipped");
        assert!(Manifest::decode(&good[..at]).is_err(), "cut at {at}");
    }
    assert!(Manifest::decode(&[good, vec![0]].concat()).is_err());
}

#[test]
fn every_truncated_payload_is_refused_and_a_flipped_byte_is_seen() {
    let manifest = manifest(&[0, 0, 1, 0]);
    let good = encode(&manifest);
    let part = parts(&good)[0];
    for at in 0..part.payload.len() {
        let mut bad = part.payload.to_vec();
        bad[at] ^= 0x41;
        assert_ne!(decode_payload(&part, &bad), Ok(manifest.clone()), "byte {at}");
        let cut = decode_payload(&part, &part.payload[..at]);
        assert!(cut.is_err(), "cut at {at}");
    }
}

#[test]
fn parts_that_are_missing_doubled_or_of_another_manifest_are_refused() {
    let packs: Vec<u32> = vec![0; 100_000];
    let good = encode(&manifest(&packs));
    let first_len = part::stored_len(&good).unwrap();
    let (first, second) = good.split_at(first_len);
    assert_eq!(Manifest::decode(first), Err(ManifestError::BadCount));
    assert!(Manifest::decode(second).is_err());
    let doubled = [&good, second].concat();
    assert!(Manifest::decode(&doubled).is_err());
    // What comes behind the last part is refused as it comes, and never gathered.
    let all = parts(&good);
    let mut decoder = ManifestDecoder::begin(&all[0]).unwrap();
    decoder.push(&all[1]).unwrap();
    assert!(decoder.push(&all[1]).is_err());

    let mut other = second.to_vec();
    let stamp = part::Stamp { epoch: Epoch(99), ..stamp() };
    part::restamp(&mut other, stamp).unwrap();
    let mixed = [first, &other].concat();
    assert_eq!(Manifest::decode(&mixed), Err(ManifestError::Mixed));

    let mut empty = good.clone();
    part::encode(&parts(&good)[0].header, &[], &mut empty).unwrap();
    assert_eq!(Manifest::decode(&empty), Err(ManifestError::BadCount));
}

#[test]
fn absurd_counts_are_refused_before_they_are_allocated() {
    let good = encode(&manifest(&[0, 0]));
    let part = parts(&good)[0];
    for place in [4..8, 36..40, 40..44, 80..84] {
        let mut payload = part.payload.to_vec();
        payload[place].fill(0xff);
        let decoded = decode_payload(&part, &payload);
        assert_eq!(decoded, Err(ManifestError::BadCount));
    }
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let good = encode(&manifest(&[0, 0]));
    let part = parts(&good)[0];
    let with = |at: usize, byte: u8| {
        let mut payload = part.payload.to_vec();
        payload[at] = byte;
        decode_payload(&part, &payload).unwrap_err()
    };
    assert_eq!(with(0, 2), ManifestError::UnknownVersion(2));
    assert_eq!(with(1, 3), ManifestError::UnknownFlags(2));
    assert_eq!(with(3, 1), ManifestError::UnknownFlags(1 << 16));
    assert_eq!(with(1, 0), ManifestError::StrayParent);
    assert_eq!(with(44 + 32 + 20 + 2, 7), ManifestError::UnknownEncoding(7));
}

#[test]
fn the_encoder_refuses_what_the_decoder_refuses() {
    let refused = |change: fn(&mut Manifest)| {
        let mut manifest = manifest(&[0, 0, 1, 0]);
        change(&mut manifest);
        let mut out = Vec::new();
        let error = manifest.encode(&mut out).unwrap_err();
        assert!(out.is_empty());
        error
    };
    assert_eq!(refused(|m| m.state = StateHash(1)), ManifestError::BadSum);
    assert_eq!(refused(|m| m.layout.pages = 5), ManifestError::BadCount);
    assert_eq!(refused(|m| m.packs.extend([pack(7, 7); 3])), ManifestError::BadCount);
    assert_eq!(refused(|m| m.blocks.swap(1, 2)), ManifestError::BadBlock(2));
    assert_eq!(refused(|m| m.blocks[1].entry.stored_len = 65_536), ManifestError::BadBlock(1));
    assert_eq!(refused(|m| m.blocks[3].pack = 2), ManifestError::OutsidePack(3));
    let repaired = PackName { repair: 1, ..pack(1, 0).name };
    assert_eq!(refused(|m| m.packs[1].name.repair = 1), ManifestError::RepairedPack(repaired));
    assert_eq!(refused(|m| m.packs[1].size = 1), ManifestError::OutsidePack(2));
    assert_eq!(refused(|m| m.blocks[2].entry.offset = u64::MAX), ManifestError::OutsidePack(2));
}

proptest! {
    #[test]
    fn any_spread_over_packs_round_trips(packs in prop::collection::vec(0u32..4, 0..60)) {
        let manifest = manifest(&packs);
        prop_assert_eq!(Manifest::decode(&encode(&manifest)), Ok(manifest));
    }

    #[test]
    fn no_payload_makes_the_decoder_panic(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        keep in 0usize..100,
    ) {
        let good = encode(&manifest(&[0, 1]));
        let part = parts(&good)[0];
        let keep = part.payload.get(..keep).unwrap_or_default();
        let mixed = [keep, &payload].concat();
        prop_assert!(decode_payload(&part, &mixed).is_err());
    }
}
