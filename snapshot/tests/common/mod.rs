//! What the tests of packs and manifests share.

use genesis_snapshot::block::BlockLayout;
use genesis_wal::id::{Epoch, Generation};
use genesis_wal::page::PageSize;
use genesis_wal::part::Stamp;

pub fn stamp() -> Stamp {
    Stamp { generation: Generation { epoch: Epoch(1), random: 2 }, epoch: Epoch(3) }
}

pub fn layout(log2: u8, pages: u32) -> BlockLayout {
    BlockLayout { page_size: PageSize::from_log2(log2).unwrap(), pages }
}
