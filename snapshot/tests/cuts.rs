//! What stale writers left, against a model that looks at every record.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::{BTreeMap, BTreeSet};

use genesis_snapshot::inventory::{Cuts, Inventory};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::time::Millis;
use proptest::prelude::*;

const GENERATION: Generation = Generation { epoch: Epoch(1), random: 5 };

fn segment(level: u8, epoch: u32, first: u64, last: u64) -> SegmentName {
    SegmentName {
        generation: GENERATION,
        level,
        first: Txid(first),
        last: Txid(last),
        time: Millis(last * 10),
        epoch: Epoch(epoch),
        repair: 0,
    }
}

fn manifest(epoch: u32, txid: u64) -> ManifestName {
    let (txid, time, epoch) = (Txid(txid), Millis(txid * 10), Epoch(epoch));
    ManifestName { generation: GENERATION, txid, time, epoch, attempt: 0, repair: 0 }
}

fn inventory(
    segments: &[SegmentName],
    manifests: &[ManifestName],
    bases: &BTreeMap<u32, u64>,
) -> Inventory {
    let segments = segments.iter().map(|&name| ObjectName::from(name));
    let manifests = manifests.iter().map(|&name| ObjectName::from(name));
    let cuts = Cuts::new(bases.iter().map(|(&epoch, &base)| (Epoch(epoch), Txid(base))));
    Inventory::of_history(segments.chain(manifests).map(|name| (name, 1)), cuts)
}

/// Whether a record is history: nobody who went on from an earlier one took over from its writer, and
/// somebody knew of its writer, if anybody went on after it.
fn is_history(bases: &BTreeMap<u32, u64>, writer: u32, txid: u64) -> bool {
    let later_cuts = bases.iter().any(|(&epoch, &base)| epoch > writer && txid > base);
    let is_between = bases.keys().any(|&epoch| epoch > writer)
        && bases.keys().any(|&epoch| epoch < writer)
        && !bases.contains_key(&writer);
    !later_cuts && !is_between
}

#[test]
fn a_stale_writer_leaves_orphans_only() {
    let bases = BTreeMap::from([(1, 0), (2, 10)]);
    let stale = [segment(0, 1, 11, 13), segment(1, 1, 5, 13), segment(0, 1, 14, 99)];
    let segments = [&[segment(0, 1, 2, 10), segment(0, 2, 11, 12)], &stale[..]].concat();
    let inventory = inventory(&segments, &[manifest(1, 1), manifest(1, 11)], &bases);
    let line = inventory.generation(GENERATION).unwrap();
    assert_eq!(line.manifests().len(), 1);
    let chain = line.chain(Txid(1));
    let names: Vec<_> = chain.segments.iter().map(|s| s.name).collect();
    assert_eq!((names, chain.reached, chain.gap), (segments[..2].to_vec(), Txid(12), None));
    // What is cut off is restored up to the cut, where nothing else holds it.
    let chain = line.chain(Txid(4)).segments;
    assert_eq!(chain.len(), 2);
    assert_eq!(line.windows().len(), 1);
    assert_eq!((inventory.max_txid(), inventory.highest_used()), (Some(Txid(12)), Some(Txid(99))));
}

#[test]
fn a_merged_segment_counts_up_to_the_cut() {
    let bases = BTreeMap::from([(1, 0), (2, 10)]);
    let merged = segment(1, 1, 2, 13);
    let inventory = inventory(&[merged, segment(0, 2, 11, 11)], &[manifest(1, 1)], &bases);
    let line = inventory.generation(GENERATION).unwrap();
    let chain = line.chain(Txid(1));
    assert_eq!((chain.segments.len(), chain.reached), (2, Txid(11)));
    assert_eq!((line.last_in(&merged), line.time_of(&merged)), (Txid(10), None));
}

type Listing = (Vec<SegmentName>, Vec<ManifestName>, BTreeMap<u32, u64>);

fn listings() -> impl Strategy<Value = Listing> {
    let segment = (0u8..3, 1u32..7, 1u64..40, 0u64..12)
        .prop_map(|(level, epoch, first, more)| segment(level, epoch, first, first + more));
    let manifest = (1u32..7, 1u64..40).prop_map(|(epoch, txid)| manifest(epoch, txid));
    let bases = prop::collection::btree_map(1u32..6, 0u64..40, 0..5);
    (prop::collection::vec(segment, 0..16), prop::collection::vec(manifest, 0..5), bases)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn chains_and_windows_hold_what_is_history_and_nothing_else(
        (segments, manifests, bases) in listings(),
        from in 0u64..45,
    ) {
        let inventory = inventory(&segments, &manifests, &bases);
        let holds = |s: &SegmentName| {
            let (epoch, range) = (s.epoch.0, s.first.0..=s.last.0);
            range.filter(|&txid| is_history(&bases, epoch, txid)).collect::<Vec<_>>()
        };
        let covered: BTreeSet<u64> = segments.iter().flat_map(holds).collect();
        let begun = manifests.iter().filter(|m| is_history(&bases, m.epoch.0, m.txid.0));
        let begun: BTreeSet<u64> = begun.map(|m| m.txid.0).collect();
        let Some(line) = inventory.generation(GENERATION) else {
            prop_assert!(covered.is_empty() && begun.is_empty());
            return Ok(());
        };
        let end = |from: u64| (from + 1..100).take_while(|txid| covered.contains(txid)).last();
        let chain = line.chain(Txid(from));
        prop_assert_eq!(chain.reached.0, end(from).unwrap_or(from));
        let next = covered.range(chain.reached.0 + 1..).next();
        prop_assert_eq!(chain.gap.map(|gap| gap.next.0), next.copied());
        let mut reached = from;
        for segment in &chain.segments {
            prop_assert!(holds(&segment.name).contains(&(reached + 1)));
            reached = line.last_in(&segment.name).0;
        }
        let listed: BTreeSet<u64> =
            line.windows().iter().flat_map(|w| w.first.0..=w.last.0).collect();
        let reachable =
            begun.iter().flat_map(|&first| first..=end(first).unwrap_or(first)).collect();
        prop_assert_eq!(listed, reachable);
        prop_assert_eq!(inventory.max_txid().map(|t| t.0), covered.union(&begun).max().copied());
        let named = segments.iter().map(|s| s.last).chain(manifests.iter().map(|m| m.txid)).max();
        let told = bases.last_key_value().map(|(_, base)| Txid(*base));
        prop_assert_eq!(inventory.highest_used(), named.max(told));
    }
}
