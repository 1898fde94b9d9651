//! Epochs: who may write, and until when.
//!
//! A writer claims the epoch after the highest by creating an object of that name. Where several may be
//! told that they created a name, the name carries a nonce, and the claim counts if no other claim of
//! that epoch is listed after it was made: of two that are made at once, the later one sees the
//! earlier. Who does not get an epoch looks again.
//!
//! Nothing of a writer is durable before a look that begins after it was stored has found no later
//! claim: whoever claims after that finds it.

use genesis_wal::id::Epoch;
use genesis_wal::name::{ClaimName, EPOCHS_PREFIX, ObjectName};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::sealed::{seal, unseal};
use super::{Replica, ReplicaError};
use crate::durable;
use crate::object::ObjectError;
use crate::store::{Body, Claims, Store, StoreError, StoreErrorKind};

/// Who holds an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Tells one host's state of this database from every other: a random number.
    pub host: String,
    /// What the host calls itself.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// When it began, by its own clock.
    pub since: String,
}

/// `epochs/<epoch>` or `epochs/<epoch>-<nonce>`. The nonce tells this claim from every other.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClaimRecord {
    holder: Holder,
    nonce: String,
}

/// What is listed of the epochs of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Epochs {
    claims: Vec<ClaimName>,
}

impl Epochs {
    /// The epochs in a listing.
    #[must_use]
    pub fn of(names: impl IntoIterator<Item = ObjectName>) -> Self {
        let claim = |name| match name {
            ObjectName::Claim(claim) => Some(claim),
            _ => None,
        };
        Self { claims: names.into_iter().filter_map(claim).collect() }
    }

    /// The highest epoch that was ever claimed, whether anybody got it or not.
    #[must_use]
    pub fn highest(&self) -> Option<Epoch> {
        self.claims.iter().map(|claim| claim.epoch).max()
    }

    /// The claims of an epoch.
    fn claims_of(&self, epoch: Epoch) -> impl Iterator<Item = ClaimName> {
        self.claims.iter().copied().filter(move |claim| claim.epoch == epoch)
    }
}

/// Tells whether an epoch is still the highest.
#[derive(Debug, Clone)]
pub struct Fence {
    store: Arc<dyn Store>,
    epoch: Epoch,
    claims: Claims,
}

impl Fence {
    /// The epoch that it guards.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
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
        let Some(next) = self.epoch.next() else { return Ok(false) };
        match self.claims {
            Claims::Exclusive => {
                self.store.exists(&ClaimName { epoch: next, nonce: None }.into()).await
            }
            Claims::Shared => Ok(!list(&*self.store, next).await?.is_empty()),
        }
    }
}

/// The claims of an epoch, listed.
async fn list(store: &dyn Store, epoch: Epoch) -> Result<Vec<ClaimName>, StoreError> {
    let listed = store.list(&format!("{EPOCHS_PREFIX}{epoch}")).await?;
    Ok(Epochs::of(listed.into_iter().map(|listed| listed.name)).claims)
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

    /// Who claimed an epoch, as far as one claim of it is there and can be read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn holder(
        &self,
        epochs: &Epochs,
        epoch: Epoch,
    ) -> Result<Option<Holder>, StoreError> {
        let claims: Vec<_> = epochs.claims_of(epoch).collect();
        let [claim] = claims[..] else { return Ok(None) };
        match self.store.get(&claim.into()).await {
            Ok(bytes) => Ok(unseal::<ClaimRecord>(&bytes).ok().map(|claim| claim.holder)),
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
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
        match self.store.create(&name.into(), Body::Bytes(bytes)).await {
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => return Ok(None),
            other => other?,
        }
        let is_alone = claims == Claims::Exclusive || list(&*self.store, epoch).await? == [name];
        let fence = Fence { store: Arc::clone(&self.store), epoch, claims };
        Ok(is_alone.then_some(fence))
    }
}
