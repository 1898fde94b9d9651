//! Blocks that the replica holds already, and where.

use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestBlock, PackRef};
use genesis_snapshot::pack::{BlockEntry, PackFooter};
use genesis_wal::page::StateHash;

/// Where each block of the database lies, as far as it does.
#[derive(Debug, Clone, Default)]
pub struct Known {
    packs: Vec<PackRef>,
    blocks: Vec<Option<Place>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    block: ManifestBlock,
    /// Pages in it: the last block of a shorter database is another one.
    pages: u32,
}

impl Known {
    /// Adds the blocks of a snapshot, where nothing is known of them yet.
    pub fn add_manifest(&mut self, manifest: &Manifest) {
        let first = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.extend_from_slice(&manifest.packs);
        if self.blocks.len() < manifest.blocks.len() {
            self.blocks.resize(manifest.blocks.len(), None);
        }
        for (room, block) in self.blocks.iter_mut().zip(&manifest.blocks) {
            let pages = manifest.layout.page_count(block.entry.block);
            let block = ManifestBlock { pack: block.pack.saturating_add(first), ..*block };
            room.get_or_insert(Place { block, pages });
        }
    }

    /// Adds the blocks of a pack, over what was known of them.
    pub fn add(&mut self, pack: PackRef, layout: BlockLayout, entries: &[BlockEntry]) {
        let number = u32::try_from(self.packs.len()).unwrap_or(u32::MAX);
        self.packs.push(pack);
        for &entry in entries {
            let at = entry.block as usize;
            if self.blocks.len() <= at {
                self.blocks.resize(at + 1, None);
            }
            let place = Place {
                block: ManifestBlock { pack: number, entry },
                pages: layout.page_count(entry.block),
            };
            if let Some(room) = self.blocks.get_mut(at) {
                *room = Some(place);
            }
        }
    }

    /// Adds the blocks of a pack by its footer.
    pub fn add_footer(&mut self, pack: PackRef, footer: &PackFooter) {
        let entries: Vec<_> = footer.blocks().map(|(entry, _)| *entry).collect();
        self.add(pack, footer.layout, &entries);
    }

    /// Forgets a block, so that it is captured anew.
    pub fn forget(&mut self, block: u32) {
        if let Some(place) = self.blocks.get_mut(block as usize) {
            *place = None;
        }
    }

    /// Whether a block with this sum of page hashes is known.
    #[must_use]
    pub fn has(&self, layout: BlockLayout, block: u32, sum: StateHash) -> bool {
        self.sum_of(layout, block) == Some(sum)
    }

    /// The sum of page hashes with which a block is known.
    #[must_use]
    pub fn sum_of(&self, layout: BlockLayout, block: u32) -> Option<StateHash> {
        self.place(layout, block).map(|place| place.block.entry.sum)
    }

    /// The packs and blocks of a whole database, for a manifest; the first block that is not known
    /// otherwise.
    ///
    /// # Errors
    /// That block.
    pub fn assemble(&self, layout: BlockLayout) -> Result<(Vec<PackRef>, Vec<ManifestBlock>), u32> {
        let mut packs = Vec::new();
        let mut numbers = vec![None; self.packs.len()];
        let mut blocks = Vec::with_capacity(layout.blocks() as usize);
        for block in 0..layout.blocks() {
            let place = self.place(layout, block).ok_or(block)?;
            let at = place.block.pack as usize;
            let pack = self.packs.get(at).ok_or(block)?;
            let number = numbers.get_mut(at).ok_or(block)?.get_or_insert_with(|| {
                packs.push(*pack);
                u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
            });
            blocks.push(ManifestBlock { pack: *number, ..place.block });
        }
        Ok((packs, blocks))
    }

    fn place(&self, layout: BlockLayout, block: u32) -> Option<&Place> {
        let place = self.blocks.get(block as usize)?.as_ref();
        place.filter(|place| place.pages == layout.page_count(block))
    }
}
