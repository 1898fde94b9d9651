//! Ships what was sealed, several segments at once, and says what is durable: what is stored with all
//! before it, when a look that began after that has found no other writer. Snapshots go beside it,
//! on a lane of their own: no transaction waits for a pack.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::{ObjectName, SegmentName};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

use self::lane::Lane;
use super::merging::{Merger, Teller};
use super::spool::Spool;
use crate::clock;
use crate::replica::Fence;
use crate::store::{Body, Store, StoreError};

mod lane;

/// What is shipped in order.
#[derive(Debug)]
enum Shipment {
    /// A sealed segment of the spool.
    Segment(SegmentName),
    /// What follows continues a snapshot; it counts once that is stored.
    Snapshot(oneshot::Receiver<Txid>),
}

/// An object of a snapshot.
#[derive(Debug)]
struct Object {
    name: ObjectName,
    bytes: Bytes,
    /// Told when it is stored, so that only so many wait in memory.
    stored: SyncSender<()>,
}

/// Why nothing more is shipped.
#[derive(Debug, Error)]
pub enum ShipError {
    /// The store refuses for good: a name of ours holds somebody else's bytes, or a sealed segment is
    /// gone.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another writer has taken over.
    #[error("fenced: another writer has taken the replica over from this one, which held epoch {}", .0.0)]
    Fenced(Epoch),
    /// The claim of this writer is gone.
    #[error(
        "the replica is gone: somebody has emptied its place under this writer, which held epoch {}",
        .0.0
    )]
    Emptied(Epoch),
}

/// Shipping has ended; that side says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shipping has ended")]
pub struct ShippingEnded;

/// The sending side.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: UnboundedSender<Shipment>,
    objects: UnboundedSender<Object>,
}

/// The receiving side.
#[derive(Debug)]
pub struct Shipments {
    queue: UnboundedReceiver<Shipment>,
    objects: UnboundedReceiver<Object>,
}

impl Outbox {
    /// The two sides of empty lanes.
    #[must_use]
    pub fn new() -> (Self, Shipments) {
        let (queue, shipments) = unbounded_channel();
        let (objects, received) = unbounded_channel();
        (Self { queue, objects }, Shipments { queue: shipments, objects: received })
    }

    /// Whether shipping has ended: nothing more is stored.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// Queues a sealed segment.
    ///
    /// # Errors
    /// [`ShippingEnded`].
    pub fn segment(&self, name: SegmentName) -> Result<(), ShippingEnded> {
        self.queue.send(Shipment::Segment(name)).map_err(|_closed| ShippingEnded)
    }

    /// Says that the segments from here on continue a snapshot that is not stored yet. It is to be told
    /// the snapshot's transaction when it is.
    ///
    /// # Errors
    /// [`ShippingEnded`].
    pub fn snapshot(&self) -> Result<oneshot::Sender<Txid>, ShippingEnded> {
        let (sender, stored) = oneshot::channel();
        self.queue.send(Shipment::Snapshot(stored)).map_err(|_closed| ShippingEnded)?;
        Ok(sender)
    }

    /// Ships an object of a snapshot, after those before it are stored: a manifest may follow its packs at
    /// once. What it yields is told when the object is stored.
    ///
    /// # Errors
    /// [`ShippingEnded`].
    pub fn object(&self, name: ObjectName, bytes: Bytes) -> Result<Receiver<()>, ShippingEnded> {
        let (stored, in_flight) = sync_channel(1);
        let object = Object { name, bytes, stored };
        self.objects.send(object).map(|()| in_flight).map_err(|_closed| ShippingEnded)
    }
}

/// Ships until the lanes are closed and empty.
#[derive(Debug)]
pub struct Shipper {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// Where segments wait.
    pub spool: Spool,
    /// What to ship.
    pub shipments: Shipments,
    /// Under which epoch, once that is claimed.
    pub fence: oneshot::Receiver<Fence>,
    /// The last transaction that is in the replica with all before it.
    pub durable: watch::Sender<Option<Txid>>,
    /// Merges what is shipped, and is told of it.
    pub merging: (Teller, Merger),
}

/// So much longer may what is shipped be merged at the end.
const LAST_MERGES: Duration = Duration::from_secs(1);

impl Shipper {
    /// Ships until the lanes are closed and empty. The store is expected to try again what fails.
    ///
    /// # Errors
    /// [`ShipError`].
    pub async fn run(self) -> Result<(), ShipError> {
        let Self { store, spool, shipments, fence, durable, merging: (teller, merger) } = self;
        // Without an epoch there is nothing to ship.
        let Ok(fence) = fence.await else { return Ok(()) };
        let lookout = Lookout::new(fence.asking(Arc::clone(&store)));
        let Shipments { queue, objects } = shipments;
        let objects = ship_objects(Arc::clone(&store), lookout.clone(), objects, teller.clone());
        let lane = Lane::new(store, lookout, (spool, teller), durable);
        let mut merging = std::pin::pin!(merger.run());
        tokio::select! {
            biased;
            shipped = async { tokio::try_join!(lane.ship(queue), objects) } => shipped.map(|_| ())?,
            // It ends when shipping does.
            () = &mut merging => return Ok(()),
        }
        tokio::time::timeout(LAST_MERGES, merging).await.ok();
        Ok(())
    }
}

/// Ships objects one after another: none before those are stored that it may name.
async fn ship_objects(
    store: Arc<dyn Store>,
    mut lookout: Lookout,
    mut objects: UnboundedReceiver<Object>,
    teller: Teller,
) -> Result<(), ShipError> {
    while let Some(Object { name, bytes, stored }) = objects.recv().await {
        store.create(&name, Body::Bytes(bytes)).await?;
        // Nobody's snapshot is of use to another writer's line.
        lookout.look().await?;
        teller.object(&name);
        // Whoever waited may have given up meanwhile.
        stored.try_send(()).ok();
    }
    Ok(())
}

/// How often a look for other writers is one for the own claim, too.
const OWN_CLAIM: Duration = Duration::from_mins(1);

/// Looks for other writers, and from time to time whether the replica is still there: nobody looks but
/// after something was stored, so an idle database causes no request.
#[derive(Debug, Clone)]
pub struct Lookout {
    fence: Fence,
    /// When the own claim is looked for again.
    next: Duration,
}

impl Lookout {
    /// One that has not looked yet.
    #[must_use]
    pub fn new(fence: Fence) -> Self {
        Self { fence, next: Duration::ZERO }
    }

    /// Looks.
    ///
    /// # Errors
    /// [`ShipError`] when the epoch is passed, or its claim is gone.
    pub fn look(&mut self) -> impl Future<Output = Result<(), ShipError>> + use<> {
        let (fence, now) = (self.fence.clone(), clock::monotonic());
        let is_due = now >= self.next;
        if is_due {
            self.next = now + OWN_CLAIM;
        }
        async move {
            check(&fence).await?;
            if is_due && !fence.is_there().await? {
                let epoch = fence.epoch().0;
                tracing::error!(epoch, "the replica is gone: somebody has emptied its place");
                return Err(ShipError::Emptied(fence.epoch()));
            }
            Ok(())
        }
    }
}

/// Looks whether the epoch is passed.
pub(super) async fn check(fence: &Fence) -> Result<(), ShipError> {
    if fence.is_passed().await? {
        let epoch = fence.epoch().0;
        tracing::error!(epoch, state = "fenced", "another writer has taken the replica over");
        return Err(ShipError::Fenced(fence.epoch()));
    }
    Ok(())
}
