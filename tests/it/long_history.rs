//! A restore over a very long history of tiny transactions: its memory is bounded.
//!
//! `GENESIS_TRANSACTIONS` sets their number. 10 million take some minutes, and 2 GB of disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genesis_replicate::clock;
use genesis_replicate::replica::Replica;
use genesis_replicate::store::FileStore;
use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestBlock, PackRef};
use genesis_snapshot::pack::PackWriter;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::Stamp;
use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;

use crate::support::{Process, Random, Repeatable, Sandbox, setting, write};

const TRANSACTIONS: u64 = 20_000;

/// Merging leaves no more segments.
const SEGMENTS: u64 = 200;

const PAGE: usize = 4096;
const PAGES: u32 = 10_000;

/// Deltas of a page in a row.
const DELTAS: u8 = 32;

/// A part is cut at so many bytes.
const PART_BYTES: usize = 1 << 20;

/// The most memory that a restore may take.
const MOST_BYTES: u64 = 300 << 20;

const STAMP: Stamp =
    Stamp { generation: Generation { epoch: Epoch(1), random: 7 }, epoch: Epoch(1) };

/// A database that changes by a few bytes a transaction.
struct Database {
    bytes: Vec<u8>,
    hashes: Vec<PageHash>,
    deltas: Vec<u8>,
    state: StateHash,
    random: Random,
}

impl Database {
    fn new(random: Random) -> Self {
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

    fn store_snapshot(&self, replica: &Path) {
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
        store(replica, name.into(), &pack);
        let mut bytes = Vec::new();
        manifest.encode(&mut bytes).unwrap();
        let (txid, time) = (Txid(1), manifest.time.ceil_millis());
        let name = ManifestName { generation, txid, time, epoch, attempt: 0, repair: 0 };
        store(replica, name.into(), &bytes);
    }

    /// Transactions `first` to `last`, in one segment.
    fn store_segment(&mut self, first: u64, last: u64, replica: &Path) {
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
            level: 2,
            first: Txid(first),
            last: Txid(last),
            time: Micros(1_795_000_000_000_000 + last * 1000).ceil_millis(),
            epoch: STAMP.epoch,
            repair: 0,
        };
        store(replica, name.into(), &bytes);
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

fn store(replica: &Path, name: ObjectName, bytes: &[u8]) {
    let path = replica.join(name.to_string());
    std::fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
    write(&path, bytes);
}

#[tokio::test]
async fn the_memory_of_a_restore_is_bounded() {
    let run = Repeatable::new();
    let (sandbox, last) =
        (Sandbox::new(), setting("GENESIS_TRANSACTIONS").unwrap_or(TRANSACTIONS) + 1);
    Replica::open_or_create(Arc::new(FileStore::new(sandbox.replica.clone()))).await.unwrap();
    let mut database = Database::new(run.random());
    database.store_snapshot(&sandbox.replica);
    let step = (last / SEGMENTS).max(1);
    for first in (2..=last).step_by(usize::try_from(step).unwrap()) {
        database.store_segment(first, (first + step - 1).min(last), &sandbox.replica);
    }

    let output = sandbox.path("out/restored.db");
    let arguments = ["restore", sandbox.replica.to_str().unwrap(), "--output"];
    let started = clock::monotonic();
    let mut restore =
        sandbox.start(Process::command(arguments).arg(&output).args(["--parallelism", "4"]));
    let mut most = 0;
    let ended = loop {
        most = most.max(restore.peak().unwrap_or_default());
        if let Some(ended) = restore.ended() {
            break ended.expect_code(0);
        }
        clock::rest(Duration::from_millis(2));
    };
    let (took, mib) = (clock::monotonic().saturating_sub(started), most >> 20);
    eprintln!("restored over {} transactions in {took:?}, with {mib} MiB of memory", last - 1);
    assert!(ended.stdout.contains(&format!("as of transaction {last},")), "{}", ended.stdout);
    assert!(std::fs::read(&output).unwrap() == database.bytes);
    assert!(most > 0 && most < MOST_BYTES, "{mib} MiB");
}
