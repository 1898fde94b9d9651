//! What must hold of what is restored.

use std::iter;
use std::sync::Arc;

use genesis_restore::plan::PlanError;
use genesis_restore::target::Target;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::part::Part;
use genesis_wal::reader::Reader;

use super::{World, request};
use crate::replica::{Replica, ReplicaError};
use crate::replicate::shipping_simulation::database::bytes_of;
use crate::restore::{Done, RestoreError, restore};
use crate::store::MemoryStore;

impl World {
    /// Restores a state; its bytes.
    pub fn restore(
        &mut self,
        target: Target,
        generation: Option<Generation>,
    ) -> Result<(Done, Vec<u8>), RestoreError> {
        let store = self.sea().objects().clone();
        self.restore_from(store, target, generation)
    }

    fn restore_from(
        &mut self,
        store: MemoryStore,
        target: Target,
        generation: Option<Generation>,
    ) -> Result<(Done, Vec<u8>), RestoreError> {
        self.outputs += 1;
        let folder = self.folder.path().join(format!("output-{}", self.outputs));
        crate::durable::create_folders(&folder, 0o700).unwrap();
        let request = request(target, generation, folder.join("restored"));
        // Whole or in part, what is listed leads to the same.
        let store = if self.outputs.is_multiple_of(2) { store.with_pages_of(20) } else { store };
        let done = self.restores.block_on(async {
            let (replica, holdings) = Replica::open_outlined(Arc::new(store)).await?;
            restore(&replica, holdings, &request, |_| {}).await
        });
        let done = done.map(|done| (done, std::fs::read(&request.output).unwrap()));
        std::fs::remove_dir_all(folder).unwrap();
        self.tally.restores += 1;
        done
    }

    /// Restores the latest state: it is one that was recorded, and nothing durable is missing.
    pub fn check_latest(&mut self) {
        let durable = self.notary().promises().map(|(place, _)| place.1).max();
        match self.restore(Target::Latest, None) {
            Ok((done, bytes)) => {
                let txid = done.restored.txid;
                assert!(Some(txid) >= durable, "{txid:?} is the latest, {durable:?} is durable");
                self.check_state(&done, &bytes);
            }
            Err(_) if durable.is_none() => {}
            Err(error) => panic!("the latest state: {}", crate::describe(&error)),
        }
    }

    /// After everything is released: whatever segment is lost, with others behind it or told of by a writer,
    /// and whatever base, an older state is not taken for the latest, unless a kill would have left the same:
    /// then what is left out is told. Later snapshots, which would make up for it, are lost, too.
    pub fn check_losses(&mut self) {
        let store = self.sea().objects().clone();
        let inventory = self.restores.block_on(async {
            Replica::open(Arc::new(store)).await.unwrap().inventory().await.unwrap()
        });
        let Some(line) = inventory.latest_generation() else { return };
        let mut objects = self.sea().objects().change(|objects| objects.clone());
        for later in line.manifests().iter().skip(1) {
            objects.remove(&later.name.to_string());
        }
        let without = |world: &mut Self, lost: &str| {
            let mut left = objects.clone();
            left.remove(lost);
            world.restore_from(MemoryStore::new(left), Target::Latest, None)
        };
        let Ok((latest, _)) = without(self, "nothing") else { return };
        let latest = latest.restored.txid;
        let names = line.segments().iter().map(|segment| segment.name);
        let is_told = inventory.cuts().known() >= Some(latest);
        // What was made before the lost one was stored proves nothing: a kill leaves the same.
        let proves = |lost: &SegmentName, name: &SegmentName| {
            let stored = stored_before(&objects[&name.to_string()]);
            name.first > lost.last && stored.is_none_or(|stored| stored >= lost.first)
        };
        let is_noticed = |lost: &SegmentName| {
            is_told || line.segments().iter().any(|segment| proves(lost, &segment.name))
        };
        let names: Vec<_> = names.filter(|name| is_told || line.last_in(name) < latest).collect();
        // The last ones are those that a writer has under way at once.
        for name in names.iter().rev().take(8) {
            match without(self, &name.to_string()) {
                Ok((done, _)) if done.missing.is_some() && !is_noticed(name) => {
                    assert_eq!(done.restored.txid.next(), Some(name.first), "without {name}");
                }
                Ok((done, _)) => assert_eq!(done.restored.txid, latest, "without {name}"),
                Err(RestoreError::Plan(PlanError::Gap { .. })) => self.tally.losses += 1,
                Err(error) => panic!("without {name}: {}", crate::describe(&error)),
            }
        }
        let released = objects.keys().filter_map(|key| match key.parse() {
            Ok(ObjectName::Release(epoch)) => Some(epoch),
            _ => None,
        });
        let Some(ended) = released.max() else { return };
        let bases = (ended.0..).map_while(|epoch| {
            let base = ObjectName::Base(Epoch(epoch)).to_string();
            objects.contains_key(&base).then_some(base)
        });
        // What has begun since has stored nothing that would tell of its base.
        let bases: Vec<_> = bases.collect();
        let [base] = &bases[..] else { return };
        match without(self, base) {
            Ok((done, _)) => assert_eq!(done.restored.txid, latest, "without {base}"),
            // As damage, too: without it a merged segment has records that continue nothing.
            Err(
                RestoreError::Replica(ReplicaError::Object(_))
                | RestoreError::Plan(PlanError::Gap { .. })
                | RestoreError::Useless { .. },
            ) => self.tally.losses += 1,
            Err(error) => panic!("without {base}: {}", crate::describe(&error)),
        }
    }

    /// Restores something that was reported durable: it is what it was.
    pub fn check_promise(&mut self, choice: usize) {
        let promise = {
            let notary = self.notary();
            let count = notary.promises().count();
            let promise = notary.promises().rev().nth(choice.min(count.saturating_sub(1)));
            promise.map(|(place, pages)| (*place, bytes_of(pages)))
        };
        let Some(((generation, txid), expected)) = promise else { return };
        match self.restore(Target::Txid(txid), Some(generation)) {
            Ok((done, bytes)) => {
                assert_eq!((done.generation, done.restored.txid), (generation, txid));
                assert!(bytes == expected, "{generation} {txid:?} was durable in another state");
            }
            Err(error) => {
                panic!("{generation} {txid:?} was durable: {}", crate::describe(&error));
            }
        }
    }

    /// Restores anything that was recorded: it is absent, or what was recorded.
    pub fn check_any(&mut self) {
        let places: Vec<_> = self.notary().places().collect();
        if places.is_empty() {
            return;
        }
        let (generation, txid) = places[self.random.index(places.len())];
        match self.restore(Target::Txid(txid), Some(generation)) {
            Ok((done, bytes)) => {
                assert_eq!(done.restored.txid, txid);
                self.check_state(&done, &bytes);
            }
            Err(RestoreError::Plan(_) | RestoreError::Replica(ReplicaError::Missing)) => {}
            Err(error) => panic!("{generation} {txid:?}: {}", crate::describe(&error)),
        }
    }

    fn check_state(&self, done: &Done, bytes: &[u8]) {
        let place = (done.generation, done.restored.txid);
        let notary = self.notary();
        let is_it = |(time, pages)| time == done.restored.time && bytes_of(pages) == bytes;
        assert!(notary.states(place).any(is_it), "{place:?} is restored as it never was");
    }
}

/// Up to which transaction everything was stored when a segment was made, as far as it tells.
fn stored_before(segment: &[u8]) -> Option<Txid> {
    let mut reader = Reader::new(segment);
    let mut parts =
        iter::from_fn(|| (!reader.rest().is_empty()).then(|| Part::decode(&mut reader)));
    parts.try_fold(Txid(0), |stored, part| Some(stored.max(part.unwrap().header.stored?)))
}
