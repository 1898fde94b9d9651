//! What is listed for a restore: little of a long history, and enough for the same plan.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use genesis_replicate::replica::{Holder, Replica};
use genesis_replicate::restore::{Request, restore};
use genesis_replicate::store::{Examine, MemoryStore, Objects};
use genesis_restore::plan::{Plan, beginning, plan};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Inventory, Listed};
use genesis_snapshot::merge::{Choice, Ladder, Rules, covered};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::time::{Micros, Millis};

use crate::support::{Call, Changing, FaultyStore, Random, Repeatable, setting};

/// Segments in a day of one a second.
const DAY: u64 = 86_400;

/// Names that a bucket lists at once.
const PAGE: usize = 1000;

/// The most requests that a restore of a day makes, and how many of them are for names.
const MOST_REQUESTS: usize = 250;
const MOST_LISTINGS: usize = 10;

fn holder() -> Holder {
    Holder { host: "1".into(), name: "host".into(), pid: 1, since: "now".into() }
}

/// What a replica holds whose first writer has begun.
async fn begun() -> Objects {
    let store = MemoryStore::new(Objects::new());
    let replica = Replica::open_or_create(Arc::new(store.clone())).await.unwrap();
    let history = replica.history().await.unwrap();
    replica.continue_with(Epoch(1), &holder(), &history, None).await.unwrap();
    store.change(|objects| objects.clone())
}

/// A day of segments, merged as they come, behind one snapshot.
async fn a_day(random: Random) -> (Objects, Changing) {
    let (mut database, mut ladder) = (Changing::new(random), Ladder::default());
    let snapshot = database.snapshot().map(|(name, bytes)| (name.to_string(), Bytes::from(bytes)));
    let mut objects = begun().await;
    objects.extend(snapshot);
    ladder.add_snapshot(Txid(1));
    for txid in 2..=DAY + 1 {
        let mut stored = vec![database.segment(0, txid, txid)];
        while let Some((name, bytes)) = stored.pop() {
            ladder.add(Listed { name, size: bytes.len() as u64 });
            objects.insert(ObjectName::from(name).to_string(), bytes.into());
            if let Choice::Merge(merge) = ladder.choose(&Rules::default()) {
                let parts = merge.inputs.iter().map(|input| &objects[&input.name.to_string()][..]);
                stored.push((merge.output, parts.collect::<Vec<_>>().concat()));
            }
        }
    }
    (objects, database)
}

/// Restores the latest state. Returns it, and how many listings and other requests that took.
async fn restored(objects: Objects) -> (Vec<u8>, [usize; 2]) {
    let requests = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let count = Arc::clone(&requests);
    let store = FaultyStore::with_fault(objects, move |call, _| {
        count[usize::from(call != Call::List)].fetch_add(1, Ordering::Relaxed);
        None
    });
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        target: Target::Latest,
        generation: None,
        min_txid: None,
        output: folder.path().join("restored.db"),
        remove_stale: false,
        parallelism: NonZeroUsize::new(8).unwrap(),
        verify: true,
        check: None,
        state_folder: None,
    };
    let opened = Replica::open_outlined(Arc::new(store.with_pages_of(PAGE))).await;
    let (replica, holdings) = opened.unwrap();
    restore(&replica, holdings, &request, |_| ()).await.unwrap();
    let requests = requests.each_ref().map(|count| count.load(Ordering::Relaxed));
    (std::fs::read(&request.output).unwrap(), requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_of_segments_is_restored_with_few_requests() {
    let (mut objects, database) = a_day(Repeatable::new().random()).await;
    let (bytes, [listings, others]) = restored(objects.clone()).await;
    assert!(bytes == database.bytes);
    eprintln!("{listings} listings and {others} requests of {} objects", objects.len());
    assert!(listings <= MOST_LISTINGS && listings + others <= MOST_REQUESTS);

    // Of one that is damaged those that it was merged from take the place.
    let is_merged = |key: &&String| key.contains("/wal/02/");
    let merged = objects.keys().rfind(is_merged).unwrap().clone();
    objects.insert(merged, Bytes::from_static(b"damaged"));
    assert!(restored(objects).await.0 == database.bytes);
}

/// Random replicas that are compared.
const REPLICAS: u64 = 60;

/// A replica by its names, and what its writer knows.
struct World {
    store: MemoryStore,
    /// Names that it lists at once.
    page: usize,
    replica: Replica,
    ladder: Ladder,
    generation: Generation,
    epoch: Epoch,
    attempt: u32,
    /// The transaction that the line begins with, and the last one.
    first: u64,
    last: u64,
    random: Random,
}

impl World {
    async fn new(mut random: Random) -> Self {
        let page = random.of(&[1, 2, 5, 17]);
        let store = MemoryStore::new(Objects::new()).with_pages_of(page);
        let replica = Replica::open_or_create(Arc::new(store.clone())).await.unwrap();
        let mut world = Self {
            store,
            page,
            replica,
            ladder: Ladder::default(),
            generation: Generation { epoch: Epoch(0), random: 5 },
            epoch: Epoch(0),
            attempt: 0,
            first: 0,
            last: 0,
            random,
        };
        world.take_over().await;
        world.begin_line();
        world
    }

    fn below(&mut self, below: u64) -> u64 {
        self.random.next(below)
    }

    fn put(&self, name: ObjectName, size: u64) {
        let bytes = vec![0; usize::try_from(size).unwrap()];
        self.store.change(|objects| objects.insert(name.to_string(), bytes.into()));
    }

    /// A segment of the next transactions by a writer.
    fn next(&mut self, epoch: Epoch, after: u64) -> Listed<SegmentName> {
        let last = after + 1 + self.below(3);
        let name = SegmentName {
            generation: self.generation,
            level: 0,
            first: Txid(after + 1),
            last: Txid(last),
            time: Millis(last),
            epoch,
            repair: 0,
        };
        let size = if self.below(9) == 0 { 40 + self.below(300) } else { 1 + self.below(9) };
        self.put(name.into(), size);
        Listed { name, size }
    }

    fn ship(&mut self) {
        for _ in 0..=self.below(20) {
            let segment = self.next(self.epoch, self.last);
            self.last = segment.name.last.0;
            self.ladder.add(segment);
            self.merge();
        }
    }

    fn merge(&mut self) {
        let rules = Rules {
            fan_in: 3,
            level_bytes: 64,
            enough: 32,
            spanning_level: 2,
            crowd: 6,
            crowd_bytes: 200,
            crowd_share: 3,
            room: u64::MAX,
        };
        while let Choice::Merge(merge) = self.ladder.choose(&rules) {
            self.put(merge.output.into(), merge.bytes());
            self.ladder.add(Listed { name: merge.output, size: merge.bytes() });
        }
    }

    /// A snapshot of one of the last states, in the middle of a segment or not.
    fn snapshot(&mut self) {
        self.attempt += 1;
        let (generation, epoch, attempt) = (self.generation, self.epoch, self.attempt);
        let txid = self.first.max(self.last.saturating_sub(self.below(4)));
        let (txid, time) = (Txid(txid), Millis(txid));
        for part in 0..u32::try_from(self.below(3)).unwrap() {
            self.put(PackName { generation, epoch, attempt, part, repair: 0 }.into(), 1);
        }
        self.put(ManifestName { generation, txid, time, epoch, attempt, repair: 0 }.into(), 1);
        self.ladder.add_snapshot(txid);
    }

    fn begin_line(&mut self) {
        self.generation = Generation { epoch: self.epoch, random: self.below(1000) };
        self.ladder = Ladder::default();
        self.last += 1;
        self.first = self.last;
        self.snapshot();
    }

    /// The next writer goes on. The one before may not know it yet, and what it has stored last may be late.
    async fn take_over(&mut self) {
        let (stale, last) = (self.epoch, self.last);
        let (late, holder) = (self.last_segments(), holder());
        let claimed = self.replica.claim(&self.replica.epochs().await.unwrap(), &holder).await;
        self.epoch = claimed.unwrap().unwrap().epoch();
        let history = self.replica.history().await.unwrap();
        let continued = self.replica.continue_with(self.epoch, &holder, &history, None).await;
        let inventory = continued.unwrap();
        // At least what the one before is known to have found.
        self.last = inventory.cuts().known().unwrap().0;
        self.ladder = inventory.generation(self.generation).map(Ladder::of).unwrap_or_default();
        self.store.change(|objects| objects.extend(late));
        let mut after = last;
        for _ in 0..self.below(4) * u64::from(stale > Epoch(0)) {
            after = self.next(stale, after).name.last.0;
        }
    }

    /// Takes some of the last segments of level 0 out of the replica.
    fn last_segments(&mut self) -> Objects {
        let count = usize::try_from(self.below(3)).unwrap();
        let level = SegmentName::prefix_of_level(self.generation, 0);
        self.store.change(|objects| {
            let names = objects.keys().rev().filter(|key| key.starts_with(&level));
            let names: Vec<_> = names.take(count).cloned().collect();
            names.iter().filter_map(|name| objects.remove_entry(name)).collect()
        })
    }

    /// A segment of the line, if there is one.
    fn any(&mut self, inventory: &Inventory) -> Option<Listed<SegmentName>> {
        let segments = inventory.generation(self.generation)?.segments();
        let at = self.below(segments.len().max(1) as u64);
        segments.get(usize::try_from(at).unwrap()).copied()
    }

    async fn happens(&mut self) {
        let inventory = self.replica.inventory().await.unwrap();
        match self.below(24) {
            0..12 => self.ship(),
            12..16 => self.snapshot(),
            16..18 => self.take_over().await,
            18 => {
                self.take_over().await;
                self.begin_line();
            }
            // What is in merged ones is deleted.
            19 => {
                for segment in inventory.generations().flat_map(covered) {
                    self.store.remove(&segment.name.into()).await.unwrap();
                }
            }
            20 => {
                if let Some(Listed { name, size }) = self.any(&inventory) {
                    self.put(SegmentName { repair: name.repair + 1, ..name }.into(), size);
                }
            }
            21 => {
                if let Some(Listed { name, .. }) = self.any(&inventory) {
                    self.store.remove(&name.into()).await.unwrap();
                    let left = self.replica.inventory().await.unwrap();
                    let line = left.generation(self.generation);
                    self.ladder = line.map(Ladder::of).unwrap_or_default();
                }
            }
            _ => {
                let name = format!("{}/wal/00/no-segment", self.generation);
                self.store.change(|objects| objects.insert(name, "x".into()));
            }
        }
    }

    /// The plan for the latest state, by the whole listing.
    async fn latest(&self) -> Plan {
        plan(&self.replica.inventory().await.unwrap(), Target::Latest, None).unwrap()
    }

    /// Every state that can be planned by the whole listing is planned the same without what is left out.
    async fn check(&self) {
        let whole = self.replica.inventory().await.unwrap();
        let is_one_page = self.store.change(|objects| objects.len() <= self.page);
        let lines = whole.generations().map(|line| Some(line.generation()));
        let times = (0..self.last + 2).map(|last| Target::Time(Micros(last * 1000 - last % 2)));
        let txids = (0..self.last + 2).map(|last| Target::Txid(Txid(last)));
        let targets: Vec<_> = times.chain(txids).chain([Target::Latest]).collect();
        for generation in lines.chain([None]) {
            for target in &targets {
                let Ok(expected) = plan(&whole, *target, generation) else { continue };
                let outline = self.replica.outline().await.unwrap();
                let snapshot = beginning(&outline.inventory, *target, generation).unwrap();
                let narrow = self.replica.line(outline, snapshot).await.unwrap();
                assert_eq!(narrow.is_whole(), is_one_page);
                let planned = plan(&narrow.inventory, *target, generation);
                assert_eq!(planned, Ok(expected), "{target} of {generation:?}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_listed_makes_the_plans_that_everything_makes() {
    let run = Repeatable::new();
    let mut random = run.random();
    for _ in 0..setting("GENESIS_REPLICAS").unwrap_or(REPLICAS) {
        let mut world = World::new(Random::new(random.next(u64::MAX))).await;
        for _ in 0..5 + world.below(20) {
            world.happens().await;
        }
        world.check().await;
    }
}

/// Whenever another takes the replica over while it is listed, what is found is what was there before, or
/// what is there then: nothing of the one that was passed.
#[tokio::test]
async fn a_takeover_in_the_middle_of_a_listing() {
    let run = Repeatable::new();
    let mut random = run.random();
    for _ in 0..10 {
        let mut world = World::new(Random::new(random.next(u64::MAX))).await;
        for _ in 0..5 {
            world.ship();
        }
        let before = world.store.change(|objects| objects.clone());
        let expected = world.latest().await;
        let (stale, last) = (world.epoch, world.last);
        world.take_over().await;
        let passed = world.next(stale, last).name.last.0;
        world.next(stale, passed);
        world.ship();
        let after = world.store.change(|objects| objects.clone());
        let expected = [expected, world.latest().await];
        for when in 1.. {
            let (after, lists) = (after.clone(), Arc::new(AtomicUsize::new(0)));
            let count = Arc::clone(&lists);
            let store = FaultyStore::with_fault(before.clone(), move |call, objects| {
                if call == Call::List && count.fetch_add(1, Ordering::Relaxed) + 1 == when {
                    objects.extend(after.clone());
                }
                None
            });
            let replica = store.with_pages_of(3).replica().await;
            let outline = replica.outline().await.unwrap();
            let snapshot = beginning(&outline.inventory, Target::Latest, None).unwrap();
            let holdings = replica.line(outline, snapshot).await.unwrap();
            let found = plan(&holdings.inventory, Target::Latest, None).unwrap();
            assert!(expected.contains(&found), "{found}");
            if lists.load(Ordering::Relaxed) < when {
                break;
            }
        }
    }
}
