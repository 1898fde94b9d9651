//! What a replica holds, as much of it as a restore asks for.
//!
//! A segment a second makes 86,400 names a day, of which a restore needs some hundred: the others are of
//! what was merged. So a replica that does not fit on one page of a listing is listed without its
//! segments: its [outline](Replica::open_outlined), which tells the line of history and the snapshot. Of
//! [that line](Replica::line) all merged segments are listed then, and of level 0 what these do not hold.
//!
//! Nothing is missed by that: what a segment of level 0 holds of history no other one holds, and merged
//! ones begin and end where some of level 0 do. So one of level 0 that begins in a merged one ends in it.
//! Merged ones are another matter: one that goes on from the snapshot may begin long before it, and they may
//! lie across one another. So all of them are listed: one for each 31 others.
//!
//! Nor is anything missed for its being deleted meanwhile, though the merged ones are listed first, as long
//! as whoever deletes what they hold does so a day after they were stored at the earliest. And the epochs are
//! listed last, as in a whole listing: what somebody wrote who was passed is not taken for history.
//!
//! What is found so is believed; that something is missing is not, and needs the whole listing.

use std::sync::Arc;

use genesis_snapshot::inventory::Inventory;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{EPOCHS_PREFIX, ManifestName, ObjectName, SegmentName};

use super::base::{newest, of_history};
use super::{Replica, ReplicaError};
use crate::store::{Listed, Page, Store};

/// What is known of what a replica holds.
#[derive(Debug, Clone)]
pub struct Holdings {
    /// What of it is history.
    pub inventory: Inventory,
    /// Where segments were left out, what was listed without them.
    outline: Option<Arc<Outline>>,
}

#[derive(Debug)]
struct Outline {
    /// Everything but segments.
    listed: Vec<Listed>,
    /// The epochs that are known, with their bases.
    bases: Vec<(Epoch, Txid)>,
    /// How far everything was stored when the newest writer ended.
    ended: Option<Txid>,
}

impl Outline {
    /// What of it is history, with some segments or without.
    fn history(&self, listed: &[Listed]) -> Inventory {
        of_history(listed, self.bases.iter().copied(), self.ended)
    }

    /// Whether anybody has written since the newest epoch that is known, who then had a base.
    fn lacks_a_base(&self, listed: &[Listed]) -> bool {
        let known = newest(&self.listed);
        listed.iter().filter_map(|object| epoch(object.name)).max() > known
    }
}

impl Holdings {
    /// Everything that a replica holds.
    #[must_use]
    pub fn whole(inventory: Inventory) -> Self {
        Self { inventory, outline: None }
    }

    /// Whether nothing was left out.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.outline.is_none()
    }
}

impl Replica {
    /// Opens the replica in a store and lists it without its segments, at once; with them where one page
    /// tells everything.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`inventory`](Self::inventory).
    pub async fn open_outlined(store: Arc<dyn Store>) -> Result<(Self, Holdings), ReplicaError> {
        let (replica, page) =
            tokio::join!(Self::open(Arc::clone(&store)), store.list_after("", ""));
        let replica = replica?;
        let holdings = replica.outline_from(page?).await?;
        Ok((replica, holdings))
    }

    /// Lists the replica without its segments; with them where one page tells everything.
    ///
    /// # Errors
    /// As [`inventory`](Self::inventory).
    pub async fn outline(&self) -> Result<Holdings, ReplicaError> {
        let page = self.store.list_after("", "").await?;
        self.outline_from(page).await
    }

    /// Lists everything.
    ///
    /// # Errors
    /// As [`inventory`](Self::inventory).
    pub async fn holdings(&self) -> Result<Holdings, ReplicaError> {
        Ok(Holdings::whole(self.inventory().await?))
    }

    async fn outline_from(&self, mut page: Page) -> Result<Holdings, ReplicaError> {
        if page.next.is_none() {
            return Ok(Holdings::whole(self.inventory_in(page.objects).await?));
        }
        let mut listed = Vec::new();
        loop {
            let last = page.objects.last().map(|last| last.name);
            listed.extend(page.objects.into_iter().filter(|object| !is_segment(object)));
            let Some(next) = page.next else { break };
            let next = match last {
                Some(ObjectName::Segment(name)) => next.max(SegmentName::behind(name.generation)),
                _ => next,
            };
            page = self.store.list_after("", &next).await?;
        }
        // Nobody wrote into a line before its first writer.
        let oldest = listed.iter().filter_map(generation).map(|line| line.epoch).min();
        let (bases, ended) =
            tokio::join!(self.bases(oldest, newest(&listed), Vec::new()), self.ended(&listed));
        let bases = match bases {
            // Segments may tell what is missing then.
            Err(ReplicaError::Object(_)) => return self.holdings().await,
            other => other?,
        };
        let outline = Outline { listed, bases, ended: ended? };
        if outline.lacks_a_base(&outline.listed) {
            return self.holdings().await;
        }
        let inventory = outline.history(&outline.listed);
        Ok(Holdings { inventory, outline: Some(Arc::new(outline)) })
    }

    /// Lists what continues a snapshot, if that was left out.
    ///
    /// # Errors
    /// As [`inventory`](Self::inventory).
    pub async fn line(
        &self,
        holdings: Holdings,
        snapshot: ManifestName,
    ) -> Result<Holdings, ReplicaError> {
        let Some(outline) = holdings.outline else { return Ok(holdings) };
        let ManifestName { generation, txid, .. } = snapshot;
        let mut listed = outline.listed.clone();
        listed.extend(self.merged(generation).await?);
        let merged = outline.history(&listed);
        listed.extend(self.not_merged(&merged, generation, txid).await?);
        let epochs = self.store.list(EPOCHS_PREFIX).await?;
        let is_same = epochs.iter().eq(outline.listed.iter().filter(|object| is_of_epochs(object)));
        if !is_same || outline.lacks_a_base(&listed) {
            return self.holdings().await;
        }
        Ok(Holdings { inventory: outline.history(&listed), outline: Some(outline) })
    }

    /// The merged segments of a generation.
    async fn merged(&self, generation: Generation) -> Result<Vec<Listed>, ReplicaError> {
        let (prefix, mut listed) = (SegmentName::prefix(generation), Vec::new());
        let mut next = Some(SegmentName::start(generation, 1, Txid(0)));
        while let Some(after) = next {
            let page = self.store.list_after(&prefix, &after).await?;
            listed.extend(page.objects);
            next = page.next;
        }
        Ok(listed)
    }

    /// The segments of level 0 that continue a state, and are not in the merged ones.
    async fn not_merged(
        &self,
        merged: &Inventory,
        generation: Generation,
        from: Txid,
    ) -> Result<Vec<Listed>, ReplicaError> {
        let start = |txid| SegmentName::start(generation, 0, txid);
        let (prefix, mut listed) = (SegmentName::prefix_of_level(generation, 0), Vec::new());
        let holes = merged.generation(generation).map(|line| line.not_held(from));
        let mut after = String::new();
        for hole in holes.unwrap_or_default() {
            after = after.max(start(*hole.start()));
            let end = hole.end().next().map_or(start(Txid(u64::MAX)), start);
            while after < end {
                let page = self.store.list_after(&prefix, &after).await?;
                listed.extend(page.objects);
                let Some(next) = page.next else { return Ok(listed) };
                after = next;
            }
        }
        Ok(listed)
    }
}

fn is_segment(object: &Listed) -> bool {
    matches!(object.name, ObjectName::Segment(_))
}

fn is_of_epochs(object: &Listed) -> bool {
    matches!(object.name, ObjectName::Claim(_) | ObjectName::Base(_) | ObjectName::Release(_))
}

/// Whose an object is that is written after a base.
fn epoch(name: ObjectName) -> Option<Epoch> {
    match name {
        ObjectName::Manifest(name) => Some(name.epoch),
        ObjectName::Pack(name) => Some(name.epoch),
        ObjectName::Segment(name) => Some(name.epoch),
        _ => None,
    }
}

fn generation(object: &Listed) -> Option<Generation> {
    match object.name {
        ObjectName::Manifest(name) => Some(name.generation),
        _ => None,
    }
}
