//! Epochs: who may write, and until when.
//!
//! A writer claims the epoch after the highest by creating an object of that name. Where several may be
//! told that they created a name, the name carries a nonce, and the claim counts if no other claim of
//! that epoch is listed after it was made: of two that are made at once, the later one sees the
//! earlier. Who does not get an epoch looks again. A writer that holds an epoch by a name without a nonce
//! looks for such a name only: whoever follows it creates that, too.
//!
//! A writer that ends with everything stored releases its epoch: then any host may claim the next one.
//!
//! Nothing of a writer is durable before a look that begins after it was stored has found no later
//! claim: whoever claims after that finds it.

use bytes::Bytes;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::{ClaimName, EPOCHS_PREFIX, ObjectName};
use std::sync::Arc;

use super::listing::Epochs;
use super::records::{BaseRecord, ClaimRecord, Holder, ReleaseRecord};
use super::sealed::{seal, unseal};
use super::{Replica, ReplicaError};
use crate::object::ObjectError;
use crate::store::{Body, Claims, Store, StoreError, StoreErrorKind};
use crate::{clock, durable};

/// Who has a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nobody ever had it.
    Free,
    /// The last one that had it was this host.
    Own,
    /// The last one that had it has released it.
    Released,
    /// Another host has it, or had it and is gone without a word.
    Held(Epoch, Option<Holder>),
}

/// Tells whether an epoch is still the highest.
#[derive(Debug, Clone)]
pub struct Fence {
    store: Arc<dyn Store>,
    name: ClaimName,
    claims: Claims,
}

impl Fence {
    /// The epoch that it guards.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.name.epoch
    }

    /// The same, that asks another store of the same place.
    #[must_use]
    pub fn asking(self, store: Arc<dyn Store>) -> Self {
        Self { store, ..self }
    }

    /// Looks for a later claim. Epochs are claimed one after another, so the next one tells.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn is_passed(&self) -> Result<bool, StoreError> {
        let Some(next) = self.epoch().next() else { return Ok(false) };
        match self.claims {
            Claims::Exclusive => {
                self.store.exists(&ClaimName { epoch: next, nonce: None }.into()).await
            }
            Claims::Shared => Ok(!list(&*self.store, next).await?.is_empty()),
        }
    }

    /// Looks whether the epoch's own claim is still there. Nothing removes it but who empties the replica.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn is_there(&self) -> Result<bool, StoreError> {
        self.store.exists(&self.name.into()).await
    }
}

/// The claims of an epoch, listed.
async fn list(store: &dyn Store, epoch: Epoch) -> Result<Vec<ClaimName>, StoreError> {
    let listed = store.list(&format!("{EPOCHS_PREFIX}{epoch}")).await?;
    Ok(Epochs::of(listed.into_iter().map(|listed| listed.name)).claims().to_vec())
}

impl Replica {
    /// Lists the epochs.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn epochs(&self) -> Result<Epochs, StoreError> {
        let listed = self.store.list(EPOCHS_PREFIX).await?;
        Ok(Epochs::of(listed.into_iter().map(|listed| listed.name)))
    }

    /// Who has the replica, for the host of this number.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn standing(&self, epochs: &Epochs, host: &str) -> Result<Standing, StoreError> {
        let Some((last, holder)) = self.last(epochs).await? else { return Ok(Standing::Free) };
        Ok(if holder.as_ref().is_some_and(|holder| holder.host == host) {
            Standing::Own
        } else if epochs.is_released(last) {
            Standing::Released
        } else {
            Standing::Held(last, holder)
        })
    }

    /// The highest epoch that somebody got, and who, as far as that can be read. One that several claimed,
    /// and none of them began, nobody did.
    async fn last(&self, epochs: &Epochs) -> Result<Option<(Epoch, Option<Holder>)>, StoreError> {
        for epoch in epochs.claimed() {
            if epochs.is_begun(epoch) {
                let bytes = self.small(ObjectName::Base(epoch)).await?;
                let base = bytes.and_then(|bytes| BaseRecord::decode(epoch, &bytes).ok());
                return Ok(Some((epoch, base.map(|base| base.holder))));
            }
            let claim = match epochs.claims_of(epoch)[..] {
                [claim] => self.small(claim.into()).await?,
                // Both are one writer's where they hold the same: each claim has a number of its own.
                [plain, other] if plain.nonce.is_none() => {
                    let (plain, other) =
                        (self.small(plain.into()).await?, self.small(other.into()).await?);
                    if plain.is_none() || plain != other {
                        continue;
                    }
                    other
                }
                _ => continue,
            };
            let record = claim.and_then(|bytes| unseal::<ClaimRecord>(&bytes).ok());
            return Ok(Some((epoch, record.map(|record| record.holder))));
        }
        Ok(None)
    }

    async fn small(&self, name: ObjectName) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&name).await {
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// Says that an epoch has ended, with everything stored: up to which transaction, if there is any.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release(fence: &Fence, last: Option<Txid>) -> Result<(), ReplicaError> {
        let (epoch, time) = (fence.epoch().0, clock::wall().to_string());
        let record = ReleaseRecord { epoch, time, txid: last.map(|last| last.0) };
        let name = ObjectName::Release(fence.epoch());
        let bytes = seal(&record).map_err(|error| ObjectError::damaged(name, error))?;
        Ok(fence.store.create(&name, Body::Bytes(bytes)).await?)
    }

    /// Claims the epoch after the highest of `epochs`; `None` when somebody else has claimed it since
    /// they were listed.
    ///
    /// # Errors
    /// [`ReplicaError`].
    pub async fn claim(
        &self,
        epochs: &Epochs,
        holder: &Holder,
    ) -> Result<Option<Fence>, ReplicaError> {
        let epoch = epochs.highest().unwrap_or(Epoch(0)).next();
        let epoch = epoch.ok_or(ReplicaError::EpochsExhausted)?;
        let claims = self.store.claims(&ObjectName::Genesis).await?;
        let random = || durable::random().map_err(ReplicaError::Random);
        let nonce = match claims {
            Claims::Exclusive => None,
            Claims::Shared => Some(random()?),
        };
        let name = ClaimName { epoch, nonce };
        let record = ClaimRecord {
            holder: holder.clone(),
            nonce: format!("{:016x}{:016x}", random()?, random()?),
        };
        let bytes = seal(&record).map_err(|error| ObjectError::damaged(name, error))?;
        // The only name that one looks for that holds the epoch before by such a name. It comes first: who is
        // killed in between has passed the other all the same.
        let plain = ClaimName { epoch, nonce: None };
        let also = (nonce.is_some() && epochs.highest_is(false)).then_some(plain);
        for name in also.into_iter().chain([name]) {
            match self.store.create(&name.into(), Body::Bytes(bytes.clone())).await {
                Err(error) if error.kind == StoreErrorKind::AlreadyExists => return Ok(None),
                other => other?,
            }
        }
        // Where nonces are in use, to have created a name says nothing of theirs.
        let is_alone = if nonce.is_some() || epochs.highest_is(true) {
            let listed = list(&*self.store, epoch).await?;
            let is_ours = |claim: &ClaimName| *claim == name || Some(*claim) == also;
            listed.contains(&name) && listed.iter().all(is_ours)
        } else {
            true
        };
        let fence = Fence { store: Arc::clone(&self.store), name, claims };
        Ok(is_alone.then_some(fence))
    }
}
