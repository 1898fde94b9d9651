//! Whether a start may take the replica, and how it does.

use std::path::Path;
use std::time::Duration;

use genesis_snapshot::inventory::Inventory;
use tokio::sync::oneshot;

use super::follow::{Word, Words};
use super::followed::was_followed;
use super::likeness::{Likeness, Thoroughness};
use super::origin::unless_damaged;
use super::restored::RestoredState;
use super::spool::Spool;
use super::table::{Sources, at_tip};
use crate::durable;
use crate::replica::{Epochs, Fence, Holder, Replica, ReplicaError, Standing, Tip};

/// The longest pause before an epoch is claimed that several wanted at once.
const CLAIM_PAUSE: Duration = Duration::from_millis(200);

/// What the operator allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// To take the replica over from a host that has not released it.
    pub takeover: bool,
    /// To begin another line of history with another database.
    pub new_generation: bool,
}

/// A start that wants a replica.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The replica.
    pub replica: &'a Replica,
    /// This process.
    pub holder: &'a Holder,
    /// What the operator allows.
    pub allowed: Allowed,
    /// The spool.
    pub spool: &'a Spool,
    /// The folder of local state.
    pub folder: &'a Path,
    /// The database.
    pub database: &'a Path,
    /// To the follower, which can read the database.
    pub follower: &'a Words,
    /// The state to which the database was restored.
    pub restored: Option<&'a RestoredState>,
}

impl Candidate<'_> {
    /// Claims the replica, where this start may have it: when nobody else had it last, or whoever did
    /// has released it, and this file was followed before or is no other database; when the database is what the replica holds, as it was restored to that or is
    /// equal page by page; or when the operator says so, of who has it now.
    ///
    /// # Errors
    /// [`ReplicaError::Held`], [`ReplicaError::Another`], or when the replica fails.
    pub async fn claim(&self) -> Result<Fence, ReplicaError> {
        let mut first_seen = None;
        loop {
            let epochs = self.replica.epochs().await?;
            let of_whom = *first_seen.get_or_insert(epochs.highest());
            let takeover = self.allowed.takeover && of_whom == epochs.highest();
            self.check(&epochs, takeover).await?;
            if let Some(fence) = self.replica.claim(&epochs, self.holder).await? {
                return Ok(fence);
            }
            let random = durable::random().map_err(ReplicaError::Random)?;
            let longest = u64::try_from(CLAIM_PAUSE.as_nanos()).unwrap_or(u64::MAX);
            tokio::time::sleep(Duration::from_nanos(random % longest)).await;
        }
    }

    async fn check(&self, epochs: &Epochs, takeover: bool) -> Result<(), ReplicaError> {
        let is_known = was_followed(self.folder, self.database);
        let held = match self.replica.standing(epochs, &self.holder.host).await? {
            Standing::Free | Standing::Own => return Ok(()),
            Standing::Released if is_known => return Ok(()),
            Standing::Released => None,
            Standing::Held(epoch, holder) => Some((epoch, holder)),
        };
        let (inventory, tip) = self.look().await?;
        let thoroughness = match &held {
            Some(_) if !takeover => Thoroughness::Whole,
            _ => Thoroughness::Sample,
        };
        if tip.is_some_and(|tip| self.restored.is_some_and(|restored| restored.is(&tip))) {
            return Ok(());
        }
        // What was restored to an earlier state may differ in any number of pages.
        let is_earlier =
            |restored: &RestoredState| inventory.generation(restored.generation).is_some();
        let likeness = match &tip {
            Some(tip) if !self.restored.is_some_and(is_earlier) => {
                self.compare(&inventory, tip, thoroughness).await?
            }
            _ => None,
        };
        if let Some(likeness) = likeness.filter(|_| !self.allowed.new_generation) {
            likeness.check()?;
        }
        let Some((epoch, holder)) = held.filter(|_| !takeover) else { return Ok(()) };
        // Whoever has it may be alive: then it goes on while pages are compared.
        if likeness.is_some_and(Likeness::is_equal) && self.look().await?.1 == tip {
            tracing::info!(
                epoch = epoch.0,
                "the database is what the replica holds: taking it over"
            );
            return Ok(());
        }
        Err(ReplicaError::Held { epoch, holder })
    }

    async fn look(&self) -> Result<(Inventory, Option<Tip>), ReplicaError> {
        let inventory = self.replica.history().await?.inventory;
        let tip = self.replica.tip(&inventory).await;
        let tip = unless_damaged(tip, "the tip of the replica")?.flatten();
        Ok((inventory, tip))
    }

    /// How much of the tip's pages the database holds; `None` where nobody knows.
    async fn compare(
        &self,
        inventory: &Inventory,
        tip: &Tip,
        thoroughness: Thoroughness,
    ) -> Result<Option<Likeness>, ReplicaError> {
        let Self { replica, spool, folder, .. } = self;
        let sources = Sources { replica, inventory, spool, unshipped: &[], folder: folder.into() };
        let Some(table) = at_tip(&sources, tip).await? else { return Ok(None) };
        let (reply, answer) = oneshot::channel();
        self.follower.tell(Word::Compare(Box::new(table), thoroughness, reply));
        Ok(answer.await.unwrap_or(None))
    }
}
