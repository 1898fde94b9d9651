//! A WAL that is being read: what was committed goes into the recorder, and the lock that keeps the WAL
//! is moved as the ratchet says.

mod moves;
mod unheld;

use std::path::PathBuf;
use std::time::Duration;

use genesis_wal::frame::frame_offset;
use genesis_wal::id::Txid;
use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::{ScanEnd, Scanner, Transaction};
use genesis_wal::time::Micros;

pub(super) use self::moves::take;
use super::attempts::Attempts;
use super::audit::Audit;
use super::cursor::{Continued, Cursor, Doubt, Next};
use super::engine::{Engine, SEAL_BYTES};
use super::establish::Established;
use super::holds::HoldBook;
use super::ratchet::Ratchet;
use super::readback::Misplaced;
use super::record::{self, RecordError, Recorder};
use super::scan::scan;
use super::segments::Segments;
use super::ship::{Outbox, ShippingEnded};
use super::snapshots::Snapshots;
use super::spool::Spool;
use super::table::Keeper;
use super::times::Times;
use super::underhand::{Look, Watchman};
use crate::clock;
use crate::sqlite::{FrameBuffers, FrameReader, Held, Source, SourceError, Writeback};

/// The pause before index and file, of two minds, are looked at again.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// How long, and for how many looks, they may stay of two minds: a writer is there for microseconds.
const OF_TWO_MINDS: Duration = Duration::from_millis(500);
const LOOKS_OF_TWO_MINDS: u32 = 100;

/// The pause before a torn wal-index, whose writer lives, is looked at again.
const TORN_PAUSE: Duration = Duration::from_millis(1);

/// The pause after a segment could not be sealed.
const SEAL_PAUSE: Duration = Duration::from_millis(10);

/// To catch up is to read until no more frames than this are ahead, but no more often than that: a writer
/// may be as fast as the reader.
const FEW_AHEAD: u32 = 128;
const CATCH_UP_ROUNDS: u32 = 2;

/// A WAL that is being read.
#[derive(Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is about something else")]
pub struct Tail {
    /// What was read, and where it goes.
    pub recorder: Recorder,
    /// What is to be done when.
    pub engine: Engine,
    /// How long the application's writers were held for it.
    pub holds: HoldBook,
    /// What it works with.
    pub(super) tools: Tools,
    /// When a gap that could not be closed is tried again.
    pub(super) closing: Attempts,
    /// It was told that the open gap waits for room.
    pub(super) is_gap_told: bool,
    /// Before that, nothing is done beside reading.
    pub(super) next_attention: Duration,
    /// It was told that the end is waited for.
    pub(super) is_hurried: bool,
    cursor: Cursor,
    /// The memory that frames are read into.
    buffers: FrameBuffers,
    ratchet: Ratchet,
    /// What is read next may have been committed while nobody looked.
    absent_since: Option<Micros>,
    /// The wal-index when everything had been read.
    settled: Option<IndexHeader>,
    /// The wal-index as of which the database file alone is the state: nothing later has reached it.
    alone_at: Option<IndexHeader>,
    /// How often that was.
    settles: u64,
    /// What was recorded could not be sealed.
    is_unsealed: bool,
    /// The last move of the lock failed.
    is_stuck: bool,
    /// It failed on its way: the lock may stand on any of its guards.
    is_loose: bool,
    /// It was told that the disk is slow.
    is_slow_told: bool,
    /// How often the lock was moved, and checkpoints were made for it.
    moves: u64,
    watchman: Watchman,
    writeback: Writeback,
    /// Since when index and file have been of two minds, and in how many looks.
    of_two_minds: Option<(Duration, u32)>,
}

/// What a tail works with.
#[derive(Debug)]
pub struct Tools {
    /// How long what was committed may wait for upload.
    pub sync_interval: Duration,
    /// With so many bytes in the WAL the write lock may be taken to empty it.
    pub wal_limit: Option<u64>,
    /// Where sealed segments go.
    pub outbox: Outbox,
    /// Where segments are sealed.
    pub spool: Spool,
    /// The folder of local state.
    pub folder: PathBuf,
    /// Keeps the page table on the disk.
    pub keeper: Keeper,
    /// The snapshots.
    pub snapshots: Snapshots,
    /// When commits were seen.
    pub times: Times,
    /// Reads the database again.
    pub audit: Audit,
}

impl Tail {
    /// Goes on from an established place.
    #[must_use]
    pub fn new(established: Established, tools: Tools, holds: HoldBook) -> Self {
        let Established { recorder, cursor, absent_since, is_unheld: _ } = established;
        Self {
            recorder,
            engine: Engine::new(tools.sync_interval, tools.wal_limit),
            holds,
            tools,
            closing: Attempts::default(),
            is_gap_told: false,
            next_attention: Duration::ZERO,
            is_hurried: false,
            cursor,
            buffers: FrameBuffers::default(),
            ratchet: Ratchet::new(),
            absent_since,
            settled: None,
            alone_at: None,
            settles: 0,
            is_unsealed: false,
            is_stuck: false,
            is_loose: false,
            is_slow_told: false,
            moves: 0,
            watchman: Watchman::default(),
            writeback: Writeback::default(),
            of_two_minds: None,
        }
    }

    /// What is left of it after a doubt: what was captured until then is of no use.
    #[must_use]
    pub fn dismantle(mut self) -> (Recorder, Tools) {
        self.tools.snapshots.running = None;
        (self.recorder, self.tools)
    }

    /// Whether something must be finished before the end, and can be: a gap is open, or a line waits for
    /// its first snapshot.
    #[must_use]
    pub fn is_unfinished(&self) -> bool {
        let is_left = self.recorder.is_behind() || self.tools.snapshots.is_awaited();
        is_left && !self.tools.outbox.is_closed()
    }

    /// The place up to which everything was read.
    #[must_use]
    pub fn position(&self) -> Option<WalPosition> {
        self.cursor.position()
    }

    /// The wal-index as of that place.
    #[must_use]
    pub fn settled(&self) -> Option<IndexHeader> {
        self.settled
    }

    /// Whether everything that `index` publishes has been read.
    #[must_use]
    pub fn is_settled(&self, index: &WalIndex) -> bool {
        self.settled == Some(index.header)
    }

    /// How often everything had been read.
    #[must_use]
    pub fn settles(&self) -> u64 {
        self.settles
    }

    /// Whether the lock is where the next writer restarts the WAL.
    #[must_use]
    pub fn is_parked(&self, index: &WalIndex) -> bool {
        self.ratchet.is_parked() && index.backfilled == index.header.max_frame
    }

    /// Whether the lock stands on read mark 0 (or on the last frame, as it does beside a checkpointer that
    /// had not yet left that mark), whatever was committed since.
    #[must_use]
    pub fn is_on_mark_zero(&self) -> bool {
        self.ratchet.is_parked()
    }

    /// Reads and records what `index` says is committed.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn read(&mut self, source: &Source, index: &IndexHeader) -> Result<(), RecordError> {
        match self.cursor.next(index, source.wal_header()?) {
            Next::UpToDate => {
                self.cursor.confirm(index);
                self.settle(index);
                Ok(())
            }
            Next::LookAgain => self.look_again(ScanEnd::SaltChanged { frame: 1 }),
            Next::Doubt(doubt) => Err(RecordError::Doubt(doubt)),
            Next::Scan { scanner, identity } => {
                let buffers = std::mem::take(&mut self.buffers);
                let mut frames = FrameReader::reusing(buffers, source, index.max_frame);
                let read = self.scan(&mut frames, index, scanner, identity);
                self.buffers = frames.into_buffers();
                read
            }
        }
    }

    /// Ends the open segment and hands it over.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn seal(&mut self) -> Result<(), RecordError> {
        let bytes = self.recorder.waiting();
        let Some(name) = self.recorder.seal()? else { return Ok(()) };
        self.tools.outbox.segment(name)?;
        if let Some(as_of) = self.recorder.as_of() {
            self.tools.keeper.sealed(bytes, self.recorder.table(), as_of);
        }
        Ok(())
    }

    /// Ends. What was recorded is sealed; the last transaction, if there is any.
    #[must_use]
    pub fn finish(self) -> Option<Txid> {
        let Self { recorder, tools: Tools { keeper, .. }, .. } = self;
        keeper.finish(recorder.table(), recorder.as_of());
        recorder.line().map(Segments::last)
    }

    /// Takes in what was committed when the WAL came to be held, before anything else is read: what
    /// comes later is recorded commit by commit if a comparison or a snapshot is made at once.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn begin(&mut self, source: &Source, held: &Held) -> Result<(), RecordError> {
        self.alone_at = (!held.overlay).then_some(held.index.header);
        if !self.recorder.is_behind() {
            return Ok(());
        }
        if !held.overlay {
            self.settle(&held.index.header);
        }
        while self.settled != Some(held.index.header) {
            self.read(source, &held.index.header)?;
        }
        self.attend(source)
    }

    /// Looks whether somebody writes into the database file past SQLite. From time to time.
    ///
    /// # Errors
    /// [`Doubt::Overwritten`] when somebody did.
    pub fn check_file(&mut self, source: &mut Source) -> Result<(), RecordError> {
        let is_checkpointing = source.is_being_checkpointed()?;
        let (written, index) = (source.written()?, published(source)?);
        if self.watchman.look(Look::new(written, &index, self.moves, is_checkpointing)) {
            return Err(RecordError::Doubt(Doubt::Overwritten));
        }
        Ok(())
    }

    /// Looks whether somebody set the wall clock. From time to time.
    pub fn look_at_clocks(&mut self) {
        self.tools.times.look();
    }

    /// Whether the database file alone is the state up to which everything was read.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.settled.is_some() && self.settled == self.alone_at
    }

    /// Whether the database file can be compared with what was recorded, and is to be.
    #[must_use]
    pub fn is_read_back_due(&self) -> bool {
        self.ratchet.is_parked() && self.recorder.is_read_back_due()
    }

    /// Compares some pages of the database file with what was recorded.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read_back(&mut self, source: &Source) -> Result<(), RecordError> {
        if self.is_read_back_due() {
            alarm(self.recorder.read_back(source)?);
        }
        Ok(())
    }

    /// Reads and records at least everything that the wal-index publishes now, and what little there is
    /// more; the index up to which that was done.
    fn catch_up(&mut self, source: &mut Source) -> Result<WalIndex, RecordError> {
        let mut index = published(source)?;
        let mut rounds = 0;
        loop {
            if !self.is_settled(&index) {
                self.read(source, &index.header)?;
            }
            let now = published(source)?;
            if self.is_settled(&index) {
                rounds += 1;
                let is_near = now.header.salts == index.header.salts
                    && now.header.max_frame.saturating_sub(index.header.max_frame) <= FEW_AHEAD;
                if is_near || rounds >= CATCH_UP_ROUNDS {
                    return Ok(index);
                }
            }
            index = now;
        }
    }

    fn read_back_before(
        &mut self,
        transaction: &Transaction,
        source: &Source,
    ) -> Result<(), RecordError> {
        if self.recorder.is_read_back_due() {
            alarm(self.recorder.read_back_before(transaction, source)?);
        }
        Ok(())
    }

    fn scan(
        &mut self,
        frames: &mut FrameReader<'_>,
        index: &IndexHeader,
        mut scanner: Scanner,
        identity: WalIdentity,
    ) -> Result<(), RecordError> {
        let source = frames.source();
        let mut transactions = Vec::new();
        let end = scan(frames, &mut scanner, |transaction| {
            transactions.push(transaction);
        })?;
        if end != ScanEnd::Clean {
            return self.look_again(end);
        }
        // Nothing is recorded before the whole of it is proven.
        let commits = u32::try_from(transactions.len()).unwrap_or(u32::MAX);
        let mut recorded = self.cursor;
        let continued =
            self.cursor.advance(identity, index, commits, !scanner.unsummed().is_empty());
        if continued.map_err(RecordError::Doubt)? == Continued::Rebuilt {
            tracing::info!("somebody rebuilt the wal-index: it counts commits anew");
        }
        let (time, late_since) = (self.tools.times.now(), self.absent_since);
        let seen = record::Seen { time, late_since, unplaced: self.cursor.is_unsummed() };
        let before = index.change.wrapping_sub(commits);
        for (number, transaction) in (1u32..).zip(&transactions) {
            let position = WalPosition {
                identity,
                frame: transaction.frame,
                checksum: transaction.checksum,
                change: before.wrapping_add(number),
                pages: transaction.pages,
            };
            let before = self.read_back_before(transaction, source);
            let done =
                before.and_then(|()| self.recorder.record(transaction, position, frames, seen));
            if let Err(error) = done {
                // What failed may pass: reading goes on after what was recorded.
                self.cursor = recorded;
                self.settled = None;
                return Err(error);
            }
            recorded = self.cursor.moved_to(&position);
            // While the application's writers are held, what can be done later is.
            let is_early = self.recorder.waiting() >= SEAL_BYTES && !source.guards().write;
            if is_early && !self.is_unsealed {
                self.seal_or_keep()?;
            }
        }
        if !source.guards().write {
            let end = frame_offset(source.page_size(), index.max_frame.saturating_add(1));
            self.writeback.read_to(source, identity, end);
        }
        // Not as the wal-index has it: the checksum that it holds after an unsummed frame is none to go by.
        if commits > 0 {
            self.cursor = recorded;
        }
        // With its time on a clock that a writer shares: so it can be told how soon commits are found.
        tracing::trace!(change = index.change, at_nanos = clock::machine_nanos(), "recorded");
        self.settle(index);
        Ok(())
    }

    /// Seals; what cannot be written is kept in memory until it can be, or until it is too much.
    ///
    /// # Errors
    /// [`RecordError`], but not that the spool cannot be written, as long as anything is shipped from it.
    pub fn seal_or_keep(&mut self) -> Result<(), RecordError> {
        match self.seal() {
            Err(RecordError::Local(_)) if self.tools.outbox.is_closed() => {
                Err(ShippingEnded.into())
            }
            Err(RecordError::Local(error)) => {
                if !self.is_unsealed {
                    tracing::error!(%error, "NOT PROTECTED: cannot write the spool");
                }
                self.is_unsealed = true;
                self.engine.seal_failed(clock::monotonic());
                clock::rest(SEAL_PAUSE);
                Ok(())
            }
            Ok(()) => {
                if std::mem::take(&mut self.is_unsealed) {
                    tracing::info!("the spool can be written again");
                }
                Ok(())
            }
            other => other,
        }
    }

    fn settle(&mut self, index: &IndexHeader) {
        self.settled = Some(*index);
        self.settles += 1;
        self.absent_since = None;
        self.of_two_minds = None;
    }

    /// The index is ahead of the file, or the WAL was restarted between two looks. Both pass at once,
    /// or this is no WAL that continues.
    fn look_again(&mut self, end: ScanEnd) -> Result<(), RecordError> {
        let now = clock::monotonic();
        let (since, looks) = self.of_two_minds.get_or_insert((now, 0));
        *looks += 1;
        if *looks > LOOKS_OF_TWO_MINDS && now.saturating_sub(*since) > OF_TWO_MINDS {
            return Err(RecordError::Doubt(Doubt::Scan(end)));
        }
        clock::rest(LOOK_AGAIN);
        Ok(())
    }
}

/// Says that the database file does not hold what was recorded.
fn alarm(misplaced: Misplaced) {
    if let Misplaced { pages, first: Some(first) } = misplaced {
        tracing::error!(
            pages,
            first = first.get(),
            "THE DATABASE FILE LOST COMMITS on their way out of the WAL, as an SQLite before 3.51.3 \
             can; the replica has them: restore it, and update the application's SQLite"
        );
    }
}

/// The wal-index, as soon as it is whole. One that a killed writer left torn is rebuilt.
///
/// # Errors
/// When it cannot be read.
pub fn published(source: &mut Source) -> Result<WalIndex, SourceError> {
    loop {
        match source.index()? {
            Some(index) => return Ok(index),
            None => match source.recover_index() {
                // Its writer lives, and will finish what it writes.
                Err(SourceError::Locked { .. }) => clock::rest(TORN_PAUSE),
                other => other?,
            },
        }
    }
}
