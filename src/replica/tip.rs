//! The tip of a replica: the newest state of its history.

use std::fmt;
use std::sync::Arc;

use genesis_snapshot::inventory::{Cuts, Gap, Inventory, Line};
use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::page::PageSize;
use genesis_wal::part::{PartHeader, Stamp};
use genesis_wal::segment::{Reached, Sequence};

use super::{Replica, ReplicaError};
use crate::object::{ObjectError, PartStream};

/// Segments that a writer may have under way at once. What stands behind a missing one of these was
/// never durable.
pub const UNDER_WAY: usize = 8;

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

impl Replica {
    /// The tip of the newest line; `None` when it holds no snapshot, its history has a gap, or ends before
    /// what a writer tells of. What a writer that was killed left behind the first of the segments that it
    /// had under way is no gap.
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
        let (reached, known) = (chain.reached, inventory.cuts().known());
        if let Some(known) = known.filter(|known| *known > reached) {
            let (latest, known) = (reached.0, known.0);
            tracing::error!(latest, known, "transactions that were in the replica are missing");
            return Ok(None);
        }
        if let Some(gap) = chain.gap {
            if !self.was_under_way(inventory, line, reached).await? {
                return Ok(None);
            }
            warn_of_left_out(gap);
        }
        if chain.segments.is_empty() {
            return self.tip_of_manifest(manifest.name).await.map(Some);
        }
        self.tip_of_line(line, chain.reached, inventory.cuts()).await
    }

    /// Whether what a line holds after `reached`, behind a gap, can be what its last writer had under way
    /// when it ended: then nothing that is known to have been durable is missing. The contrary is proven by
    /// one more segment than can be under way; by one that was made when what is missing was stored, or
    /// does not tell, or is not what its name says; by a later writer that has found it; by a writer that has
    /// ended with everything stored.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn was_under_way(
        &self,
        inventory: &Inventory,
        line: &Line,
        reached: Txid,
    ) -> Result<bool, ReplicaError> {
        if inventory.cuts().known().is_some_and(|known| known > reached) {
            return Ok(false);
        }
        let behind: Vec<_> = line.segments().iter().filter(|s| s.name.first > reached).collect();
        let Some(writer) = behind.iter().map(|segment| segment.name.epoch).max() else {
            return Ok(false);
        };
        let may_be = behind.len() < UNDER_WAY
            && behind.iter().all(|s| s.name.epoch == writer && s.name.level == 0)
            && line.segments().iter().all(|segment| segment.name.epoch <= writer);
        if !may_be || self.store().exists(&ObjectName::Release(writer)).await? {
            return Ok(false);
        }
        for segment in behind {
            match self.segment(segment.name, inventory.cuts()).await {
                Ok(Whole { stored: Some(stored), .. }) if stored <= reached => {}
                Ok(_) => return Ok(false),
                Err(error) if error.useless().is_some() => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// The tip that segments of a line end with: the smallest of them tells it, or the next where that is
    /// damaged, as a merged one and the last that it was merged from tell the same.
    async fn tip_of_line(
        &self,
        line: &Line,
        reached: Txid,
        cuts: &Cuts,
    ) -> Result<Option<Tip>, ReplicaError> {
        let ends = line.segments().iter().filter(|s| line.last_in(&s.name) == reached);
        let mut ends: Vec<_> = ends.filter(|s| s.name.first <= reached).collect();
        ends.sort_by_key(|segment| segment.size);
        let mut tip = Ok(None);
        for segment in ends {
            tip = self.tip_of_segment(segment.name, cuts).await.map(Some);
            match &tip {
                Err(ReplicaError::Object(error)) if error.useless().is_some() => {
                    tracing::error!(%error, "a segment at the tip of the replica cannot be used");
                }
                _ => break,
            }
        }
        tip
    }

    async fn tip_of_manifest(&self, name: ManifestName) -> Result<Tip, ReplicaError> {
        let Manifest { layout, txid, time, state, position, .. } = self.manifest(name).await?;
        let reached = Reached { txid, time, state, position };
        Ok(Tip { generation: name.generation, page_size: layout.page_size, reached })
    }

    async fn tip_of_segment(&self, name: SegmentName, cuts: &Cuts) -> Result<Tip, ReplicaError> {
        let Whole { page_size, reached, .. } = self.segment(name, cuts).await?;
        Ok(Tip { generation: name.generation, page_size, reached })
    }

    /// Reads a segment, which holds what its name says, as far as that is history.
    async fn segment(&self, name: SegmentName, cuts: &Cuts) -> Result<Whole, ObjectError> {
        let damaged = |reason: &dyn fmt::Display| ObjectError::damaged(name, reason);
        let mut stream = PartStream::new(Arc::clone(self.store()), name.into());
        let mut begun: Option<(PartHeader, Sequence)> = None;
        let mut stored = None;
        while let Some(owned) = stream.next().await? {
            let part = owned.part();
            let Stamp { generation, epoch } = part.header.stamp;
            // Merged ones hold what several have stored.
            if generation != name.generation || (name.level == 0 && epoch != name.epoch) {
                return Err(damaged(&"a part was stored under another name"));
            }
            let last = cuts.last_of(epoch);
            if part.header.first > last {
                continue;
            }
            stored = stored.max(part.header.stored);
            let (_, sequence) =
                begun.get_or_insert_with(|| (part.header, Sequence::beginning_with(&part.header)));
            sequence.accept_until(&part, last).map_err(|error| damaged(&error))?;
        }
        let (first, sequence) = begun.ok_or_else(|| damaged(&"it is empty"))?;
        let reached = sequence.finish().map_err(|error| damaged(&error))?;
        let is_in_time = !cuts.is_whole(&name) || reached.time.ceil_millis() == name.time;
        if (first.first, reached.txid, is_in_time) == (name.first, cuts.last_in(&name), true) {
            Ok(Whole { page_size: first.page_size, reached, stored })
        } else {
            Err(damaged(&"it does not hold what its name says"))
        }
    }
}

/// What a segment tells that was read to its end.
struct Whole {
    page_size: PageSize,
    reached: Reached,
    /// Up to which transaction everything was stored when it was made, as far as it tells.
    stored: Option<Txid>,
}

/// Tells that what stands behind a gap is left out, as it may never have been durable.
pub fn warn_of_left_out(gap: Gap) {
    tracing::warn!(
        latest = gap.after.0,
        next = gap.next.0,
        "a segment is missing that later ones may have overtaken on the way: what is behind it is \
         left out"
    );
}
