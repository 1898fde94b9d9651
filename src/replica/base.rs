//! What an epoch continues: `epochs/<epoch>.base`, written once, after the claim and before anything
//! else of that epoch.
//!
//! The record tells the state that the writer found as the newest, and which earlier epochs it knew
//! of, with their bases: the newest 256, newest first. So the newest base tells which records are
//! history, and which writers never counted: see [`Cuts`]. A base that was written late, by a writer
//! that others had passed meanwhile, is named by none of theirs, and cuts nothing.

use genesis_snapshot::inventory::{Cuts, Inventory};
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::ObjectName;

use super::records::{BaseRecord, Holder, NAMED, ReleaseRecord};
use super::sealed::seal;
use super::{Replica, ReplicaError, Tip};
use crate::object::ObjectError;
use crate::store::{Body, Listed, StoreErrorKind};

/// What a replica holds, and which epochs made it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The objects.
    pub inventory: Inventory,
    /// All that was listed.
    listed: Vec<Listed>,
    /// The epochs that are known, with their bases, newest first; as many as the objects need, and as
    /// many as a base names, if there are.
    bases: Vec<(Epoch, Txid)>,
}

impl History {
    /// The same objects, as a writer that continues `base` sees them.
    #[must_use]
    fn cut(&self, writer: Epoch, base: Txid) -> Inventory {
        let bases = self.bases.iter().copied().chain([(writer, base)]);
        of_history(&self.listed, bases, None)
    }
}

/// What is history by these bases, where the newest writer has ended with so much stored.
pub(super) fn of_history(
    listed: &[Listed],
    bases: impl Iterator<Item = (Epoch, Txid)>,
    ended: Option<Txid>,
) -> Inventory {
    let objects = listed.iter().map(|object| (object.name, object.size));
    Inventory::of_history(objects, Cuts::new(bases).ended_with(ended))
}

impl Replica {
    /// Lists the replica, and reads which of it is history.
    ///
    /// # Errors
    /// When the store fails, or a base is damaged or missing.
    pub async fn history(&self) -> Result<History, ReplicaError> {
        let listed = self.store.list("").await?;
        let (newest, oldest) = (newest(&listed), oldest_writer(&listed));
        let (bases, ended) =
            tokio::join!(self.bases(oldest, newest, Vec::new()), self.ended(&listed));
        let (bases, ended) = (bases?, ended?);
        let inventory = of_history(&listed, bases.iter().copied(), ended);
        Ok(History { inventory, listed, bases })
    }

    /// What the replica holds as history, for those who only read it. Where the newest base is damaged or
    /// missing, what its writer has stored tells from where that went on, which is logged.
    ///
    /// # Errors
    /// As [`history`](Self::history), where it does not tell.
    pub async fn inventory(&self) -> Result<Inventory, ReplicaError> {
        self.inventory_in(self.store.list("").await?).await
    }

    /// The same of what was listed already.
    pub(super) async fn inventory_in(
        &self,
        listed: Vec<Listed>,
    ) -> Result<Inventory, ReplicaError> {
        let (newest, oldest) = (newest(&listed), oldest_writer(&listed));
        let (bases, ended) =
            tokio::join!(self.bases(oldest, newest, Vec::new()), self.ended(&listed));
        let bases = match bases {
            Err(ReplicaError::Object(error)) => {
                let told = newest.filter(|epoch| error.useless() == Some(ObjectName::Base(*epoch)));
                let told = told.and_then(|epoch| Some((epoch, began_after(&listed, epoch)?)));
                let Some((epoch, base)) = told else { return Err(error.into()) };
                let older = bases_in(&listed).filter(|older| *older < epoch).max();
                let bases = self.bases(oldest, older, vec![(epoch, base)]).await?;
                tracing::warn!(
                    %error,
                    after = base.0,
                    "what its writer has stored tells from where it went on"
                );
                bases
            }
            other => other?,
        };
        Ok(of_history(&listed, bases.into_iter(), ended?))
    }

    /// The bases that are known, with those that `epoch` leads to; as many as the objects need of which the
    /// `oldest` writer has stored some.
    pub(super) async fn bases(
        &self,
        oldest: Option<Epoch>,
        epoch: Option<Epoch>,
        mut bases: Vec<(Epoch, Txid)>,
    ) -> Result<Vec<(Epoch, Txid)>, ReplicaError> {
        let mut next = epoch;
        while let Some(epoch) = next {
            let BaseRecord { txid, before, .. } = self.base(epoch).await?;
            if bases.last().is_none_or(|(last, _)| *last != epoch) {
                bases.push((epoch, Txid(txid)));
            }
            bases.extend(before.iter().map(|&(epoch, base)| (Epoch(epoch), Txid(base))));
            let is_needed = |last: &Epoch| oldest.is_some_and(|writer| *last > writer);
            let last = before.get(NAMED - 1).map(|last| Epoch(last.0));
            next = last.filter(is_needed);
        }
        Ok(bases)
    }

    async fn base(&self, epoch: Epoch) -> Result<BaseRecord, ReplicaError> {
        let name = ObjectName::Base(epoch);
        let read = self.store.get(&name).await;
        let bytes = read.map_err(|error| ObjectError::unread(name, error))?;
        let record = BaseRecord::decode(epoch, &bytes);
        Ok(record.map_err(|error| ObjectError::damaged(name, error))?)
    }

    /// How far everything was stored when the newest writer ended, if it has, and tells.
    pub(super) async fn ended(&self, listed: &[Listed]) -> Result<Option<Txid>, ReplicaError> {
        let release = newest(listed).map(|epoch| (epoch, ObjectName::Release(epoch)));
        let is_listed = |name: &ObjectName| listed.iter().any(|object| object.name == *name);
        let Some((epoch, name)) = release.filter(|(_, name)| is_listed(name)) else {
            return Ok(None);
        };
        let read = self.store.get(&name).await.map_err(|error| ObjectError::unread(name, error));
        let record = read.and_then(|bytes| {
            let record = ReleaseRecord::decode(epoch, &bytes);
            record.map_err(|error| ObjectError::damaged(name, error))
        });
        match record {
            Ok(record) => Ok(record.txid.map(Txid)),
            Err(error) if error.useless().is_some() => {
                tracing::warn!(%error, "what is missing at the end would not be noticed");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says what an epoch continues: the tip, or, where none can be continued, all that is there or is known
    /// to have been. What the replica holds as history then.
    ///
    /// # Errors
    /// [`ReplicaError::Taken`] when somebody has written another base for it.
    pub async fn continue_with(
        &self,
        epoch: Epoch,
        holder: &Holder,
        history: &History,
        tip: Option<&Tip>,
    ) -> Result<Inventory, ReplicaError> {
        let inventory = &history.inventory;
        let found = || inventory.max_txid().max(inventory.cuts().known()).unwrap_or(Txid(0));
        let txid = tip.map_or_else(found, |tip| tip.reached.txid);
        let before = history.bases.iter().take(NAMED).map(|&(epoch, base)| (epoch.0, base.0));
        let record = BaseRecord {
            epoch: epoch.0,
            holder: holder.clone(),
            generation: tip.map(|tip| tip.generation.to_string()),
            txid: txid.0,
            state: tip.map(|tip| tip.reached.state.to_string()),
            before: before.collect(),
        };
        let name = ObjectName::Base(epoch);
        let bytes = seal(&record).map_err(|error| ObjectError::damaged(name, error))?;
        match self.store.create(&name, Body::Bytes(bytes)).await {
            Err(error) if error.kind == StoreErrorKind::AlreadyExists => {
                Err(ReplicaError::Taken(epoch))
            }
            other => {
                other?;
                Ok(history.cut(epoch, txid))
            }
        }
    }
}

/// The last epoch in which anything was written. Its base was the first: where that is not listed, it is
/// lost.
pub(super) fn newest(listed: &[Listed]) -> Option<Epoch> {
    let released = listed.iter().filter_map(|object| match object.name {
        ObjectName::Release(epoch) => Some(epoch),
        other => writer(other),
    });
    released.chain(bases_in(listed)).max()
}

/// The epochs of which a base is listed.
fn bases_in(listed: &[Listed]) -> impl Iterator<Item = Epoch> {
    listed.iter().filter_map(|object| match object.name {
        ObjectName::Base(epoch) => Some(epoch),
        _ => None,
    })
}

/// A transaction that was there when a writer began, by what it has stored: at most its base. What it found
/// above that, it has stored itself; or else it is missing, and not left out in silence. `None` when it has
/// stored nothing.
fn began_after(listed: &[Listed], writer: Epoch) -> Option<Txid> {
    let before = |txid: Txid| Txid(txid.0.saturating_sub(1));
    let tells = listed.iter().filter_map(|object| match object.name {
        // Merged ones begin with what others have stored.
        ObjectName::Segment(name) if name.epoch == writer && name.level == 0 => {
            Some(before(name.first))
        }
        ObjectName::Manifest(name) if name.epoch == writer => {
            Some(if name.generation.epoch == writer { before(name.txid) } else { name.txid })
        }
        _ => None,
    });
    tells.min()
}

/// Who was the first of those whose records are there.
fn oldest_writer(listed: &[Listed]) -> Option<Epoch> {
    listed.iter().filter_map(|object| writer(object.name)).min()
}

/// Whose records an object holds.
fn writer(name: ObjectName) -> Option<Epoch> {
    match name {
        ObjectName::Manifest(name) => Some(name.epoch),
        ObjectName::Segment(name) => Some(name.epoch),
        _ => None,
    }
}
