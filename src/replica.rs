//! A replica as a whole: its description, the claim of an epoch, and the tip of its history.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use genesis_snapshot::inventory::Inventory;
use genesis_snapshot::manifest::{Manifest, ManifestDecoder};
use genesis_wal::id::{Epoch, Generation};
use genesis_wal::name::{ClaimName, EPOCHS_PREFIX, ManifestName, ObjectName, SegmentName};
use genesis_wal::page::PageSize;
use genesis_wal::segment::{Reached, Sequence};
use serde::{Deserialize, Serialize};
use thiserror::Error;

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

/// `genesis.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Description {
    format: u32,
    replica: String,
}

/// `epochs/<epoch>`: who claimed it. The nonce tells this claim from every other.
#[derive(Debug, Serialize)]
struct Claim<'a> {
    host: &'a str,
    pid: u32,
    nonce: String,
}

/// The newest state of a replica's newest line of history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// The line.
    pub generation: Generation,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// The state.
    pub reached: Reached,
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

    /// Claims the next epoch for this process.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub async fn claim(&self) -> Result<Epoch, ReplicaError> {
        let uname = rustix::system::uname();
        let host = &uname.nodename().to_string_lossy();
        let claim = Claim { host, pid: std::process::id(), nonce: random_hex()? };
        loop {
            let claimed = self.store.list(EPOCHS_PREFIX).await?.into_iter();
            let highest = claimed.filter_map(|listed| match listed.name {
                ObjectName::Claim(claim) => Some(claim.epoch),
                _ => None,
            });
            let epoch = highest.max().unwrap_or(Epoch(0)).next();
            let epoch = epoch.ok_or(ReplicaError::EpochsExhausted)?;
            let name = ClaimName { epoch, nonce: None }.into();
            match self.store.create(&name, json(&claim)).await {
                Ok(()) => return Ok(epoch),
                Err(error) if error.kind == StoreErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// What the replica holds.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn inventory(&self) -> Result<Inventory, StoreError> {
        let listed = self.store.list("").await?;
        Ok(Inventory::from_objects(listed.into_iter().map(|object| (object.name, object.size))))
    }

    /// The tip of the newest line; `None` when it holds no snapshot or its history has a gap.
    ///
    /// # Errors
    /// When an object that the tip rests on cannot be read.
    pub async fn tip(&self, inventory: &Inventory) -> Result<Option<Tip>, ReplicaError> {
        let Some(line) = inventory.latest_generation() else {
            return Ok(None);
        };
        let Some(manifest) = line.manifests().last() else {
            return Ok(None);
        };
        let chain = line.chain(manifest.name.txid);
        if chain.gap.is_some() {
            return Ok(None);
        }
        Ok(Some(match chain.segments.last() {
            Some(segment) => self.tip_of_segment(segment.name).await?,
            None => self.tip_of_manifest(manifest.name).await?,
        }))
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
        let holds = (manifest.stamp.generation, manifest.txid, manifest.time.ceil_millis());
        if holds == (name.generation, name.txid, name.time) {
            Ok(manifest)
        } else {
            Err(ObjectError::damaged(name, "it holds another snapshot than its name says"))
        }
    }

    async fn tip_of_manifest(&self, name: ManifestName) -> Result<Tip, ReplicaError> {
        let Manifest { layout, txid, time, state, position, .. } = self.manifest(name).await?;
        let reached = Reached { txid, time, state, position };
        Ok(Tip { generation: name.generation, page_size: layout.page_size, reached })
    }

    async fn tip_of_segment(&self, name: SegmentName) -> Result<Tip, ReplicaError> {
        let damaged = |reason: &dyn fmt::Display| ObjectError::damaged(name, reason);
        let mut stream = PartStream::new(Arc::clone(&self.store), name.into());
        let mut sequence = None;
        while let Some(owned) = stream.next().await? {
            let part = owned.part();
            let begun = sequence
                .get_or_insert_with(|| (part.header, Sequence::beginning_with(&part.header)));
            begun.1.accept(&part).map_err(|error| damaged(&error))?;
        }
        let (first, sequence) = sequence.ok_or_else(|| damaged(&"it is empty"))?;
        let reached = sequence.finish().map_err(|error| damaged(&error))?;
        let generation = first.stamp.generation;
        if (generation, first.first, reached.txid) == (name.generation, name.first, name.last) {
            Ok(Tip { generation, page_size: first.page_size, reached })
        } else {
            Err(damaged(&"it does not hold what its name says").into())
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
