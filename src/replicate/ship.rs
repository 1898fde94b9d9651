//! Ships what was sealed, in order, and says what is durable.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use bytes::Bytes;
use genesis_wal::id::Txid;
use genesis_wal::name::{ObjectName, SegmentName};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;

use super::spool::Spool;
use crate::store::{Body, Store, StoreError};

/// Something to ship. What comes later in the queue may rest on what came before.
#[derive(Debug)]
pub enum Shipment {
    /// A sealed segment of the spool.
    Segment(SegmentName),
    /// An object of a snapshot, from memory.
    Object {
        /// Its name.
        name: ObjectName,
        /// Its bytes.
        bytes: Bytes,
        /// Told when it is stored, so that only so many wait in memory.
        stored: SyncSender<()>,
    },
}

/// Shipping has ended; that side says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("shipping has ended")]
pub struct ShippingEnded;

/// The queue's sending side.
#[derive(Debug, Clone)]
pub struct Outbox {
    queue: UnboundedSender<Shipment>,
}

impl Outbox {
    /// An empty queue: its two sides.
    #[must_use]
    pub fn new() -> (Self, UnboundedReceiver<Shipment>) {
        let (queue, shipments) = unbounded_channel();
        (Self { queue }, shipments)
    }

    /// Queues a sealed segment.
    ///
    /// # Errors
    /// [`ShippingEnded`].
    pub fn segment(&self, name: SegmentName) -> Result<(), ShippingEnded> {
        self.queue.send(Shipment::Segment(name)).map_err(|_closed| ShippingEnded)
    }

    /// Queues an object; what it yields is told when the object is stored.
    ///
    /// # Errors
    /// [`ShippingEnded`].
    pub fn object(&self, name: ObjectName, bytes: Bytes) -> Result<Receiver<()>, ShippingEnded> {
        let (stored, in_flight) = sync_channel(1);
        let shipment = Shipment::Object { name, bytes, stored };
        self.queue.send(shipment).map(|()| in_flight).map_err(|_closed| ShippingEnded)
    }
}

/// Ships until the queue is closed and empty.
#[derive(Debug)]
pub struct Shipper {
    /// Where to.
    pub store: Arc<dyn Store>,
    /// Where segments wait.
    pub spool: Spool,
    /// What to ship.
    pub queue: UnboundedReceiver<Shipment>,
    /// The last transaction that is in the replica with all before it.
    pub durable: watch::Sender<Option<Txid>>,
}

impl Shipper {
    /// Ships until the queue is closed and empty. The store is expected to try again what fails.
    ///
    /// # Errors
    /// [`StoreError`] where that is pointless: a name of ours holds somebody else's bytes, or a
    /// sealed segment is gone.
    pub async fn run(mut self) -> Result<(), StoreError> {
        while let Some(shipment) = self.queue.recv().await {
            match shipment {
                Shipment::Segment(name) => self.ship_segment(name).await?,
                Shipment::Object { name, bytes, stored } => {
                    self.store.create(&name, Body::Bytes(bytes)).await?;
                    if let ObjectName::Manifest(manifest) = name {
                        self.durable.send_replace(Some(manifest.txid));
                    }
                    // Whoever waited may have given up meanwhile.
                    stored.try_send(()).ok();
                }
            }
        }
        Ok(())
    }

    async fn ship_segment(&self, name: SegmentName) -> Result<(), StoreError> {
        let path = self.spool.path(&name);
        self.store.create(&name.into(), Body::File(path)).await?;
        self.durable.send_replace(Some(name.last));
        tracing::debug!(first = name.first.0, last = name.last.0, "shipped");
        if let Err(error) = self.spool.remove(&name) {
            tracing::warn!(%name, %error, "cannot remove a shipped segment from the spool");
        }
        Ok(())
    }
}
