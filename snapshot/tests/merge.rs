//! What is merged, and what is covered, in examples. Whole histories are in the tests of the planner.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Because, Choice, Ladder, Merge, Rules, covered};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::time::Millis;

const GENERATION: Generation = Generation { epoch: Epoch(1), random: 5 };

fn name(level: u8, epoch: u32, first: u64, last: u64) -> SegmentName {
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

fn small(level: u8, epoch: u32, first: u64, last: u64) -> Listed<SegmentName> {
    Listed { name: name(level, epoch, first, last), size: 10 }
}

fn inventory(segments: &[Listed<SegmentName>], snapshots: &[u64]) -> Inventory {
    let manifest = |&txid: &u64| ManifestName {
        generation: GENERATION,
        txid: Txid(txid),
        time: Millis(txid * 10),
        epoch: Epoch(1),
        attempt: 0,
        repair: 0,
    };
    let manifests = snapshots.iter().map(|txid| (ObjectName::from(manifest(txid)), 100));
    let segments = segments.iter().map(|segment| (segment.name.into(), segment.size));
    Inventory::from_objects(manifests.chain(segments))
}

fn ladder(segments: &[Listed<SegmentName>], snapshots: &[u64]) -> Ladder {
    Ladder::of(inventory(segments, snapshots).generation(GENERATION).unwrap())
}

fn rules() -> Rules {
    Rules {
        fan_in: 3,
        level_bytes: 100,
        enough: 50,
        spanning_level: 1,
        crowd: 6,
        crowd_bytes: 200,
        crowd_share: 20,
        room: u64::MAX,
    }
}

/// What is merged: the inputs' ranges, what they become, and why.
type Chosen = (Vec<(u64, u64)>, SegmentName, Because);

fn chosen(ladder: &Ladder) -> Option<Chosen> {
    match ladder.choose(&rules()) {
        Choice::Rest => None,
        Choice::Merge(Merge { inputs, output, because }) => {
            let ranges = inputs.iter().map(|input| (input.name.first.0, input.name.last.0));
            Some((ranges.collect(), output, because))
        }
    }
}

#[test]
fn a_full_row_of_one_level_makes_one_of_the_next_named_for_its_last() {
    let row = [small(0, 1, 2, 4), small(0, 1, 5, 5), small(0, 2, 6, 9)];
    let merged = (vec![(2, 4), (5, 5), (6, 9)], name(1, 2, 2, 9), Because::Full(0));
    assert_eq!(chosen(&ladder(&row, &[1])), Some(merged));
    assert_eq!(chosen(&ladder(&row[1..], &[1])), None);

    let mut ladder = ladder(&row, &[1]);
    ladder.add(small(1, 2, 2, 9));
    assert_eq!(chosen(&ladder), None);
    assert_eq!(ladder.segments().collect::<Vec<_>>(), [small(1, 2, 2, 9)]);
    ladder.add(row[1]);
    assert_eq!(ladder.segments().count(), 1, "what is held already adds nothing");
}

#[test]
fn nothing_is_merged_over_what_is_missing_damaged_large_or_cut_off() {
    let row = |middle: &[Listed<SegmentName>]| {
        let around = [small(0, 1, 1, 2), small(0, 1, 3, 4), small(0, 2, 9, 9), small(0, 2, 10, 12)];
        chosen(&ladder(&[&around[..], middle].concat(), &[1]))
    };
    assert!(row(&[small(0, 2, 5, 8)]).is_some());
    assert_eq!(row(&[small(0, 2, 6, 7)]), None, "missing");
    assert_eq!(row(&[Listed { size: 50, ..small(0, 2, 5, 8) }]), None, "large");
    assert_eq!(row(&[small(0, 1, 5, 6), small(0, 2, 6, 8)]), None, "cut off");
    let mut ladder = ladder(&[small(0, 1, 1, 2), small(0, 1, 3, 4), small(0, 1, 5, 6)], &[1]);
    ladder.leave(name(0, 1, 3, 4));
    assert_eq!(chosen(&ladder), None, "damaged");
}

#[test]
fn above_the_first_levels_a_snapshot_divides_a_row() {
    let row = |level| [small(level, 1, 2, 4), small(level, 1, 5, 8), small(level, 1, 9, 9)];
    for snapshot in [4, 6, 8] {
        assert!(chosen(&ladder(&row(0), &[1, snapshot])).is_some());
        assert_eq!(chosen(&ladder(&row(1), &[1, snapshot])), None, "{snapshot}");
    }
    for snapshot in [1, 9] {
        assert!(chosen(&ladder(&row(1), &[snapshot])).is_some());
    }
}

#[test]
fn too_many_that_no_level_merges_are_merged_where_that_is_cheapest() {
    let sized = |size| move |at| Listed { size, ..small(0, 1, at, at) };
    let segments: Vec<_> = (2..6).map(sized(60)).chain((6..9).map(sized(51))).collect();
    let because = Because::Crowded(7);
    let merged = (vec![(6, 6), (7, 7), (8, 8)], name(1, 1, 6, 8), because);
    assert_eq!(chosen(&ladder(&segments, &[1])), Some(merged));
    assert_eq!(chosen(&ladder(&segments, &[1, 4])), None, "no plan needs all of them");
    assert_eq!(chosen(&ladder(&segments[1..], &[1])), None);
}

/// Segments of these sizes, one transaction each from 2 on.
fn of_sizes(sizes: &[u64]) -> Vec<Listed<SegmentName>> {
    (2..).zip(sizes).map(|(at, &size)| Listed { size, ..small(0, 1, at, at) }).collect()
}

/// The ranges that are merged, with these rules.
fn ranges(ladder: &Ladder, rules: &Rules) -> Vec<(u64, u64)> {
    match ladder.choose(rules) {
        Choice::Rest => Vec::new(),
        Choice::Merge(merge) => {
            merge.inputs.iter().map(|input| (input.name.first.0, input.name.last.0)).collect()
        }
    }
}

#[test]
fn what_stands_between_two_snapshots_says_how_large_is_too_large() {
    let few = [150, 150, 90, 150, 150, 150, 150];
    assert_eq!(chosen(&ladder(&of_sizes(&few), &[1])), None, "two of them are more than 200");
    let share = Rules { crowd_share: 3, ..rules() };
    assert_eq!(ranges(&ladder(&of_sizes(&few), &[1]), &share), [(3, 3), (4, 4)], "{share:?}");
    assert_eq!(ranges(&ladder(&of_sizes(&few), &[1, 6]), &share), []);
}

#[test]
fn what_spans_a_snapshot_is_not_made_larger() {
    let mut segments = of_sizes(&[60, 60, 60, 60, 60, 60, 60]);
    segments.push(Listed { size: 51, ..small(1, 1, 0, 1) });
    segments.push(Listed { size: 51, ..small(1, 1, 9, 11) });
    let merged = |snapshots: &[u64]| ranges(&ladder(&segments, snapshots), &rules());
    assert_eq!(merged(&[0, 10]), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(merged(&[0]), [(7, 7), (8, 8), (9, 11)], "the next one is cheaper");
}

#[test]
fn more_than_there_is_room_for_is_merged_only_where_nothing_is_less() {
    let segments = of_sizes(&[60, 60, 60, 60, 51, 52, 60]);
    let merged = |room| ranges(&ladder(&segments, &[1]), &Rules { room, ..rules() });
    assert_eq!(merged(163), [(5, 5), (6, 6), (7, 7)]);
    assert_eq!(merged(162), [(6, 6), (7, 7)]);
    assert_eq!(merged(103), [(6, 6), (7, 7)], "there is none that fits");
    assert_eq!(merged(102), [(5, 5), (6, 6), (7, 7)], "so that somebody is told");
}

#[test]
fn many_that_are_alike_are_merged_rather_than_a_large_one_with_some() {
    let rules = Rules { fan_in: 9, crowd_bytes: 1000, ..rules() };
    let segments = of_sizes(&[400, 51, 51, 51, 51, 51, 51, 51]);
    let small: Vec<_> = (3..10).map(|at| (at, at)).collect();
    assert_eq!(ranges(&ladder(&segments, &[1]), &rules), small);
}

#[test]
fn covered_is_what_one_longer_segment_holds_all_of() {
    let segments = [
        small(0, 1, 1, 2),
        small(0, 1, 3, 3),
        small(1, 1, 1, 3),
        small(0, 1, 3, 5),
        small(2, 1, 1, 9),
        small(1, 1, 4, 9),
        small(1, 2, 8, 9),
        small(1, 1, 8, 11),
        small(0, 1, 20, 20),
    ];
    let inventory = inventory(&segments, &[]);
    let covered = covered(inventory.generation(GENERATION).unwrap());
    let ranges =
        covered.iter().map(|s| (s.name.level, s.name.epoch.0, s.name.first.0, s.name.last.0));
    let expected = [(1, 1, 1, 3), (0, 1, 1, 2), (0, 1, 3, 5), (0, 1, 3, 3), (1, 1, 4, 9)];
    assert_eq!(ranges.collect::<Vec<_>>(), expected);
}
