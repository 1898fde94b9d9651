//! How fast bytes go through the codecs: the WAL scan, the page hash, segments and the CRC of their
//! parts. 1024 pages of 4 KiB, four to a transaction; throughput is that of the pages.
//!
//! `cargo bench --bench codec`

#![allow(clippy::unwrap_used, clippy::panic, reason = "the input is made here")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::FrameHeader;
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::index::IndexHeader;
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step};
use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind, fragments};
use genesis_wal::time::Micros;

const PAGES: u32 = 1024;
const PAGES_EACH: u32 = 4;

/// Pages that look like a table's: rows with a counter, some text, and some bytes that no two rows
/// share.
struct Pages {
    size: PageSize,
    images: Vec<(PageNumber, Vec<u8>)>,
}

impl Pages {
    fn new() -> Self {
        let size = PageSize::new(4096).unwrap();
        let images = (1..=PAGES).map(|n| (PageNumber::new(n).unwrap(), image(size, n)));
        Self { size, images: images.collect() }
    }

    fn throughput(&self) -> Throughput {
        Throughput::Bytes(self.images.len() as u64 * u64::from(self.size.get()))
    }

    /// A WAL of these pages, and the wal-index that publishes all of it.
    fn wal(&self) -> (WalHeader, Vec<u8>, IndexHeader) {
        let header = WalHeader::new(ByteOrder::Little, self.size, 0, Salts([7; 8]));
        let mut frames = Vec::new();
        let mut checksum = header.checksum;
        for (number, image) in &self.images {
            let page = number.get();
            let unsummed = FrameHeader {
                page,
                commit: if page.is_multiple_of(PAGES_EACH) { PAGES } else { 0 },
                salts: header.salts,
                checksum: Checksum::default(),
            };
            checksum = unsummed.chained(header.order, checksum, image);
            frames.extend(FrameHeader { checksum, ..unsummed }.encode());
            frames.extend(image);
        }
        let index = IndexHeader {
            change: PAGES / PAGES_EACH,
            page_size: Some(self.size),
            max_frame: PAGES,
            pages: PAGES,
            frame_checksum: checksum,
            salts: header.salts,
        };
        (header, frames, index)
    }

    /// A segment of one part, one transaction to four pages.
    fn segment(&self, hashes: &[PageHash]) -> Vec<u8> {
        let mut encoder = SegmentEncoder::new(self.size, stamp(), StateHash(0));
        let mut hashes = hashes.iter();
        for (txid, images) in (1..).zip(self.images.chunks(PAGES_EACH as usize)) {
            encoder.begin(transaction(Txid(txid)), None).unwrap();
            for (number, image) in images {
                let hash = hashes.next().unwrap();
                encoder.page(*number, *hash, image, None).unwrap();
            }
        }
        let mut out = Vec::new();
        encoder.finish(&mut out).unwrap();
        out
    }

    fn hashes(&self) -> Vec<PageHash> {
        let hash = |(number, image): &(PageNumber, Vec<u8>)| PageHash::of(*number, image);
        self.images.iter().map(hash).collect()
    }
}

fn image(size: PageSize, seed: u32) -> Vec<u8> {
    let mut state = u64::from(seed);
    let mut image = Vec::with_capacity(size.bytes());
    for row in 0.. {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let text = format!("{seed:08}{row:04} a row of text, ended by noise: {state:016x}\n");
        image.extend_from_slice(text.as_bytes());
        if image.len() >= size.bytes() {
            break;
        }
    }
    image.truncate(size.bytes());
    image
}

fn stamp() -> Stamp {
    let epoch = Epoch(1);
    let generation = Generation { epoch, random: 2 };
    Stamp { generation, epoch }
}

fn transaction(txid: Txid) -> TransactionHeader {
    TransactionHeader {
        txid,
        kind: TransactionKind::Commit,
        late: false,
        commits: 1,
        time: Micros(txid.0),
        since: Micros(txid.0),
        pages: PAGES,
        records: PAGES_EACH,
        state: StateHash(txid.0),
    }
}

/// Reads a WAL as the replicator does, and counts its commits.
fn scan(header: WalHeader, frames: &[u8], index: &IndexHeader) -> usize {
    let mut scanner = Scanner::new(header, 0, header.checksum, index);
    let mut reader = Reader::new(frames);
    let mut commits = 0;
    loop {
        match scanner.step(&mut reader) {
            Step::Commit(_) => commits += 1,
            Step::NeedBytes => panic!("the WAL is whole"),
            Step::End(end) => {
                assert_eq!(end, ScanEnd::Clean);
                return commits;
            }
        }
    }
}

/// Reads a segment as a restore does: every page unpacked and proven.
fn unpack(segment: &[u8], page: &mut [u8]) -> usize {
    let part = Part::decode(&mut Reader::new(segment)).unwrap();
    let mut pages = 0;
    for fragment in fragments(&part) {
        for record in fragment.unwrap().pages {
            record.unpack(None, page).unwrap();
            pages += 1;
        }
    }
    pages
}

fn codec(criterion: &mut Criterion) {
    let pages = Pages::new();
    let (header, frames, index) = pages.wal();
    let hashes = pages.hashes();
    let segment = pages.segment(&hashes);
    let mut page = vec![0; pages.size.bytes()];

    let mut group = criterion.benchmark_group("codec");
    group.throughput(pages.throughput());
    group.bench_function("scan", |bencher| {
        bencher.iter(|| scan(header, black_box(&frames), &index));
    });
    group.bench_function("page hash", |bencher| {
        bencher.iter(|| black_box(&pages).hashes());
    });
    group.bench_function("segment encode", |bencher| {
        bencher.iter(|| black_box(&pages).segment(&hashes));
    });
    group.bench_function("segment decode", |bencher| {
        bencher.iter(|| unpack(black_box(&segment), &mut page));
    });
    group.finish();

    let mut group = criterion.benchmark_group("part");
    group.throughput(Throughput::Bytes(segment.len() as u64));
    group.bench_function("CRC", |bencher| {
        bencher
            .iter(|| Part::decode(&mut Reader::new(black_box(&segment))).map(|part| part.header));
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
