//! A database whose states are known in full, and the objects that a replica holds of it.

use bytes::Bytes;
use genesis_replicate::store::Objects;
use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestBlock, PackRef};
use genesis_snapshot::pack::PackWriter;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;

const PAGE: usize = 4096;

/// Pages in the first state: more than a block.
const PAGES: u32 = 20;

/// The state after each transaction; the first is number 1. Transaction n is committed at n seconds.
#[derive(Debug, Clone)]
pub struct Past {
    pub stamp: Stamp,
    states: Vec<Vec<u8>>,
}

impl Past {
    /// A line of history; other seeds make other databases.
    pub fn new(epoch: u32, seed: u8, transactions: u64) -> Self {
        let first = (1..=PAGES).flat_map(|page| image(page, 1, seed)).collect();
        let mut states: Vec<Vec<u8>> = vec![first];
        for txid in 2..=transactions {
            let mut state = states.last().unwrap().clone();
            for page in changed(txid) {
                let end = page as usize * PAGE;
                state.resize(state.len().max(end), 0);
                state[end - PAGE..end].copy_from_slice(&image(page, txid, seed));
            }
            states.push(state);
        }
        let generation = Generation { epoch: Epoch(epoch), random: u64::from(epoch) + 7 };
        Self { stamp: Stamp { generation, epoch: Epoch(epoch) }, states }
    }

    /// The database after a transaction.
    pub fn state(&self, txid: u64) -> &[u8] {
        &self.states[usize::try_from(txid).unwrap() - 1]
    }

    fn hash(&self, txid: u64) -> StateHash {
        let pages = (1..).zip(self.state(txid).chunks(PAGE));
        pages.fold(StateHash::default(), |sum, (n, page)| sum.with(PageHash::of(number(n), page)))
    }

    /// Adds a snapshot. Returns the names of its pack and its manifest.
    pub fn add_snapshot(&self, txid: u64, objects: &mut Objects) -> [ObjectName; 2] {
        let (stamp, state) = (self.stamp, self.state(txid));
        let pages = u32::try_from(state.len() / PAGE).unwrap();
        let layout = BlockLayout { page_size: page_size(), pages };
        let mut writer = PackWriter::new(layout, stamp);
        for block in 0..layout.blocks() {
            let start = usize::try_from(layout.offset_of(block)).unwrap();
            writer.push(block, &state[start..start + layout.bytes(block)]).unwrap();
        }
        let (pack, entries) = writer.finish().unwrap();
        let attempt = u32::try_from(txid).unwrap();
        let Stamp { generation, epoch } = stamp;
        let pack_name = PackName { generation, epoch, attempt, part: 0, repair: 0 };
        let manifest = Manifest {
            layout,
            stamp,
            txid: Txid(txid),
            position: None,
            time: time(txid),
            state: self.hash(txid),
            parent: None,
            packs: vec![PackRef { name: pack_name, size: pack.len() as u64 }],
            blocks: entries.into_iter().map(|entry| ManifestBlock { pack: 0, entry }).collect(),
        };
        let (txid, time) = (Txid(txid), time(txid).ceil_millis());
        let name = ManifestName { generation, txid, time, epoch, attempt, repair: 0 };
        let mut bytes = Vec::new();
        manifest.encode(&mut bytes).unwrap();
        let names = [pack_name.into(), name.into()];
        objects.extend(names.iter().map(ObjectName::to_string).zip([pack.into(), bytes.into()]));
        names
    }

    /// Adds a segment of the transactions in a range, cut into parts after each page.
    pub fn add_segment(
        &self,
        level: u8,
        first: u64,
        last: u64,
        objects: &mut Objects,
    ) -> ObjectName {
        let Stamp { generation, epoch } = self.stamp;
        let mut encoder = SegmentEncoder::new(page_size(), self.stamp, self.hash(first - 1));
        let mut bytes = Vec::new();
        for txid in first..=last {
            encoder.begin(self.header(txid), None).unwrap();
            for page in changed(txid) {
                let end = page as usize * PAGE;
                let image = &self.state(txid)[end - PAGE..end];
                let hash = PageHash::of(number(page), image);
                encoder.page(number(page), hash, image, None).unwrap();
                encoder.cut(&mut bytes).unwrap();
            }
        }
        encoder.finish(&mut bytes).unwrap();
        let name = SegmentName {
            generation,
            level,
            first: Txid(first),
            last: Txid(last),
            time: time(last).ceil_millis(),
            epoch,
            repair: 0,
        };
        objects.insert(ObjectName::from(name).to_string(), Bytes::from(bytes));
        name.into()
    }

    fn header(&self, txid: u64) -> TransactionHeader {
        TransactionHeader {
            txid: Txid(txid),
            kind: TransactionKind::Commit,
            late: false,
            commits: 1,
            time: time(txid),
            since: time(txid),
            pages: u32::try_from(self.state(txid).len() / PAGE).unwrap(),
            records: u32::try_from(changed(txid).len()).unwrap(),
            state: self.hash(txid),
        }
    }
}

/// The pages that a transaction changes; the last one is new with every third.
fn changed(txid: u64) -> Vec<u32> {
    let grown = PAGES + u32::try_from(txid).unwrap() / 3;
    vec![1, 2 + u32::try_from(txid).unwrap() % 5, grown]
}

/// When a transaction is committed.
pub fn time(txid: u64) -> Micros {
    Micros(txid * 1_000_000)
}

/// Mostly one byte, so that objects are small.
fn image(page: u32, txid: u64, seed: u8) -> Vec<u8> {
    let mut image = vec![seed; PAGE];
    image[..4].copy_from_slice(&page.to_le_bytes());
    image[4..12].copy_from_slice(&txid.to_le_bytes());
    image
}

fn page_size() -> PageSize {
    PageSize::new(4096).unwrap()
}

fn number(page: u32) -> PageNumber {
    PageNumber::new(page).unwrap()
}
