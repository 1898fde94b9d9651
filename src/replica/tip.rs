//! The tip of a replica: the newest state of its history.

use std::fmt;
use std::sync::Arc;

use genesis_snapshot::inventory::{Cuts, Inventory, Line};
use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, SegmentName};
use genesis_wal::page::PageSize;
use genesis_wal::part::PartHeader;
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
    /// The tip of the newest line; `None` when it holds no snapshot or its history has a gap. What a
    /// writer that was killed left behind the first of the segments that it had under way is none.
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
        if chain.gap.is_some() && !was_under_way(line, chain.reached) {
            return Ok(None);
        }
        Ok(Some(match chain.segments.last() {
            Some(segment) => self.tip_of_segment(segment.name, inventory.cuts()).await?,
            None => self.tip_of_manifest(manifest.name).await?,
        }))
    }

    async fn tip_of_manifest(&self, name: ManifestName) -> Result<Tip, ReplicaError> {
        let Manifest { layout, txid, time, state, position, .. } = self.manifest(name).await?;
        let reached = Reached { txid, time, state, position };
        Ok(Tip { generation: name.generation, page_size: layout.page_size, reached })
    }

    async fn tip_of_segment(&self, name: SegmentName, cuts: &Cuts) -> Result<Tip, ReplicaError> {
        let damaged = |reason: &dyn fmt::Display| ObjectError::damaged(name, reason);
        let mut stream = PartStream::new(Arc::clone(self.store()), name.into());
        let mut begun: Option<(PartHeader, Sequence)> = None;
        while let Some(owned) = stream.next().await? {
            let part = owned.part();
            let last = cuts.last_of(part.header.stamp.epoch);
            if part.header.first > last {
                continue;
            }
            let (_, sequence) =
                begun.get_or_insert_with(|| (part.header, Sequence::beginning_with(&part.header)));
            sequence.accept_until(&part, last).map_err(|error| damaged(&error))?;
        }
        let (first, sequence) = begun.ok_or_else(|| damaged(&"it is empty"))?;
        let reached = sequence.finish().map_err(|error| damaged(&error))?;
        let generation = first.stamp.generation;
        let expected = (name.generation, name.first, cuts.last_in(&name));
        if (generation, first.first, reached.txid) == expected {
            Ok(Tip { generation, page_size: first.page_size, reached })
        } else {
            Err(damaged(&"it does not hold what its name says").into())
        }
    }
}

/// Whether what a line holds after `reached` can be what its last writer had under way.
fn was_under_way(line: &Line, reached: Txid) -> bool {
    let behind = || line.segments().iter().filter(|s| s.name.first > reached);
    let writer = behind().map(|segment| segment.name.epoch).max();
    behind().count() < UNDER_WAY
        && behind().all(|segment| Some(segment.name.epoch) == writer && segment.name.level == 0)
        && line.segments().iter().all(|segment| Some(segment.name.epoch) <= writer)
}
