//! How far a WAL has been read, and what the next look at the wal-index means. Pure decisions.

use genesis_wal::checksum::Checksum;
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::index::IndexHeader;
use genesis_wal::page::{PageNumber, PageSize};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::{ScanEnd, Scanner};
use thiserror::Error;

/// Why what follows cannot be proven to continue what was recorded. The answer is a new snapshot,
/// never a guess.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Doubt {
    /// The frames are not what the wal-index says.
    #[error("{0}")]
    Scan(ScanEnd),
    /// The WAL was restarted, and commits before that were not seen.
    #[error(
        "the WAL was restarted after {counted} commits since the last look, and {read} were read"
    )]
    LostCommits {
        /// Commits that the wal-index counted.
        counted: u32,
        /// Commits that were read.
        read: u32,
    },
    /// The page size changed.
    #[error("the WAL has pages of {0} bytes, which the database did not have before")]
    PageSize(PageSize),
    /// A transaction grew the database by a page that it did not write.
    #[error("page {0} was added to the database and never written")]
    MissingPage(PageNumber),
    /// A page of the state that was last seen is not what it was when it was seen.
    #[error("page {0} is not what was committed last")]
    Misread(PageNumber),
    /// What was committed while nobody looked could not be read before it was gone.
    #[error("the WAL of the recorded place moved on before it was read")]
    MovedOn,
    /// Somebody wrote into the database file past SQLite.
    #[error("THE DATABASE FILE WAS WRITTEN TO, and not by a checkpoint")]
    Overwritten,
    /// The WAL changed under the lock that should have kept it.
    #[error("frame {0} could not be read again")]
    Vanished(u32),
    /// The locks that keep the WAL are not what they should be.
    #[error("it is not certain that the WAL was held all the while")]
    Unguarded,
}

/// A committed place in the source, from which reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    page_size: PageSize,
    /// The WAL that was read; `None` when all of it was, and the next one begins anew.
    identity: Option<WalIdentity>,
    frame: u32,
    checksum: Checksum,
    change: u32,
    pages: u32,
    /// Frames of that WAL were read that no checksum proves. A recovery loses them, and others may be
    /// written into their places: only the wal-index's count tells that nothing was lost.
    is_unsummed: bool,
}

/// How a scan continued what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Continued {
    /// As the wal-index counted.
    Counted,
    /// Within one WAL, whose chain of checksums is the proof; the wal-index was rebuilt in place, and
    /// counts anew.
    Rebuilt,
}

/// What the wal-index calls for.
#[derive(Debug)]
pub enum Next {
    /// Everything committed has been read.
    UpToDate,
    /// Index and file are of two minds, which passes: look again.
    LookAgain,
    /// There is more to read.
    Scan {
        /// The scan, set at the place.
        scanner: Scanner,
        /// The WAL that it reads.
        identity: WalIdentity,
    },
    /// This cannot be the continuation.
    Doubt(Doubt),
}

impl Cursor {
    /// A cursor after the state that `index` describes. `header` is the WAL's, read after it.
    #[must_use]
    pub fn at(
        page_size: PageSize,
        index: &IndexHeader,
        header: Option<WalHeader>,
        pages: u32,
    ) -> Self {
        let header = header.filter(|h| index.max_frame > 0 && h.salts == index.salts);
        Self {
            page_size,
            identity: header.as_ref().map(WalIdentity::from),
            frame: index.max_frame,
            checksum: index.frame_checksum,
            change: index.change,
            pages,
            is_unsummed: is_behind_unsummed(index.max_frame, index.frame_checksum),
        }
    }

    /// A cursor before the first frame of the WAL that `header` begins. `change` is what the wal-index
    /// counted there.
    #[must_use]
    pub fn at_start(header: &WalHeader, change: u32, pages: u32) -> Self {
        Self {
            page_size: header.page_size,
            identity: Some(WalIdentity::from(header)),
            frame: 0,
            checksum: header.checksum,
            change,
            pages,
            is_unsummed: false,
        }
    }

    /// A cursor at a place that was recorded before.
    #[must_use]
    pub fn at_position(page_size: PageSize, position: &WalPosition) -> Self {
        Self {
            page_size,
            identity: Some(position.identity),
            frame: position.frame,
            checksum: position.checksum,
            change: position.change,
            pages: position.pages,
            is_unsummed: is_behind_unsummed(position.frame, position.checksum),
        }
    }

    /// A cursor at a place of the WAL that this one is in.
    #[must_use]
    pub fn moved_to(&self, position: &WalPosition) -> Self {
        let cursor = Self::at_position(self.page_size, position);
        Self { is_unsummed: self.is_unsummed || cursor.is_unsummed, ..cursor }
    }

    /// Whether frames of the WAL were read that no checksum proves: no restart can go on from such a place.
    #[must_use]
    pub fn is_unsummed(&self) -> bool {
        self.is_unsummed
    }

    /// The place, for a restart to prove continuity with; `None` between two WALs, and where frames have no
    /// checksums.
    #[must_use]
    pub fn position(&self) -> Option<WalPosition> {
        Some(WalPosition {
            identity: self.identity.filter(|_| self.frame > 0 && !self.is_unsummed)?,
            frame: self.frame,
            checksum: self.checksum,
            change: self.change,
            pages: self.pages,
        })
    }

    /// Decides what is next, from the published index and the header of the WAL file.
    #[must_use]
    pub fn next(&self, index: &IndexHeader, header: Option<WalHeader>) -> Next {
        if index.max_frame == 0 {
            return match index.change.wrapping_sub(self.change) {
                0 => Next::UpToDate,
                counted => Next::Doubt(Doubt::LostCommits { counted, read: 0 }),
            };
        }
        let Some(header) = header.filter(|h| h.salts == index.salts) else {
            return Next::LookAgain;
        };
        if header.page_size != self.page_size {
            return Next::Doubt(Doubt::PageSize(header.page_size));
        }
        let identity = WalIdentity::from(&header);
        let (frame, checksum) = match self.identity {
            Some(known) if known == identity => (self.frame, self.checksum),
            _ => (0, header.checksum),
        };
        let counted = index.change.wrapping_sub(self.change);
        let is_same = self.identity == Some(identity);
        let at_end = frame == index.max_frame && frame > 0;
        if is_same && self.is_unsummed {
            let was_recovered = index.max_frame < frame || (at_end && counted != 0);
            if was_recovered {
                return Next::Doubt(Doubt::LostCommits { counted, read: 0 });
            }
        }
        // After a frame that SQLite gave no checksum, the one in the wal-index may be any.
        if at_end && [index.frame_checksum, Checksum::NONE].contains(&checksum) {
            return Next::UpToDate;
        }
        Next::Scan { scanner: Scanner::new(header, frame, checksum, index), identity }
    }

    /// Goes on to the end of a clean scan of `identity` that read `commits` commits, `unsummed` where no
    /// checksum proves some of its frames.
    ///
    /// # Errors
    /// [`Doubt::LostCommits`] when the WAL was restarted and the wal-index counted other commits than
    /// were read. Within one WAL the chain of checksums is the proof, if all frames have them: there the
    /// counter only goes another way when the wal-index was rebuilt.
    pub fn advance(
        &mut self,
        identity: WalIdentity,
        index: &IndexHeader,
        commits: u32,
        unsummed: bool,
    ) -> Result<Continued, Doubt> {
        let counted = index.change.wrapping_sub(self.change);
        let as_counted = counted == commits;
        let is_same = self.identity == Some(identity);
        let is_unsummed = unsummed || (is_same && self.is_unsummed);
        if !as_counted && (!is_same || is_unsummed) {
            return Err(Doubt::LostCommits { counted, read: commits });
        }
        *self = Self {
            page_size: self.page_size,
            identity: Some(identity),
            frame: index.max_frame,
            checksum: index.frame_checksum,
            change: index.change,
            pages: index.pages,
            is_unsummed,
        };
        Ok(if as_counted { Continued::Counted } else { Continued::Rebuilt })
    }

    /// Takes the count of an index that [`next`](Self::next) called up to date: it counts anew after
    /// it was rebuilt in place. One that was rebuilt beside an empty WAL has no salts, and a connection
    /// that has made a checkpoint gives the next WAL none either: if the last one had none, only this look
    /// tells the two apart.
    pub fn confirm(&mut self, index: &IndexHeader) {
        if index.max_frame == 0 && index.salts == Salts::default() {
            *self = Self::at(self.page_size, index, None, self.pages);
        }
        self.change = index.change;
    }
}

/// Whether a frame has no checksum: the chain that goes on behind it proves nothing of what is before.
fn is_behind_unsummed(frame: u32, checksum: Checksum) -> bool {
    frame > 0 && checksum == Checksum::NONE
}

#[cfg(test)]
mod tests {
    use genesis_wal::checksum::ByteOrder;

    use super::*;

    fn header(salt: u8, sequence: u32) -> WalHeader {
        let size = PageSize::new(4096).unwrap();
        WalHeader::new(ByteOrder::Little, size, sequence, Salts([salt; 8]))
    }

    fn index(salt: u8, max_frame: u32, change: u32) -> IndexHeader {
        IndexHeader {
            change,
            page_size: None,
            max_frame,
            pages: 3,
            frame_checksum: Checksum(max_frame, 1),
            salts: Salts([salt; 8]),
        }
    }

    fn cursor() -> Cursor {
        let size = PageSize::new(4096).unwrap();
        Cursor::at(size, &index(1, 9, 5), Some(header(1, 0)), 3)
    }

    fn scan_from(next: &Next) -> Option<u32> {
        match next {
            Next::Scan { scanner, .. } => Some(scanner.next_frame()),
            _ => None,
        }
    }

    #[test]
    fn the_same_wal_goes_on_after_what_was_read() {
        assert!(matches!(cursor().next(&index(1, 9, 5), Some(header(1, 0))), Next::UpToDate));
        assert_eq!(scan_from(&cursor().next(&index(1, 12, 7), Some(header(1, 0)))), Some(10));
    }

    #[test]
    fn another_wal_is_read_from_its_start_even_under_the_same_salts() {
        assert_eq!(scan_from(&cursor().next(&index(2, 1, 6), Some(header(2, 1)))), Some(1));
        assert_eq!(scan_from(&cursor().next(&index(1, 1, 6), Some(header(1, 1)))), Some(1));
    }

    #[test]
    fn index_and_file_of_two_minds_are_looked_at_again() {
        assert!(matches!(cursor().next(&index(1, 12, 7), Some(header(2, 1))), Next::LookAgain));
        assert!(matches!(cursor().next(&index(1, 12, 7), None), Next::LookAgain));
    }

    #[test]
    fn a_restart_must_account_for_every_commit() {
        let identity = WalIdentity::from(&header(2, 1));
        let lost = Err(Doubt::LostCommits { counted: 3, read: 1 });
        assert_eq!(cursor().advance(identity, &index(2, 1, 8), 1, false), lost);
        let mut cursor = cursor();
        assert_eq!(cursor.advance(identity, &index(2, 1, 6), 1, false), Ok(Continued::Counted));
        assert_eq!(cursor.position().unwrap().frame, 1);
    }

    #[test]
    fn an_emptied_wal_must_not_have_taken_commits_along() {
        assert!(matches!(cursor().next(&index(2, 0, 5), None), Next::UpToDate));
        let next = cursor().next(&index(2, 0, 7), None);
        assert!(matches!(next, Next::Doubt(Doubt::LostCommits { counted: 2, read: 0 })));
    }

    #[test]
    fn a_rebuilt_index_restarts_the_count_within_one_wal() {
        let identity = WalIdentity::from(&header(1, 0));
        let mut cursor = cursor();
        assert_eq!(cursor.advance(identity, &index(1, 12, 0), 2, false), Ok(Continued::Rebuilt));
        assert_eq!(cursor.advance(identity, &index(1, 13, 1), 1, false), Ok(Continued::Counted));
    }

    #[test]
    fn an_index_rebuilt_in_silence_is_no_loss_at_the_next_restart() {
        let mut cursor = cursor();
        let rebuilt = index(1, 9, 0);
        assert!(matches!(cursor.next(&rebuilt, Some(header(1, 0))), Next::UpToDate));
        cursor.confirm(&rebuilt);
        let identity = WalIdentity::from(&header(2, 1));
        assert_eq!(cursor.advance(identity, &index(2, 1, 1), 1, false), Ok(Continued::Counted));
    }

    #[test]
    fn a_wal_without_salts_is_another_after_an_empty_one() {
        let without = header(0, 0);
        let size = PageSize::new(4096).unwrap();
        let mut cursor = Cursor::at(size, &index(0, 2, 0), Some(without), 3);
        let emptied = index(0, 0, 0);
        assert!(matches!(cursor.next(&emptied, None), Next::UpToDate));
        cursor.confirm(&emptied);
        let next = cursor.next(&index(0, 1, 1), Some(without));
        assert_eq!(scan_from(&next), Some(1));
        let identity = WalIdentity::from(&without);
        assert_eq!(cursor.advance(identity, &index(0, 1, 1), 1, false), Ok(Continued::Counted));
    }

    #[test]
    fn another_page_size_is_no_continuation() {
        let size = PageSize::new(512).unwrap();
        let other = WalHeader::new(ByteOrder::Little, size, 0, Salts([2; 8]));
        assert!(matches!(cursor().next(&index(2, 1, 6), Some(other)), Next::Doubt(_)));
    }

    #[test]
    fn a_wal_with_frames_that_have_no_checksums_goes_on_only_as_counted() {
        let identity = cursor().position().unwrap().identity;
        let unsummed = || {
            let mut cursor = cursor();
            cursor.advance(identity, &index(1, 12, 7), 2, true).unwrap();
            cursor
        };
        let next = |frames, change| unsummed().next(&index(1, frames, change), Some(header(1, 0)));
        assert_eq!(unsummed().position(), None);
        assert!(matches!(next(12, 7), Next::UpToDate));
        assert_eq!(scan_from(&next(13, 8)), Some(13));
        // A recovery went back, and others may have written there since.
        assert!(matches!(next(9, 0), Next::Doubt(_)) && matches!(next(12, 1), Next::Doubt(_)));
        let lost = |counted| Err(Doubt::LostCommits { counted, read: 1 });
        assert_eq!(unsummed().advance(identity, &index(1, 13, 9), 1, false), lost(2));
        assert_eq!(cursor().advance(identity, &index(1, 13, 7), 1, true), lost(2));
        // The next WAL is another one.
        let mut cursor = unsummed();
        let identity = WalIdentity::from(&header(2, 1));
        assert_eq!(cursor.advance(identity, &index(2, 1, 8), 1, false), Ok(Continued::Counted));
        assert!(cursor.position().is_some());
    }

    /// Where nothing was read, only the place itself tells.
    #[test]
    fn a_place_without_a_checksum_is_behind_a_frame_that_has_none() {
        let checksum = Checksum::NONE;
        let none = IndexHeader { frame_checksum: checksum, ..index(1, 12, 7) };
        let at = Cursor::at(cursor().page_size, &none, Some(header(1, 0)), 3);
        let position = WalPosition { checksum, ..cursor().position().unwrap() };
        for cursor in [at, Cursor::at_position(cursor().page_size, &position)] {
            let same = index(1, cursor.frame, cursor.change);
            assert!(matches!(cursor.next(&same, Some(header(1, 0))), Next::UpToDate));
            assert_eq!(cursor.position(), None);
            let recovered = index(1, cursor.frame, 1);
            assert!(matches!(cursor.next(&recovered, Some(header(1, 0))), Next::Doubt(_)));
        }
    }
}
