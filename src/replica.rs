//! A replica as a whole: its description, the epochs of its writers, and its history.

mod base;
#[cfg(test)]
mod corpora;
mod epochs;
mod holdings;
mod listing;
mod records;
pub(crate) mod sealed;
mod tip;

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use genesis_snapshot::inventory::Inventory;
use genesis_snapshot::manifest::{Manifest, ManifestDecoder};
use genesis_wal::id::Epoch;
use genesis_wal::name::{ManifestName, ObjectName};
use genesis_wal::part::Stamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::base::History;
pub use self::epochs::{Fence, Standing};
pub use self::holdings::Holdings;
pub use self::listing::Epochs;
pub use self::records::Holder;
pub use self::tip::{Tip, UNDER_WAY, warn_of_left_out};

use crate::durable;
use crate::object::{ObjectError, PartStream};
use crate::store::{Body, Store, StoreError, StoreErrorKind};

/// The format that this program reads and writes.
const FORMAT: u32 = 1;

/// Why a replica cannot be used.
#[derive(Debug, Error)]
pub enum ReplicaError {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no replica in this place.
    #[error("there is no replica here")]
    Missing,
    /// What describes the replica cannot be read.
    #[error("genesis.json does not describe a replica")]
    NotAReplica(#[source] serde_json::Error),
    /// Another format.
    #[error("the replica has format {0}; this program knows format {FORMAT}")]
    UnknownFormat(u32),
    /// An object cannot be used.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// Another host has it.
    #[error(
        "the replica is held, in epoch {}, by {}, which has not released it",
        epoch.0, holder.as_ref().map_or("an unknown process".to_owned(), ToString::to_string)
    )]
    Held {
        /// The epoch.
        epoch: Epoch,
        /// Who has it, if that can be read.
        holder: Option<Holder>,
    },
    /// The replica holds another database.
    #[error(transparent)]
    Another(#[from] AnotherDatabase),
    /// Somebody else wrote what this writer's epoch continues.
    #[error("epoch {} of this replica was begun by somebody else, too", .0.0)]
    Taken(Epoch),
    /// No epoch is left.
    #[error("the last epoch of this replica is used up")]
    EpochsExhausted,
    /// No transaction id is left.
    #[error("the last transaction id of this replica is used up")]
    TxidsExhausted,
    /// The kernel gives no random numbers.
    #[error("cannot draw a random number")]
    Random(#[source] std::io::Error),
    /// The local disk fails.
    #[error("cannot use the local state")]
    Local(#[source] std::io::Error),
}

/// A database that is not the one that a replica holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "this is another database than the one in the replica: of {of} pages that both have, {matching} are the same"
)]
pub struct AnotherDatabase {
    /// Pages that are as they were recorded.
    pub matching: u32,
    /// Pages that were compared.
    pub of: u32,
}

/// `genesis.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    replica: String,
}

/// A place that holds the generations of one database.
#[derive(Debug, Clone)]
pub struct Replica {
    store: Arc<dyn Store>,
}

impl Replica {
    /// Opens the replica in a store.
    ///
    /// # Errors
    /// [`ReplicaError::Missing`] when the store holds none.
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, ReplicaError> {
        let bytes = match store.get(&ObjectName::Genesis).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => {
                return Err(ReplicaError::Missing);
            }
            other => other?,
        };
        let description: Description =
            serde_json::from_slice(&bytes).map_err(ReplicaError::NotAReplica)?;
        match description.format {
            FORMAT => Ok(Self { store }),
            other => Err(ReplicaError::UnknownFormat(other)),
        }
    }

    /// Opens the replica in a store, and lists what it holds as history, at once: whoever reads it waits
    /// a round trip less. A writer lists after it has claimed an epoch, and not here.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`inventory`](Self::inventory).
    pub async fn open_listed(store: Arc<dyn Store>) -> Result<(Self, Inventory), ReplicaError> {
        let (replica, listed) = tokio::join!(Self::open(Arc::clone(&store)), store.list(""));
        let replica = replica?;
        let inventory = replica.inventory_in(listed?).await?;
        Ok((replica, inventory))
    }

    /// Opens the replica in a store, or makes one there.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub async fn open_or_create(store: Arc<dyn Store>) -> Result<Self, ReplicaError> {
        match Self::open(Arc::clone(&store)).await {
            Err(ReplicaError::Missing) => {}
            other => return other,
        }
        let description = Description { format: FORMAT, replica: random_hex()? };
        match store.create(&ObjectName::Genesis, json(&description)).await {
            // Somebody was faster: the replica is theirs to describe.
            Err(error) if error.kind != StoreErrorKind::AlreadyExists => Err(error.into()),
            _ => Self::open(store).await,
        }
    }

    /// Where the objects are.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub async fn manifest(&self, name: ManifestName) -> Result<Manifest, ObjectError> {
        let damaged = |error: &dyn Error| ObjectError::damaged(name, crate::describe(error));
        let mut parts = PartStream::new(Arc::clone(&self.store), name.into());
        let first = parts.next().await?;
        let first = first.ok_or_else(|| ObjectError::damaged(name, "it is empty"))?;
        let mut decoder = ManifestDecoder::begin(&first.part()).map_err(|error| damaged(&error))?;
        while let Some(part) = parts.next().await? {
            decoder.push(&part.part()).map_err(|error| damaged(&error))?;
        }
        let manifest = decoder.finish().map_err(|error| damaged(&error))?;
        let Stamp { generation, epoch } = manifest.stamp;
        let holds = (generation, epoch, manifest.txid, manifest.time.ceil_millis());
        if holds == (name.generation, name.epoch, name.txid, name.time) {
            Ok(manifest)
        } else {
            Err(ObjectError::damaged(name, "it holds another snapshot than its name says"))
        }
    }
}

fn json(value: &impl Serialize) -> Body {
    // Plain structs of strings and numbers: nothing in them fails to serialise.
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    Body::Bytes(Bytes::from(bytes))
}

fn random_hex() -> Result<String, ReplicaError> {
    let random = || durable::random().map_err(ReplicaError::Random);
    Ok(format!("{:016x}{:016x}", random()?, random()?))
}
