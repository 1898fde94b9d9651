//! The inventory against a model that tries everything.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;

use genesis_snapshot::inventory::{Gap, Inventory, Line, Window};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ClaimName, ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::time::Millis;
use proptest::prelude::*;

fn generation(epoch: u32) -> Generation {
    Generation { epoch: Epoch(epoch), random: 5 }
}

fn manifest_name(txid: u64) -> ManifestName {
    ManifestName {
        generation: generation(1),
        txid: Txid(txid),
        time: Millis(txid * 10),
        epoch: Epoch(1),
        attempt: 0,
        repair: 0,
    }
}

fn manifest(txid: u64) -> (ObjectName, u64) {
    (manifest_name(txid).into(), 100)
}

fn segment(level: u8, epoch: u32, first: u64, last: u64) -> (ObjectName, u64) {
    let name = SegmentName {
        generation: generation(1),
        level,
        first: Txid(first),
        last: Txid(last),
        time: Millis(last * 10),
        epoch: Epoch(epoch),
        repair: 0,
    };
    (ObjectName::Segment(name), last)
}

fn inventory(objects: &[(ObjectName, u64)]) -> Inventory {
    Inventory::from_objects(objects.iter().copied())
}

fn line(inventory: &Inventory) -> &Line {
    inventory.generation(generation(1)).unwrap()
}

fn ranges(line: &Line, from: u64) -> Vec<(u8, u64, u64)> {
    let segments = line.chain(Txid(from)).segments;
    let range = |s: &SegmentName| (s.level, s.first.0, s.last.0);
    segments.iter().map(|s| range(&s.name)).collect()
}

#[test]
fn a_chain_takes_the_fewest_segments_and_prefers_level_then_epoch() {
    let inventory = inventory(&[
        segment(0, 1, 1, 1),
        segment(0, 1, 2, 3),
        segment(1, 1, 1, 3),
        segment(0, 2, 3, 6),
        segment(2, 1, 4, 6),
        segment(2, 3, 5, 6),
        segment(0, 1, 7, 7),
    ]);
    let line = line(&inventory);
    assert_eq!(ranges(line, 0), [(1, 1, 3), (2, 4, 6), (0, 7, 7)]);
    assert_eq!(ranges(line, 4), [(2, 5, 6), (0, 7, 7)]);
    assert_eq!(ranges(line, 6), [(0, 7, 7)]);
    assert_eq!(ranges(line, 9), []);
    assert_eq!(line.chain(Txid(u64::MAX)).gap, None);
}

#[test]
fn a_gap_is_named_and_the_end_is_none() {
    let inventory = inventory(&[segment(0, 1, 1, 3), segment(0, 1, 6, 8)]);
    let chain = line(&inventory).chain(Txid(0));
    let gap = Gap { after: Txid(3), next: Txid(6) };
    assert_eq!((chain.reached, chain.gap), (Txid(3), Some(gap)));
    assert_eq!(line(&inventory).chain(Txid(5)).gap, None);
    assert_eq!(line(&inventory).chain(Txid(8)).gap, None);
}

#[test]
fn what_no_segment_holds_is_told_as_a_whole() {
    let inventory = inventory(&[
        segment(1, 1, 3, 8),
        segment(2, 1, 4, 6),
        segment(1, 1, 9, 10),
        segment(1, 1, 15, 18),
    ]);
    let not_held = |from| {
        let holes = line(&inventory).not_held(Txid(from)).into_iter();
        holes.map(|hole| (hole.start().0, hole.end().0)).collect::<Vec<_>>()
    };
    assert_eq!(not_held(0), [(1, 2), (11, 14), (19, u64::MAX)]);
    for from in [2, 10, 12, 13] {
        assert_eq!(not_held(from), [(11, 14), (19, u64::MAX)]);
    }
    assert_eq!(not_held(14), [(19, u64::MAX)]);
}

#[test]
fn windows_are_what_snapshots_and_chains_cover() {
    let inventory = inventory(&[
        manifest(3),
        segment(0, 1, 1, 5),
        manifest(5),
        manifest(6),
        segment(0, 1, 7, 8),
        manifest(20),
        segment(0, 1, 30, 31),
    ]);
    let window = |first, last| Window {
        first: Txid(first),
        last: Txid(last),
        from: Millis(first * 10),
        to: Millis(last * 10),
    };
    let windows = line(&inventory).windows();
    assert_eq!(windows, [window(3, 8), window(20, 20)]);
}

#[test]
fn the_replica_is_summed_up_over_its_generations() {
    let pack =
        PackName { generation: generation(9), epoch: Epoch(9), attempt: 1, part: 0, repair: 0 };
    let inventory = inventory(&[
        (ObjectName::Genesis, 10),
        (ClaimName { epoch: Epoch(4), nonce: None }.into(), 10),
        (ClaimName { epoch: Epoch(12), nonce: Some(7) }.into(), 10),
        (ObjectName::Base(Epoch(13)), 10),
        (ObjectName::Pack(pack), 10),
        manifest(3),
        segment(0, 1, 2, 17),
    ]);
    let generations: Vec<_> = inventory.generations().map(Line::generation).collect();
    assert_eq!(generations, [generation(1), generation(9)]);
    let latest = inventory.latest_generation().map(Line::generation);
    assert_eq!(latest, Some(generation(1)));
    assert_eq!(inventory.max_txid(), Some(Txid(17)));
    assert_eq!(inventory.generation(generation(9)).unwrap().packs().len(), 1);
    assert_eq!(inventory.last_time(), Some(Millis(170)));

    let empty = Inventory::from_objects([]);
    assert_eq!((empty.max_txid(), empty.last_time()), (None, None));
    assert_eq!(empty.latest_generation(), None);
}

#[test]
fn of_copies_the_one_with_the_highest_repair_number_is_read() {
    let repaired = |(name, size): (ObjectName, u64), repair| {
        let name = match name {
            ObjectName::Manifest(name) => ManifestName { repair, ..name }.into(),
            ObjectName::Pack(name) => PackName { repair, ..name }.into(),
            ObjectName::Segment(name) => SegmentName { repair, ..name }.into(),
            other => other,
        };
        (name, size + u64::from(repair))
    };
    let name =
        |part| PackName { generation: generation(1), epoch: Epoch(1), attempt: 1, part, repair: 0 };
    let later = ManifestName { attempt: 1, ..manifest_name(3) };
    let first = [manifest(3), segment(1, 1, 4, 9), (name(1).into(), 50), (later.into(), 100)];
    let copies = [2, 1].map(|repair| first.map(|object| repaired(object, repair)));
    let only = (PackName { repair: 3, ..name(5) }.into(), 7);
    let others = [only, segment(0, 2, 4, 9), (name(0).into(), 5), (name(2).into(), 5)];
    let inventory = inventory(&[&first[..], copies.as_flattened(), &others].concat());
    let line = line(&inventory);

    let newest = line.manifests().last().unwrap().name;
    assert_eq!((newest.attempt, newest.repair), (1, 2));
    let chain = line.chain(Txid(3)).segments;
    assert_eq!((chain.len(), chain[0].name.level, chain[0].name.repair), (1, 1, 2));
    let read = |part| inventory.pack(name(part)).map(|pack| (pack.name.repair, pack.size));
    assert_eq!((read(0), read(1), read(2)), (Some((0, 5)), Some((2, 52)), Some((0, 5))));
    assert_eq!((read(3), read(5), read(6)), (None, Some((3, 7)), None));
    let elsewhere = PackName { generation: generation(2), ..name(1) };
    assert_eq!(inventory.pack(elsewhere), None);
    let copies: Vec<_> = inventory.copies(name(1)).map(|pack| pack.name.repair).collect();
    assert_eq!(copies, [2, 1, 0]);
}

#[test]
fn what_is_forgotten_is_as_if_it_had_not_been_listed() {
    let objects = [
        manifest(1),
        manifest(9),
        segment(0, 1, 2, 4),
        segment(0, 1, 5, 9),
        segment(1, 1, 2, 9),
        segment(0, 1, 10, 11),
    ];
    for forgotten in 0..objects.len() {
        let mut all = inventory(&objects);
        all.forget(objects[forgotten].0);
        let others: Vec<_> =
            objects.iter().filter(|object| **object != objects[forgotten]).copied().collect();
        assert_eq!(all, inventory(&others));
    }
    let mut all = inventory(&objects);
    all.forget(segment(1, 2, 2, 9).0);
    all.forget(ObjectName::Genesis);
    assert_eq!(all, inventory(&objects));
}

fn listing() -> impl Strategy<Value = Vec<(ObjectName, u64)>> {
    let segment = (0u8..3, 1u32..4, 1u64..40, 0u64..12)
        .prop_map(|(level, epoch, first, more)| segment(level, epoch, first, first + more));
    let object = prop_oneof![3 => segment, 1 => (0u64..40).prop_map(manifest)];
    prop::collection::vec(object, 0..14)
}

proptest! {
    #[test]
    fn a_chain_reaches_whatever_can_be_reached(objects in listing(), from in 0u64..45) {
        let with_line = [objects, vec![segment(0, 1, 60, 61)]].concat();
        let inventory = inventory(&with_line);
        let line = line(&inventory);
        let covered: BTreeSet<u64> = line
            .segments()
            .iter()
            .flat_map(|s| s.name.first.0..=s.name.last.0)
            .collect();
        let reachable = (from + 1..=100).take_while(|txid| covered.contains(txid)).last();
        let chain = line.chain(Txid(from));
        prop_assert_eq!(chain.reached.0, reachable.unwrap_or(from));
        let next = covered.range(chain.reached.0 + 1..).next();
        prop_assert_eq!(chain.gap.map(|gap| gap.next.0), next.copied());
        let mut reached = from;
        for segment in &chain.segments {
            prop_assert!(segment.name.first.0 <= reached + 1 && reached < segment.name.last.0);
            reached = segment.name.last.0;
        }
    }

    #[test]
    fn windows_are_the_transactions_that_some_snapshot_reaches(objects in listing()) {
        let with_line = [objects, vec![segment(0, 1, 60, 61)]].concat();
        let inventory = inventory(&with_line);
        let line = line(&inventory);
        let reachable: BTreeSet<u64> = line
            .manifests()
            .iter()
            .flat_map(|m| m.name.txid.0..=line.chain(m.name.txid).reached.0)
            .collect();
        let windows = line.windows();
        let listed: Vec<u64> = windows.iter().flat_map(|w| w.first.0..=w.last.0).collect();
        prop_assert_eq!(listed, reachable.into_iter().collect::<Vec<_>>());
        prop_assert!(windows.windows(2).all(|w| w[0].last.0 + 1 < w[1].first.0));
    }

    #[test]
    fn the_order_of_a_listing_does_not_matter(objects in listing().prop_shuffle()) {
        let mut sorted = objects.clone();
        sorted.sort();
        prop_assert_eq!(inventory(&objects), inventory(&sorted));
    }
}
