//! What becomes of a transaction that cannot be recorded as it comes.

use std::path::PathBuf;

use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::PageSize;
use genesis_wal::part::Stamp;
use genesis_wal::position::WalIdentity;
use genesis_wal::scan::FrameRef;

use super::*;
use crate::replicate::base::Earlier;
use crate::replicate::cursor::Doubt;
use crate::replicate::spool::{Limits, Spool};

/// More than a part holds: they are read again when they are encoded.
const PAGES: u32 = 300;

/// Frames of one byte over and over, of which so many can be read, and so many before they are written
/// over.
struct Failing {
    left: u32,
    lasting: u32,
    page: Vec<u8>,
}

impl Failing {
    fn after(left: u32) -> Self {
        Self { left, lasting: u32::MAX, page: vec![0; 4096] }
    }
}

impl Earlier for Failing {
    type Error = SourceError;

    fn read_frame(&mut self, _frame: u32, _page: &mut [u8]) -> Result<bool, SourceError> {
        Ok(false)
    }

    fn read_file(&mut self, _number: PageNumber, _page: &mut [u8]) -> Result<(), SourceError> {
        Ok(())
    }
}

impl Frames for Failing {
    fn go_to(&mut self, _first: u32, _last: u32) -> Result<(), SourceError> {
        Ok(())
    }

    fn page(&mut self, image: FrameRef, _salts: Salts) -> Result<Option<&[u8]>, SourceError> {
        let failed = || SourceError::Io {
            action: "read",
            path: PathBuf::from("app.db"),
            source: io::ErrorKind::TimedOut.into(),
        };
        self.left = self.left.checked_sub(1).ok_or_else(failed)?;
        let [byte, ..] = image.frame.to_le_bytes();
        let is_over = self.lasting == 0;
        self.lasting = self.lasting.saturating_sub(1);
        self.page.fill(if is_over { !byte } else { byte });
        Ok(Some(&self.page))
    }

    fn held(&self, _frame: u32) -> Option<&[u8]> {
        None
    }
}

fn recorder(folder: &std::path::Path) -> Recorder {
    let page_size = PageSize::new(4096).unwrap();
    let mut table = PageTable::new(page_size, tempfile::tempfile().unwrap());
    table.resize(PAGES).unwrap();
    let spool = Spool::open(folder.into(), Limits { keep: 0, wait: None }).unwrap();
    let generation = Generation { epoch: Epoch(1), random: 7 };
    let stamp = Stamp { generation, epoch: Epoch(1) };
    let end = (Txid(1), Micros(1), table.state());
    Recorder::continuing(table, Segments::new(spool, stamp, page_size, end))
}

fn transaction(first_frame: u32) -> (Transaction, WalPosition) {
    let image = |page| Some(FrameRef { page: PageNumber::new(page)?, frame: first_frame + page });
    let images = (1..=PAGES).filter_map(image).collect();
    let (frame, checksum) = (first_frame + PAGES, Checksum(first_frame, 0));
    let identity = WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(0, 0) };
    let position = WalPosition { identity, frame, checksum, change: frame, pages: PAGES };
    (Transaction { pages: PAGES, images, frame, checksum }, position)
}

/// As a driver does: what fails and may pass is tried again.
fn record(recorder: &mut Recorder, first_frame: u32, mut readable: Vec<u32>) {
    let (transaction, position) = transaction(first_frame);
    let seen = Seen { time: Micros(5), late_since: None, unplaced: false };
    readable.reverse();
    while let Some(left) = readable.pop() {
        let mut frames = Failing::after(left);
        match recorder.record(&transaction, position, &mut frames, seen) {
            Ok(()) => return,
            Err(error) => assert!(error.may_pass(), "{error}"),
        }
    }
    panic!("never recorded");
}

#[test]
fn a_transaction_whose_frames_cannot_be_read_for_a_while_counts_once() {
    let folder = tempfile::tempdir().unwrap();
    for readable in [0, PAGES / 2, PAGES, PAGES + 1, 2 * PAGES - 1] {
        let mut ours = recorder(folder.path());
        record(&mut ours, 0, vec![u32::MAX]);
        assert_eq!(ours.line().map(Segments::last), Some(Txid(2)));
        record(&mut ours, PAGES, vec![readable, u32::MAX]);
        let recorded = ours.line().map(Segments::last);
        let in_gap = ours.gap.as_ref().map_or(0, |gap| gap.kind().1);
        let found = (recorded, in_gap);
        assert!([(Some(Txid(3)), 0), (Some(Txid(2)), 1)].contains(&found), "{readable}: {found:?}");
    }
}

#[test]
fn what_is_read_again_and_is_something_else_is_not_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (transaction, position) = transaction(0);
    let seen = Seen { time: Micros(5), late_since: None, unplaced: false };
    for lasting in [PAGES, PAGES + 1, 2 * PAGES - 1] {
        let mut ours = recorder(folder.path());
        let mut frames = Failing { lasting, ..Failing::after(u32::MAX) };
        let recorded = ours.record(&transaction, position, &mut frames, seen);
        let vanished = matches!(recorded, Err(RecordError::Doubt(Doubt::Vanished(_))));
        assert!(vanished, "{lasting}: {recorded:?}");
    }
}

#[test]
fn what_is_cut_off_and_comes_back_in_a_doubt_does_not_differ() {
    let folder = tempfile::tempdir().unwrap();
    let mut ours = recorder(folder.path());
    let last = PageNumber::new(PAGES).unwrap();
    let image = (last, PageHash::of(last, &[7; 4096]));
    ours.table.set(image.0, image.1);
    ours.doubt(PAGES).unwrap();
    ours.advance(&[], PAGES - 1).unwrap();
    ours.advance(&[image], PAGES).unwrap();
    let differing = |ours: &Recorder| ours.gap.as_ref().unwrap().differing().count();
    assert_eq!(differing(&ours), 0);
    ours.advance(&[(last, PageHash::of(last, &[8; 4096]))], PAGES).unwrap();
    assert_eq!(differing(&ours), 1);
}
