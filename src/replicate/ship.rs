//! Ships what was sealed, in order, and says what is durable. Snapshots go beside it, on a lane of their
//! own: no transaction waits for a pack.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use genesis_wal::id::Txid;
use genesis_wal::name::{ObjectName, SegmentName};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{oneshot, watch};

use super::spool::Spool;
use crate::store::{Body, Store, StoreError};

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

    /// Ships an object of a snapshot; what it yields is told when the object is stored.
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
    /// The last transaction that is in the replica with all before it.
    pub durable: watch::Sender<Option<Txid>>,
}

impl Shipper {
    /// Ships until the lanes are closed and empty. The store is expected to try again what fails.
    ///
    /// # Errors
    /// [`StoreError`] where that is pointless: a name of ours holds somebody else's bytes, or a
    /// sealed segment is gone.
    pub async fn run(self) -> Result<(), StoreError> {
        let Self { store, spool, shipments: Shipments { queue, objects }, durable } = self;
        let segments = Segments { store: &*store, spool, durable };
        tokio::try_join!(segments.ship(queue), ship_objects(&*store, objects)).map(|_| ())
    }
}

async fn ship_objects(
    store: &dyn Store,
    mut objects: UnboundedReceiver<Object>,
) -> Result<(), StoreError> {
    while let Some(Object { name, bytes, stored }) = objects.recv().await {
        store.create(&name, Body::Bytes(bytes)).await?;
        // Whoever waited may have given up meanwhile.
        stored.try_send(()).ok();
    }
    Ok(())
}

struct Segments<'a> {
    store: &'a dyn Store,
    spool: Spool,
    durable: watch::Sender<Option<Txid>>,
}

impl Segments<'_> {
    async fn ship(self, mut queue: UnboundedReceiver<Shipment>) -> Result<(), StoreError> {
        let mut counts = true;
        while let Some(shipment) = queue.recv().await {
            match shipment {
                Shipment::Segment(name) => self.ship_segment(name, counts).await?,
                // A line whose snapshot is given up is not a state that could be restored.
                Shipment::Snapshot(stored) => match stored.await {
                    Ok(txid) => {
                        counts = true;
                        self.durable.send_modify(|durable| *durable = (*durable).max(Some(txid)));
                    }
                    Err(_given_up) => counts = false,
                },
            }
        }
        Ok(())
    }

    async fn ship_segment(&self, name: SegmentName, counts: bool) -> Result<(), StoreError> {
        let path = self.spool.path(&name);
        self.store.create(&name.into(), Body::File(path)).await?;
        if counts {
            self.durable.send_modify(|durable| *durable = (*durable).max(Some(name.last)));
        }
        tracing::debug!(first = name.first.0, last = name.last.0, "shipped");
        if let Err(error) = self.spool.remove(&name) {
            tracing::warn!(%name, %error, "cannot remove a shipped segment from the spool");
        }
        Ok(())
    }
}
