//! The inventory of a replica: the names of its objects in, lines of history out. Only names and
//! sizes are read here; what an object holds is proven when it is fetched.
//!
//! A listing is what a store happened to hold, with everything that merging, retention, lost objects
//! and stale writers leave: segments overlap, some are missing. So a *gap is a value*, and whoever
//! asks decides what it means. Of copies of one object the one with the highest repair number counts.
//! What a writer left after another had taken over is not history: see [`Cuts`].

mod cuts;
mod line;

pub use cuts::Cuts;
pub use line::{Chain, Gap, Line, Listed, Window};

use std::collections::BTreeMap;
use std::sync::Arc;

use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::time::Millis;

/// What a replica holds, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    lines: BTreeMap<Generation, Line>,
    cuts: Arc<Cuts>,
    /// The highest transaction id of what is not history.
    highest_void: Option<Txid>,
}

impl Inventory {
    /// Sorts a listing: names, each with the size of its object in bytes, in any order. All of it is
    /// taken for history.
    #[must_use]
    pub fn from_objects(objects: impl IntoIterator<Item = (ObjectName, u64)>) -> Self {
        Self::of_history(objects, Cuts::default())
    }

    /// Sorts a listing, and leaves out what is not history. Packs are not: manifests name those that
    /// are of use.
    #[must_use]
    pub fn of_history(objects: impl IntoIterator<Item = (ObjectName, u64)>, cuts: Cuts) -> Self {
        let mut inventory = Self { cuts: Arc::new(cuts), ..Self::default() };
        for (name, size) in objects {
            match name {
                ObjectName::Genesis
                | ObjectName::Base(_)
                | ObjectName::Claim(_)
                | ObjectName::Marker(_)
                | ObjectName::Release(_) => {}
                ObjectName::Manifest(name) => inventory.add_manifest(Listed { name, size }),
                ObjectName::Pack(name) => {
                    inventory.line_mut(name.generation).packs.push(Listed { name, size });
                }
                ObjectName::Segment(name) => inventory.add_segment(Listed { name, size }),
            }
        }
        inventory.lines.values_mut().for_each(Line::sort);
        inventory
    }

    fn add_manifest(&mut self, manifest: Listed<ManifestName>) {
        let ManifestName { generation, txid, epoch, .. } = manifest.name;
        if txid <= self.cuts.last_of(epoch) {
            self.line_mut(generation).manifests.push(manifest);
        } else {
            self.highest_void = self.highest_void.max(Some(txid));
        }
    }

    fn add_segment(&mut self, segment: Listed<SegmentName>) {
        let SegmentName { generation, first, last, .. } = segment.name;
        if !self.cuts.is_whole(&segment.name) {
            self.highest_void = self.highest_void.max(Some(last));
        }
        if first <= self.cuts.last_in(&segment.name) {
            self.line_mut(generation).segments.push(segment);
        }
    }

    fn line_mut(&mut self, generation: Generation) -> &mut Line {
        let cuts = &self.cuts;
        self.lines.entry(generation).or_insert_with(|| Line::new(generation, Arc::clone(cuts)))
    }

    /// How much of what each writer left is history.
    #[must_use]
    pub fn cuts(&self) -> &Cuts {
        &self.cuts
    }

    /// Every generation of which an object is there, oldest first.
    #[must_use]
    pub fn generations(&self) -> impl DoubleEndedIterator<Item = &Line> {
        self.lines.values()
    }

    /// One generation.
    #[must_use]
    pub fn generation(&self, generation: Generation) -> Option<&Line> {
        self.lines.get(&generation)
    }

    /// The newest generation that can be restored: that has a manifest.
    #[must_use]
    pub fn latest_generation(&self) -> Option<&Line> {
        self.generations().rev().find(|line| !line.manifests().is_empty())
    }

    /// The latest time that an object is named for.
    #[must_use]
    pub fn last_time(&self) -> Option<Millis> {
        self.generations().filter_map(Line::last_time).max()
    }

    /// The copies of a pack, whichever is named, in the order in which they are tried: the one with the
    /// highest repair number first.
    pub fn copies(&self, name: PackName) -> impl Iterator<Item = Listed<PackName>> {
        let packs = self.generation(name.generation).map_or(&[][..], Line::packs);
        let copies = PackName { repair: 0, ..name }..=PackName { repair: u16::MAX, ..name };
        let after = packs.partition_point(|pack| pack.name <= *copies.end());
        let packs = packs.get(..after).unwrap_or_default().iter().rev().copied();
        packs.take_while(move |pack| copies.contains(&pack.name))
    }

    /// The copy of a pack that is read first.
    #[must_use]
    pub fn pack(&self, name: PackName) -> Option<Listed<PackName>> {
        self.copies(name).next()
    }

    /// Forgets an object: it is there, but of no use.
    pub fn forget(&mut self, name: ObjectName) {
        let (ObjectName::Manifest(ManifestName { generation, .. })
        | ObjectName::Pack(PackName { generation, .. })
        | ObjectName::Segment(SegmentName { generation, .. })) = name
        else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&generation) {
            line.manifests.retain(|manifest| name != manifest.name.into());
            line.packs.retain(|pack| name != pack.name.into());
            line.segments.retain(|segment| name != segment.name.into());
            line.sort();
        }
    }

    /// The highest transaction id of history, whatever its generation.
    #[must_use]
    pub fn max_txid(&self) -> Option<Txid> {
        self.generations().filter_map(Line::max_txid).max()
    }

    /// The highest transaction id that was ever used, as far as it is known: that any object is named for,
    /// history or not, or that a writer tells of. The first one of another line is above it.
    #[must_use]
    pub fn highest_used(&self) -> Option<Txid> {
        self.max_txid().max(self.highest_void).max(self.cuts.known())
    }
}
