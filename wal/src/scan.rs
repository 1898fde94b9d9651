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

#[cfg(test)]
mod tests;

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
