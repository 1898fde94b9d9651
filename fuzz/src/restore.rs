//! Targets for `genesis-restore`.

use genesis_restore::plan::{Plan, PlanError, last_before, plan, plan_instead};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Inventory;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::reader::{ReadError, Reader};
use genesis_wal::time::{Micros, Millis};

/// Names of objects, however they contradict each other, as 10 bytes each: kind and level, generation,
/// first transaction, how many more, time, epoch, repair. A plan holds what is there and leads without
/// a gap to its target; what an error names instead can be restored; without an object of a plan there is
/// another or none, and never one with that object.
pub fn restore_plan(data: &[u8]) {
    let mut reader = Reader::new(data);
    let mut objects = Vec::new();
    while let Ok(name) = object(&mut reader) {
        objects.push((name, 1));
    }
    let inventory = Inventory::from_objects(objects);
    let ids = (0..70).chain([u64::MAX - 1, u64::MAX]).map(|txid| Target::Txid(Txid(txid)));
    let times = (0..40).map(|step| Target::Time(Micros(step * 500)));
    for target in ids.chain(times).chain([Target::Latest, Target::Time(Micros(u64::MAX))]) {
        for line in inventory.generations().map(|line| Some(line.generation())).chain([None]) {
            check(&inventory, target, line);
        }
    }
}

fn object(reader: &mut Reader<'_>) -> Result<ObjectName, ReadError> {
    let kind = reader.u8()?;
    let generation = Generation { epoch: Epoch(u32::from(reader.u8()? % 4)), random: 5 };
    let (first, more) = (reader.u16()?, reader.u8()?);
    let first =
        if first > 60_000 { u64::MAX - u64::from(first % 8) } else { u64::from(first % 64) };
    let time = Millis(u64::from(reader.u16()? % 16));
    let (epoch, repair) = (Epoch(u32::from(reader.u8()? % 4)), u16::from(reader.u8()? % 3));
    reader.u8()?;
    Ok(if kind.is_multiple_of(4) {
        let txid = Txid(first);
        ManifestName { generation, txid, time, epoch, attempt: u32::from(more), repair }.into()
    } else {
        let last = first.saturating_add(u64::from(more % 16));
        let (first, last, level) = (Txid(first), Txid(last), kind % 4 - 1);
        SegmentName { generation, level, first, last, time, epoch, repair }.into()
    })
}

fn check(inventory: &Inventory, target: Target, generation: Option<Generation>) {
    match plan(inventory, target, generation) {
        Ok(planned) => {
            check_plan(inventory, &planned);
            let is_of_many = match target {
                Target::Latest => false,
                Target::Txid(txid) => !txid.0.is_multiple_of(16),
                Target::Time(time) => !time.0.is_multiple_of(4000),
            };
            if !is_of_many {
                check_without(inventory, &planned);
            }
        }
        Err(PlanError::Gap { generation, gap, .. }) => {
            assert!(gap.after < gap.next);
            let before = plan(inventory, Target::Txid(gap.after), Some(generation));
            assert!(before.is_ok(), "{before:?}");
        }
        Err(
            PlanError::BeforeFirst { generation, windows, .. }
            | PlanError::AfterLast { generation, windows, .. },
        ) => {
            for window in windows {
                for txid in [window.first, window.last] {
                    let within = plan(inventory, Target::Txid(txid), Some(generation));
                    assert!(within.is_ok(), "{within:?}");
                }
            }
        }
        Err(_) => {}
    }
}

fn check_plan(inventory: &Inventory, planned: &Plan) {
    let Some(line) = inventory.generation(planned.generation) else {
        panic!("a plan of nothing: {planned}");
    };
    assert!(line.manifests().iter().any(|listed| listed.name == planned.manifest));
    let mut reached = planned.manifest.txid;
    for segment in &planned.segments {
        assert!(line.segments().iter().any(|listed| listed.name == *segment));
        assert!(reached.next().is_some_and(|next| segment.first <= next) && reached < segment.last);
        reached = segment.last;
    }
    assert_eq!(planned.reaches, reached);
    if let Target::Txid(txid) = planned.target {
        assert!(planned.manifest.txid <= txid && txid <= reached);
    }
}

fn check_without(inventory: &Inventory, planned: &Plan) {
    let manifest = ObjectName::from(planned.manifest);
    let segments = planned.segments.iter().copied().map(ObjectName::from);
    for useless in [manifest].into_iter().chain(segments) {
        let mut left = inventory.clone();
        left.forget(useless);
        if let Some(other) = plan_instead(&left, planned) {
            check_plan(&left, &other);
            assert_eq!((other.generation, other.target), (planned.generation, planned.target));
        }
        if let Some(state) = last_before(&left, planned) {
            let restorable = plan(&left, Target::Txid(state.txid), Some(state.generation));
            assert!(restorable.is_ok(), "{restorable:?}");
        }
    }
}
