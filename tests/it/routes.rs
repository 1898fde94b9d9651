//! A state is restored as long as any objects make it: copies of damaged ones, merged segments or
//! those that they were merged from, an earlier snapshot; through failures that pass; and although
//! retention deletes what the plan names. Never from objects that make another state.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use genesis_replicate::replica::Replica;
use genesis_replicate::restore::{Request, RestoreError, restore};
use genesis_replicate::store::retry::{Persistence, Retrying};
use genesis_replicate::store::{Objects, StoreErrorKind};
use genesis_restore::target::Target;
use genesis_wal::id::Txid;
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};

use crate::support::{Call, FaultyStore, Past, time};

/// Restores into a new folder, where nothing may be left of a failure.
pub async fn try_restore(replica: &Replica, target: Target) -> Result<Vec<u8>, RestoreError> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let folder = tempfile::tempdir_in(folder).unwrap();
    let output = folder.path().join("restored.db");
    let parallelism = NonZeroUsize::new(3).unwrap();
    let request = Request {
        target,
        generation: None,
        min_txid: None,
        output: output.clone(),
        remove_stale: false,
        parallelism,
        verify: true,
        check: None,
        state_folder: None,
    };
    let restored = match replica.outline().await {
        Ok(holdings) => restore(replica, holdings, &request, |_| ()).await,
        Err(error) => Err(error.into()),
    };
    // The database and its local state, or nothing.
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, if restored.is_ok() { 2 } else { 0 });
    restored.map(|_| std::fs::read(output).unwrap())
}

/// What cannot be used, and the last transaction that can be restored instead.
#[track_caller]
pub fn useless(restored: Result<Vec<u8>, RestoreError>) -> (ObjectName, Option<u64>) {
    match restored {
        Err(RestoreError::Useless { source, instead }) => {
            (source.useless().unwrap(), instead.0.map(|state| state.txid.0))
        }
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("restored"),
    }
}

fn repaired(name: ObjectName, repair: u16) -> ObjectName {
    match name {
        ObjectName::Manifest(name) => ManifestName { repair, ..name }.into(),
        ObjectName::Pack(name) => PackName { repair, ..name }.into(),
        ObjectName::Segment(name) => SegmentName { repair, ..name }.into(),
        other => other,
    }
}

/// The object with a flipped bit in the middle.
fn damaged(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    let middle = 120.min(bytes.len() / 2);
    bytes[middle] ^= 4;
    bytes.into()
}

fn damage(objects: &mut Objects, name: ObjectName) {
    let object = objects.get_mut(&name.to_string()).unwrap();
    *object = damaged(object);
}

/// A snapshot of transaction 1 and three segments to transaction 7.
fn small(past: &Past) -> (Objects, Vec<ObjectName>) {
    let mut objects = Objects::new();
    let mut names = past.add_snapshot(1, &mut objects).to_vec();
    for (first, last) in [(2, 3), (4, 4), (5, 7)] {
        names.push(past.add_segment(0, first, last, &mut objects));
    }
    (objects, names)
}

#[tokio::test]
async fn a_good_copy_is_found_whichever_it_is() {
    let past = Past::new(1, 9, 7);
    let (objects, names) = small(&past);
    for name in names {
        let good = objects[&name.to_string()].clone();
        // The highest copy is tried first; what is damaged, or missing behind its name, is passed by.
        for copies in [[Some(false), Some(true), None], [Some(true), Some(false), None]]
            .into_iter()
            .chain([[Some(false), Some(true), Some(false)], [Some(true), None, Some(false)]])
        {
            let mut objects = objects.clone();
            objects.remove(&name.to_string());
            for (copy, is_good) in (0..).zip(copies) {
                let Some(is_good) = is_good else { continue };
                let bytes = if is_good { good.clone() } else { damaged(&good) };
                objects.insert(repaired(name, copy).to_string(), bytes);
            }
            let replica = FaultyStore::new(objects).replica().await;
            let restored = try_restore(&replica, Target::Latest).await;
            assert!(restored.unwrap() == past.state(7), "{name}: {copies:?}");
        }
        let mut objects = objects.clone();
        damage(&mut objects, name);
        objects.insert(repaired(name, 2).to_string(), damaged(&good));
        let replica = FaultyStore::new(objects).replica().await;
        let (last_tried, _) = useless(try_restore(&replica, Target::Latest).await);
        assert_eq!(repaired(last_tried, 0), name);
    }
}

#[tokio::test]
async fn originals_of_a_merged_segment_and_the_other_way_round() {
    let past = Past::new(1, 9, 7);
    let (mut objects, names) = small(&past);
    let merged = past.add_segment(1, 2, 7, &mut objects);
    for useless in [merged, names[2], names[3], names[4]] {
        let mut objects = objects.clone();
        damage(&mut objects, useless);
        let replica = FaultyStore::new(objects).replica().await;
        for txid in 1..=7 {
            for target in [Target::Txid(Txid(txid)), Target::Time(time(txid))] {
                let restored = try_restore(&replica, target).await;
                assert!(restored.unwrap() == past.state(txid), "{useless}: {target}");
            }
        }
        assert!(try_restore(&replica, Target::Latest).await.unwrap() == past.state(7));
    }
}

#[tokio::test]
async fn an_earlier_snapshot() {
    let past = Past::new(1, 9, 7);
    let (mut objects, _) = small(&past);
    for useless in past.add_snapshot(4, &mut objects) {
        let mut objects = objects.clone();
        damage(&mut objects, useless);
        let replica = FaultyStore::new(objects).replica().await;
        for target in [Target::Latest, Target::Txid(Txid(7)), Target::Time(time(9))] {
            assert!(try_restore(&replica, target).await.unwrap() == past.state(7));
        }
        assert!(try_restore(&replica, Target::Txid(Txid(4))).await.unwrap() == past.state(4));
    }
}

/// Without its last segment a line seems to end earlier, and without its only snapshot an older line
/// seems to be the newest: neither is what was asked for.
#[tokio::test]
async fn another_state_is_told_and_not_given() {
    let (past, newer) = (Past::new(1, 9, 7), Past::new(2, 8, 12));
    let (mut objects, names) = small(&past);
    let last = names[4];
    let mut without_last = objects.clone();
    damage(&mut without_last, last);
    let replica = FaultyStore::new(without_last).replica().await;
    for target in [Target::Latest, Target::Txid(Txid(5)), Target::Time(time(6))] {
        assert_eq!(useless(try_restore(&replica, target).await), (last, Some(4)));
    }
    assert!(try_restore(&replica, Target::Txid(Txid(4))).await.unwrap() == past.state(4));

    for snapshot in newer.add_snapshot(10, &mut objects) {
        let mut objects = objects.clone();
        damage(&mut objects, snapshot);
        let replica = FaultyStore::new(objects).replica().await;
        for target in [Target::Latest, Target::Time(time(11)), Target::Txid(Txid(10))] {
            assert_eq!(useless(try_restore(&replica, target).await), (snapshot, Some(7)));
        }
        assert!(try_restore(&replica, Target::Time(time(9))).await.unwrap() == past.state(7));
    }
}

#[tokio::test]
async fn failures_that_pass() {
    let past = Past::new(1, 9, 7);
    let (objects, _) = small(&past);
    let calls = Mutex::new(HashMap::new());
    // Each call fails twice.
    let store = FaultyStore::with_fault(objects, move |call, _| {
        let mut calls = calls.lock().unwrap();
        let times = calls.entry(format!("{call:?}")).or_insert(0);
        *times += 1;
        let fails = call != Call::Read(ObjectName::Genesis) && *times <= 2;
        fails.then_some(StoreErrorKind::Passing)
    });
    let impatient = Persistence::For(Duration::ZERO);
    let replica = Replica::open(Arc::new(Retrying::new(Arc::new(store.clone()), impatient))).await;
    let failed = try_restore(&replica.unwrap(), Target::Latest).await;
    assert!(matches!(failed, Err(RestoreError::Replica(_))), "{failed:?}");
    let patient = Persistence::For(Duration::from_mins(1));
    let replica = Replica::open(Arc::new(Retrying::new(Arc::new(store), patient))).await;
    let restored = try_restore(&replica.unwrap(), Target::Latest).await;
    assert!(restored.unwrap() == past.state(7));
}

/// Objects that the plan names are deleted before they are read, as others hold the same by then.
#[tokio::test]
async fn retention_in_the_middle() {
    let past = Past::new(1, 9, 7);
    let (objects, names) = small(&past);
    for (deleted, page) in names.iter().flat_map(|name| [(*name, usize::MAX), (*name, 2)]) {
        let (past_then, lists) = (past.clone(), Arc::new(AtomicU32::new(0)));
        let (listed, all) = (Arc::clone(&lists), names.clone());
        let store = FaultyStore::with_fault(objects.clone(), move |call, objects| {
            if call == Call::List {
                listed.fetch_add(1, Ordering::Relaxed);
            }
            if call == Call::Read(deleted) && objects.contains_key(&deleted.to_string()) {
                for name in &all {
                    objects.remove(&name.to_string());
                }
                past_then.add_snapshot(3, objects);
                past_then.add_segment(1, 3, 7, objects);
            }
            None
        });
        let replica = store.with_pages_of(page).replica().await;
        assert!(try_restore(&replica, Target::Latest).await.unwrap() == past.state(7), "{deleted}");
        if page == usize::MAX {
            assert_eq!(lists.load(Ordering::Relaxed), 2);
        }
    }
}

#[tokio::test]
async fn what_retention_took_is_told_as_such() {
    let past = Past::new(1, 9, 7);
    let (objects, names) = small(&past);
    let (then, manifest) = (past.clone(), names[1]);
    let store = FaultyStore::with_fault(objects.clone(), move |call, objects| {
        if call == Call::Read(manifest) {
            objects.retain(|key, _| key.parse() == Ok(ObjectName::Genesis));
            then.add_snapshot(6, objects);
        }
        None
    });
    let failed = try_restore(&store.replica().await, Target::Txid(Txid(4))).await;
    assert!(matches!(failed, Err(RestoreError::Plan(_))), "{failed:?}");

    // What is lost is listed, or not any more: nothing else makes the state.
    for is_listed in [true, false] {
        for lost in &names {
            let (lost, lists) = (*lost, Arc::new(AtomicU32::new(0)));
            let listed = Arc::clone(&lists);
            let store = FaultyStore::with_fault(objects.clone(), move |call, objects| {
                listed.fetch_add(u32::from(call == Call::List), Ordering::Relaxed);
                if call == Call::Read(lost) && !is_listed {
                    objects.remove(&lost.to_string());
                }
                (call == Call::Read(lost)).then_some(StoreErrorKind::NotFound)
            });
            let (name, _) = useless(try_restore(&store.replica().await, Target::Latest).await);
            assert_eq!((name, lists.load(Ordering::Relaxed)), (lost, 2));
        }
    }
}
