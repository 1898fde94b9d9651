//! Writers that claim a replica, write to it, stop anywhere and go on much later, in every order that a
//! seed draws. What one of them was told to be durable is in the history, and there is one history.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use genesis_replicate::object::PartStream;
use genesis_replicate::replica::{Fence, History, Holder, Replica, ReplicaError, Standing, Tip};
use genesis_replicate::store::{Body, Claims, Listed, MemoryStore, Objects, Store, StoreError};
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::segment::{
    Reached, SegmentEncoder, TransactionHeader, TransactionKind, fragments,
};
use genesis_wal::time::Micros;
use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, yield_now};

use crate::support::Past;

/// Who waits, and how to tell that it is its turn.
type Waiting = (usize, oneshot::Sender<()>);

/// Calls that wait until it is their turn.
#[derive(Debug, Clone, Default)]
struct Turnstile(Arc<Mutex<Vec<Waiting>>>);

impl Turnstile {
    /// Waits for a turn; for ever, if none comes.
    async fn pass(&self, writer: usize) {
        let (turn, wait) = oneshot::channel();
        self.0.lock().unwrap().push((writer, turn));
        if wait.await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Lets one of the waiting calls through, and all writers run until they wait again.
    async fn let_through(&self, choice: usize) -> bool {
        let turn = {
            let mut waiting = self.0.lock().unwrap();
            if waiting.is_empty() {
                return false;
            }
            let index = choice % waiting.len();
            waiting.swap_remove(index).1
        };
        turn.send(()).ok();
        settle().await;
        true
    }

    /// Never lets a writer through again.
    fn close_to(&self, writer: usize) {
        self.0.lock().unwrap().retain(|(waiting, _)| *waiting != writer);
    }
}

/// Lets all tasks run until each waits for a turn: none waits for anything else.
async fn settle() {
    for _ in 0..40 {
        yield_now().await;
    }
}

/// The store as one writer sees it.
#[derive(Debug, Clone)]
struct Seen {
    store: MemoryStore,
    turnstile: Turnstile,
    writer: usize,
}

#[async_trait]
impl Store for Seen {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        self.turnstile.pass(self.writer).await;
        self.store.create(name, body).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.store.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.store.get_range(name, range).await
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.turnstile.pass(self.writer).await;
        self.store.exists(name).await
    }

    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError> {
        self.store.claims(witness).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.turnstile.pass(self.writer).await;
        self.store.list(prefix).await
    }
}

/// What writers were told to be durable: the state after each transaction.
type Told = Arc<Mutex<Vec<(u64, StateHash)>>>;

/// Claims, and writes two segments at once until another has taken over.
async fn write(seen: Seen, told: Told) -> Result<(), ReplicaError> {
    let writer = seen.writer;
    let store: Arc<dyn Store> = Arc::new(seen);
    let replica = Replica::open(Arc::clone(&store)).await?;
    let (host, name) = (writer.to_string(), "test".to_owned());
    let holder = Holder { host, name, pid: 1, since: "now".to_owned() };
    let fence = claim(&replica, &holder).await?;
    let history = replica.history().await?;
    let tip = replica.tip(&history.inventory).await?.unwrap();
    replica.continue_with(fence.epoch(), &holder, &history, Some(&tip)).await?;
    let stamp = Stamp { generation: tip.generation, epoch: fence.epoch() };
    let mut reached = tip.reached;
    for round in 0..4 {
        let stored = reached.txid;
        let (name, bytes, first) = segment(stamp, reached, stored, (writer, round));
        let (next, more, second) = segment(stamp, first, stored, (writer, round));
        let (name, next) = (name.into(), next.into());
        tokio::try_join!(
            store.create(&next, Body::Bytes(more)),
            store.create(&name, Body::Bytes(bytes))
        )?;
        if fence.is_passed().await? {
            return Ok(());
        }
        told.lock().unwrap().extend([first, second].map(|r| (r.txid.0, r.state)));
        reached = second;
    }
    Ok(())
}

async fn claim(replica: &Replica, holder: &Holder) -> Result<Fence, ReplicaError> {
    loop {
        if let Some(fence) = replica.claim(&replica.epochs().await?, holder).await? {
            return Ok(fence);
        }
    }
}

/// A segment of one transaction that no other writer makes, made when so much was stored, and the state
/// after it.
fn segment(
    stamp: Stamp,
    from: Reached,
    stored: Txid,
    (writer, round): (usize, u32),
) -> (SegmentName, Bytes, Reached) {
    let (page_size, page) = (PageSize::new(4096).unwrap(), PageNumber::new(1).unwrap());
    let mut image = vec![0; page_size.bytes()];
    image[..8].copy_from_slice(&(writer as u64).to_le_bytes());
    image[8..12].copy_from_slice(&round.to_le_bytes());
    let (txid, time) = (from.txid.next().unwrap(), Micros(from.time.0 + 1));
    // Nothing here adds up pages: any state does, as long as it is another one.
    let state = StateHash(from.state.0 ^ (txid.0 << 32 | (writer as u64) << 8 | u64::from(round)));
    let header = TransactionHeader {
        txid,
        kind: TransactionKind::Commit,
        late: false,
        commits: 1,
        time,
        since: time,
        pages: 20,
        records: 1,
        state,
    };
    let mut encoder = SegmentEncoder::new(page_size, stamp, from.state);
    encoder.tell_stored(stored);
    encoder.begin(header, None).unwrap();
    encoder.page(page, PageHash::of(page, &image), &image, None).unwrap();
    let mut bytes = Vec::new();
    encoder.finish(&mut bytes).unwrap();
    let Stamp { generation, epoch } = stamp;
    let (first, last, time_name) = (txid, txid, time.ceil_millis());
    let name = SegmentName { generation, level: 0, first, last, time: time_name, epoch, repair: 0 };
    (name, bytes.into(), Reached { txid, time, state, position: None })
}

/// The state after each transaction of the history, each of which continues the one before.
async fn history(store: MemoryStore) -> BTreeMap<u64, StateHash> {
    let replica = Replica::open(Arc::new(store)).await.unwrap();
    let inventory = replica.inventory().await.unwrap();
    let line = inventory.latest_generation().unwrap();
    let mut states = BTreeMap::new();
    let mut before = None;
    for segment in line.chain(Txid(1)).segments {
        let mut parts = PartStream::new(Arc::clone(replica.store()), segment.name.into());
        while let Some(part) = parts.next().await.unwrap() {
            let part = part.part();
            assert!(before.is_none_or(|before| before == part.header.before), "{}", segment.name);
            before = Some(part.header.after);
            for fragment in fragments(&part) {
                let header = fragment.unwrap().header;
                assert_eq!(states.insert(header.txid.0, header.state), None, "{}", segment.name);
            }
        }
    }
    states
}

/// What happens next.
#[derive(Debug, Clone)]
enum Turn {
    /// A waiting call of this number goes through.
    Call(usize),
    /// A writer starts.
    Start,
    /// A writer of this number is gone.
    Kill(usize),
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let turn = prop_oneof![
        40 => any::<usize>().prop_map(Turn::Call),
        3 => Just(Turn::Start),
        1 => any::<usize>().prop_map(Turn::Kill),
    ];
    prop::collection::vec(turn, 20..160)
}

async fn play(store: MemoryStore, turns: &[Turn]) {
    let (turnstile, told) = (Turnstile::default(), Told::default());
    let mut writers: Vec<JoinHandle<Result<(), ReplicaError>>> = Vec::new();
    for turn in [&[Turn::Start], turns].concat() {
        match turn {
            Turn::Start => {
                let (store, turnstile) = (store.clone(), turnstile.clone());
                let seen = Seen { store, turnstile, writer: writers.len() };
                writers.push(tokio::spawn(write(seen, Arc::clone(&told))));
                settle().await;
            }
            Turn::Call(choice) => {
                turnstile.let_through(choice).await;
            }
            Turn::Kill(choice) => {
                let writer = choice % writers.len();
                writers[writer].abort();
                turnstile.close_to(writer);
            }
        }
    }
    // Those that were stopped go on, whatever has become of the replica.
    let mut choice = 1_usize;
    for turn in 0.. {
        if !turnstile.let_through(choice >> 16).await {
            break;
        }
        assert!(turn < 20_000, "the writers hinder each other for ever");
        choice = choice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    for writer in writers {
        match writer.await {
            Ok(ended) => ended.unwrap(),
            Err(gone) => assert!(gone.is_cancelled()),
        }
    }
    let history = history(store).await;
    for (txid, state) in told.lock().unwrap().iter() {
        assert_eq!(history.get(txid), Some(state), "transaction {txid} was durable");
    }
}

/// A replica with a snapshot, of an epoch before the first that is claimed.
async fn replica() -> MemoryStore {
    let store = MemoryStore::new(Objects::new());
    let replica = Replica::open_or_create(Arc::new(store.clone())).await.unwrap();
    let (host, name) = ("past".to_owned(), "test".to_owned());
    let holder = Holder { host, name, pid: 1, since: "then".to_owned() };
    replica.continue_with(Epoch(0), &holder, &History::default(), None).await.unwrap();
    store.change(|objects| Past::new(0, 7, 1).add_snapshot(1, objects));
    store
}

fn run(is_shared: bool, turns: &[Turn]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = replica().await;
        play(if is_shared { store.with_shared_claims() } else { store }, turns).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_durable_is_history_where_claims_are_exclusive(turns in turns()) {
        run(false, &turns);
    }

    #[test]
    fn what_was_durable_is_history_where_claims_are_shared(turns in turns()) {
        run(true, &turns);
    }
}

/// A writer without a scheduler.
struct Writer {
    replica: Replica,
    holder: Holder,
    fence: Fence,
}

impl Writer {
    async fn claim(store: &MemoryStore, number: u32) -> Self {
        let replica = Replica::open(Arc::new(store.clone())).await.unwrap();
        let (host, name) = (number.to_string(), "test".to_owned());
        let holder = Holder { host, name, pid: number, since: "now".to_owned() };
        let fence = claim(&replica, &holder).await.unwrap();
        Self { replica, holder, fence }
    }

    async fn look(&self) -> (History, Tip) {
        let history = self.replica.history().await.unwrap();
        let tip = self.replica.tip(&history.inventory).await.unwrap().unwrap();
        (history, tip)
    }

    async fn begin(&self, (history, tip): &(History, Tip)) {
        let (epoch, holder) = (self.fence.epoch(), &self.holder);
        self.replica.continue_with(epoch, holder, history, Some(tip)).await.unwrap();
    }

    async fn store(&self, tip: &mut Tip) {
        let stamp = Stamp { generation: tip.generation, epoch: self.fence.epoch() };
        let writer = self.holder.pid as usize;
        let stored = tip.reached.txid;
        let (name, bytes, reached) = segment(stamp, tip.reached, stored, (writer, 0));
        let name = ObjectName::from(name);
        self.replica.store().create(&name, Body::Bytes(bytes)).await.unwrap();
        tip.reached = reached;
    }
}

/// A writer that stops between its claim and its base is passed by another, which goes on from what a
/// third has added meanwhile. What the first writes then, its base too, is nothing.
#[tokio::test]
async fn a_base_that_comes_late_cuts_nothing() {
    let store = replica().await;
    let one = Writer::claim(&store, 1).await;
    let mut first = one.look().await;
    one.begin(&first).await;
    one.store(&mut first.1).await;

    let two = Writer::claim(&store, 2).await;
    let mut second = two.look().await;
    one.store(&mut first.1).await;
    assert!(one.fence.is_passed().await.unwrap());

    let three = Writer::claim(&store, 3).await;
    let mut third = three.look().await;
    assert_eq!(third.1, first.1);
    three.begin(&third).await;
    three.store(&mut third.1).await;
    assert!(!three.fence.is_passed().await.unwrap());

    two.begin(&second).await;
    for _ in 0..3 {
        two.store(&mut second.1).await;
    }
    assert!(two.fence.is_passed().await.unwrap());
    let states = history(store.clone()).await;
    assert_eq!(states.len(), 3);
    assert_eq!((states[&3], states[&4]), (first.1.reached.state, third.1.reached.state));

    // The next one goes on from there.
    let four = Writer::claim(&store, 4).await;
    assert_eq!(four.look().await.1, third.1);
}

/// After more epochs than one base names, what the first of them left is history as before.
#[tokio::test]
async fn hundreds_of_epochs() {
    let store = replica().await;
    for number in 0..300 {
        let writer = Writer::claim(&store, number).await;
        let mut found = writer.look().await;
        assert_eq!(found.1.reached.txid, Txid(1 + u64::from(number)));
        writer.begin(&found).await;
        writer.store(&mut found.1).await;
        if number == 5 {
            // Stale, and about to be passed.
            let next = Writer::claim(&store, 1000).await;
            next.begin(&next.look().await).await;
            let mut stale = found.1;
            writer.store(&mut stale).await;
        }
    }
    assert_eq!(history(store).await.len(), 300);
}

/// One writer takes it that names are created once, another that they may be replaced: each is passed
/// by the other, in either order.
#[tokio::test]
async fn writers_that_differ_about_the_store_pass_each_other() {
    let exclusive = replica().await;
    let shared = exclusive.clone().with_shared_claims();
    let mut before: Option<Writer> = None;
    for (number, store) in (1..).zip([&exclusive, &shared, &exclusive, &shared, &shared]) {
        let writer = Writer::claim(store, number).await;
        let expected = before.as_ref().map_or(1, |before| before.fence.epoch().0 + 1);
        assert_eq!(writer.fence.epoch().0, expected);
        writer.begin(&writer.look().await).await;
        assert!(!writer.fence.is_passed().await.unwrap());
        let next = if number % 2 == 0 { &exclusive } else { &shared };
        let passing = Writer::claim(next, number + 10).await;
        assert!(writer.fence.is_passed().await.unwrap(), "{number}");
        passing.begin(&passing.look().await).await;
        before = Some(passing);
    }
}

/// A claim by both names is one writer's, before there is a base, too.
#[tokio::test]
async fn a_claim_by_both_names_has_a_holder() {
    let exclusive = replica().await;
    let first = Writer::claim(&exclusive, 1).await;
    first.begin(&first.look().await).await;
    let second = Writer::claim(&exclusive.clone().with_shared_claims(), 2).await;
    let epoch = second.fence.epoch();
    let epochs = first.replica.epochs().await.unwrap();
    let standing = async |host: &str| first.replica.standing(&epochs, host).await.unwrap();
    assert_eq!(standing("2").await, Standing::Own);
    assert_eq!(standing("1").await, Standing::Held(epoch, Some(second.holder.clone())));
    // Of two writers that have one name each, nobody knows.
    let mut names = exclusive.list("epochs/").await.unwrap().into_iter().map(|listed| listed.name);
    let with_nonce = |name: &ObjectName| matches!(name, ObjectName::Claim(c) if c.nonce.is_some());
    let name = names.find(with_nonce).unwrap();
    exclusive.change(|objects| objects.insert(name.to_string(), "another's".into()));
    assert_eq!(standing("1").await, Standing::Own);
}

/// Of two that claim an epoch at once one at most has it.
#[tokio::test]
async fn writers_that_differ_about_the_store_do_not_share_an_epoch() {
    for first in [true, false] {
        let exclusive = replica().await;
        let shared = exclusive.clone().with_shared_claims();
        let [one, other] = if first { [&exclusive, &shared] } else { [&shared, &exclusive] };
        Writer::claim(&shared, 1).await;
        let open =
            async |store: &MemoryStore| Replica::open(Arc::new(store.clone())).await.unwrap();
        let (one, other) = (open(one).await, open(other).await);
        let epochs = one.epochs().await.unwrap();
        let (host, name) = ("a".to_owned(), "test".to_owned());
        let holder = Holder { host, name, pid: 1, since: "now".to_owned() };
        let has_first = one.claim(&epochs, &holder).await.unwrap().is_some();
        let has_second = other.claim(&epochs, &holder).await.unwrap().is_some();
        assert!(has_first && !has_second, "{first}: {has_first} {has_second}");
    }
}
