//! Claims the replica, and asks it and the spool where recording begins.
//!
//! What fails on the local disk after the claim is tried again with what was claimed: an epoch and an
//! inventory cost a replica more than a try is worth.

mod adopt;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use genesis_snapshot::inventory::{Inventory, Line};
use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::time::{Micros, Millis};

use self::adopt::{Adopted, adopt_spool};
use super::capture::Known;
use super::establish::Origin;
use super::follow::Words;
use super::kept::KeptPacks;
use super::merging::Teller;
use super::ownership::{Allowed, Candidate};
use super::restored::RestoredState;
use super::spool::Spool;
use super::table::{Sources, at_tip};
use crate::blocking::blocking;
use crate::clock;
use crate::replica::{Fence, Holder, Replica, ReplicaError, Tip};
use crate::store::Store;

/// Where to ask.
#[derive(Debug, Clone)]
pub struct Question {
    /// The replica.
    pub store: Arc<dyn Store>,
    /// The spool.
    pub spool: Spool,
    /// The folder of local state.
    pub folder: PathBuf,
    /// What an unfinished snapshot has left.
    pub kept: KeptPacks,
    /// The random number of this host's state.
    pub host: String,
    /// What the operator allows.
    pub allowed: Allowed,
    /// To the follower.
    pub follower: Words,
    /// Who is told what is there to be merged.
    pub teller: Teller,
    /// The database.
    pub database: PathBuf,
}

/// A replica that is claimed, as it was then.
#[derive(Debug)]
pub struct Claimed {
    fence: Fence,
    replica: Replica,
    inventory: Inventory,
    tip: Option<Tip>,
    /// The line of the tip, as it was before the claim.
    line: Option<Line>,
    restored: Option<RestoredState>,
    spool: Spool,
    folder: PathBuf,
    kept: KeptPacks,
}

/// Claims an epoch, and reads what the replica holds.
///
/// # Errors
/// [`ReplicaError`]; [`ReplicaError::Local`] only before anything is claimed. A tip that is damaged is
/// none: it is logged, and nothing is known to continue it.
pub async fn claim(question: Question) -> Result<Claimed, ReplicaError> {
    let Question { store, spool, folder, kept, host, allowed, follower, .. } = question;
    let (teller, database) = (question.teller, question.database);
    let restored = RestoredState::read(&folder, &database);
    let replica = Replica::open_or_create(store).await?;
    let holder = holder(host);
    let fence = Candidate {
        replica: &replica,
        holder: &holder,
        allowed,
        spool: &spool,
        folder: &folder,
        database: &database,
        follower: &follower,
        restored: restored.as_ref(),
    };
    let fence = fence.claim().await?;
    let epoch = fence.epoch();
    let history = replica.history().await?;
    let found = replica.tip(&history.inventory).await;
    let tip = unless_damaged(found, "the tip of the replica")?.flatten();
    let inventory = replica.continue_with(epoch, &holder, &history, tip.as_ref()).await?;
    teller.begin(&inventory);
    let line = tip.and_then(|tip| history.inventory.generation(tip.generation)).cloned();
    Ok(Claimed { fence, replica, inventory, tip, line, restored, spool, folder, kept })
}

impl Claimed {
    /// The epoch.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Finds the newest state that the replica and the spool hold together, with the hashes of its
    /// pages.
    ///
    /// # Errors
    /// [`ReplicaError`]; after [`ReplicaError::Local`] it can be tried again.
    pub async fn origin(&self) -> Result<Origin, ReplicaError> {
        let Self { spool, tip, line, .. } = self;
        let (epoch, tip) = (self.fence.epoch(), *tip);
        let adopted = {
            let (spool, line) = (spool.clone(), line.clone());
            blocking(move || adopt_spool(&spool, tip, line.as_ref(), epoch)).await
        };
        let adopted = adopted.map_err(io::Error::other).flatten().map_err(ReplicaError::Local)?;
        let found = Found {
            replica: &self.replica,
            inventory: &self.inventory,
            spool,
            folder: self.folder.clone(),
            epoch,
            stored: tip.map(|tip| tip.reached.txid),
            adopted,
        };
        found.origin(self.restored.as_ref(), &self.kept).await
    }
}

/// What the replica and the spool hold.
struct Found<'a> {
    replica: &'a Replica,
    inventory: &'a Inventory,
    spool: &'a Spool,
    folder: PathBuf,
    epoch: Epoch,
    stored: Option<Txid>,
    adopted: Adopted,
}

impl Found<'_> {
    /// Where recording begins.
    async fn origin(
        self,
        restored: Option<&RestoredState>,
        kept: &KeptPacks,
    ) -> Result<Origin, ReplicaError> {
        let Self { replica, inventory, spool, folder, epoch, stored, adopted } = self;
        let used = inventory.highest_used().max(adopted.highest).unwrap_or(Txid(0));
        let free = used.next().ok_or(ReplicaError::TxidsExhausted)?;
        let tip = adopted.tip;
        let unshipped: Vec<_> = adopted.unshipped.into_iter().collect();
        // Where the tip cannot be read, there are still the names.
        let named = || inventory.last_time().map_or(Micros(0), Millis::micros);
        let last_time = tip.map_or_else(named, |tip| tip.reached.time);
        let branch = branch(restored, tip.as_ref(), inventory);
        let tip = tip.filter(|_| branch.is_none());
        let sources = Sources { replica, inventory, spool, unshipped: &unshipped, folder };
        let table = match &tip {
            Some(tip) => at_tip(&sources, tip).await?,
            None => None,
        };
        let (line, until) = match &branch {
            Some(from) => (inventory.generation(from.generation), from.txid),
            None => (inventory.latest_generation(), Txid(u64::MAX)),
        };
        let previous = newest_manifest(replica, line, until).await?;
        let parent = match (&branch, &tip, &previous) {
            (Some(from), ..) => Some((from.generation, from.txid)),
            (None, Some(tip), Some(newest)) if newest.stamp.generation == tip.generation => {
                newest.parent
            }
            _ => None,
        };
        let mut resumed = Known::default();
        // Where the history cannot be used, none of its packs is believed to be of use.
        let is_usable = tip.is_none() || table.is_some();
        let is_there = |manifest: &Manifest| {
            manifest.packs.iter().all(|pack| inventory.pack(pack.name).is_some())
        };
        let previous = previous.filter(|manifest| is_usable && is_there(manifest));
        if is_usable {
            kept.recall(inventory, &mut resumed);
        }
        Ok(Origin {
            epoch,
            tip,
            unshipped,
            table,
            previous,
            resumed,
            stored,
            free,
            last_time,
            parent,
            branch,
        })
    }
}

/// The state from which another line of history begins: that to which the database was restored, unless
/// it is the tip, with which its line goes on, or of another replica.
fn branch(
    restored: Option<&RestoredState>,
    tip: Option<&Tip>,
    inventory: &Inventory,
) -> Option<RestoredState> {
    let restored = restored?;
    if tip.is_some_and(|tip| restored.is(tip))
        || inventory.generation(restored.generation).is_none()
    {
        restored.forget();
        return None;
    }
    let (generation, txid) = (restored.generation, restored.txid.0);
    tracing::warn!(
        %generation, txid,
        "the database was restored to an earlier state: another line of history begins with it"
    );
    Some(restored.clone())
}

/// This process, as it tells others of itself.
fn holder(host: String) -> Holder {
    let uname = rustix::system::uname();
    let name = uname.nodename().to_string_lossy().into_owned();
    Holder { host, name, pid: std::process::id(), since: clock::wall().to_string() }
}

/// The newest snapshot of a line that is not after a transaction.
async fn newest_manifest(
    replica: &Replica,
    line: Option<&Line>,
    txid: Txid,
) -> Result<Option<Box<Manifest>>, ReplicaError> {
    let by_then = |line: &Line| line.manifests().iter().rfind(|m| m.name.txid <= txid).copied();
    let Some(newest) = line.and_then(by_then) else { return Ok(None) };
    let manifest = replica.manifest(newest.name).await.map_err(ReplicaError::Object);
    Ok(unless_damaged(manifest, "the newest snapshot")?.map(Box::new))
}

/// What was read, unless objects that are damaged or missing are in the way, which is logged.
pub fn unless_damaged<T>(
    result: Result<T, ReplicaError>,
    what: &str,
) -> Result<Option<T>, ReplicaError> {
    match result {
        Err(ReplicaError::Object(error)) if error.useless().is_some() => {
            tracing::error!(%error, "{what} cannot be used");
            Ok(None)
        }
        other => other.map(Some),
    }
}
