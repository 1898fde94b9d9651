//! Plans against histories that are known in full, of which a replica holds a part.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::BTreeSet;

use genesis_restore::plan::{Plan, PlanError, backup, plan};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Cuts, Gap, Inventory, Line};
use genesis_wal::id::{BackupId, Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::time::Micros;
use proptest::prelude::*;

fn generation(epoch: u32) -> Generation {
    Generation { epoch: Epoch(epoch), random: 5 }
}

fn manifest(epoch: u32, txid: u64, time: u64) -> (ObjectName, u64) {
    let name = ManifestName {
        generation: generation(epoch),
        txid: Txid(txid),
        time: Micros(time).ceil_millis(),
        epoch: Epoch(epoch),
        attempt: 0,
        repair: 0,
    };
    (ObjectName::Manifest(name), 100)
}

fn segment(epoch: u32, level: u8, first: u64, last: u64, time: u64) -> (ObjectName, u64) {
    let name = SegmentName {
        generation: generation(epoch),
        level,
        first: Txid(first),
        last: Txid(last),
        time: Micros(time).ceil_millis(),
        epoch: Epoch(epoch),
        repair: 0,
    };
    (ObjectName::Segment(name), 7)
}

/// Transaction n of generation 1 is committed at n seconds. Generation 2 begins at 30 s with the
/// state of transaction 4.
fn two_lines() -> Inventory {
    let second = 1_000_000;
    Inventory::from_objects([
        manifest(1, 1, second),
        segment(1, 0, 2, 3, 3 * second),
        segment(1, 0, 4, 6, 6 * second),
        manifest(1, 5, 5 * second),
        segment(1, 0, 9, 9, 9 * second),
        manifest(2, 10, 30 * second),
        segment(2, 0, 11, 12, 32 * second),
        segment(2, 0, 13, 13, 33 * second),
    ])
}

/// What a plan begins with (epoch and transaction), and the ranges of its segments.
type Outline = (u32, u64, Vec<(u64, u64)>);

fn outline(plan: &Plan) -> Outline {
    let segments = plan.segments.iter().map(|s| (s.first.0, s.last.0));
    (plan.generation.epoch.0, plan.manifest.txid.0, segments.collect())
}

fn planned(target: Target) -> Result<Outline, PlanError> {
    plan(&two_lines(), target, None).as_ref().map(outline).map_err(Clone::clone)
}

fn txid(txid: u64) -> Target {
    Target::Txid(Txid(txid))
}

fn millis(ms: u64) -> Target {
    Target::Time(Micros(ms * 1000))
}

#[test]
fn a_backup_is_found_by_its_id() {
    let inventory = two_lines();
    let id = |epoch| BackupId { epoch: Epoch(epoch), attempt: 0 };
    let found = |epoch, line| {
        backup(&inventory, id(epoch), line).map(|state| (state.generation, state.txid))
    };
    assert_eq!(found(2, None), Ok((generation(2), Txid(10))));
    assert_eq!(found(2, Some(generation(2))), Ok((generation(2), Txid(10))));
    assert_eq!(found(2, Some(generation(1))), Err(PlanError::UnknownBackup(id(2))));
    assert_eq!(found(3, None), Err(PlanError::UnknownBackup(id(3))));
    let nowhere = generation(3);
    assert_eq!(found(2, Some(nowhere)), Err(PlanError::UnknownGeneration(nowhere)));
}

#[test]
fn the_latest_state_is_that_of_the_newest_line() {
    let expected = (2, 10, vec![(11, 12), (13, 13)]);
    assert_eq!(planned(Target::Latest), Ok(expected.clone()));
    assert_eq!(planned(millis(99_000)), Ok(expected));
}

#[test]
fn a_transaction_is_found_in_the_line_that_holds_it() {
    assert_eq!(planned(txid(1)), Ok((1, 1, vec![])));
    assert_eq!(planned(txid(2)), Ok((1, 1, vec![(2, 3)])));
    assert_eq!(planned(txid(4)), Ok((1, 1, vec![(2, 3), (4, 6)])));
    assert_eq!(planned(txid(5)), Ok((1, 5, vec![])));
    assert_eq!(planned(txid(6)), Ok((1, 5, vec![(4, 6)])));
    assert_eq!(planned(txid(12)), Ok((2, 10, vec![(11, 12)])));
}

#[test]
fn a_time_is_found_in_the_line_that_was_current_then() {
    assert_eq!(planned(millis(2_500)), Ok((1, 1, vec![(2, 3)])));
    assert_eq!(planned(millis(5_500)), Ok((1, 5, vec![(4, 6)])));
    assert_eq!(planned(millis(30_000)), Ok((2, 10, vec![(11, 12)])));
    assert_eq!(planned(millis(32_500)), Ok((2, 10, vec![(11, 12), (13, 13)])));
}

#[test]
fn a_segment_named_for_the_millisecond_asked_for_is_not_the_last_one() {
    let inventory = Inventory::from_objects([
        manifest(1, 1, 1_000),
        segment(1, 0, 2, 2, 5_100),
        segment(1, 0, 3, 3, 5_300),
        segment(1, 0, 4, 4, 7_000),
    ]);
    let at = |micros| outline(&plan(&inventory, Target::Time(Micros(micros)), None).unwrap()).2;
    assert_eq!(at(5_500), [(2, 2), (3, 3), (4, 4)]);
    assert_eq!(at(4_999), [(2, 2)]);
}

#[test]
fn a_snapshot_after_the_chain_shows_a_gap_even_where_another_stands_within_it() {
    let inventory = Inventory::from_objects([
        manifest(1, 1, 10_000),
        segment(1, 0, 2, 6, 13_001),
        manifest(1, 6, 13_001),
        manifest(1, 7, 13_001),
    ]);
    let gap = plan(&inventory, Target::Time(Micros(13_001)), None);
    assert!(matches!(gap, Err(PlanError::Gap { .. })));
    let before = plan(&inventory, Target::Time(Micros(13_000)), None);
    assert_eq!(outline(&before.unwrap()), (1, 1, vec![(2, 6)]));
}

#[test]
fn a_named_generation_is_the_only_one_looked_at() {
    let planned = |target| {
        plan(&two_lines(), target, Some(generation(1))).as_ref().map(outline).map_err(Clone::clone)
    };
    assert_eq!(planned(millis(5_999)), Ok((1, 5, vec![(4, 6)])));
    assert!(matches!(planned(Target::Latest), Err(PlanError::Gap { .. })));
    assert!(matches!(planned(txid(12)), Err(PlanError::AfterLast { .. })));
    let unknown = plan(&two_lines(), Target::Latest, Some(generation(7)));
    assert_eq!(unknown, Err(PlanError::UnknownGeneration(generation(7))));
}

#[test]
fn without_a_snapshot_there_is_nothing() {
    let empty = Inventory::from_objects([]);
    let nothing = plan(&empty, Target::Latest, None);
    assert_eq!(nothing, Err(PlanError::NothingToRestore));
    let bare = Inventory::from_objects([segment(1, 0, 2, 3, 3)]);
    let nothing = plan(&bare, txid(2), None);
    assert_eq!(nothing, Err(PlanError::NothingToRestore));
    let nothing = plan(&bare, txid(2), Some(generation(1)));
    assert_eq!(nothing, Err(PlanError::NoSnapshot(generation(1))));
}

#[test]
fn errors_say_what_is_missing_and_what_is_there() {
    let text = |target| planned(target).unwrap_err().to_string();
    let window = "in generation 0000000001-0000000000000005 there are \
                  transactions 1 to 6 (1970-01-01T00:00:01.000000Z to 1970-01-01T00:00:06.000000Z)";
    assert_eq!(
        text(txid(0)),
        format!("transaction 0 is before the first state that is kept; {window}")
    );
    assert_eq!(
        text(millis(999)),
        format!(
            "the state at 1970-01-01T00:00:00.999000Z is before the first state that is kept; \
             {window}"
        )
    );
    assert_eq!(
        text(txid(8)),
        "transaction 8 can't be restored: in generation 0000000001-0000000000000005 nothing holds \
         the transactions between 6 and 9; the last one before the gap can be restored: \
         transaction 6"
    );
    assert!(text(txid(14)).starts_with("transaction 14 is after the last state that is kept"));
}

#[test]
fn a_dry_run_names_every_object() {
    let plan = plan(&two_lines(), txid(12), None).unwrap();
    assert_eq!((plan.reaches, plan.segment_bytes), (Txid(12), 7));
    assert_eq!(
        plan.to_string(),
        "restore transaction 12 from generation 0000000002-0000000000000005
  snapshot of transaction 10
    0000000002-0000000000000005/snapshots/00000000000000000010-00000000030000-0000000002-0000000000.manifest
  segments: 1, of 7 bytes, to transaction 12
    0000000002-0000000000000005/wal/00/00000000000000000011-00000000000000000012-00000000032000-0000000002.seg"
    );
}

/// A line of history as it really was: the commit times of its transactions, from `first` on.
#[derive(Debug, Clone)]
struct Truth {
    epoch: u32,
    first: u64,
    times: Vec<u64>,
}

impl Truth {
    fn time(&self, txid: u64) -> u64 {
        self.times[usize::try_from(txid - self.first).unwrap()]
    }

    fn end(&self) -> u64 {
        self.first + self.times.len() as u64
    }
}

type Picked = (Vec<u64>, Vec<usize>, Vec<(usize, usize, u8)>);

/// Lines of history, and which snapshots and segments of them are there.
fn worlds() -> impl Strategy<Value = (Vec<Truth>, Vec<(ObjectName, u64)>)> {
    let line = (
        prop::collection::vec(0u64..2500, 1..12),
        prop::collection::vec(0usize..12, 0..4),
        prop::collection::vec((0usize..12, 0usize..6, 0u8..3), 0..10),
    );
    prop::collection::vec(line, 1..4).prop_map(|lines: Vec<Picked>| {
        let (mut truths, mut objects) = (Vec::new(), Vec::new());
        let (mut first, mut clock) = (1, 10_000);
        for (epoch, (steps, snapshots, segments)) in (1..).zip(lines) {
            let tick = |step: &u64| {
                clock += step;
                clock
            };
            let times = steps.iter().map(tick).collect();
            let truth = Truth { epoch, first, times };
            let within = |n: usize| first + (n % truth.times.len()) as u64;
            for snapshot in snapshots {
                let txid = within(snapshot);
                objects.push(manifest(epoch, txid, truth.time(txid)));
            }
            for (start, more, level) in segments {
                let start = within(start).max(first + 1);
                let last = (start + more as u64).min(truth.end() - 1);
                if start <= last {
                    objects.push(segment(epoch, level, start, last, truth.time(last)));
                }
            }
            first = truth.end();
            clock += 1000;
            truths.push(truth);
        }
        (truths, objects)
    })
}

/// Every transaction that a segment of a line holds.
fn covered(line: &Line) -> BTreeSet<u64> {
    let ranges = line.segments().iter().map(|s| s.name.first.0..=s.name.last.0);
    ranges.flatten().collect()
}

/// The line that a target lies in, by the rule.
fn line_of(inventory: &Inventory, target: Target) -> Option<&Line> {
    inventory.generations().rev().find(|line| {
        line.manifests().iter().any(|m| match target {
            Target::Latest => true,
            Target::Txid(txid) => m.name.txid <= txid,
            Target::Time(time) => m.name.time.micros() <= time,
        })
    })
}

/// The transaction that a target asks for, among those that the line's objects are named for.
fn wanted(truth: &Truth, line: &Line, target: Target) -> u64 {
    let known = line.max_txid().unwrap().0;
    match target {
        Target::Latest => known,
        Target::Txid(txid) => txid.0,
        Target::Time(time) => {
            (truth.first..=known).rfind(|&txid| truth.time(txid) <= time.0).unwrap()
        }
    }
}

/// The last transaction that a plan holds up to its target.
fn lands_on(plan: &Plan, truth: &Truth) -> u64 {
    let mut reached = plan.manifest.txid.0;
    for segment in &plan.segments {
        assert!(segment.first.0 <= reached + 1 && reached < segment.last.0);
        reached = segment.last.0;
    }
    assert_eq!(plan.reaches.0, reached);
    match plan.target {
        Target::Latest => reached,
        Target::Txid(txid) => reached.min(txid.0),
        Target::Time(time) => {
            (plan.manifest.txid.0..=reached).rfind(|&txid| truth.time(txid) <= time.0).unwrap()
        }
    }
}

/// Whether objects that are there lead from a snapshot by the target to a transaction.
fn leads_to(line: &Line, target: Target, to: u64) -> bool {
    let covered = covered(line);
    line.manifests().iter().any(|m| {
        let by_then = match target {
            Target::Latest => true,
            Target::Txid(_) => m.name.txid.0 <= to,
            Target::Time(time) => m.name.time.micros() <= time,
        };
        by_then && (m.name.txid.0 + 1..=to).all(|txid| covered.contains(&txid))
    })
}

fn check(truths: &[Truth], inventory: &Inventory, target: Target) {
    let planned = plan(inventory, target, None);
    let Some(line) = line_of(inventory, target) else {
        assert!(matches!(
            planned,
            Err(PlanError::NothingToRestore | PlanError::BeforeFirst { .. })
        ));
        return;
    };
    let truth = &truths[line.generation().epoch.0 as usize - 1];
    assert_eq!(truth.epoch, line.generation().epoch.0);
    let to = wanted(truth, line, target);
    match planned {
        Ok(plan) => {
            assert_eq!(plan.generation, line.generation());
            assert_eq!(lands_on(&plan, truth), to);
        }
        Err(PlanError::AfterLast { .. }) => assert!(to > line.max_txid().unwrap().0),
        Err(PlanError::Gap { gap, .. }) => {
            let next_is_there = covered(line).contains(&(gap.after.0 + 1));
            assert!(!next_is_there && gap.after < gap.next);
            check_gap(line, truth, target, gap);
            assert!(plan(inventory, Target::Txid(gap.after), Some(line.generation())).is_ok());
        }
        Err(other) => assert_eq!(other.to_string(), "no error"),
    }
}

/// A gap is an error only where it stands before the target, or may: the names of what is before it
/// tell the time to the millisecond only.
fn check_gap(line: &Line, truth: &Truth, target: Target, gap: Gap) {
    let may_be_in_it = match target {
        Target::Time(time) => (truth.time(gap.after.0) - 1) / 1000 * 1000 < time.0,
        Target::Latest | Target::Txid(_) => false,
    };
    assert!(may_be_in_it || !leads_to(line, target, wanted(truth, line, target)));
}

/// What writers tell of is missed where it is lost at the end.
#[test]
fn what_is_known_to_have_been_there_is_missing_at_the_end() {
    let cuts = |base| Cuts::new([(Epoch(2), Txid(base))]);
    let plan = |objects: &[(ObjectName, u64)], base, target, generation| {
        plan(&Inventory::of_history(objects.iter().copied(), cuts(base)), target, generation)
    };
    let late = Target::Time(Micros(1 << 50));
    let older = [manifest(1, 1, 1000), segment(1, 0, 2, 3, 3000)];
    for target in [Target::Latest, late] {
        assert!(plan(&older, 3, target, None).is_ok());
    }
    for (base, next) in [(4, 5), (8, 9)] {
        let gap = Gap { after: Txid(3), next: Txid(next) };
        for target in [Target::Latest, late, Target::Txid(Txid(base))] {
            let expected = PlanError::Gap { target, generation: generation(1), gap };
            for named in [None, Some(generation(1))] {
                assert_eq!(plan(&older, base, target, named), Err(expected.clone()));
            }
        }
        let after = plan(&older, base, Target::Txid(Txid(next)), None);
        assert!(matches!(after, Err(PlanError::AfterLast { .. })), "{after:?}");
        for target in [Target::Txid(Txid(3)), Target::Time(Micros(1500))] {
            assert!(plan(&older, base, target, None).is_ok());
        }
    }
    // Of a later line only the snapshot is missing: who names the older one takes it as it is.
    let newer = [&older[..], &[segment(2, 0, 7, 8, 8000)]].concat();
    assert!(plan(&newer, 8, Target::Latest, None).is_err());
    assert!(plan(&newer, 8, Target::Latest, Some(generation(1))).is_ok());
    let whole = [&newer[..], &[manifest(2, 6, 6000)]].concat();
    for target in [Target::Latest, late, Target::Txid(Txid(3)), Target::Time(Micros(3500))] {
        assert!(plan(&whole, 8, target, None).is_ok());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_plan_leads_to_its_target_whenever_objects_do((truths, objects) in worlds()) {
        let inventory = Inventory::from_objects(objects);
        let end = truths.last().unwrap().end();
        check(&truths, &inventory, Target::Latest);
        for txid in 0..end + 2 {
            check(&truths, &inventory, Target::Txid(Txid(txid)));
        }
        let times = truths.iter().flat_map(|truth| &truth.times);
        for time in times.flat_map(|&time| [time - 1, time, time + 1, time.div_ceil(1000) * 1000]) {
            check(&truths, &inventory, Target::Time(Micros(time)));
        }
    }
}
