//! Which blocks a snapshot writes again although they are stored: those in packs of which little is
//! still in use, so that what is stored stays in proportion to what is alive.

use crate::manifest::Manifest;

/// At most this part of the database is written again at once.
const MOST: usize = 4;

/// The blocks of `manifest` that the next snapshot is to write again, ascending: those of the packs with
/// the least live data, until at least half of what is stored is alive, and at most a quarter of the
/// database.
#[must_use]
pub fn consolidate(manifest: &Manifest) -> Vec<u32> {
    let mut packs: Vec<Pack> = manifest.packs.iter().map(|pack| Pack::of_size(pack.size)).collect();
    for block in &manifest.blocks {
        if let Some(pack) = packs.get_mut(block.pack as usize) {
            pack.live += u64::from(block.entry.stored_len);
            pack.blocks.push(block.entry.block);
        }
    }
    let mut stored: u64 = packs.iter().map(|pack| pack.stored).sum();
    let live: u64 = packs.iter().map(|pack| pack.live).sum();
    // Ascending by the share that is alive.
    packs.sort_by(|a, b| share(a, b).cmp(&share(b, a)));
    let most = manifest.blocks.len() / MOST;
    let mut chosen = Vec::new();
    for pack in packs {
        if live.saturating_mul(2) >= stored || chosen.len() + pack.blocks.len() > most {
            break;
        }
        stored = stored.saturating_sub(pack.stored).saturating_add(pack.live);
        chosen.extend(pack.blocks);
    }
    chosen.sort_unstable();
    chosen
}

#[derive(Debug, Default)]
struct Pack {
    stored: u64,
    live: u64,
    blocks: Vec<u32>,
}

impl Pack {
    fn of_size(stored: u64) -> Self {
        Self { stored, ..Self::default() }
    }
}

/// Compared crosswise: `a`'s live bytes times `b`'s stored ones.
fn share(a: &Pack, b: &Pack) -> u128 {
    u128::from(a.live) * u128::from(b.stored)
}

#[cfg(test)]
mod tests {
    use genesis_wal::id::{Epoch, Generation, Txid};
    use genesis_wal::name::PackName;
    use genesis_wal::page::{PageSize, StateHash};
    use genesis_wal::part::Stamp;
    use genesis_wal::time::Micros;

    use super::*;
    use crate::block::BlockLayout;
    use crate::manifest::{ManifestBlock, PackRef};
    use crate::pack::{BlockEncoding, BlockEntry};

    /// A manifest whose block n lies in pack `places[n]`; every block has 100 bytes, pack p `sizes[p]`.
    fn manifest(places: &[u32], sizes: &[u64]) -> Manifest {
        let generation = Generation { epoch: Epoch(1), random: 1 };
        let stamp = Stamp { generation, epoch: Epoch(1) };
        let name = |part| PackName { generation, epoch: Epoch(1), attempt: 0, part, repair: 0 };
        let entry = |block| BlockEntry {
            block,
            offset: 96,
            stored_len: 100,
            encoding: BlockEncoding::Raw,
            crc: 0,
            sum: StateHash(0),
        };
        let blocks = (0u32..).zip(places);
        let pages = u32::try_from(places.len()).unwrap() * 16;
        Manifest {
            layout: BlockLayout { page_size: PageSize::new(4096).unwrap(), pages },
            stamp,
            txid: Txid(1),
            position: None,
            time: Micros(0),
            state: StateHash(0),
            parent: None,
            packs: (0..)
                .zip(sizes)
                .map(|(part, &size)| PackRef { name: name(part), size })
                .collect(),
            blocks: blocks.map(|(n, &pack)| ManifestBlock { pack, entry: entry(n) }).collect(),
        }
    }

    #[test]
    fn nothing_is_written_again_while_half_of_what_is_stored_is_alive() {
        assert_eq!(consolidate(&manifest(&[0, 0, 0, 1], &[400, 400])), []);
    }

    #[test]
    fn the_packs_with_the_least_live_data_are_emptied_first_and_no_more_than_needed() {
        let places = [1, 0, 0, 0, 0, 0, 0, 0, 2, 2];
        assert_eq!(consolidate(&manifest(&places, &[800, 1000, 1000])), [0]);
    }

    #[test]
    fn no_more_than_a_quarter_of_the_database_is_written_at_once() {
        assert_eq!(consolidate(&manifest(&[0, 0, 1, 1], &[4000, 4000])), []);
        assert_eq!(consolidate(&manifest(&[0, 1, 2, 3, 4, 5, 6, 7], &[2000; 8])), [0, 1]);
    }
}
