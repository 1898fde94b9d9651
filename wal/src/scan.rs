//! The scanner: frames of a WAL in, committed transactions out.
//!
//! A scan starts after a committed frame and ends at the `mxFrame` that the wal-index published.
//! Frames after `mxFrame` are never looked at: they may be spilled and rolled back, or a commit
//! that was never published. Up to there every frame must carry the WAL's salts and continue the
//! checksum chain, the last one must end a transaction, and the chain must arrive at the checksum
//! that the wal-index holds. Anything else is an end with a reason, and a reason to doubt.
//!
//! One thing else is committed, too. A transaction that writes a frame a second time writes all later
//! ones without salts and checksum, and sets these from the first such frame on when it is committed.
//! SQLite up to 3.49 sets them from there even where the transaction went back to a savepoint before
//! that frame: frames from the savepoint on are committed without salts and checksum (both are zero),
//! and the wal-index is given a checksum that may be none of theirs. What follows continues the chain
//! from zero, or, after a commit, from that one. Such *unsummed* frames are proven by the wal-index
//! alone, which says of each frame what page it holds: whoever scans compares [`Scanner::unsummed`]
//! with it.

use thiserror::Error;

use crate::checksum::Checksum;
use crate::frame::{FrameHeader, frame_len};
use crate::header::{Salts, WalHeader};
use crate::index::IndexHeader;
use crate::page::PageNumber;
use crate::reader::Reader;

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ScanEnd {
    /// Everything committed was read and proven.
    #[error("everything committed was read")]
    Clean,
    /// The file ends within this frame.
    #[error("the WAL ends within frame {frame}, which the wal-index counts as committed")]
    Torn {
        /// The frame's number.
        frame: u32,
    },
    /// The frame belongs to another life of the WAL.
    #[error("frame {frame} carries the salts of another WAL")]
    SaltChanged {
        /// The frame's number.
        frame: u32,
    },
    /// The frame does not continue the chain.
    #[error("the checksum of frame {frame} does not fit")]
    BadChecksum {
        /// The frame's number.
        frame: u32,
    },
    /// The frame holds page 0, which does not exist.
    #[error("frame {frame} holds page 0")]
    BadPage {
        /// The frame's number.
        frame: u32,
    },
    /// The last committed frame ends no transaction.
    #[error("frame {frame} is the last committed one and ends no transaction")]
    Uncommitted {
        /// The frame's number.
        frame: u32,
    },
    /// The chain is whole, but the wal-index holds another checksum.
    #[error("the checksum at frame {frame} is not the one in the wal-index")]
    IndexDisagrees {
        /// The frame's number.
        frame: u32,
    },
    /// The wal-index says that less is committed than was read before.
    #[error("the wal-index ends at frame {max_frame}, before frame {frame}")]
    WentBack {
        /// The frame that was read before.
        frame: u32,
        /// The last committed frame now.
        max_frame: u32,
    },
}

/// Where the newest image of a page stands in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRef {
    /// The page.
    pub page: PageNumber,
    /// The frame's number, from 1.
    pub frame: u32,
}

/// A committed transaction, as references into the WAL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Pages in the database after the commit.
    pub pages: u32,
    /// The last image of each page that the transaction wrote and kept, ascending by page.
    pub images: Vec<FrameRef>,
    /// The transaction's last frame.
    pub frame: u32,
    /// The cumulative checksum at that frame.
    pub checksum: Checksum,
}

/// What a step of the scan came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A transaction is complete.
    Commit(Transaction),
    /// The bytes are used up; go on with those from [`Scanner::next_frame`].
    NeedBytes,
    /// The scan is over.
    End(ScanEnd),
}

/// Scans the frames of one WAL from a committed place to the last committed frame.
#[derive(Debug, Clone)]
pub struct Scanner {
    header: WalHeader,
    frame: u32,
    checksum: Checksum,
    max_frame: u32,
    target: Checksum,
    open: Vec<FrameRef>,
    unsummed: Vec<FrameRef>,
}

impl Scanner {
    /// A scan after `frame`, at which the chain stood at `checksum`, up to what `index` says is
    /// committed. At frame 0 the checksum is that of the header, after an unsummed frame it is
    /// [`Checksum::NONE`].
    #[must_use]
    pub fn new(header: WalHeader, frame: u32, checksum: Checksum, index: &IndexHeader) -> Self {
        Self {
            header,
            frame,
            checksum,
            max_frame: index.max_frame,
            target: index.frame_checksum,
            open: Vec::new(),
            unsummed: Vec::new(),
        }
    }

    /// The frames that no checksum proves, of those that were taken: only where the wal-index names the
    /// same page for each is what the scan yields what was committed.
    #[must_use]
    pub fn unsummed(&self) -> &[FrameRef] {
        &self.unsummed
    }

    /// The salts of the WAL.
    #[must_use]
    pub fn salts(&self) -> Salts {
        self.header.salts
    }

    /// The number of the frame that the next bytes must begin with.
    #[must_use]
    pub fn next_frame(&self) -> u32 {
        self.frame.saturating_add(1)
    }

    /// Frames left to read.
    #[must_use]
    pub fn frames_left(&self) -> u32 {
        self.max_frame.saturating_sub(self.frame)
    }

    /// The end to report when the file has no whole frame where bytes were asked for.
    #[must_use]
    pub fn torn(&self) -> ScanEnd {
        ScanEnd::Torn { frame: self.next_frame() }
    }

    /// Takes frames from `bytes`, which begins at frame [`Self::next_frame`], up to and with the
    /// next commit. `bytes` is left after the last frame taken.
    pub fn step(&mut self, bytes: &mut Reader<'_>) -> Step {
        loop {
            if self.frame >= self.max_frame {
                return Step::End(self.end());
            }
            let Ok(frame) = bytes.take(frame_len(self.header.page_size)) else {
                return Step::NeedBytes;
            };
            match self.take_frame(frame) {
                Ok(None) => {}
                Ok(Some(transaction)) => return Step::Commit(transaction),
                Err(end) => return Step::End(end),
            }
        }
    }

    fn take_frame(&mut self, bytes: &[u8]) -> Result<Option<Transaction>, ScanEnd> {
        let frame = self.next_frame();
        let torn = |_| ScanEnd::Torn { frame };
        let mut reader = Reader::new(bytes);
        let header = FrameHeader::decode(reader.take(FrameHeader::LEN).map_err(torn)?);
        let header = header.map_err(torn)?;
        let is_proven = self.is_proven(&header, reader.rest())?;
        let page = PageNumber::new(header.page).ok_or(ScanEnd::BadPage { frame })?;
        let taken = FrameRef { page, frame };
        if !is_proven {
            self.unsummed.push(taken);
        }
        self.frame = frame;
        self.checksum = header.checksum;
        self.open.push(taken);
        Ok((header.commit != 0).then(|| Transaction {
            pages: header.commit,
            images: last_images(std::mem::take(&mut self.open), header.commit),
            frame,
            checksum: header.checksum,
        }))
    }

    /// Whether the next frame continues the chain, or is one that no checksum can prove.
    fn is_proven(&self, header: &FrameHeader, page: &[u8]) -> Result<bool, ScanEnd> {
        let frame = self.next_frame();
        if header.is_unsummed() {
            return Ok(false);
        }
        if header.salts != self.header.salts {
            return Err(ScanEnd::SaltChanged { frame });
        }
        if header.chained(self.header.order, self.checksum, page) == header.checksum {
            return Ok(true);
        }
        if self.is_after_unsummed() && self.open.is_empty() {
            return Ok(false);
        }
        Err(ScanEnd::BadChecksum { frame })
    }

    fn is_after_unsummed(&self) -> bool {
        self.frame > 0 && self.checksum == Checksum::NONE
    }

    fn end(&self) -> ScanEnd {
        let frame = self.frame;
        if frame > self.max_frame {
            ScanEnd::WentBack { frame, max_frame: self.max_frame }
        } else if !self.open.is_empty() {
            ScanEnd::Uncommitted { frame }
        } else if frame > 0 && self.checksum != self.target && !self.is_after_unsummed() {
            ScanEnd::IndexDisagrees { frame }
        } else {
            ScanEnd::Clean
        }
    }
}

/// Keeps the last frame of each page within a database of `pages` pages, ascending by page.
fn last_images(mut frames: Vec<FrameRef>, pages: u32) -> Vec<FrameRef> {
    frames.sort_unstable_by_key(|f| (f.page, std::cmp::Reverse(f.frame)));
    frames.dedup_by_key(|f| f.page);
    frames.retain(|f| f.page.get() <= pages);
    frames
}

#[cfg(test)]
mod tests {
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
            let unsummed = FrameHeader {
                page,
                commit,
                salts: self.header.salts,
                checksum: Checksum::default(),
            };
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
        let salted =
            FrameHeader { page: 1, commit: 2, salts: Salts([4; 8]), checksum: wal.checksum };
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
}
