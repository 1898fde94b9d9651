//! The lane of segments: several are under way at once, and what is durable is what is stored with all
//! before it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;

use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Span;

use super::{Lookout, ShipError, Shipment};
use crate::blocking::blocking;
use crate::replica::UNDER_WAY;
use crate::replicate::merging::Teller;
use crate::replicate::spool::Spool;
use crate::store::{Body, Store, StoreError, StoreErrorKind};

/// Ships segments.
pub struct Lane {
    store: Arc<dyn Store>,
    lookout: Lookout,
    spool: Spool,
    /// Who is told what can be merged.
    teller: Teller,
    durable: watch::Sender<Option<Txid>>,
    under_way: VecDeque<UnderWay>,
    /// What is stored with all before it, and not known to be ours for good.
    stored: Vec<Stored>,
    /// The look that makes the front of it durable.
    look: Option<Look>,
    /// Whether what is stored now makes a state that can be restored.
    counts: bool,
}

/// A shipment that was begun. It is given up when this is dropped.
struct UnderWay {
    task: JoinHandle<Result<Stored, StoreError>>,
}

/// What a shipment has stored.
enum Stored {
    Segment(SegmentName),
    /// A snapshot that a line begins with; one that was given up has stored nothing.
    Snapshot(Option<Txid>),
}

/// A look for other writers, and how much of what is stored was stored before it began.
struct Look {
    covers: usize,
    finding: Pin<Box<dyn Future<Output = Result<(), ShipError>> + Send>>,
}

/// What comes next.
enum Event {
    Shipment(Option<Shipment>),
    Stored(Stored),
    Alone,
}

impl Lane {
    /// A lane that is empty.
    pub fn new(
        store: Arc<dyn Store>,
        lookout: Lookout,
        (spool, teller): (Spool, Teller),
        durable: watch::Sender<Option<Txid>>,
    ) -> Self {
        Self {
            store,
            lookout,
            spool,
            teller,
            durable,
            under_way: VecDeque::new(),
            stored: Vec::new(),
            look: None,
            counts: true,
        }
    }

    /// Ships until the queue is closed and everything in it is durable.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn ship(mut self, mut queue: UnboundedReceiver<Shipment>) -> Result<(), ShipError> {
        let mut is_open = true;
        while is_open || !self.under_way.is_empty() || self.look.is_some() {
            match self.next(&mut queue, is_open).await? {
                Event::Shipment(Some(shipment)) => self.begin(shipment),
                Event::Shipment(None) => is_open = false,
                Event::Stored(stored) => self.stored.push(stored),
                Event::Alone => self.settle().await,
            }
            self.look();
        }
        Ok(())
    }

    async fn next(
        &mut self,
        queue: &mut UnboundedReceiver<Shipment>,
        is_open: bool,
    ) -> Result<Event, ShipError> {
        let has_room = is_open && self.under_way.len() < UNDER_WAY;
        tokio::select! {
            biased;
            shipment = queue.recv(), if has_room => Ok(Event::Shipment(shipment)),
            stored = front(&mut self.under_way) => {
                self.under_way.pop_front();
                Ok(Event::Stored(stored?))
            }
            found = finding(&mut self.look) => found.map(|()| Event::Alone),
        }
    }

    fn begin(&mut self, shipment: Shipment) {
        let task = match shipment {
            Shipment::Segment(name) => {
                let (store, path) = (Arc::clone(&self.store), self.spool.path(&name));
                tokio::spawn(async move {
                    store.create(&name.into(), Body::File(path)).await?;
                    Ok(Stored::Segment(name))
                })
            }
            Shipment::Snapshot(stored) => {
                tokio::spawn(async move { Ok(Stored::Snapshot(stored.await.ok())) })
            }
        };
        self.under_way.push_back(UnderWay { task });
    }

    /// Begins to look for other writers, if something waits for it.
    fn look(&mut self) {
        if self.look.is_none() && !self.stored.is_empty() {
            let finding = Box::pin(self.lookout.look());
            self.look = Some(Look { covers: self.stored.len(), finding });
        }
    }

    /// Nobody had taken over when the look was made: what was stored before it is durable.
    async fn settle(&mut self) {
        let Some(Look { covers, .. }) = self.look.take() else { return };
        let mut shipped = Vec::new();
        for stored in self.stored.drain(..covers) {
            match stored {
                Stored::Snapshot(stored) => {
                    // A line without its snapshot is no state that could be restored.
                    self.counts = stored.is_some();
                    if let Some(txid) = stored {
                        advance(&self.durable, txid);
                    }
                }
                Stored::Segment(name) => {
                    if self.counts {
                        advance(&self.durable, name.last);
                    }
                    tracing::debug!(first = name.first.0, last = name.last.0, "shipped");
                    shipped.push((name, self.counts));
                }
            }
        }
        let (spool, teller, span) = (self.spool.clone(), self.teller.clone(), Span::current());
        let kept = blocking(move || span.in_scope(|| keep(&spool, &teller, &shipped))).await;
        if kept.is_err() {
            tracing::error!("keeping shipped segments in the spool died");
        }
    }
}

/// Keeps what is shipped, and tells of what counts.
fn keep(spool: &Spool, teller: &Teller, shipped: &[(SegmentName, bool)]) {
    for &(name, counts) in shipped {
        if counts {
            teller.segment(name, spool.size(&name));
        }
        if let Err(error) = spool.keep(&name) {
            tracing::warn!(%name, %error, "cannot keep a shipped segment in the spool");
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn advance(durable: &watch::Sender<Option<Txid>>, txid: Txid) {
    durable.send_modify(|durable| *durable = (*durable).max(Some(txid)));
}

/// What the first shipment under way has stored; never, while there is none.
async fn front(under_way: &mut VecDeque<UnderWay>) -> Result<Stored, StoreError> {
    let Some(first) = under_way.front_mut() else { return std::future::pending().await };
    (&mut first.task).await.unwrap_or_else(|died| {
        let (action, subject, source) = ("store", "a segment".to_owned(), died.into());
        Err(StoreError { kind: StoreErrorKind::Permanent, action, subject, retry_after: 0, source })
    })
}

/// What a look has found; never, while there is none.
async fn finding(look: &mut Option<Look>) -> Result<(), ShipError> {
    match look {
        Some(look) => look.finding.as_mut().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::id::{Epoch, Generation};
    use genesis_wal::name::ObjectName;
    use genesis_wal::time::Millis;

    use super::super::Outbox;
    use super::*;
    use crate::replica::{Holder, Replica};
    use crate::replicate::merging::Merger;
    use crate::replicate::spool::Limits;
    use crate::store::{Examine, MemoryStore, Objects};

    fn segment(spool: &Spool, txid: u64) -> SegmentName {
        let (first, time, epoch) = (Txid(txid), Millis(1), Epoch(1));
        let generation = Generation { epoch, random: 7 };
        let name = SegmentName { generation, level: 0, first, last: first, time, epoch, repair: 0 };
        let mut segment = spool.begin().unwrap();
        segment.append(b"bytes").unwrap();
        segment.seal(&name).unwrap();
        name
    }

    /// Ships two segments; before which of them the place is emptied.
    async fn ship(emptied: Option<u64>) -> (Result<(), ShipError>, Option<Txid>) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().into(), Limits { keep: 0, wait: None }).unwrap();
        let memory = MemoryStore::new(Objects::default());
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let replica = Replica::open_or_create(Arc::clone(&store)).await.unwrap();
        let holder = Holder { host: "1".into(), name: "host".into(), pid: 1, since: "now".into() };
        let epochs = replica.epochs().await.unwrap();
        let fence = replica.claim(&epochs, &holder).await.unwrap().unwrap();
        let (durable, mut told) = watch::channel(None);
        let teller = Merger::new(Arc::clone(&store), spool.clone()).0;
        let lane = Lane::new(store, Lookout::new(fence), (spool.clone(), teller), durable);
        let (outbox, shipments) = Outbox::new();
        let lane = tokio::spawn(lane.ship(shipments.queue));
        for txid in 1..=2 {
            if emptied == Some(txid) {
                let claim = format!("epochs/{}", Epoch(1)).parse::<ObjectName>().unwrap();
                memory.remove(&claim).await.unwrap();
            }
            if outbox.segment(segment(&spool, txid)).is_err() {
                break;
            }
            told.wait_for(|durable| *durable >= Some(Txid(txid))).await.ok();
        }
        drop(outbox);
        let ended = lane.await.unwrap();
        let durable = *told.borrow();
        (ended, durable)
    }

    #[tokio::test]
    async fn nothing_is_durable_in_a_place_that_was_emptied() {
        let (ended, durable) = ship(Some(1)).await;
        assert!(matches!(ended, Err(ShipError::Emptied(Epoch(1)))), "{ended:?}");
        assert_eq!(durable, None);
    }

    #[tokio::test]
    async fn not_every_look_is_one_for_the_own_claim() {
        for emptied in [None, Some(2)] {
            let (ended, durable) = ship(emptied).await;
            assert!(ended.is_ok(), "{ended:?}");
            assert_eq!(durable, Some(Txid(2)));
        }
    }
}
