//! Golden files: WALs and wal-indexes that real SQLite wrote, beside what SQLite and the script
//! that drove it know to be in them. `golden/make.py` writes them and documents their form.
//!
//! The big-endian WALs are made here from the little-endian ones. That SQLite itself takes such a
//! file is checked by the script, with each version and scenario: it recovers every frame up to
//! `mxFrame`, and reads the same rows.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step fails the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::{FrameHeader, frame_len, frame_offset};
use genesis_wal::header::WalHeader;
use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step, Transaction};

/// One scenario as one version of SQLite played it.
struct Golden {
    name: String,
    wal: Vec<u8>,
    header: WalHeader,
    index: WalIndex,
    expected: Expected,
}

/// What must be found, from the text beside the files.
#[derive(Default)]
struct Expected {
    max_frame: u32,
    change: u32,
    /// Pages in the database after each commit.
    commits: Vec<u32>,
    /// The CRC-32 of each page of the database after the last one.
    pages: BTreeMap<u32, u32>,
}

impl Golden {
    fn read(text: &Path) -> Self {
        let wal = fs::read(text.with_extension("wal")).unwrap();
        let index = WalIndex::decode(&fs::read(text.with_extension("shm")).unwrap()).unwrap();
        Self {
            name: text.display().to_string(),
            header: WalHeader::decode(&wal).unwrap(),
            wal,
            index,
            expected: Expected::parse(&fs::read_to_string(text).unwrap()),
        }
    }

    fn frame_len(&self) -> usize {
        frame_len(self.header.page_size)
    }

    /// Where a frame begins in the file.
    fn offset(&self, frame: u32) -> usize {
        usize::try_from(frame_offset(self.header.page_size, frame)).unwrap()
    }

    /// The frames from `frame` on, with their bytes.
    fn frames_from(&self, frame: u32) -> impl Iterator<Item = (FrameHeader, &[u8])> {
        let frames = self.wal[self.offset(frame)..].chunks_exact(self.frame_len());
        frames.map(|bytes| {
            let (_, page) = bytes.split_at(FrameHeader::LEN);
            (FrameHeader::decode(bytes).unwrap(), page)
        })
    }

    fn scan(&self) -> (Vec<Transaction>, ScanEnd) {
        scan(&self.wal, &self.index.header)
    }

    /// The same transactions as a big-endian machine would have written them.
    fn big_endian(&self) -> Self {
        let WalHeader { page_size, checkpoint_sequence, salts, .. } = self.header;
        let header = WalHeader::new(ByteOrder::Big, page_size, checkpoint_sequence, salts);
        let mut wal = header.encode();
        let mut checksum = header.checksum;
        for (frame, page) in self.frames_from(1).take(self.index.header.max_frame as usize) {
            checksum = frame.chained(ByteOrder::Big, checksum, page);
            wal.extend(FrameHeader { checksum, ..frame }.encode());
            wal.extend(page);
        }
        let mut index = self.index;
        index.header.frame_checksum = checksum;
        Self {
            name: format!("{} (big-endian)", self.name),
            wal,
            header,
            index,
            expected: Expected::default(),
        }
    }
}

impl Expected {
    fn parse(text: &str) -> Self {
        let mut expected = Self::default();
        for line in text.lines() {
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["max_frame", n] => expected.max_frame = n.parse().unwrap(),
                ["change", n] => expected.change = n.parse().unwrap(),
                ["commit", n] => expected.commits.push(n.parse().unwrap()),
                ["page", n, crc] => {
                    let crc = u32::from_str_radix(crc, 16).unwrap();
                    expected.pages.insert(n.parse().unwrap(), crc);
                }
                _ => panic!("{line:?} says nothing that is known"),
            }
        }
        expected
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All golden files whose name holds `part`; never none.
fn golden(part: &str) -> Vec<Golden> {
    let mut texts: Vec<PathBuf> = ["3.40.1", "3.54.1"]
        .iter()
        .flat_map(|version| fs::read_dir(folder().join(version)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "txt"))
        .filter(|path| path.file_stem().unwrap().to_str().unwrap().contains(part))
        .collect();
    texts.sort();
    assert!(texts.len() >= 4, "golden files of {part:?} are missing");
    texts.iter().map(|text| Golden::read(text)).collect()
}

/// Scans a whole WAL file; a header that does not decode yields no end at all.
fn scan_file(wal: &[u8], index: &IndexHeader) -> Option<(Vec<Transaction>, ScanEnd)> {
    let header = WalHeader::decode(wal).ok()?;
    Some(scan_from(header, &wal[WalHeader::LEN..], index, 0, header.checksum))
}

fn scan(wal: &[u8], index: &IndexHeader) -> (Vec<Transaction>, ScanEnd) {
    scan_file(wal, index).unwrap()
}

/// Scans `bytes`, which begin after `frame`.
fn scan_from(
    header: WalHeader,
    bytes: &[u8],
    index: &IndexHeader,
    frame: u32,
    checksum: Checksum,
) -> (Vec<Transaction>, ScanEnd) {
    let mut scanner = Scanner::new(header, frame, checksum, index);
    let mut reader = Reader::new(bytes);
    let mut commits = Vec::new();
    loop {
        match scanner.step(&mut reader) {
            Step::Commit(commit) => commits.push(commit),
            Step::NeedBytes => return (commits, scanner.torn()),
            Step::End(end) => return (commits, end),
        }
    }
}

#[test]
fn header_and_index_say_what_sqlite_says() {
    for golden in golden("") {
        let (name, index, expected) = (&golden.name, golden.index, &golden.expected);
        assert_eq!(index.header.max_frame, expected.max_frame, "{name}");
        assert_eq!(index.header.change, expected.change, "{name}");
        assert_eq!(Some(index.header.pages), expected.commits.last().copied(), "{name}");
        assert_eq!(index.header.page_size, Some(golden.header.page_size), "{name}");
        assert_eq!(index.header.salts, golden.header.salts, "{name}");
        assert_eq!(golden.header.order, ByteOrder::Little, "{name}");
        assert_eq!(golden.header.encode(), golden.wal[..WalHeader::LEN], "{name}");
        assert!(index.backfilled <= index.header.max_frame, "{name}");
    }
}

#[test]
fn the_scan_finds_every_commit_and_the_pages_that_sqlite_wrote_back() {
    for golden in golden("") {
        let (commits, end) = golden.scan();
        assert_eq!(end, ScanEnd::Clean, "{}", golden.name);
        let pages: Vec<u32> = commits.iter().map(|c| c.pages).collect();
        assert_eq!(pages, golden.expected.commits, "{}", golden.name);

        let images = commits.iter().flat_map(|c| &c.images);
        let last: BTreeMap<u32, u32> = images.map(|i| (i.page.get(), i.frame)).collect();
        for (page, frame) in last.range(..=golden.index.header.pages) {
            let (_, image) = golden.frames_from(*frame).next().unwrap();
            let crc = crc32fast::hash(image);
            assert_eq!(Some(&crc), golden.expected.pages.get(page), "{} {page}", golden.name);
        }
        assert!(last.contains_key(&2), "{}: the table's page was written", golden.name);
    }
}

#[test]
fn a_scan_from_any_commit_finds_the_rest() {
    for golden in golden("") {
        let (commits, _) = golden.scan();
        for (at, commit) in commits.iter().enumerate() {
            let bytes = &golden.wal[golden.offset(commit.frame + 1)..];
            let index = &golden.index.header;
            let (rest, end) = scan_from(golden.header, bytes, index, commit.frame, commit.checksum);
            assert_eq!((&rest[..], end), (&commits[at + 1..], ScanEnd::Clean), "{}", golden.name);
        }
    }
}

#[test]
fn a_rolled_back_transaction_left_frames_that_only_the_index_tells_from_committed_ones() {
    for golden in golden("rollback") {
        let after = golden.expected.max_frame + 1;
        let mut checksum = golden.index.header.frame_checksum;
        let mut valid = 0;
        for (frame, page) in golden.frames_from(after) {
            checksum = frame.chained(golden.header.order, checksum, page);
            valid += u32::from(frame.salts == golden.header.salts && frame.checksum == checksum);
        }
        assert!(valid >= 2, "{} has {valid} such frames", golden.name);
    }
}

#[test]
fn a_restarted_wal_left_frames_that_its_salts_reveal() {
    for golden in golden("restart") {
        let after: Vec<_> = golden.frames_from(golden.expected.max_frame + 1).collect();
        assert!(!after.is_empty(), "{}", golden.name);
        assert!(
            after.iter().all(|(frame, _)| frame.salts != golden.header.salts),
            "{}",
            golden.name
        );
        let index = IndexHeader { max_frame: golden.expected.max_frame + 1, ..golden.index.header };
        let end = ScanEnd::SaltChanged { frame: index.max_frame };
        assert_eq!(scan(&golden.wal, &index).1, end, "{}", golden.name);
    }
}

#[test]
fn a_shrinking_transaction_keeps_no_page_that_it_cut_off() {
    for golden in golden("shrink") {
        let (commits, _) = golden.scan();
        let [.., before, last] = &commits[..] else {
            panic!("{} has too few commits", golden.name);
        };
        assert!(last.pages < before.pages, "{}", golden.name);
        let mut frames = golden.frames_from(before.frame + 1);
        assert!(frames.any(|(frame, _)| frame.page > last.pages), "{}", golden.name);
        assert!(last.images.iter().all(|i| i.page.get() <= last.pages), "{}", golden.name);
    }
}

/// The positions at which a file is damaged: every byte of a small page, else every header byte and
/// a sample of the pages.
fn damaged_positions(golden: &Golden) -> impl Iterator<Item = usize> + use<> {
    let end = golden.offset(golden.index.header.max_frame + 1);
    let frame_len = golden.frame_len();
    let all = frame_len < 1024;
    (0..end).filter(move |at| {
        let in_frame = at.checked_sub(WalHeader::LEN).map_or(0, |at| at % frame_len);
        all || in_frame < FrameHeader::LEN || in_frame % 509 == 0 || in_frame == frame_len - 1
    })
}

#[test]
fn every_flipped_byte_is_noticed_before_its_transaction() {
    for mut golden in golden("") {
        let (whole, _) = golden.scan();
        for at in damaged_positions(&golden) {
            golden.wal[at] ^= 0x41;
            let frame = at.checked_sub(WalHeader::LEN).map(|at| at / golden.frame_len());
            match (scan_file(&golden.wal, &golden.index.header), frame) {
                (None, None) => {}
                (Some((commits, end)), Some(frame)) => {
                    assert_ne!(end, ScanEnd::Clean, "{} byte {at}", golden.name);
                    let before = whole.iter().filter(|c| c.frame as usize <= frame);
                    assert!(commits.iter().eq(before), "{} byte {at}", golden.name);
                }
                _ => panic!("{} byte {at}: header and frames are mixed up", golden.name),
            }
            golden.wal[at] ^= 0x41;
        }
    }
}

#[test]
fn every_truncation_is_torn_at_its_frame() {
    for golden in golden("") {
        let (whole, _) = golden.scan();
        for cut in damaged_positions(&golden) {
            let frame = cut.checked_sub(WalHeader::LEN).map(|cut| cut / golden.frame_len());
            match (scan_file(&golden.wal[..cut], &golden.index.header), frame) {
                (None, None) => {}
                (Some((commits, end)), Some(frame)) => {
                    let torn = ScanEnd::Torn { frame: u32::try_from(frame).unwrap() + 1 };
                    assert_eq!(end, torn, "{} cut at {cut}", golden.name);
                    let before = whole.iter().filter(|c| c.frame as usize <= frame);
                    assert!(commits.iter().eq(before), "{} cut at {cut}", golden.name);
                }
                _ => panic!("{} cut at {cut}: a cut header was taken", golden.name),
            }
        }
    }
}

#[test]
fn a_big_endian_wal_holds_the_same_transactions() {
    for little in golden("") {
        let big = little.big_endian();
        let (expected, _) = little.scan();
        let (commits, end) = big.scan();
        assert_eq!(end, ScanEnd::Clean, "{}", big.name);
        assert_ne!(big.header.checksum, little.header.checksum, "{}", big.name);
        let facts = |c: &Transaction| (c.pages, c.frame, c.images.clone());
        assert!(commits.iter().map(facts).eq(expected.iter().map(facts)), "{}", big.name);
        assert_eq!(WalHeader::decode(&big.wal), Ok(big.header), "{}", big.name);
    }
}
