//! Merging: whatever a line of history went through, each of its states is restored from few segments,
//! and is the state that it was.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "../model/mod.rs"]
mod model;

mod bytes;
mod world;

use genesis_snapshot::merge::Rules;
use proptest::prelude::*;
use world::{Event, World};

fn small_rules() -> Rules {
    Rules {
        fan_in: 3,
        level_bytes: 64,
        enough: 32,
        spanning_level: 2,
        crowd: 12,
        crowd_bytes: 400,
        crowd_share: 3,
        room: u64::MAX,
    }
}

fn events(most: u64) -> impl Strategy<Value = Vec<Event>> {
    let bytes = prop_oneof![8 => 1u64..20, 2 => 20u64..100, 1 => 100u64..500];
    let ship = (1..most, 1u64..4, bytes.clone()).prop_map(|(count, width, bytes)| Event::Ship {
        count,
        width,
        bytes,
    });
    let backlog = (1..most, bytes).prop_map(|(count, bytes)| Event::Backlog { count, bytes });
    let event = prop_oneof![
        10 => ship,
        4 => backlog,
        4 => Just(Event::Snapshot),
        4 => Just(Event::Restart),
        1 => Just(Event::TakeOver),
        1 => Just(Event::NewGeneration),
        1 => (0usize..100).prop_map(Event::Damage),
        1 => (0u64..10_000).prop_map(Event::Lose),
    ];
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_history_needs_many_segments(events in events(60)) {
        let mut world = World::new(small_rules());
        for event in &events {
            world.happens(event);
        }
        world.merge();
        world.check_plans(1);
    }
}

/// Events of segments of any size, a byte or a hundred gigabytes, and snapshots among them.
fn sizes() -> impl Strategy<Value = Vec<Event>> {
    let bytes = (0u32..27, 1u64 << 10..1 << 11).prop_map(|(scale, bytes)| bytes << scale >> 10);
    let one = (1u64..300, 0u32..38).prop_map(|(count, scale)| (count, 1 << scale));
    let many = prop_oneof![1 => one, 1 => (1u64..40, bytes)];
    let ship = many.prop_map(|(count, bytes)| Event::Ship { count, width: 1, bytes });
    let event = prop_oneof![12 => ship, 1 => Just(Event::Snapshot), 1 => Just(Event::Restart)];
    prop::collection::vec(event, 1..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn whatever_stands_between_two_snapshots_two_hundred_segments_are_enough(events in sizes()) {
        let mut world = World::new(Rules::default());
        for event in &events {
            world.happens(event);
        }
        world.check_plans(7);
        prop_assert!(world.most() <= 200, "{}", world.most());
    }
}

/// A terabyte between two snapshots, as of a database that is written as fast as that goes: each byte is
/// merged a few times.
#[test]
fn a_terabyte_between_two_snapshots() {
    let mut world = World::new(Rules::default());
    let (count, size) = (25_000, 40 << 20);
    world.happens(&Event::Ship { count, width: 1, bytes: size });
    world.check_plans(997);
    assert_eq!(world.most(), 199);
    assert!(world.merged_bytes * 2 < count * size * 5, "{}", world.merged_bytes);
}

/// What comes of a time without a failure, one segment a second.
#[test]
fn a_day_of_segments_makes_few() {
    let mut world = World::new(Rules::default());
    let (hours, size) = (24, 10_000);
    for hour in 0..hours {
        for _ in 0..3600 {
            world.ship(2, size);
            world.merge();
        }
        if hour % 4 == 3 {
            world.snapshot();
        }
    }
    world.check_plans(997);
    let tops = world.ladder.segments().count();
    assert!(tops < 250, "{tops}");
    // Each byte is written once a level, of which there are three.
    assert!(world.merged_bytes < hours * 3600 * size * 3);
    assert_eq!(world.most(), 161);
}

/// The worst that small ones and restarts can do, and much at once after a failure of the store.
#[test]
fn neither_restarts_nor_frequent_snapshots_nor_a_backlog_make_many() {
    let mut world = World::new(Rules::default());
    for round in 0u64..300 {
        world.happens(&Event::Ship { count: round * 7 % 61, width: 3, bytes: 500 });
        world.happens(&Event::Restart);
        if round % 5 == 0 {
            world.snapshot();
        }
    }
    world.happens(&Event::Backlog { count: 20_000, bytes: 900 });
    world.check_plans(101);
    assert_eq!(world.most(), 161);
}

/// Large segments stand between small ones, and are not merged: too many of both are.
#[test]
fn large_segments_between_small_ones() {
    let mut world = World::new(Rules::default());
    for _ in 0..400 {
        world.happens(&Event::Ship { count: 9, width: 1, bytes: 1000 });
        world.happens(&Event::Ship { count: 1, width: 1, bytes: 40 << 20 });
    }
    world.check_plans(7);
    assert!(world.most() <= 200, "{}", world.most());
}
