//! Finds the point from which the source's WAL is recorded: the tip of the replica where the WAL proves
//! that the source continues it, else with a gap that a comparison of the pages closes.

use std::io;
use std::path::PathBuf;

use genesis_snapshot::manifest::Manifest;
use genesis_wal::frame::frame_len;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::SegmentName;
use genesis_wal::part::Stamp;
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::ScanEnd;
use genesis_wal::time::Micros;
use thiserror::Error;

use super::capture::Known;
use super::cursor::Cursor;
use super::likeness::{Thoroughness, compare};
use super::record::Recorder;
use super::restored::RestoredState;
use super::scan::Overlay;
use super::segments::Segments;
use super::spool::Spool;
use super::table::PageTable;
use crate::durable;
use crate::replica::{AnotherDatabase, Tip};
use crate::sqlite::{Held, Source, SourceError};

/// So many bytes of frames that nothing holds are copied under the write lock; of a smaller limit to the
/// WAL no more than that, and nothing where writers are never to be held.
const REPLAY_BYTES: u64 = 64 << 20;

/// What the replica told about where to begin.
#[derive(Debug)]
pub struct Origin {
    /// The epoch of this process.
    pub epoch: Epoch,
    /// The newest state that the replica and the spool hold.
    pub tip: Option<Tip>,
    /// What must still be shipped for it.
    pub unshipped: Vec<SegmentName>,
    /// The hashes of the tip's pages.
    pub table: Option<PageTable>,
    /// The newest snapshot of its line.
    pub previous: Option<Box<Manifest>>,
    /// Blocks in packs of a snapshot that was interrupted.
    pub resumed: Known,
    /// The last transaction that is in the replica.
    pub stored: Option<Txid>,
    /// The first transaction id that nothing in the replica or the spool is named for.
    pub free: Txid,
    /// The last time that is recorded, as far as is known.
    pub last_time: Micros,
    /// The state of another line with which the line begins, or began.
    pub parent: Option<(Generation, Txid)>,
    /// That state, if the database was restored to it and the line is still to begin.
    pub branch: Option<RestoredState>,
}

/// Why nothing could be established.
#[derive(Debug, Error)]
pub enum EstablishError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The WAL is not what its index says, under a lock that keeps both.
    #[error("the WAL cannot be read: {0}")]
    Wal(ScanEnd),
    /// The local state cannot be used.
    #[error("cannot use the local state")]
    Local(#[from] io::Error),
    /// The replica holds another database.
    #[error(transparent)]
    Another(#[from] AnotherDatabase),
}

impl EstablishError {
    /// Whether it may pass by itself, or when somebody mends what is outside. Those who keep the WAL
    /// from being emptied for long are told to the user.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Source(SourceError::Locked { .. }) | Self::Another(_) => false,
            Self::Source(error) => error.may_pass(),
            Self::Wal(_) | Self::Local(_) => true,
        }
    }
}

/// Where recording begins.
#[derive(Debug)]
pub struct Established {
    /// The recorder, at the state that is recorded.
    pub recorder: Recorder,
    /// The place in the WAL after that state, or before all that is known of the source.
    pub cursor: Cursor,
    /// What is read first may have been committed while nobody looked, since this time.
    pub absent_since: Option<Micros>,
    /// Nothing holds what follows the cursor: it is to be read under the write lock.
    pub is_unheld: bool,
}

/// What a beginning is made with.
#[derive(Debug)]
pub struct Grounds<'a> {
    /// The database.
    pub source: &'a Source,
    /// What its read transaction holds.
    pub held: &'a Held,
    /// Where segments are sealed.
    pub spool: &'a Spool,
    /// The folder of local state.
    pub folder: PathBuf,
    /// Whether another database may begin another line of history.
    pub new_generation: bool,
    /// With so many bytes in the WAL the write lock may be taken.
    pub wal_limit: Option<u64>,
}

impl Grounds<'_> {
    /// Goes on from the tip with what the WAL holds after it; `None` where it does not go on from there.
    /// Takes the table else.
    ///
    /// # Errors
    /// [`EstablishError`]; the table is still there then.
    pub fn go_on(
        &self,
        tip: &Tip,
        table: &mut Option<PageTable>,
        epoch: Epoch,
    ) -> Result<Option<Established>, EstablishError> {
        if tip.page_size != self.source.page_size() {
            return Ok(None);
        }
        let Some((cursor, is_unheld)) = self.recorded_place(tip)? else { return Ok(None) };
        let Some(table) = table.take() else { return Ok(None) };
        let recorder = Recorder::continuing(table, self.line(tip, epoch));
        let absent_since = Some(tip.reached.time);
        Ok(Some(Established { recorder, cursor, absent_since, is_unheld }))
    }

    /// Goes on from the tip: with what the WAL holds after it, or with a gap. Takes the table.
    ///
    /// # Errors
    /// [`EstablishError`]; the table is still there then, and it can be tried again.
    pub fn resume(
        &self,
        tip: &Tip,
        table: &mut Option<PageTable>,
        epoch: Epoch,
    ) -> Result<Established, EstablishError> {
        let (generation, txid) = (tip.generation, tip.reached.txid.0);
        if tip.page_size != self.source.page_size() {
            self.check_likeness(table.as_ref())?;
            tracing::error!(%generation, txid, "the page size changed: another line begins");
            return self.begin();
        }
        if let Some(established) = self.go_on(tip, table, epoch)? {
            tracing::info!(%generation, txid, "continuing what the replica holds");
            return Ok(established);
        }
        let (pages, cursor) = (self.source.pages(&self.held.index)?, self.cursor_of_held()?);
        self.check_likeness(table.as_ref())?;
        if let Some(table) = table {
            table.resize(pages)?;
        }
        let Some(table) = table.take() else { return self.begin() };
        tracing::warn!(
            %generation, txid,
            "the WAL does not reach back to what was recorded: comparing every page"
        );
        let recorder = Recorder::after_absence(table, self.line(tip, epoch));
        Ok(Established { recorder, cursor, absent_since: None, is_unheld: false })
    }

    /// Refuses another database, unless it is allowed.
    fn check_likeness(&self, recorded: Option<&PageTable>) -> Result<(), EstablishError> {
        let Self { source, held, new_generation, .. } = self;
        let Some(recorded) = recorded else { return Ok(()) };
        match compare(source, held, recorded, Thoroughness::Sample)? {
            Some(likeness) if !new_generation => Ok(likeness.check()?),
            _ => Ok(()),
        }
    }

    /// Begins with a database of which nothing is known.
    ///
    /// # Errors
    /// [`EstablishError`].
    pub fn begin(&self) -> Result<Established, EstablishError> {
        let table = PageTable::new(self.source.page_size(), durable::nameless(&self.folder)?);
        let recorder = Recorder::beginning(table, self.source.pages(&self.held.index)?)?;
        let cursor = self.cursor_of_held()?;
        Ok(Established { recorder, cursor, absent_since: None, is_unheld: false })
    }

    /// Goes on after a doubt: every page is compared. Takes the recorder.
    ///
    /// # Errors
    /// [`EstablishError`]; the recorder is still there then, and it can be tried again.
    pub fn after_doubt(
        &self,
        recorder: &mut Option<Box<Recorder>>,
    ) -> Result<Established, EstablishError> {
        let (pages, cursor) = (self.source.pages(&self.held.index)?, self.cursor_of_held()?);
        if let Some(recorder) = recorder {
            recorder.doubt(pages)?;
        }
        let Some(recorder) = recorder.take() else { return self.begin() };
        Ok(Established { recorder: *recorder, cursor, absent_since: None, is_unheld: false })
    }

    /// The cursor from which everything is read that the database file does not hold.
    fn cursor_of_held(&self) -> Result<Cursor, EstablishError> {
        let index = &self.held.index;
        let header = self.source.wal_header()?;
        let pages = self.source.pages(index)?;
        let (true, Some(wal)) = (self.held.overlay, &header) else {
            return Ok(Cursor::at(self.source.page_size(), &index.header, header, pages));
        };
        // A WAL that cannot be read to its end is found out here, where it can be backfilled.
        let overlay = Overlay::read(self.source, &index.header, 0)?.map_err(EstablishError::Wal)?;
        let change = index.header.change.wrapping_sub(overlay.commits_after());
        Ok(Cursor::at_start(wal, change, pages))
    }

    /// The tip's place in the WAL, where that WAL is still there and reaches it, and whether nothing
    /// holds what follows.
    fn recorded_place(&self, tip: &Tip) -> Result<Option<(Cursor, bool)>, EstablishError> {
        let Self { source, held, .. } = self;
        let Some(position) = tip.reached.position else { return Ok(None) };
        let now = &held.index.header;
        let is_there = (now.max_frame, now.salts, now.frame_checksum)
            == (position.frame, position.identity.salts, position.checksum);
        // Nothing came after it, and the WAL may have been restarted since it came to be held.
        if !held.overlay && is_there {
            let position = WalPosition { change: now.change, ..position };
            return Ok(Some((Cursor::at_position(source.page_size(), &position), false)));
        }
        let header = source.wal_header()?;
        if header.as_ref().map(WalIdentity::from) != Some(position.identity) {
            return Ok(None);
        }
        let Ok(overlay) = Overlay::read(source, &held.index.header, position.frame)? else {
            return Ok(None);
        };
        // Frames without checksums may have been lost in a recovery, and written anew.
        if overlay.end() != Some((position.frame, position.checksum)) || overlay.is_unsummed() {
            return Ok(None);
        }
        let frames = held.index.header.max_frame.saturating_sub(position.frame);
        let is_unheld = !held.overlay && frames > 0;
        let bytes = u64::from(frames) * frame_len(source.page_size()) as u64;
        if is_unheld && bytes > self.wal_limit.map_or(0, |limit| limit.min(REPLAY_BYTES)) {
            return Ok(None);
        }
        // The index may have been rebuilt since: only its own count continues.
        let change = held.index.header.change.wrapping_sub(overlay.commits_after());
        let position = WalPosition { change, ..position };
        Ok(Some((Cursor::at_position(source.page_size(), &position), is_unheld)))
    }

    fn line(&self, tip: &Tip, epoch: Epoch) -> Segments {
        let stamp = Stamp { generation: tip.generation, epoch };
        let end = (tip.reached.txid, tip.reached.time, tip.reached.state);
        Segments::new(self.spool.clone(), stamp, tip.page_size, end)
    }
}
