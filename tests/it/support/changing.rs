//! A database that changes by a few bytes a transaction, and what a replica holds of it.

use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestBlock, PackRef};
use genesis_snapshot::pack::PackWriter;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;

use super::Random;

const PAGE: usize = 4096;
const PAGES: u32 = 10_000;

/// Deltas of a page in a row.
const DELTAS: u8 = 32;

/// A part is cut at so many bytes.
const PART_BYTES: usize = 1 << 20;

const STAMP: Stamp =
    Stamp { generation: Generation { epoch: Epoch(1), random: 7 }, epoch: Epoch(1) };

/// A database that changes by a few bytes a transaction. The state that it begins with is that of
/// transaction 1.
pub struct Changing {
    pub bytes: Vec<u8>,
    hashes: Vec<PageHash>,
    deltas: Vec<u8>,
    state: StateHash,
    random: Random,
}

impl Changing {
    pub fn new(random: Random) -> Self {
        let mut random = random;
        let len = PAGES as usize * PAGE;
        // Rows: text that repeats, and numbers that do not.
        let row = |number: u64| format!("{:<40}{number:<24x}", "a row of this table");
        let bytes: Vec<u8> =
            (0..len / 64).flat_map(|_| row(random.next(u64::MAX)).into_bytes()).collect();
        assert_eq!(bytes.len(), len);
        let hashes: Vec<_> =
            (1..).zip(bytes.chunks(PAGE)).map(|(page, image)| hash(page, image)).collect();
        let state = hashes.iter().fold(StateHash::default(), |sum, hash| sum.with(*hash));
        Self { bytes, hashes, deltas: vec![0; PAGES as usize], state, random }
    }

    fn page(&self, page: u32) -> &[u8] {
        &self.bytes[page as usize * PAGE - PAGE..page as usize * PAGE]
    }

    /// Changes a page, and half of the time a second one that is always the same.
    fn transaction(&mut self, txid: u64, encoder: &mut SegmentEncoder) {
        let page = 2 + u32::try_from(self.random.next(u64::from(PAGES) - 1)).unwrap();
        let pages = if txid.is_multiple_of(2) { vec![1, page] } else { vec![page] };
        let before: Vec<Vec<u8>> = pages.iter().map(|&page| self.page(page).to_vec()).collect();
        for &page in &pages {
            let at = usize::try_from(self.random.next(PAGE as u64 / 64)).unwrap() * 64 + 40;
            let start = page as usize * PAGE - PAGE;
            self.bytes[start + at..start + at + 8].copy_from_slice(&txid.to_le_bytes());
            let new = hash(page, self.page(page));
            let old = std::mem::replace(&mut self.hashes[page as usize - 1], new);
            self.state = self.state.without(old).with(new);
        }
        let time = Micros(1_795_000_000_000_000 + txid * 1000);
        let header = TransactionHeader {
            txid: Txid(txid),
            kind: TransactionKind::Commit,
            late: false,
            commits: 1,
            time,
            since: time,
            pages: PAGES,
            records: u32::try_from(pages.len()).unwrap(),
            state: self.state,
        };
        encoder.begin(header, None).unwrap();
        for (&page, before) in pages.iter().zip(&before) {
            let index = page as usize - 1;
            let base = (self.deltas[index] < DELTAS).then_some(&before[..]);
            self.deltas[index] = if base.is_some() { self.deltas[index] + 1 } else { 0 };
            let hash = self.hashes[index];
            encoder.page(number(page), hash, self.page(page), base).unwrap();
        }
    }

    /// A snapshot of the first state: its pack and its manifest.
    pub fn snapshot(&self) -> [(ObjectName, Vec<u8>); 2] {
        let layout = BlockLayout { page_size: page_size(), pages: PAGES };
        let mut writer = PackWriter::new(layout, STAMP);
        for block in 0..layout.blocks() {
            let start = usize::try_from(layout.offset_of(block)).unwrap();
            writer.push(block, &self.bytes[start..start + layout.bytes(block)]).unwrap();
        }
        let (pack, entries) = writer.finish().unwrap();
        let Stamp { generation, epoch } = STAMP;
        let name = PackName { generation, epoch, attempt: 0, part: 0, repair: 0 };
        let manifest = Manifest {
            layout,
            stamp: STAMP,
            txid: Txid(1),
            position: None,
            time: Micros(1_795_000_000_000_000),
            state: self.state,
            parent: None,
            packs: vec![PackRef { name, size: pack.len() as u64 }],
            blocks: entries.into_iter().map(|entry| ManifestBlock { pack: 0, entry }).collect(),
        };
        let mut bytes = Vec::new();
        manifest.encode(&mut bytes).unwrap();
        let (txid, time) = (Txid(1), manifest.time.ceil_millis());
        let manifest = ManifestName { generation, txid, time, epoch, attempt: 0, repair: 0 };
        [(name.into(), pack), (manifest.into(), bytes)]
    }

    /// The next transactions, `first` to `last`, in one segment.
    pub fn segment(&mut self, level: u8, first: u64, last: u64) -> (SegmentName, Vec<u8>) {
        let mut encoder = SegmentEncoder::new(page_size(), STAMP, self.state);
        let mut bytes = Vec::new();
        for txid in first..=last {
            self.transaction(txid, &mut encoder);
            if encoder.len() >= PART_BYTES {
                encoder.cut(&mut bytes).unwrap();
            }
        }
        encoder.finish(&mut bytes).unwrap();
        let name = SegmentName {
            generation: STAMP.generation,
            level,
            first: Txid(first),
            last: Txid(last),
            time: Micros(1_795_000_000_000_000 + last * 1000).ceil_millis(),
            epoch: STAMP.epoch,
            repair: 0,
        };
        (name, bytes)
    }
}

fn hash(page: u32, image: &[u8]) -> PageHash {
    PageHash::of(number(page), image)
}

fn number(page: u32) -> PageNumber {
    PageNumber::new(page).unwrap()
}

fn page_size() -> PageSize {
    PageSize::new(4096).unwrap()
}
