//! Which objects a restore goes by, and by which others when one of them turns out to be of no use.

use std::fmt;
use std::time::Duration;

use genesis_restore::plan::{
    Plan, PlanError, Restorable, beginning, last_before, plan, plan_instead,
};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Inventory;
use genesis_wal::id::Generation;
use genesis_wal::name::ObjectName;

use super::RestoreError;
use crate::object::ObjectError;
use crate::replica::{Holdings, Replica, ReplicaError, warn_of_left_out};

/// How often, and how fast, a replica is listed again that lacks a segment between others: while it does
/// not change, and in all.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
const UNCHANGED_LOOKS: u32 = 5;
const MOST_LOOKS: u32 = 100;

/// The objects that make the state that was asked for.
#[derive(Debug)]
pub struct Route {
    /// What the replica holds, but for what turned out to be of no use.
    pub holdings: Holdings,
    /// The objects.
    pub plan: Plan,
    useless: Vec<ObjectName>,
    listed_again: bool,
}

impl Route {
    /// Finds the objects in what was listed, and lists what was left out and may be needed. Where one is
    /// missing in between, it may be under way, as a writer has several under way at once: the replica is
    /// listed again for a while, and for longer if it changes. Where it does not come, the writer may have
    /// ended before it did: then the latest state is the one before.
    ///
    /// # Errors
    /// When the replica cannot be listed, or does not hold the state.
    pub async fn find(
        replica: &Replica,
        holdings: Holdings,
        target: Target,
        generation: Option<Generation>,
    ) -> Result<Self, RestoreError> {
        let (mut looks, mut unchanged) = (0, 0);
        let mut holdings = with_line(replica, holdings, target, generation).await?;
        loop {
            match plan(&holdings.inventory, target, generation) {
                Ok(plan) => return Ok(Self::new(holdings, plan)),
                Err(PlanError::Gap { .. }) if unchanged < UNCHANGED_LOOKS && looks < MOST_LOOKS => {
                }
                Err(_) if !holdings.is_whole() => {
                    holdings = replica.holdings().await?;
                    continue;
                }
                Err(error) => {
                    let inventory = &holdings.inventory;
                    let plan = before_what_was_under_way(replica, inventory, target, error).await?;
                    return Ok(Self::new(holdings, plan));
                }
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            let now = if holdings.is_whole() {
                replica.holdings().await?
            } else {
                with_line(replica, replica.outline().await?, target, generation).await?
            };
            unchanged = if now.inventory == holdings.inventory { unchanged + 1 } else { 0 };
            looks += 1;
            holdings = now;
        }
    }

    fn new(holdings: Holdings, plan: Plan) -> Self {
        Self { holdings, plan, useless: Vec::new(), listed_again: false }
    }

    /// Finds others that make the same state: copies, merged segments' originals, an earlier snapshot. All
    /// of them are listed first, if they were not. Where an object is missing, it may have been deleted since
    /// the listing, and the others may be newer: the replica is listed once more.
    ///
    /// # Errors
    /// [`RestoreError::Useless`] when there are none.
    pub async fn avoid(
        &mut self,
        replica: &Replica,
        error: ObjectError,
    ) -> Result<(), RestoreError> {
        let Some(name) = error.useless() else {
            return Err(error.into());
        };
        let is_missing = matches!(error, ObjectError::Missing { .. });
        if is_missing && !std::mem::replace(&mut self.listed_again, true) {
            self.list_again(replica).await?;
        } else {
            if !self.holdings.is_whole() {
                self.list_again(replica).await?;
            }
            self.forget(name);
        }
        match plan_instead(&self.holdings.inventory, &self.plan) {
            Some(plan) => {
                tracing::warn!(%error, "trying to restore the same state from other objects");
                self.plan = Plan { missing: self.plan.missing, ..plan };
                Ok(())
            }
            None => Err(self.without(error)),
        }
    }

    async fn list_again(&mut self, replica: &Replica) -> Result<(), RestoreError> {
        self.holdings = replica.holdings().await?;
        let inventory = &mut self.holdings.inventory;
        for name in &self.useless {
            inventory.forget(*name);
        }
        // What was asked for may be out of what is kept by now.
        match plan(inventory, self.plan.target, Some(self.plan.generation)) {
            Err(error @ PlanError::BeforeFirst { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn forget(&mut self, name: ObjectName) {
        let name = match name {
            // All copies of a pack were tried: it is the snapshot that is of no use.
            ObjectName::Pack(_) => self.plan.manifest.into(),
            other => other,
        };
        self.useless.push(name);
        self.holdings.inventory.forget(name);
    }

    fn without(&self, source: ObjectError) -> RestoreError {
        let instead = Instead(last_before(&self.holdings.inventory, &self.plan));
        RestoreError::Useless { source: source.into(), instead }
    }
}

/// The same, with what continues the snapshot that a plan for the target begins with, unless that is the
/// target itself.
async fn with_line(
    replica: &Replica,
    holdings: Holdings,
    target: Target,
    generation: Option<Generation>,
) -> Result<Holdings, ReplicaError> {
    match beginning(&holdings.inventory, target, generation) {
        Ok(snapshot) if target != Target::Txid(snapshot.txid) => {
            replica.line(holdings, snapshot).await
        }
        // Without a beginning there is no plan either.
        _ => Ok(holdings),
    }
}

/// The plan for the latest state, where what is missing was never durable.
async fn before_what_was_under_way(
    replica: &Replica,
    inventory: &Inventory,
    target: Target,
    error: PlanError,
) -> Result<Plan, RestoreError> {
    let (Target::Latest, PlanError::Gap { generation, gap, .. }) = (target, &error) else {
        return Err(error.into());
    };
    let Some(line) = inventory.generation(*generation) else {
        return Err(error.into());
    };
    if !replica.was_under_way(inventory, line, gap.after).await? {
        return Err(error.into());
    }
    warn_of_left_out(*gap);
    let plan = plan(inventory, Target::Txid(gap.after), Some(*generation))?;
    Ok(Plan { missing: Some(*gap), ..plan })
}

/// What can be restored instead of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instead(pub Option<Restorable>);

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(state) => write!(f, "the last one before it that can is {state}"),
            None => f.write_str("no earlier one can"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use genesis_snapshot::inventory::Gap;
    use genesis_wal::id::{Epoch, Txid};
    use genesis_wal::page::{PageSize, StateHash};
    use genesis_wal::part::Stamp;
    use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
    use genesis_wal::time::Micros;

    use super::*;
    use crate::replica::{History, Holder};
    use crate::store::{Body, Examine, MemoryStore, Objects, Store};

    const GENERATION: &str = "0000000001-0000000000000001";

    fn segment(first: u64) -> ObjectName {
        let last = first + 1;
        let name = format!("wal/00/{first:020}-{last:020}-{last:014}-0000000001.seg");
        format!("{GENERATION}/{name}").parse().unwrap()
    }

    /// A replica with a snapshot, and segments of which one is missing.
    async fn with_a_gap() -> (Replica, Arc<MemoryStore>) {
        let store = Arc::new(MemoryStore::new(Objects::default()));
        let replica = Replica::open_or_create(store.clone()).await.unwrap();
        let manifest = format!("{:020}-{:014}-0000000001-0000000000.manifest", 1, 1);
        let manifest = format!("{GENERATION}/snapshots/{manifest}").parse().unwrap();
        for name in [manifest, segment(2), segment(6)] {
            store.create(&name, Body::Bytes("x".into())).await.unwrap();
        }
        (replica, store)
    }

    async fn find(replica: &Replica, target: Target) -> Result<Route, RestoreError> {
        Route::find(replica, replica.outline().await?, target, None).await
    }

    #[tokio::test]
    async fn a_segment_that_is_under_way_is_waited_for() {
        let (replica, store) = with_a_gap().await;
        let arrives = async {
            tokio::time::sleep(LOOK_PAUSE * 2).await;
            store.create(&segment(4), Body::Bytes("x".into())).await.unwrap();
        };
        let find = find(&replica, Target::Latest);
        let (route, ()) = tokio::join!(find, arrives);
        assert_eq!(route.unwrap().plan.segments.len(), 3);
    }

    /// A segment of two transactions, which change nothing, made when so much was stored.
    fn body(first: u64, stored: u64) -> Body {
        let [one, other] = parts(first, stored);
        Body::Bytes([one, other].concat().into())
    }

    /// The same as two parts, of which the first was made when one transaction less was stored.
    fn parts(first: u64, stored: u64) -> [Vec<u8>; 2] {
        let stamp = Stamp { generation: GENERATION.parse().unwrap(), epoch: Epoch(1) };
        let page_size = PageSize::new(4096).unwrap();
        let mut encoder = SegmentEncoder::new(page_size, stamp, StateHash::default());
        let mut part = |txid: u64, stored| {
            let header = TransactionHeader {
                txid: Txid(txid),
                kind: TransactionKind::Commit,
                late: false,
                commits: 1,
                time: Micros(txid * 1000),
                since: Micros(txid * 1000),
                pages: 1,
                records: 0,
                state: StateHash::default(),
            };
            let mut bytes = Vec::new();
            encoder.begin(header, None).unwrap();
            encoder.tell_stored(Txid(stored));
            encoder.cut(&mut bytes).unwrap();
            bytes
        };
        [part(first, stored - 1), part(first + 1, stored)]
    }

    #[tokio::test]
    async fn what_was_under_way_when_its_writer_ended_is_left_out() {
        let (replica, store) = with_a_gap().await;
        for first in [8, 10] {
            store.create(&segment(first), body(first, 3)).await.unwrap();
        }
        store.remove(&segment(6)).await.unwrap();
        let find = |target| find(&replica, target);
        assert_eq!(find(Target::Latest).await.unwrap().plan.reaches, Txid(3));
        for target in [Target::Txid(Txid(9)), Target::Time(Micros(u64::MAX))] {
            let route = find(target).await;
            assert!(matches!(route, Err(RestoreError::Plan(_))), "{route:?}");
        }
        // The last one was made when a part of what is missing was stored.
        store.create(&segment(12), body(12, 4)).await.unwrap();
        assert_missing(&find(Target::Latest).await);
    }

    fn assert_missing(route: &Result<Route, RestoreError>) {
        assert!(matches!(route, Err(RestoreError::Plan(PlanError::Gap { .. }))), "{route:?}");
    }

    /// What is cut off between its parts, or of somebody else, does not tell how much was stored when it was
    /// made.
    #[tokio::test]
    async fn what_is_not_what_its_name_says_does_not_tell() {
        let (replica, store) = with_a_gap().await;
        let [one, other] = parts(6, 3);
        let stamp = Stamp { generation: GENERATION.parse().unwrap(), epoch: Epoch(2) };
        let mut restamped = other.clone();
        genesis_wal::part::restamp(&mut restamped, stamp).unwrap();
        for (parts, tells) in [
            ([&one[..], &other], true),
            ([&one, &[]], false),
            ([&other, &[]], false),
            ([&one, &restamped], false),
        ] {
            store.remove(&segment(6)).await.unwrap();
            store.create(&segment(6), Body::Bytes(parts.concat().into())).await.unwrap();
            let route = find(&replica, Target::Latest).await;
            if tells {
                let plan = route.unwrap().plan;
                let gap = Gap { after: Txid(3), next: Txid(6) };
                assert_eq!((plan.reaches, plan.missing), (Txid(3), Some(gap)));
            } else {
                assert_missing(&route);
            }
        }
    }

    /// Behind a slow link each segment is made while others are under way.
    #[tokio::test]
    async fn what_was_stored_by_the_time_of_a_later_segment_is_missing() {
        let (replica, store) = with_a_gap().await;
        store.remove(&segment(6)).await.unwrap();
        for (first, stored) in [(6, 1), (8, 3)] {
            store.create(&segment(first), body(first, stored)).await.unwrap();
        }
        let find = || find(&replica, Target::Latest);
        assert_eq!(find().await.unwrap().plan.reaches, Txid(3));
        store.create(&segment(10), body(10, 5)).await.unwrap();
        assert_missing(&find().await);
    }

    #[tokio::test]
    async fn what_its_writer_or_the_next_has_found_stored_is_missing() {
        let (replica, store) = with_a_gap().await;
        store.remove(&segment(6)).await.unwrap();
        store.create(&segment(6), body(6, 3)).await.unwrap();
        let find = || find(&replica, Target::Latest);
        assert_eq!(find().await.unwrap().plan.reaches, Txid(3));
        let holder = Holder { host: "1".into(), name: "host".into(), pid: 1, since: "now".into() };
        let fence =
            replica.claim(&replica.epochs().await.unwrap(), &holder).await.unwrap().unwrap();
        for last in [None, Some(Txid(7))] {
            Replica::release(&fence, last).await.unwrap();
            assert_missing(&find().await);
            store.remove(&ObjectName::Release(Epoch(1))).await.unwrap();
        }
        assert_eq!(find().await.unwrap().plan.reaches, Txid(3));
        let history = History::default();
        replica.continue_with(Epoch(1), &holder, &history, None).await.unwrap();
        assert_eq!(find().await.unwrap().plan.reaches, Txid(3));
        let history = replica.history().await.unwrap();
        replica.continue_with(Epoch(2), &holder, &history, None).await.unwrap();
        assert_missing(&find().await);
    }

    /// Who takes over where something is lost at the end finds no tip, uses no transaction again, and it is
    /// missed until there is another line.
    #[tokio::test]
    async fn what_is_lost_at_the_end_is_missed_after_another_has_begun() {
        let (replica, store) = with_a_gap().await;
        store.remove(&segment(6)).await.unwrap();
        let holder = Holder { host: "1".into(), name: "host".into(), pid: 1, since: "now".into() };
        let begin = async |epoch, history: History| {
            let begun = replica.continue_with(Epoch(epoch), &holder, &history, None).await;
            begun.unwrap()
        };
        let fence =
            replica.claim(&replica.epochs().await.unwrap(), &holder).await.unwrap().unwrap();
        begin(1, History::default()).await;
        Replica::release(&fence, Some(Txid(5))).await.unwrap();
        for epoch in 2..4 {
            assert_missing(&find(&replica, Target::Latest).await);
            let history = replica.history().await.unwrap();
            assert_eq!(replica.tip(&history.inventory).await.unwrap(), None);
            assert_eq!(begin(epoch, history).await.highest_used(), Some(Txid(5)));
        }
        assert_missing(&find(&replica, Target::Latest).await);
    }

    #[tokio::test]
    async fn one_that_does_not_come_is_missing() {
        let (replica, _store) = with_a_gap().await;
        let route = find(&replica, Target::Latest).await;
        assert!(matches!(route, Err(RestoreError::Plan(PlanError::Gap { .. }))), "{route:?}");
    }
}
