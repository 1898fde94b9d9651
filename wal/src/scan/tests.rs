//! Small WALs, frame by frame.

use super::*;
use crate::checksum::ByteOrder;
use crate::page::PageSize;

struct Wal {
    header: WalHeader,
    bytes: Vec<u8>,
    checksum: Checksum,
    frames: u32,
}

impl Wal {
    fn new(order: ByteOrder) -> Self {
        let header = WalHeader::new(order, PageSize::new(512).unwrap(), 0, Salts([3; 8]));
        Self { header, bytes: Vec::new(), checksum: header.checksum, frames: 0 }
    }

    fn frame(mut self, page: u32, commit: u32) -> Self {
        let image = [u8::try_from(self.frames).unwrap(); 512];
        let unsummed =
            FrameHeader { page, commit, salts: self.header.salts, checksum: Checksum::default() };
        self.checksum = unsummed.chained(self.header.order, self.checksum, &image);
        self.bytes.extend(FrameHeader { checksum: self.checksum, ..unsummed }.encode());
        self.bytes.extend(image);
        self.frames += 1;
        self
    }

    /// A frame without salts and checksum.
    fn unsummed(mut self, page: u32, commit: u32) -> Self {
        let (salts, checksum) = (Salts([0; 8]), Checksum::NONE);
        self.bytes.extend(FrameHeader { page, commit, salts, checksum }.encode());
        self.bytes.extend([u8::try_from(self.frames).unwrap(); 512]);
        (self.checksum, self.frames) = (checksum, self.frames + 1);
        self
    }

    /// The frames that a scan leaves to the wal-index to prove.
    fn taken_on_trust(&self) -> Vec<u32> {
        let mut scanner = Scanner::new(self.header, 0, self.header.checksum, &self.index());
        let mut reader = Reader::new(&self.bytes);
        while let Step::Commit(_) = scanner.step(&mut reader) {}
        scanner.unsummed().iter().map(|image| image.frame).collect()
    }

    fn index(&self) -> IndexHeader {
        IndexHeader {
            change: 0,
            page_size: Some(self.header.page_size),
            max_frame: self.frames,
            pages: 0,
            frame_checksum: self.checksum,
            salts: self.header.salts,
        }
    }

    fn scan(&self) -> (Vec<Transaction>, ScanEnd) {
        scan(self.header, self.index(), &self.bytes)
    }
}

fn scan(header: WalHeader, index: IndexHeader, bytes: &[u8]) -> (Vec<Transaction>, ScanEnd) {
    let mut scanner = Scanner::new(header, 0, header.checksum, &index);
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

fn images(transaction: &Transaction) -> Vec<(u32, u32)> {
    transaction.images.iter().map(|i| (i.page.get(), i.frame)).collect()
}

#[test]
fn the_last_image_of_a_page_wins_and_pages_cut_off_are_dropped() {
    for order in [ByteOrder::Little, ByteOrder::Big] {
        let wal = Wal::new(order).frame(9, 0).frame(2, 0).frame(1, 0).frame(2, 3).frame(1, 3);
        let (commits, end) = wal.scan();
        assert_eq!(end, ScanEnd::Clean);
        assert_eq!(images(&commits[0]), [(1, 3), (2, 4)]);
        assert_eq!((commits[0].pages, commits[0].frame), (3, 4));
        assert_eq!(images(&commits[1]), [(1, 5)]);
    }
}

#[test]
fn a_scan_fed_frame_by_frame_sees_the_same() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 0).frame(2, 2).frame(2, 2);
    let mut scanner = Scanner::new(wal.header, 0, wal.header.checksum, &wal.index());
    let mut commits = Vec::new();
    for frame in wal.bytes.chunks(512 + FrameHeader::LEN) {
        if let Step::Commit(commit) = scanner.step(&mut Reader::new(frame)) {
            commits.push(commit);
        }
    }
    assert_eq!(scanner.step(&mut Reader::new(&[])), Step::End(ScanEnd::Clean));
    assert_eq!(commits, wal.scan().0);
}

/// Over 4 GiB of WAL, over 2^31 frames, and at the last frame that has a number.
#[test]
fn frames_far_into_a_wal() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 0).frame(2, 2).frame(2, 2);
    for before in [1 << 23, (1 << 31) - 2, u32::MAX - 3] {
        let index = IndexHeader { max_frame: before + 3, ..wal.index() };
        let mut scanner = Scanner::new(wal.header, before, wal.header.checksum, &index);
        assert_eq!((scanner.next_frame(), scanner.frames_left()), (before + 1, 3));
        let mut reader = Reader::new(&wal.bytes);
        for expected in [vec![(1, before + 1), (2, before + 2)], vec![(2, before + 3)]] {
            let Step::Commit(commit) = scanner.step(&mut reader) else { panic!("no commit") };
            assert_eq!(images(&commit), expected);
        }
        assert_eq!(scanner.step(&mut reader), Step::End(ScanEnd::Clean));
        assert_eq!(scanner.frames_left(), 0);
    }
}

#[test]
fn every_flipped_byte_ends_the_scan_before_its_frame() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 1).frame(1, 1);
    for at in 0..wal.bytes.len() {
        let mut bytes = wal.bytes.clone();
        bytes[at] ^= 0x41;
        let (commits, end) = scan(wal.header, wal.index(), &bytes);
        assert_eq!(commits.len(), at / 536, "byte {at}");
        assert_ne!(end, ScanEnd::Clean, "byte {at}");
    }
}

#[test]
fn every_truncation_is_torn() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 1).frame(1, 1);
    for cut in 0..wal.bytes.len() {
        let (commits, end) = scan(wal.header, wal.index(), &wal.bytes[..cut]);
        assert_eq!(commits.len(), cut / 536);
        assert_eq!(end, ScanEnd::Torn { frame: u32::try_from(cut / 536).unwrap() + 1 });
    }
}

/// As SQLite up to 3.49 commits them; see the module's documentation.
#[test]
fn frames_without_checksums_are_told_apart() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 2);
    let within = wal.unsummed(1, 0).unsummed(2, 0).frame(3, 3).frame(1, 3);
    let (commits, end) = within.scan();
    assert_eq!((images(&commits[1]), end), (vec![(1, 2), (2, 3), (3, 4)], ScanEnd::Clean));
    assert_eq!(images(&commits[2]), [(1, 5)]);
    assert_eq!(within.taken_on_trust(), [2, 3]);

    let last = Wal::new(ByteOrder::Little).frame(1, 0).unsummed(2, 2);
    let index = IndexHeader { frame_checksum: Checksum(7, 8), ..last.index() };
    let (commits, end) = scan(last.header, index, &last.bytes);
    assert_eq!((images(&commits[0]), end), (vec![(1, 1), (2, 2)], ScanEnd::Clean));
    assert_eq!(commits[0].checksum, Checksum::NONE);

    let after = Wal { checksum: Checksum(7, 8), ..last }.frame(1, 0).frame(2, 2).frame(1, 2);
    assert_eq!((after.scan().0.len(), after.scan().1), (3, ScanEnd::Clean));
    assert_eq!(after.taken_on_trust(), [2, 3]);
    let mut scanner = Scanner::new(after.header, 2, Checksum::NONE, &after.index());
    let rest = &mut Reader::new(&after.bytes[2 * 536..]);
    assert!(matches!(scanner.step(rest), Step::Commit(commit) if commit.frame == 4));
}

#[test]
fn only_a_commit_without_a_checksum_can_be_followed_by_any() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 2).unsummed(1, 0);
    let broken = Wal { checksum: Checksum(7, 8), ..wal }.frame(2, 2);
    assert_eq!(broken.scan().1, ScanEnd::BadChecksum { frame: 3 });
    let wal = Wal::new(ByteOrder::Little).unsummed(1, 2);
    let salted = FrameHeader { page: 1, commit: 2, salts: Salts([4; 8]), checksum: wal.checksum };
    let mut bytes = wal.bytes.clone();
    bytes.extend(salted.encode().into_iter().chain([0; 512]));
    let index = IndexHeader { max_frame: 2, ..wal.index() };
    assert_eq!(scan(wal.header, index, &bytes).1, ScanEnd::SaltChanged { frame: 2 });
}

#[test]
fn frames_after_the_published_end_are_not_looked_at() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 1);
    let index = wal.index();
    let ghost = wal.frame(1, 1);
    let (commits, end) = scan(ghost.header, index, &ghost.bytes);
    assert_eq!((commits.len(), end), (1, ScanEnd::Clean));
}

#[test]
fn the_other_ends_have_their_reasons() {
    let wal = Wal::new(ByteOrder::Little).frame(1, 1).frame(1, 0);
    assert_eq!(wal.scan().1, ScanEnd::Uncommitted { frame: 2 });

    let wal = Wal::new(ByteOrder::Little).frame(1, 1);
    let index = IndexHeader { frame_checksum: Checksum(1, 2), ..wal.index() };
    assert_eq!(scan(wal.header, index, &wal.bytes).1, ScanEnd::IndexDisagrees { frame: 1 });

    let wal = Wal::new(ByteOrder::Little).frame(0, 1);
    assert_eq!(wal.scan().1, ScanEnd::BadPage { frame: 1 });

    let wal = Wal::new(ByteOrder::Little).frame(1, 1);
    let mut scanner = Scanner::new(wal.header, 5, wal.checksum, &wal.index());
    let end = Step::End(ScanEnd::WentBack { frame: 5, max_frame: 1 });
    assert_eq!(scanner.step(&mut Reader::new(&wal.bytes)), end);

    let header = WalHeader { salts: Salts([4; 8]), ..wal.header };
    assert_eq!(scan(header, wal.index(), &wal.bytes).1, ScanEnd::SaltChanged { frame: 1 });
}
