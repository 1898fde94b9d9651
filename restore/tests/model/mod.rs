//! A history whose states are known in full, and segments of it.

use genesis_restore::apply::{Base, PageSink};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;
use std::collections::BTreeMap;
use std::convert::Infallible;

pub const PAGE: usize = 512;
/// The transaction that every history begins with: the snapshot's.
pub const FIRST: u64 = 5;

pub fn page_size() -> PageSize {
    PageSize::new(512).unwrap()
}

pub fn stamp() -> Stamp {
    Stamp { generation: Generation { epoch: Epoch(1), random: 2 }, epoch: Epoch(3) }
}

pub fn number(page: u32) -> PageNumber {
    PageNumber::new(page).unwrap()
}

/// A page full of noise for odd seeds, and full of one byte for even ones.
pub fn image(seed: u32) -> Vec<u8> {
    let noise =
        |n: u32| (seed.wrapping_mul(2_654_435_761).wrapping_add(n) ^ (n * n)).to_le_bytes()[1];
    let flat = |_| seed.to_le_bytes()[0];
    if seed.is_multiple_of(2) {
        (0..512).map(flat).collect()
    } else {
        (0..512).map(noise).collect()
    }
}

/// The page with four bytes changed.
fn changed_a_little(page: &[u8], seed: u32) -> Vec<u8> {
    let mut page = page.to_vec();
    let at = seed as usize * 41 % (PAGE - 4);
    page[at..at + 4].copy_from_slice(&seed.to_le_bytes());
    page
}

/// A page of a file, if it has that many.
pub fn page_of(file: &[u8], page: u32) -> Option<&[u8]> {
    file.chunks(PAGE).nth(page as usize - 1)
}

pub fn state_of(file: &[u8]) -> StateHash {
    let pages = (1..).zip(file.chunks(PAGE));
    pages.fold(StateHash::default(), |sum, (n, page)| sum.with(PageHash::of(number(n), page)))
}

/// A transaction as the test wants it: pages afterwards, the pages to change, seconds to pass.
#[derive(Debug, Clone)]
pub struct Change {
    pub pages: u32,
    pub changed: Vec<u32>,
    pub time: u64,
}

#[derive(Debug, Clone)]
pub struct Transaction {
    pub header: TransactionHeader,
    pub images: BTreeMap<u32, Vec<u8>>,
}

/// Transactions, and the file after each; the first file is the snapshot's.
#[derive(Debug, Clone)]
pub struct History {
    pub transactions: Vec<Transaction>,
    pub files: Vec<Vec<u8>>,
}

impl History {
    pub fn new(pages: u32, changes: &[Change]) -> Self {
        let base: Vec<u8> = (1..=pages).flat_map(image).collect();
        let mut history = Self { transactions: Vec::new(), files: vec![base] };
        let mut clock = 1_000;
        for (txid, change) in (FIRST + 1..).zip(changes) {
            clock += change.time;
            history.apply(txid, clock, change);
        }
        history
    }

    fn apply(&mut self, txid: u64, time: u64, change: &Change) {
        let mut file = self.files.last().unwrap().clone();
        let before = u32::try_from(file.len() / PAGE).unwrap();
        let changed = change.changed.iter().map(|page| page % change.pages + 1);
        let grown = before + 1..=change.pages;
        let seed = |page: u32| page * 31 + u32::try_from(txid).unwrap() * 7;
        let image = |page: u32| match page_of(&file, page) {
            Some(before) if !seed(page).is_multiple_of(3) => changed_a_little(before, seed(page)),
            _ => image(seed(page)),
        };
        let images: BTreeMap<u32, Vec<u8>> =
            changed.chain(grown).map(|page| (page, image(page))).collect();
        file.resize(change.pages as usize * PAGE, 0);
        for (page, image) in &images {
            let start = (*page as usize - 1) * PAGE;
            file[start..start + PAGE].copy_from_slice(image);
        }
        let header = TransactionHeader {
            txid: Txid(txid),
            kind: TransactionKind::Commit,
            late: txid.is_multiple_of(3),
            commits: 1,
            time: Micros(time),
            since: Micros(if txid.is_multiple_of(3) { time - 1 } else { time }),
            pages: change.pages,
            records: u32::try_from(images.len()).unwrap(),
            state: state_of(&file),
        };
        self.transactions.push(Transaction { header, images });
        self.files.push(file);
    }

    /// What a snapshot of a transaction tells.
    pub fn base_at(&self, txid: u64) -> Base {
        let file = self.file(Txid(txid));
        let transaction = self.transactions.iter().find(|t| t.header.txid == Txid(txid));
        Base {
            generation: stamp().generation,
            txid: Txid(txid),
            state: state_of(file),
            page_size: page_size(),
            pages: u32::try_from(file.len() / PAGE).unwrap(),
            time: transaction.map_or(Micros(1_000), |t| t.header.time),
        }
    }

    /// The file that a snapshot of a transaction leaves.
    pub fn sink_at(&self, txid: u64) -> Sink {
        Sink { bytes: self.file(Txid(txid)).to_vec(), writes: Vec::new() }
    }

    pub fn last(&self) -> u64 {
        FIRST + self.transactions.len() as u64
    }

    pub fn file(&self, txid: Txid) -> &[u8] {
        &self.files[usize::try_from(txid.0 - FIRST).unwrap()]
    }

    /// A segment of the transactions in a range, cut into parts of about `cut_at` bytes. Pages that
    /// were there before are offered as bases.
    pub fn segment(&self, first: u64, last: u64, cut_at: usize) -> Vec<u8> {
        let before = state_of(self.file(Txid(first - 1)));
        let mut encoder = SegmentEncoder::new(page_size(), stamp(), before);
        let mut out = Vec::new();
        for Transaction { header, images } in &self.transactions {
            if !(first..=last).contains(&header.txid.0) {
                continue;
            }
            encoder.begin(*header, None).unwrap();
            for (page, image) in images {
                let hash = PageHash::of(number(*page), image);
                let base = page_of(self.file(Txid(header.txid.0 - 1)), *page);
                encoder.page(number(*page), hash, image, base).unwrap();
                if encoder.len() >= cut_at {
                    encoder.cut(&mut out).unwrap();
                }
            }
        }
        encoder.finish(&mut out).unwrap();
        out
    }
}

pub fn parts(segment: &[u8]) -> Vec<Part<'_>> {
    let mut reader = Reader::new(segment);
    let mut parts = Vec::new();
    while !reader.rest().is_empty() {
        parts.push(Part::decode(&mut reader).unwrap());
    }
    parts
}

/// A file in memory that counts what is written.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    pub bytes: Vec<u8>,
    pub writes: Vec<(u64, usize)>,
}

impl PageSink for Sink {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).unwrap();
        self.writes.push((offset, bytes.len()));
        self.bytes.resize(self.bytes.len().max(start + bytes.len()), 0);
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> Result<(), Infallible> {
        self.bytes.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}
