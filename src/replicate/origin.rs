//! Claims the replica, and asks it and the spool where recording begins.
//!
//! What fails on the local disk after the claim is tried again with what was claimed: an epoch and an
//! inventory cost a replica more than a try is worth.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use genesis_snapshot::inventory::{Inventory, Line};
use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::SegmentName;
use genesis_wal::part::{Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{Reached, Sequence};
use genesis_wal::time::{Micros, Millis};

use super::capture::Known;
use super::establish::Origin;
use super::follow::Word;
use super::kept::KeptPacks;
use super::merging::Teller;
use super::ownership::{Allowed, Candidate};
use super::restored::RestoredState;
use super::spool::{PartFile, Spool};
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
    pub follower: Sender<Word>,
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

/// What became of the spool.
#[derive(Debug, Default)]
struct Adopted {
    /// The newest state of replica and spool together.
    tip: Option<Tip>,
    /// What must be shipped for it, in this order.
    unshipped: BTreeSet<SegmentName>,
    /// The highest transaction that a segment in the spool was named for.
    highest: Option<Txid>,
}

impl Adopted {
    /// Whether a segment is one that was adopted with another stamp: a start was killed after it had put
    /// that on it, and before the one without was removed.
    fn has(&self, spool: &Spool, name: &SegmentName, epoch: Epoch) -> io::Result<bool> {
        let adopted = self.tip.map(|tip| {
            let generation = tip.generation;
            SegmentName { generation, epoch, ..*name }
        });
        Ok(match adopted.filter(|adopted| self.unshipped.contains(adopted)) {
            Some(adopted) => whole(spool.is_same(name, &adopted))?.unwrap_or(false),
            None => false,
        })
    }
}

/// Moves the tip over the sealed segments that continue it, which are stamped with the new epoch.
/// Those that its line holds are dropped, and those from before a snapshot that overtook them are
/// shipped. All others are put aside: what they hold may be nowhere else. So are those that were sealed when
/// another writer had gone on without them. What this start puts aside stays, whatever its size; what
/// earlier ones did goes when it is too much.
///
/// What was shipped, and is not there any more, is shipped again as far as it is kept.
///
/// After an error it can be called again: what has the epoch's stamp is left as it is.
fn adopt_spool(
    spool: &Spool,
    tip: Option<Tip>,
    line: Option<&Line>,
    epoch: Epoch,
) -> io::Result<Adopted> {
    let mut adopted = Adopted { tip, ..Adopted::default() };
    if let (Some(tip), Some(line)) = (tip, line) {
        ship_again(spool, &tip, line)?;
    }
    for name in spool.sealed()? {
        adopted.highest = adopted.highest.max(Some(name.last));
        if adopted.unshipped.contains(&name) {
            continue;
        }
        let is_past =
            |tip: &Tip| tip.generation == name.generation && name.last <= tip.reached.txid;
        let is_history = line.is_some_and(|line| line.last_in(&name) == name.last);
        if let Some(tip) = tip.filter(|tip| is_history && is_past(tip)) {
            if line.is_some_and(|line| line.holds(&name)) {
                spool.remove(&name)?;
                continue;
            }
            if read_through(spool, &name, None)?.is_some() {
                let stamp = Stamp { generation: tip.generation, epoch };
                adopted.unshipped.insert(spool.restamp(&name, stamp)?);
                continue;
            }
        }
        if adopted.has(spool, &name, epoch)? {
            spool.remove(&name)?;
            continue;
        }
        let continued = match &adopted.tip {
            Some(tip) if tip.reached.txid.next() == Some(name.first) => {
                continuation(spool, &name, tip)?
            }
            _ => None,
        };
        if let Some(tip) = continued {
            let stamp = Stamp { generation: tip.generation, epoch };
            adopted.unshipped.insert(spool.restamp(&name, stamp)?);
            adopted.tip = Some(tip);
        } else {
            let aside = spool.set_aside(&name)?;
            let aside = aside.display();
            tracing::error!(%name, %aside, "a segment in the spool continues nothing: put aside");
        }
    }
    Ok(adopted)
}

/// Lets what is kept of the tip's line, and is above the tip, wait for upload once more: only what was
/// durable is kept, so the replica has lost it.
fn ship_again(spool: &Spool, tip: &Tip, line: &Line) -> io::Result<()> {
    let mut reached = tip.reached.txid;
    for name in spool.kept_above(tip.generation, reached) {
        if line.last_in(&name) < name.last {
            continue;
        }
        let (transaction, continues) = (name.first.0, reached.next() == Some(name.first));
        tracing::error!(
            %name,
            transaction,
            again = continues && name.level == 0,
            "what was durable is missing in the replica: it is shipped again where it continues the rest"
        );
        if continues && name.level == 0 {
            spool.ship_again(&name)?;
            reached = name.last;
        }
    }
    Ok(())
}

/// The state after a sealed segment; `None` when it is damaged or does not continue `tip`.
fn continuation(spool: &Spool, name: &SegmentName, tip: &Tip) -> io::Result<Option<Tip>> {
    let sequence = Sequence::new(tip.generation, tip.page_size, tip.reached);
    let reached = read_through(spool, name, Some(sequence))?;
    Ok(reached.map(|reached| Tip { reached, ..*tip }))
}

/// The state after a sealed segment that holds the transactions of its name and continues `sequence`, or
/// itself where that is not known; `None` where it does not.
fn read_through(
    spool: &Spool,
    name: &SegmentName,
    mut sequence: Option<Sequence>,
) -> io::Result<Option<Reached>> {
    let mut parts = PartFile::open(&spool.path(name))?;
    let mut first = None;
    loop {
        let Some(part) = whole(parts.next_part())? else { return Ok(None) };
        let Some(bytes) = part else { break };
        let Ok(part) = Part::decode(&mut Reader::new(&bytes)) else { return Ok(None) };
        first = first.or(Some(part.header.first));
        let sequence = sequence.get_or_insert_with(|| Sequence::beginning_with(&part.header));
        if sequence.accept(&part).is_err() {
            return Ok(None);
        }
    }
    let reached = sequence.and_then(|sequence| sequence.finish().ok());
    Ok(reached.filter(|reached| (first, reached.txid) == (Some(name.first), name.last)))
}

/// What was read of a segment; `None` when that is damaged. A disk that fails says nothing of it.
fn whole<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use genesis_snapshot::inventory::Inventory;
    use genesis_wal::id::Generation;
    use genesis_wal::name::{ManifestName, ObjectName};
    use genesis_wal::page::{PageSize, StateHash};

    use super::*;
    use crate::replicate::spool::Limits;

    #[test]
    fn a_disk_that_fails_is_no_damage() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert_eq!(whole::<()>(Err(kind.into())).unwrap_err().kind(), kind);
        }
        let failing = io::Error::from(rustix::io::Errno::IO);
        assert!(whole::<()>(Err(failing)).is_err());
        assert_eq!(whole::<()>(Err(io::ErrorKind::UnexpectedEof.into())).unwrap(), None);
    }

    #[test]
    fn a_damaged_segment_from_before_a_snapshot_is_put_aside() {
        // A power failure leaves one empty, too.
        for content in [&[0x5a; 500][..], &[]] {
            assert_put_aside(content);
        }
    }

    fn assert_put_aside(content: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().into(), Limits { keep: 0, wait: None }).unwrap();
        let (generation, time) = (Generation { epoch: Epoch(1), random: 7 }, Millis(1));
        let (first, last, epoch) = (Txid(2), Txid(3), Epoch(1));
        let name = SegmentName { generation, level: 0, first, last, time, epoch, repair: 0 };
        let mut segment = spool.begin().unwrap();
        segment.append(content).unwrap();
        segment.seal(&name).unwrap();
        let snapshot =
            ManifestName { generation, txid: Txid(5), time, epoch, attempt: 0, repair: 0 };
        let inventory = Inventory::from_objects([(ObjectName::from(snapshot), 1)]);
        let (state, page_size) = (StateHash(0), PageSize::new(4096).unwrap());
        let reached = Reached { txid: Txid(5), time: Micros(1), state, position: None };
        let tip = Tip { generation, page_size, reached };
        let line = inventory.generation(generation);
        let adopted = adopt_spool(&spool, Some(tip), line, Epoch(2)).unwrap();
        assert_eq!((adopted.unshipped, adopted.highest), (BTreeSet::new(), Some(last)));
        assert!(folder.path().join("orphans").join(name.to_string()).exists());
    }
}
