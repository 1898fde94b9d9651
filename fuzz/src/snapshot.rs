//! Targets for `genesis-snapshot`.

use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use genesis_wal::part::{self, PartHeader, PartKind, Stamp};
use genesis_wal::reader::{ReadError, Reader};

/// The payload of a manifest behind two bytes: the page size, and where the first part ends
/// (0: there is only one). The envelopes and the state hash are made to fit. What decodes is whole,
/// and is read the same after it was encoded again.
pub fn manifest_decode(data: &[u8]) {
    let [log2, cut, payload @ ..] = data else {
        return;
    };
    let Ok(page_size) = PageSize::from_log2(9 + log2 % 8) else {
        return;
    };
    let header = header(page_size, sum_of_blocks(payload).unwrap_or_default());
    let (head, tail) = payload.split_at(usize::from(*cut).min(payload.len()));
    let mut bytes = Vec::new();
    for payload in [head, tail].into_iter().filter(|part| !part.is_empty()) {
        assert_eq!(part::encode(&header, payload, &mut bytes), Ok(()));
    }
    let Ok(manifest) = Manifest::decode(&bytes) else {
        return;
    };
    assert_eq!(manifest.state, header.after);
    assert_eq!(manifest.blocks.len(), manifest.layout.blocks() as usize);
    for block in &manifest.blocks {
        let pack = manifest.packs.get(block.pack as usize);
        assert!(pack.is_some_and(|pack| block.entry.end().is_some_and(|end| end <= pack.size)));
    }
    let mut again = Vec::new();
    assert_eq!(manifest.encode(&mut again), Ok(()));
    assert_eq!(Manifest::decode(&again), Ok(manifest));
}

fn header(page_size: PageSize, state: StateHash) -> PartHeader {
    let generation = Generation { epoch: Epoch(5), random: 6 };
    PartHeader {
        kind: PartKind::Manifest,
        page_size,
        stamp: Stamp { generation, epoch: Epoch(7) },
        first: Txid(8),
        last: Txid(8),
        position: None,
        before: state,
        after: state,
    }
}

/// The sum of the blocks that stand in a payload, read without any check.
fn sum_of_blocks(payload: &[u8]) -> Result<StateHash, ReadError> {
    let mut reader = Reader::new(payload);
    reader.take(36)?;
    let packs = reader.u32()? as usize;
    reader.take(4)?;
    reader.take(packs.saturating_mul(32))?;
    let mut sum = 0u64;
    while !reader.rest().is_empty() {
        reader.take(4)?;
        let blocks = reader.u32()?;
        reader.take(12)?;
        for _ in 0..blocks {
            reader.take(7)?;
            sum = sum.wrapping_add(reader.u64()?);
        }
    }
    Ok(StateHash(sum))
}
