//! Drives the scanner over the source's WAL.

use std::collections::HashMap;
use std::sync::Once;

use genesis_wal::checksum::Checksum;
use genesis_wal::index::IndexHeader;
use genesis_wal::page::PageNumber;
use genesis_wal::reader::Reader;
use genesis_wal::scan::{FrameRef, ScanEnd, Scanner, Step, Transaction};

use crate::sqlite::{FrameReader, Held, Source, SourceError};

/// Frames without checksums are told of once.
static UNSUMMED_SEEN: Once = Once::new();

/// Runs a scan to its end, handing each transaction to `commit`. What no checksum proves is compared with
/// the wal-index: of that, too, nothing counts before the end is [`ScanEnd::Clean`].
///
/// # Errors
/// When the WAL cannot be read.
pub fn scan(
    frames: &mut FrameReader<'_>,
    scanner: &mut Scanner,
    mut commit: impl FnMut(Transaction),
) -> Result<ScanEnd, SourceError> {
    loop {
        let bytes = match scanner.frames_left() {
            0 => &[],
            _ => frames.frames_from(scanner.next_frame())?,
        };
        let mut reader = Reader::new(bytes);
        loop {
            match scanner.step(&mut reader) {
                Step::Commit(transaction) => commit(transaction),
                Step::End(ScanEnd::Clean) => return check_unsummed(frames.source(), scanner),
                Step::End(end) => return Ok(end),
                Step::NeedBytes if bytes.is_empty() => return Ok(scanner.torn()),
                Step::NeedBytes => break,
            }
        }
    }
}

/// Whether the wal-index still counts the frames that no checksum proves as committed, each with the
/// page that was read: then nobody has written over them.
fn check_unsummed(source: &Source, scanner: &Scanner) -> Result<ScanEnd, SourceError> {
    let Some(last) = scanner.unsummed().last() else { return Ok(ScanEnd::Clean) };
    let index = source.index()?.map(|index| index.header);
    let is_counted =
        |index: IndexHeader| index.salts == scanner.salts() && index.max_frame >= last.frame;
    if !index.is_some_and(is_counted) {
        return Ok(ScanEnd::SaltChanged { frame: last.frame });
    }
    UNSUMMED_SEEN.call_once(|| {
        tracing::warn!(
            "an SQLite before 3.50 commits transactions that went back to a savepoint so that it \
             loses them when it recovers the WAL, as after a power failure; the replica has them: \
             update the application's SQLite"
        );
    });
    for image in scanner.unsummed() {
        if source.indexed_page(image.frame)? != image.page.get() {
            return Ok(ScanEnd::IndexDisagrees { frame: image.frame });
        }
    }
    Ok(ScanEnd::Clean)
}

/// The newest image of each page in the WAL, as of one of its commits.
#[derive(Debug, Clone, Default)]
pub struct Overlay {
    newest: HashMap<PageNumber, u32>,
    /// The last transaction that went in.
    end: Option<(u32, Checksum)>,
    commits_after: u32,
    is_unsummed: bool,
}

impl Overlay {
    /// The images of the current WAL up to the commit at `upto`, or to the one before it.
    ///
    /// # Errors
    /// When the WAL cannot be read. The inner error says why the frames are not what the wal-index
    /// describes.
    pub fn read(
        source: &Source,
        index: &IndexHeader,
        upto: u32,
    ) -> Result<Result<Self, ScanEnd>, SourceError> {
        let mut overlay = Self::default();
        let Some(header) = source.wal_header()? else {
            return Ok(Err(ScanEnd::Torn { frame: 1 }));
        };
        let mut scanner = Scanner::new(header, 0, header.checksum, index);
        let mut frames = FrameReader::new(source, index.max_frame);
        let end = scan(&mut frames, &mut scanner, |transaction| {
            if transaction.frame <= upto {
                overlay.add(&transaction);
            } else {
                overlay.commits_after = overlay.commits_after.saturating_add(1);
            }
        })?;
        overlay.is_unsummed = scanner.unsummed().iter().any(|image| image.frame <= upto);
        Ok(if end == ScanEnd::Clean { Ok(overlay) } else { Err(end) })
    }

    /// The overlay of what a read transaction holds: empty where the file alone is the state.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn of_held(source: &Source, held: &Held) -> Result<Result<Self, ScanEnd>, SourceError> {
        if held.overlay {
            Self::read(source, &held.index.header, held.index.header.max_frame)
        } else {
            Ok(Ok(Self::default()))
        }
    }

    /// The frame and checksum of the last commit that went in.
    #[must_use]
    pub fn end(&self) -> Option<(u32, Checksum)> {
        self.end
    }

    /// Whether no checksum proves some of what went in.
    #[must_use]
    pub fn is_unsummed(&self) -> bool {
        self.is_unsummed
    }

    /// Commits in the WAL after that one.
    #[must_use]
    pub fn commits_after(&self) -> u32 {
        self.commits_after
    }

    /// The images within a database of `pages` pages, ascending by page.
    #[must_use]
    pub fn into_images(self, pages: u32) -> Vec<FrameRef> {
        let images = self.newest.into_iter().map(|(page, frame)| FrameRef { page, frame });
        let mut images: Vec<_> = images.filter(|image| image.page.get() <= pages).collect();
        images.sort_unstable_by_key(|image| image.page);
        images
    }

    fn add(&mut self, transaction: &Transaction) {
        self.newest.extend(transaction.images.iter().map(|image| (image.page, image.frame)));
        self.end = Some((transaction.frame, transaction.checksum));
    }
}
