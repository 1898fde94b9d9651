//! A plan is a shortest way from its snapshot, whatever a replica holds: forks, several generations,
//! segments that were merged, cut off, stored twice or lost. Every way there is is tried.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeMap;

use genesis_restore::plan::{Plan, PlanError, plan};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Cuts, Inventory};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::time::Millis;
use proptest::prelude::*;

/// What a replica holds, and the bases of its writers.
#[derive(Debug, Clone)]
struct Replica {
    manifests: Vec<ManifestName>,
    segments: Vec<SegmentName>,
    bases: Vec<(u32, u64)>,
}

impl Replica {
    fn inventory(&self) -> Inventory {
        let manifests = self.manifests.iter().map(|&name| ObjectName::from(name));
        let segments = self.segments.iter().map(|&name| ObjectName::from(name));
        let bases = self.bases.iter().map(|&(epoch, base)| (Epoch(epoch), Txid(base)));
        let objects = manifests.chain(segments).map(|name| (name, 1));
        Inventory::of_history(objects, Cuts::new(bases))
    }

    /// The last transaction of a writer that is history, by the rule in the format's description.
    fn end_of(&self, writer: Epoch) -> u64 {
        let Some(oldest) = self.bases.iter().map(|base| base.0).min() else { return u64::MAX };
        let newest = self.bases.iter().map(|base| base.0).max().unwrap();
        let is_listed = self.bases.iter().any(|base| base.0 == writer.0);
        let later = self.bases.iter().filter(|base| base.0 > writer.0).map(|base| base.1);
        match later.min() {
            None => u64::MAX,
            Some(_) if !is_listed && (oldest..newest).contains(&writer.0) => 0,
            Some(end) => end,
        }
    }

    /// What segments of a generation hold of history.
    fn ranges(&self, generation: Generation) -> impl Iterator<Item = (u64, u64)> + Clone {
        let of_it = self.segments.iter().filter(move |name| name.generation == generation);
        let cut = |name: &SegmentName| (name.first.0, name.last.0.min(self.end_of(name.epoch)));
        of_it.map(cut).filter(|(first, last)| first <= last)
    }

    /// The snapshot that a transaction is restored from: the newest of the newest generation with one that
    /// is not after it.
    fn snapshot(&self, txid: u64) -> Option<(Generation, u64)> {
        let is_by =
            |name: &&ManifestName| name.txid.0 <= txid && name.txid.0 <= self.end_of(name.epoch);
        let manifests = self.manifests.iter().filter(is_by);
        manifests.map(|name| (name.generation, name.txid.0)).max()
    }

    /// The fewest segments to each transaction that can be reached from a state: every way is tried.
    fn fewest(&self, generation: Generation, from: u64) -> BTreeMap<u64, usize> {
        let mut fewest = BTreeMap::from([(from, 0)]);
        let mut begun = vec![from];
        while let Some(reached) = begun.pop() {
            let count = fewest[&reached] + 1;
            let next = |&(first, last): &(u64, u64)| first <= reached + 1 && reached < last;
            for (_, last) in self.ranges(generation).filter(next) {
                if fewest.get(&last).is_none_or(|&known| count < known) {
                    fewest.insert(last, count);
                    begun.push(last);
                }
            }
        }
        fewest
    }

    fn check(&self, txid: u64) {
        let inventory = self.inventory();
        let planned = plan(&inventory, Target::Txid(Txid(txid)), None);
        let Some((generation, from)) = self.snapshot(txid) else {
            assert!(planned.is_err(), "{planned:?}");
            return;
        };
        let fewest = self.fewest(generation, from);
        let least = fewest.range(txid..).map(|(_, &count)| count).min();
        match planned {
            Ok(planned) => {
                assert_eq!((planned.generation, planned.manifest.txid.0), (generation, from));
                assert_eq!(Some(planned.segments.len()), least, "{planned}");
                self.check_way(&planned);
            }
            Err(error) => {
                assert_eq!(least, None, "transaction {txid}: {error}");
                if let PlanError::Gap { gap, .. } = error {
                    assert_eq!(Some(&gap.after.0), fewest.keys().next_back());
                } else {
                    assert!(matches!(error, PlanError::AfterLast { .. }), "{error}");
                }
            }
        }
    }

    /// Each segment is history where it is needed, is the one with the highest repair number, and goes on
    /// where the one before ended.
    fn check_way(&self, planned: &Plan) {
        let mut reached = planned.manifest.txid.0;
        for name in &planned.segments {
            let last = name.last.0.min(self.end_of(name.epoch));
            assert!(self.segments.contains(name) && name.generation == planned.generation);
            assert!(name.first.0 <= reached + 1 && reached < last);
            let copies = self.segments.iter().filter(|copy| name.repair < copy.repair);
            let is_copy =
                |copy: &SegmentName| SegmentName { repair: name.repair, ..*copy } == *name;
            assert!(!copies.into_iter().any(is_copy), "a copy of {name} is better");
            reached = last;
        }
        assert_eq!(planned.reaches.0, reached);
    }
}

fn generation(epoch: u32) -> Generation {
    Generation { epoch: Epoch(epoch), random: 5 }
}

fn replicas() -> impl Strategy<Value = Replica> {
    let manifest = (1u32..4, 1u64..24, 0u32..4, 0u16..2);
    let manifests = prop::collection::vec(manifest, 1..6).prop_map(|manifests| {
        let name = |(line, txid, more, repair): (u32, u64, u32, u16)| ManifestName {
            generation: generation(line),
            txid: Txid(txid),
            time: Millis(txid),
            epoch: Epoch(line + more),
            attempt: 0,
            repair,
        };
        manifests.into_iter().map(name).collect::<Vec<_>>()
    });
    let length = prop_oneof![4 => 0u64..3, 2 => 3u64..8, 1 => 8u64..20];
    let segment = (1u32..4, 1u64..24, length, 0u8..4, 0u32..4, 0u16..3);
    let segments = prop::collection::vec(segment, 0..30).prop_map(|segments| {
        let name = |(line, first, more, level, later, repair): (u32, u64, u64, u8, u32, u16)| {
            let (first, last) = (Txid(first), Txid(first + more));
            let (generation, epoch) = (generation(line), Epoch(line + later));
            SegmentName { generation, level, first, last, time: Millis(last.0), epoch, repair }
        };
        segments.into_iter().map(name).collect::<Vec<_>>()
    });
    let bases = prop_oneof![
        1 => Just(BTreeMap::new()),
        2 => prop::collection::btree_map(1u32..7, 0u64..26, 1..5),
    ];
    (manifests, segments, bases).prop_map(|(manifests, segments, bases)| Replica {
        manifests,
        segments,
        bases: bases.into_iter().collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn no_way_to_a_transaction_needs_fewer_segments(replica in replicas()) {
        for txid in 0..46 {
            replica.check(txid);
        }
    }
}
