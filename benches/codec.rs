//! How fast bytes go through the codecs: the WAL scan, the page hash, segments of full images and of
//! deltas, their application to a file in memory, the CRC of their parts, and merging them; and how long it
//! takes to plan, and to choose what is merged. 1024 pages of 4 KiB, four to a transaction; throughput
//! is that of the pages, and of parts and merging that of the bytes as stored.
//!
//! `cargo bench --bench codec`

#![allow(clippy::unwrap_used, clippy::panic, reason = "the input is made here")]

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use genesis_restore::apply::{Applier, Base, PageSink};
use genesis_restore::plan::plan;
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Inventory;
use genesis_snapshot::merge::{Choice, Ladder, Rules};
use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::FrameHeader;
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::index::IndexHeader;
use genesis_wal::name::{ManifestName, ObjectName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step};
use genesis_wal::segment::{
    SegmentEncoder, Sequence, TransactionHeader, TransactionKind, fragments,
};
use genesis_wal::time::{Micros, Millis};

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

    /// The same pages after one byte of each was changed.
    fn changed(&self) -> Self {
        let change = |(number, image): &(PageNumber, Vec<u8>)| {
            let mut image = image.clone();
            let at = number.index() * 37 % image.len();
            image[at] ^= 1;
            (*number, image)
        };
        Self { size: self.size, images: self.images.iter().map(change).collect() }
    }

    /// A segment of one part, one transaction to four pages, with the pages of `base` as bases.
    fn segment(&self, hashes: &[PageHash], base: Option<&Self>) -> Vec<u8> {
        self.segment_after(Txid(0), &self.images, hashes, base)
    }

    /// The same as so many segments, one after another.
    fn segments(&self, hashes: &[PageHash], count: usize, base: &Self) -> Vec<Vec<u8>> {
        let pages_each = self.images.len() / count;
        let pieces = self.images.chunks(pages_each).zip(hashes.chunks(pages_each));
        let segments = (0..).zip(pieces).map(|(n, (images, hashes))| {
            let before = n * (pages_each as u64 / u64::from(PAGES_EACH));
            self.segment_after(Txid(before), images, hashes, Some(base))
        });
        segments.collect()
    }

    fn segment_after(
        &self,
        before: Txid,
        images: &[(PageNumber, Vec<u8>)],
        hashes: &[PageHash],
        base: Option<&Self>,
    ) -> Vec<u8> {
        let mut encoder = SegmentEncoder::new(self.size, stamp(), StateHash(before.0));
        let mut hashes = hashes.iter();
        for (txid, images) in (before.0 + 1..).zip(images.chunks(PAGES_EACH as usize)) {
            encoder.begin(transaction(Txid(txid)), None).unwrap();
            for (number, image) in images {
                let hash = hashes.next().unwrap();
                let base = base.map(|base| base.images[number.index()].1.as_slice());
                encoder.page(*number, *hash, image, base).unwrap();
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

/// Reads a segment: every page unpacked and proven.
fn unpack(segment: &[u8], base: Option<&Pages>, page: &mut [u8]) -> usize {
    let part = Part::decode(&mut Reader::new(segment)).unwrap();
    let mut pages = 0;
    for fragment in fragments(&part) {
        for record in fragment.unwrap().pages {
            let base = base.map(|base| base.images[record.number.index()].1.as_slice());
            record.unpack(base, page).unwrap();
            pages += 1;
        }
    }
    pages
}

/// Merges segments as the replicator does: each part is proven to follow the one before.
fn merge(segments: &[Vec<u8>], merged: &mut Vec<u8>) -> Txid {
    merged.clear();
    let mut sequence: Option<Sequence> = None;
    for segment in segments {
        let part = Part::decode(&mut Reader::new(segment)).unwrap();
        let first = || Sequence::beginning_with(&part.header);
        sequence.get_or_insert_with(first).accept(&part).unwrap();
        merged.extend_from_slice(segment);
    }
    sequence.unwrap().finish().unwrap().txid
}

/// A restored file in memory.
struct File(Vec<u8>);

impl PageSink for File {
    type Error = Infallible;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let start = usize::try_from(offset).unwrap();
        self.0[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> Result<(), Infallible> {
        self.0.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }
}

/// Applies a segment to a file as a restore does.
fn apply(pages: &Pages, segment: &[u8], file: &mut File) -> u32 {
    let base = Base {
        generation: stamp().generation,
        txid: Txid(0),
        state: StateHash(0),
        page_size: pages.size,
        pages: PAGES,
        time: Micros(0),
    };
    let part = Part::decode(&mut Reader::new(segment)).unwrap();
    let mut applier = Applier::new(base, Target::Latest, part.header.last);
    applier.push(&part, file).unwrap();
    applier.finish(file).unwrap().pages
}

/// Names of a replica with four snapshots and a thousand segments, to be planned from.
fn inventory() -> Inventory {
    let generation = stamp().generation;
    let names = (1..=1000).flat_map(|txid| {
        let (time, epoch) = (Millis(txid), Epoch(1));
        let (first, last) = (Txid(txid + 1), Txid(txid + 1));
        let segment = SegmentName { generation, level: 0, first, last, time, epoch, repair: 0 };
        let txid = Txid(txid);
        let manifest = ManifestName { generation, txid, time, epoch, attempt: 0, repair: 0 };
        let snapshot = (txid.0 % 250 == 1).then_some(ObjectName::from(manifest));
        snapshot.into_iter().chain([ObjectName::from(segment)])
    });
    Inventory::from_objects(names.map(|name| (name, 1000)))
}

fn codec(criterion: &mut Criterion) {
    let pages = Pages::new();
    let (header, frames, index) = pages.wal();
    let hashes = pages.hashes();
    let segment = pages.segment(&hashes, None);
    let changed = pages.changed();
    let changed_hashes = changed.hashes();
    let deltas = changed.segment(&changed_hashes, Some(&pages));
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
        bencher.iter(|| black_box(&pages).segment(&hashes, None));
    });
    group.bench_function("segment encode, deltas", |bencher| {
        bencher.iter(|| black_box(&changed).segment(&changed_hashes, Some(&pages)));
    });
    group.bench_function("segment decode", |bencher| {
        bencher.iter(|| unpack(black_box(&segment), None, &mut page));
    });
    group.bench_function("segment decode, deltas", |bencher| {
        bencher.iter(|| unpack(black_box(&deltas), Some(&pages), &mut page));
    });
    for (name, segment) in [("apply", &segment), ("apply, deltas", &deltas)] {
        group.bench_function(name, |bencher| {
            let file = || File(pages.images.iter().flat_map(|(_, image)| image.clone()).collect());
            bencher.iter_batched_ref(
                file,
                |file| apply(&pages, segment, file),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();

    let mut group = criterion.benchmark_group("part");
    group.throughput(Throughput::Bytes(segment.len() as u64));
    group.bench_function("CRC", |bencher| {
        bencher
            .iter(|| Part::decode(&mut Reader::new(black_box(&segment))).map(|part| part.header));
    });
    let deltas = changed.segments(&changed_hashes, 32, &pages);
    group.throughput(Throughput::Bytes(deltas.iter().map(|segment| segment.len() as u64).sum()));
    group.bench_function("merge of 32 segments of deltas", |bencher| {
        let mut merged = Vec::new();
        bencher.iter(|| merge(black_box(&deltas), &mut merged));
    });
    group.finish();
}

fn plans(criterion: &mut Criterion) {
    let inventory = inventory();
    let line = inventory.latest_generation().unwrap();
    criterion.bench_function("choice of what to merge of a thousand segments", |bencher| {
        bencher.iter(|| match Ladder::of(black_box(line)).choose(&Rules::default()) {
            Choice::Merge(merge) => merge.inputs.len(),
            Choice::Rest => 0,
        });
    });
    criterion.bench_function("plan of a thousand segments", |bencher| {
        let target = Target::Txid(Txid(990));
        bencher.iter(|| plan(black_box(&inventory), target, None).map(|plan| plan.reaches));
    });
}

criterion_group!(benches, codec, plans);
criterion_main!(benches);
