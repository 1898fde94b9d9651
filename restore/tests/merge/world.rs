//! What becomes of a replica, by names and sizes alone.

use std::collections::{BTreeMap, BTreeSet};

use genesis_restore::plan::plan;
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Because, Choice, Ladder, Merge, Rules, covered};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::time::Millis;

/// What a replica holds, with what its writer knows.
#[derive(Debug, Clone)]
pub struct World {
    rules: Rules,
    objects: BTreeMap<ObjectName, u64>,
    pub ladder: Ladder,
    generation: Generation,
    epoch: u32,
    last: u64,
    snapshots: Vec<u64>,
    /// Segments that cannot be read, and cuts between writers.
    breaks: usize,
    /// Where a writer went on: what those before it wrote after that is no history.
    bases: Vec<(u32, u64)>,
    pub merged_bytes: u64,
}

/// What becomes of a replica.
#[derive(Debug, Clone)]
pub enum Event {
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
    pub fn new(rules: Rules) -> Self {
        let mut world = Self {
            rules,
            objects: BTreeMap::new(),
            ladder: Ladder::default(),
            generation: Generation { epoch: Epoch(1), random: 5 },
            epoch: 1,
            last: 1,
            snapshots: Vec::new(),
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

    pub fn ship(&mut self, width: u64, bytes: u64) {
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

    pub fn merge(&mut self) {
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
            Because::Crowded(_) => {
                let share = self.bytes_around(&output) / self.rules.crowd_share;
                self.rules.crowd_bytes.max(share)
            }
        };
        assert!(merge.bytes() <= limit, "{merge:?}");
    }

    /// Bytes that stand between the two snapshots around a segment, which spans none.
    fn bytes_around(&self, name: &SegmentName) -> u64 {
        let after = self.snapshots.partition_point(|&snapshot| snapshot < name.first.0);
        let end = self.snapshots.get(after).map_or(Txid(u64::MAX), |&end| Txid(end));
        assert!(name.last <= end, "{name} spans a snapshot");
        let start = Txid(self.snapshots[after - 1]);
        let between = self.ladder.segments().filter(|s| s.name.last > start && s.name.first <= end);
        between.map(|segment| segment.size).sum()
    }

    pub fn snapshot(&mut self) {
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
        if self.snapshots.last() != Some(&self.last) {
            self.snapshots.push(self.last);
        }
    }

    fn inventory(&self) -> Inventory {
        Inventory::from_objects(self.objects.clone())
    }

    fn restart(&mut self) {
        self.epoch += 1;
        self.ladder =
            self.inventory().generation(self.generation).map(Ladder::of).unwrap_or_default();
    }

    pub fn happens(&mut self, event: &Event) {
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
                self.snapshots.clear();
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

    /// The most segments that a plan may need: more only where large ones or breaks stand between them,
    /// and of large ones there are never many.
    pub fn most(&self) -> usize {
        let large = |(name, size): (&ObjectName, &u64)| {
            matches!(name, ObjectName::Segment(_)) && *size > self.rules.crowd_bytes / 2
        };
        let between = self.objects.iter().filter(|object| large(*object)).count() + self.breaks;
        let large = 2 * usize::try_from(self.rules.crowd_share).unwrap() - 1;
        let alone = large + 3 * self.breaks + 3;
        (self.rules.crowd.max(alone) + large).min(self.rules.crowd + 2 * between + 1)
    }

    /// Every transaction is restored from few segments, and from as many when nothing covered is left.
    pub fn check_plans(&self, step: usize) {
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
