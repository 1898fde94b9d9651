//! The inventory of a replica: the names of its objects in, lines of history out. Only names and
//! sizes are read here; what an object holds is proven when it is fetched.
//!
//! A listing is what a store happened to hold, with everything that merging, retention, lost objects
//! and stale writers leave: segments overlap, some are missing. So a *gap is a value*, and whoever
//! asks decides what it means. Of copies of one object the one with the highest repair number counts.

mod line;

pub use line::{Chain, Gap, Line, Listed, Window};

use std::collections::BTreeMap;

use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ObjectName, PackName};

/// What a replica holds, by its names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    lines: BTreeMap<Generation, Line>,
}

impl Inventory {
    /// Sorts a listing: names, each with the size of its object in bytes, in any order.
    #[must_use]
    pub fn from_objects(objects: impl IntoIterator<Item = (ObjectName, u64)>) -> Self {
        let mut inventory = Self::default();
        for (name, size) in objects {
            match name {
                ObjectName::Genesis | ObjectName::Base(_) | ObjectName::Claim(_) => {}
                ObjectName::Manifest(name) => {
                    inventory.line_mut(name.generation).manifests.push(Listed { name, size });
                }
                ObjectName::Pack(name) => {
                    inventory.line_mut(name.generation).packs.push(Listed { name, size });
                }
                ObjectName::Segment(name) => {
                    inventory.line_mut(name.generation).segments.push(Listed { name, size });
                }
            }
        }
        inventory.lines.values_mut().for_each(Line::sort);
        inventory
    }

    fn line_mut(&mut self, generation: Generation) -> &mut Line {
        self.lines.entry(generation).or_insert_with(|| Line::new(generation))
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

    /// The copy of a pack that is read: the one with the highest repair number, whichever is named.
    #[must_use]
    pub fn pack(&self, name: PackName) -> Option<Listed<PackName>> {
        let packs = self.generation(name.generation)?.packs();
        let highest = PackName { repair: u16::MAX, ..name };
        let after = packs.partition_point(|pack| pack.name <= highest);
        let pack = packs.get(after.checked_sub(1)?)?;
        (PackName { repair: name.repair, ..pack.name } == name).then_some(*pack)
    }

    /// The highest transaction id that any object is named for, whatever its generation. The next one
    /// to be given is above it.
    #[must_use]
    pub fn max_txid(&self) -> Option<Txid> {
        self.generations().filter_map(Line::max_txid).max()
    }
}
