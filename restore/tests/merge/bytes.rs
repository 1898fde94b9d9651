//! What merged segments hold.

use std::collections::BTreeMap;

use genesis_restore::apply::{Applier, Flow};
use genesis_restore::plan::plan;
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Choice, Ladder, Rules};
use genesis_wal::id::Txid;
use genesis_wal::name::{ManifestName, SegmentName};
use genesis_wal::segment::Sequence;
use proptest::prelude::*;

use crate::model::{Change, FIRST, History, parts, stamp};

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
                crowd_bytes: 1 << 20, crowd_share: 20, room: u64::MAX,
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
