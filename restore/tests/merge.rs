//! Merging: whatever a line of history went through, each of its states is restored from few segments,
//! and is the state that it was.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod model;

use std::collections::{BTreeMap, BTreeSet};

use genesis_restore::apply::{Applier, Flow};
use genesis_restore::plan::plan;
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Because, Choice, Ladder, Merge, Rules, covered};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::segment::Sequence;
use genesis_wal::time::Millis;
use model::{Change, FIRST, History, parts, stamp};
use proptest::prelude::*;

/// What a replica holds, with what its writer knows.
#[derive(Debug, Clone)]
struct World {
    rules: Rules,
    objects: BTreeMap<ObjectName, u64>,
    ladder: Ladder,
    generation: Generation,
    epoch: u32,
    last: u64,
    /// Segments that cannot be read, and cuts between writers.
    breaks: usize,
    /// Where a writer went on: what those before it wrote after that is no history.
    bases: Vec<(u32, u64)>,
    merged_bytes: u64,
}

/// What becomes of a replica.
#[derive(Debug, Clone)]
enum Event {
    /// So many segments are shipped, of so many transactions and bytes each.
    Ship {
        count: u64,
        width: u64,
        bytes: u64,
    },
    /// The same after a failure of the store, in which nothing was merged.
    Backlog {
        count: u64,
        bytes: u64,
    },
    Snapshot,
    /// The next writer goes on; the one before was killed between storing a merged segment and
    /// learning that it is stored.
    Restart,
    /// The next writer cuts the one before off, whose last transactions are no history.
    TakeOver,
    NewGeneration,
    /// A segment turns out to be damaged when it is to be merged.
    Damage(usize),
    /// A transaction is lost.
    Lose(u64),
}

impl World {
    fn new(rules: Rules) -> Self {
        let mut world = Self {
            rules,
            objects: BTreeMap::new(),
            ladder: Ladder::default(),
            generation: Generation { epoch: Epoch(1), random: 5 },
            epoch: 1,
            last: 1,
            breaks: 0,
            bases: Vec::new(),
            merged_bytes: 0,
        };
        world.snapshot();
        world
    }

    fn store(&mut self, segment: Listed<SegmentName>) {
        let before = self.objects.insert(segment.name.into(), segment.size);
        assert!(before.is_none_or(|before| before == segment.size), "{} twice", segment.name);
        self.ladder.add(segment);
    }

    fn ship(&mut self, width: u64, bytes: u64) {
        let (first, last) = (self.last + 1, self.last + width);
        self.last = last;
        let name = SegmentName {
            generation: self.generation,
            level: 0,
            first: Txid(first),
            last: Txid(last),
            time: Millis(last),
            epoch: Epoch(self.epoch),
            repair: 0,
        };
        self.store(Listed { name, size: bytes });
    }

    fn merge(&mut self) {
        while let Choice::Merge(merge) = self.ladder.choose(&self.rules) {
            self.check(&merge);
            self.merged_bytes += merge.bytes();
            self.store(Listed { name: merge.output, size: merge.bytes() });
        }
    }

    /// A merge takes neighbours, and not too much.
    fn check(&self, merge: &Merge) {
        assert!((2..=self.rules.fan_in).contains(&merge.inputs.len()), "{merge:?}");
        let joined =
            |pair: &[Listed<SegmentName>]| pair[0].name.last.next() == Some(pair[1].name.first);
        assert!(merge.inputs.windows(2).all(joined), "{merge:?}");
        let mut inputs = merge.inputs.iter().map(|input| input.name);
        assert!(inputs.clone().all(|input| input.generation == merge.output.generation));
        assert!(inputs.clone().all(|input| input.level <= merge.output.level));
        assert!((1..9).contains(&merge.output.level));
        let is_history = |input: &SegmentName| {
            let bases = self.bases.iter();
            bases.filter(|base| base.0 > input.epoch.0).all(|base| input.last.0 <= base.1)
        };
        assert!(inputs.clone().all(|input| is_history(&input)), "{merge:?}");
        let (first, last) = (inputs.next().unwrap(), inputs.next_back().unwrap());
        let output = merge.output;
        let ends = (output.first, output.last, output.time, output.epoch);
        assert_eq!(ends, (first.first, last.last, last.time, last.epoch));
        let limit = match merge.because {
            Because::Full(_) => self.rules.level_bytes,
            Because::Crowded(_) => self.rules.crowd_bytes,
        };
        assert!(merge.bytes() <= limit, "{merge:?}");
    }

    fn snapshot(&mut self) {
        let name = ManifestName {
            generation: self.generation,
            txid: Txid(self.last),
            time: Millis(self.last),
            epoch: Epoch(self.epoch),
            attempt: 0,
            repair: 0,
        };
        self.objects.insert(name.into(), 1);
        self.ladder.add_snapshot(name.txid);
    }

    fn inventory(&self) -> Inventory {
        Inventory::from_objects(self.objects.clone())
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.ladder =
            self.inventory().generation(self.generation).map(Ladder::of).unwrap_or_default();
    }

    fn happens(&mut self, event: &Event) {
        match *event {
            Event::Ship { count, width, bytes } => {
                for _ in 0..count {
                    self.ship(width, bytes);
                    self.merge();
                }
            }
            Event::Backlog { count, bytes } => {
                for _ in 0..count {
                    self.ship(1, bytes);
                }
                self.merge();
            }
            Event::Snapshot => self.snapshot(),
            Event::Restart => {
                if let Choice::Merge(merge) = self.ladder.choose(&self.rules) {
                    self.objects.insert(merge.output.into(), merge.bytes());
                }
                self.restart();
            }
            Event::TakeOver => {
                self.ship(7, 7);
                self.last -= 3;
                self.breaks += 1;
                self.restart();
                self.bases.push((self.epoch, self.last));
                self.ship(9, 9);
            }
            Event::NewGeneration => {
                self.merge();
                self.epoch += 1;
                self.last += 1;
                self.generation = Generation { epoch: Epoch(self.epoch), random: 5 };
                self.ladder = Ladder::default();
                self.snapshot();
            }
            Event::Damage(which) => {
                let tops: Vec<_> = self.ladder.segments().collect();
                if let Some(top) = tops.get(which % tops.len().max(1)) {
                    self.ladder.leave(top.name);
                    self.breaks += 1;
                }
            }
            Event::Lose(which) => self.lose(1 + which % self.last),
        }
    }

    fn lose(&mut self, txid: u64) {
        let holds = |name: &ObjectName| match name {
            ObjectName::Segment(name) => (name.first..=name.last).contains(&Txid(txid)),
            _ => false,
        };
        self.objects.retain(|name, _| !holds(name));
        self.breaks += 1;
        // Who was cut off where is not seen any more; that parts must follow one another protects then.
        self.bases.clear();
        self.restart();
    }

    /// The most segments that a plan may need: more only where large ones or breaks stand between them.
    fn most(&self) -> usize {
        let large = |(name, size): (&ObjectName, &u64)| {
            matches!(name, ObjectName::Segment(_)) && *size > self.rules.crowd_bytes / 2
        };
        let between = self.objects.iter().filter(|object| large(*object)).count() + self.breaks;
        self.rules.crowd + 2 * between + 1
    }

    /// Every transaction is restored from few segments, and from as many when nothing covered is left.
    fn check_plans(&self, step: usize) {
        let all = self.inventory();
        let garbage: BTreeSet<ObjectName> =
            all.generations().flat_map(covered).map(|segment| segment.name.into()).collect();
        let mut kept = self.objects.clone();
        kept.retain(|name, _| !garbage.contains(name));
        let kept = Inventory::from_objects(kept);
        for line in all.generations() {
            let last = line.max_txid().unwrap().0;
            for txid in (1..=last).step_by(step).chain([last]) {
                let target = Target::Txid(Txid(txid));
                let Ok(planned) = plan(&all, target, Some(line.generation())) else { continue };
                let count = planned.segments.len();
                assert!(count <= self.most(), "{count} segments for transaction {txid}");
                let without = plan(&kept, target, Some(line.generation())).unwrap();
                assert!(without.reaches >= Txid(txid) && without.segments.len() <= count);
            }
        }
    }
}

fn small_rules() -> Rules {
    Rules { fan_in: 3, level_bytes: 64, enough: 32, spanning_level: 2, crowd: 12, crowd_bytes: 400 }
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

/// A history with the bytes of its segments, merged by what the policy says.
struct Bytes<'a> {
    history: &'a History,
    segments: BTreeMap<SegmentName, Vec<u8>>,
    manifests: Vec<ManifestName>,
    ladder: Ladder,
    rules: Rules,
}

impl Bytes<'_> {
    fn snapshot(&mut self, txid: u64) {
        let (generation, epoch) = (stamp().generation, stamp().epoch);
        let (time, attempt) = (self.history.base_at(txid).time.ceil_millis(), 0);
        let txid = Txid(txid);
        self.manifests.push(ManifestName { generation, txid, time, epoch, attempt, repair: 0 });
        self.ladder.add_snapshot(txid);
    }

    fn ship(&mut self, first: u64, last: u64, cut_at: usize) {
        let name = SegmentName {
            generation: stamp().generation,
            level: 0,
            first: Txid(first),
            last: Txid(last),
            time: self.history.base_at(last).time.ceil_millis(),
            epoch: stamp().epoch,
            repair: 0,
        };
        self.store(name, self.history.segment(first, last, cut_at));
        while let Choice::Merge(merge) = self.ladder.choose(&self.rules) {
            let inputs = merge.inputs.iter().map(|input| self.segments[&input.name].as_slice());
            let merged = inputs.collect::<Vec<_>>().concat();
            assert_eq!(merged.len() as u64, merge.bytes());
            self.store(merge.output, merged);
        }
    }

    fn store(&mut self, name: SegmentName, bytes: Vec<u8>) {
        let parts = parts(&bytes);
        let mut sequence = Sequence::beginning_with(&parts[0].header);
        for part in &parts {
            sequence.accept(part).unwrap();
        }
        let reached = sequence.finish().unwrap();
        assert_eq!((parts[0].header.first, reached.txid), (name.first, name.last));
        self.ladder.add(Listed { name, size: bytes.len() as u64 });
        self.segments.insert(name, bytes);
    }

    /// Restores a transaction from the objects of which `is_there` is true.
    fn restored(&self, txid: u64, is_there: impl Fn(&SegmentName) -> bool) -> (Vec<u8>, usize) {
        let manifests = self.manifests.iter().map(|&name| (name.into(), 1));
        let segments = self.segments.iter().filter(|(name, _)| is_there(name));
        let segments = segments.map(|(&name, bytes)| (name.into(), bytes.len() as u64));
        let inventory = Inventory::from_objects(manifests.chain(segments));
        let target = Target::Txid(Txid(txid));
        let plan = plan(&inventory, target, None).unwrap();
        let base = plan.manifest.txid.0;
        let mut sink = self.history.sink_at(base);
        let mut applier = Applier::new(self.history.base_at(base), target, plan.reaches);
        'all: for segment in &plan.segments {
            for part in parts(&self.segments[segment]) {
                if applier.push(&part, &mut sink).unwrap() == Flow::Reached {
                    break 'all;
                }
            }
        }
        assert_eq!(applier.finish(&mut sink).unwrap().txid, Txid(txid));
        (sink.bytes, plan.segments.len())
    }
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (1u32..9, prop::collection::vec(0u32..8, 0..4), 0u64..3000)
        .prop_map(|(pages, changed, time)| Change { pages, changed, time });
    prop::collection::vec(change, 20..70)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Snapshots lie within merged segments, and deltas build on what they hold.
    #[test]
    fn every_state_is_restored_from_merged_segments(
        changes in changes(),
        widths in prop::collection::vec((1u64..4, any::<bool>()), 1..12),
        cut_at in prop_oneof![Just(1usize), Just(900), Just(usize::MAX)],
    ) {
        let history = History::new(5, &changes);
        let mut bytes = Bytes {
            history: &history,
            segments: BTreeMap::new(),
            manifests: Vec::new(),
            ladder: Ladder::default(),
            rules: Rules {
                fan_in: 3, level_bytes: 1 << 20, enough: 1 << 19, spanning_level: 9, crowd: 8,
                crowd_bytes: 1 << 20,
            },
        };
        bytes.snapshot(FIRST);
        let mut first = FIRST + 1;
        for &(width, has_snapshot) in widths.iter().cycle() {
            let last = (first + width - 1).min(history.last());
            bytes.ship(first, last, cut_at);
            if has_snapshot {
                bytes.snapshot(last);
            }
            first = last + 1;
            if first > history.last() {
                break;
            }
        }
        for txid in FIRST..=history.last() {
            let (all, count) = bytes.restored(txid, |_| true);
            prop_assert!(all == history.file(Txid(txid)), "transaction {}", txid);
            prop_assert!(count <= 8, "{} segments", count);
            let (originals, _) = bytes.restored(txid, |name| name.level == 0);
            prop_assert!(originals == history.file(Txid(txid)), "transaction {}", txid);
        }
    }
}
