//! The driver of one database: a thread that reads the source as the engine decides, records what was
//! committed, and hands sealed segments to the shipper. It does I/O and decides nothing.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use genesis_wal::frame::frame_offset;
use genesis_wal::id::Txid;
use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::{ScanEnd, Scanner};
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;

use super::cursor::{Cursor, Doubt, Next};
use super::engine::{Action, Engine, Seen};
use super::establish::{self, EstablishError, Established, Numbers, Origin};
use super::ratchet::{Outcome, Procedure, Ratchet, Step};
use super::record::{self, RecordError, Recorder};
use super::scan::scan;
use super::ship::Shipment;
use super::spool::Spool;
use super::watch::{Alarm, Waker};
use crate::clock;
use crate::sqlite::{FrameReader, Held, Source, SourceError};

/// How often a database that is not there yet is looked for.
const AWAIT_POLL: Duration = Duration::from_millis(100);

/// The pause before index and file, of two minds, are looked at again.
const LOOK_AGAIN: Duration = Duration::from_micros(50);

/// How long they may stay of two minds: no writer takes that long to publish a commit.
const OF_TWO_MINDS: Duration = Duration::from_secs(5);

/// How far a follower has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing is known yet.
    Starting,
    /// There is no database yet.
    Waiting,
    /// The WAL is held: nothing that is committed from now on can be lost.
    Followed,
}

/// Why a database is no longer followed.
#[derive(Debug, Error)]
pub enum FollowError {
    /// The source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The start.
    #[error(transparent)]
    Establish(#[from] EstablishError),
    /// The recording.
    #[error(transparent)]
    Record(RecordError),
    /// The replica cannot be used, or shipping has ended; that side says why.
    #[error("the replica takes nothing more")]
    NoReplica,
}

/// What a follower needs.
#[derive(Debug)]
pub struct Follower {
    /// The database's canonical path.
    pub path: PathBuf,
    /// Switch the database to WAL mode if need be.
    pub set_wal: bool,
    /// How long what was committed may wait for upload.
    pub sync_interval: Duration,
    /// With so many bytes in the WAL the write lock may be taken to empty it.
    pub wal_limit: Option<u64>,
    /// Where segments are sealed.
    pub spool: Spool,
    /// Says where recording begins, once the replica has been asked.
    pub origin: Receiver<Origin>,
    /// Where sealed segments go.
    pub queue: UnboundedSender<Shipment>,
    /// Says how far it has come.
    pub stage: watch::Sender<Stage>,
    /// Wakes it.
    pub alarm: Alarm,
    /// For the watcher of the WAL.
    pub waker: Waker,
}

/// How following a WAL ended.
enum End {
    Stopped,
    Doubt(Doubt),
}

/// A WAL that is being read.
struct Tail {
    recorder: Recorder,
    cursor: Cursor,
    engine: Engine,
    ratchet: Ratchet,
    /// What is read next may have been committed while nobody looked.
    absent_since: Option<genesis_wal::time::Micros>,
    /// The wal-index when everything had been read.
    settled: Option<IndexHeader>,
    /// Since when index and file have been of two minds.
    of_two_minds: Option<Duration>,
}

impl Follower {
    /// Follows the database until told to stop; then everything committed has been handed to the
    /// shipper. The last recorded transaction; `None` when there was no database.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn run(self) -> Result<Option<Txid>, FollowError> {
        let Some((mut source, held)) = self.await_database()? else {
            return Ok(None);
        };
        let watcher = self.waker.watch(&source.wal_path());
        self.stage.send_replace(Stage::Followed);
        tracing::info!(database = %self.path.display(), "followed: what is committed now is kept");
        let origin = self.origin.recv().map_err(|_ended| FollowError::NoReplica)?;
        let epoch = origin.epoch;
        let mut established = self.establish(&source, &held, origin)?;
        let mut attempt = 0;
        loop {
            let mut tail = Tail::new(established, Engine::new(self.sync_interval, self.wal_limit));
            match self.follow(&mut source, &mut tail)? {
                End::Stopped => {
                    drop(watcher);
                    return Ok(Some(tail.recorder.last()));
                }
                End::Doubt(doubt) => {
                    tracing::error!(
                        reason = %doubt,
                        "what follows cannot be proven to continue what was recorded: a new generation begins with a snapshot"
                    );
                }
            }
            self.seal(&mut tail.recorder)?;
            source.keep_one_reader()?;
            let held = source.leap()?;
            source.end_older()?;
            attempt += 1;
            let txid = tail.recorder.last().next();
            let txid = txid.ok_or(FollowError::Record(RecordError::TxidsExhausted))?;
            let not_before = tail.recorder.last_time();
            let numbers = Numbers { epoch, attempt, txid, not_before };
            established =
                establish::begin_generation(&source, &held, numbers, &self.spool, &self.queue)?;
        }
    }

    /// Opens the database as soon as there is one; `None` when told to stop before.
    fn await_database(&self) -> Result<Option<(Source, Held)>, SourceError> {
        let mut waited = false;
        loop {
            match Source::open(&self.path, self.set_wal) {
                Ok(opened) => return Ok(Some(opened)),
                Err(error) if error.is_not_yet() || (waited && is_being_made(&error)) => {
                    if !waited {
                        tracing::info!(reason = %error, "waiting for the database");
                        self.stage.send_replace(Stage::Waiting);
                    }
                    waited = true;
                }
                Err(error) => return Err(error),
            }
            if self.alarm.stopping() {
                return Ok(None);
            }
            // A wake means: stop, or look.
            let _woken = self.alarm.wait(AWAIT_POLL);
        }
    }

    fn establish(
        &self,
        source: &Source,
        held: &Held,
        origin: Origin,
    ) -> Result<Established, FollowError> {
        let Origin { epoch, tip, free } = origin;
        let mut not_before = genesis_wal::time::Micros(0);
        if let Some((tip, unshipped)) = tip {
            for name in unshipped {
                self.ship(Shipment::Segment(name))?;
            }
            if let Some(established) = establish::resume(source, held, &tip, epoch, &self.spool)? {
                tracing::info!(generation = %tip.generation, txid = tip.txid.0, "continuing");
                return Ok(established);
            }
            tracing::warn!(
                generation = %tip.generation,
                txid = tip.txid.0,
                "the database does not provably continue the replica: a new generation begins with a snapshot"
            );
            not_before = tip.time;
        }
        let numbers = Numbers { epoch, attempt: 0, txid: free, not_before };
        Ok(establish::begin_generation(source, held, numbers, &self.spool, &self.queue)?)
    }

    fn follow(&self, source: &mut Source, tail: &mut Tail) -> Result<End, FollowError> {
        let mut written = true;
        loop {
            // Asked before the look: what was committed before the question is in the look.
            let stopping = self.alarm.stopping();
            let index = published(source)?;
            let seen = Seen {
                now: clock::monotonic(),
                unread: tail.settled != Some(index.header),
                written,
                waiting: tail.recorder.waiting(),
                stopping,
                max_frame: index.header.max_frame,
                backfilled: index.backfilled,
                wal_bytes: frame_offset(source.page_size(), index.header.max_frame),
                parked: tail.ratchet.is_parked() && index.backfilled == index.header.max_frame,
                waited_for: source.is_waited_for()?,
            };
            written = false;
            let mut doubted = Ok(());
            match tail.engine.next(&seen) {
                Action::Read => doubted = tail.read(source, &index.header),
                Action::Move(procedure) => doubted = tail.move_lock(source, procedure),
                Action::Seal => self.seal(&mut tail.recorder)?,
                Action::Wait(time) => written = self.alarm.wait(time),
                Action::Sleep(time) => {
                    clock::rest(time);
                    self.alarm.clear();
                }
                Action::Finish => return Ok(End::Stopped),
            }
            match doubted {
                Ok(()) => {}
                Err(RecordError::Doubt(doubt)) => return Ok(End::Doubt(doubt)),
                Err(error) => return Err(FollowError::Record(error)),
            }
        }
    }

    fn seal(&self, recorder: &mut Recorder) -> Result<(), FollowError> {
        match recorder.seal().map_err(FollowError::Record)? {
            Some(name) => self.ship(Shipment::Segment(name)),
            None => Ok(()),
        }
    }

    fn ship(&self, shipment: Shipment) -> Result<(), FollowError> {
        self.queue.send(shipment).map_err(|_closed| FollowError::NoReplica)
    }
}

impl Tail {
    fn new(established: Established, engine: Engine) -> Self {
        let Established { recorder, cursor, absent_since } = established;
        let ratchet = Ratchet::new();
        Self { recorder, cursor, engine, ratchet, absent_since, settled: None, of_two_minds: None }
    }

    /// Reads and records until everything is that the wal-index publishes; that index.
    fn catch_up(&mut self, source: &mut Source) -> Result<WalIndex, RecordError> {
        loop {
            let index = published(source)?;
            if self.settled == Some(index.header) {
                return Ok(index);
            }
            self.read(source, &index.header)?;
        }
    }

    /// Takes the steps of a procedure that moves the lock.
    fn move_lock(&mut self, source: &mut Source, procedure: Procedure) -> Result<(), RecordError> {
        let started = clock::monotonic();
        let mut step = self.ratchet.start(procedure, started);
        loop {
            let before = published(source)?;
            let mut copied = None;
            let done = match step {
                Step::Finished => break,
                Step::Begin => source.begin()?,
                Step::Copy => {
                    copied = Some(self.catch_up(source)?);
                    true
                }
                Step::End => source.end_older().map(|()| true)?,
                Step::Checkpoint(pause) => {
                    clock::rest(pause);
                    source.checkpoint()?
                }
                Step::Sync => source.sync().map(|()| true)?,
                Step::Write(pause) => {
                    clock::rest(pause);
                    source.lock_writes()?
                }
                Step::Rollback => source.unlock_writes().map(|()| true)?,
                Step::Pin => source.pin()?,
                Step::Unpin => source.unpin().map(|()| true)?,
                Step::Look(pause) => {
                    clock::rest(pause);
                    true
                }
            };
            let index = match (step, copied) {
                (Step::Begin, _) => before,
                (_, Some(copied)) => copied,
                _ => published(source)?,
            };
            let (now, waited_for) = (clock::monotonic(), source.is_waited_for()?);
            step = self.ratchet.next(&Outcome { now, done, index, waited_for });
        }
        let (now, parked) = (clock::monotonic(), self.ratchet.is_parked());
        let max_frame = published(source)?.header.max_frame;
        let micros = now.saturating_sub(started).as_micros();
        tracing::debug!(?procedure, parked, max_frame, micros, "moved the lock that keeps the WAL");
        self.engine.moved(now, parked, max_frame);
        Ok(())
    }

    /// Reads and records what `index` says is committed.
    fn read(&mut self, source: &Source, index: &IndexHeader) -> Result<(), RecordError> {
        match self.cursor.next(index, source.wal_header()?) {
            Next::UpToDate => self.settle(index),
            Next::LookAgain => return self.look_again(ScanEnd::SaltChanged { frame: 1 }),
            Next::Doubt(doubt) => return Err(RecordError::Doubt(doubt)),
            Next::Scan { scanner, identity } => {
                return self.scan(source, index, scanner, identity);
            }
        }
        Ok(())
    }

    fn scan(
        &mut self,
        source: &Source,
        index: &IndexHeader,
        scanner: Scanner,
        identity: WalIdentity,
    ) -> Result<(), RecordError> {
        let mut frames = FrameReader::new(source, index.max_frame);
        let mut transactions = Vec::new();
        let end = scan(&mut frames, scanner, |transaction| {
            transactions.push(transaction);
        })?;
        if end != ScanEnd::Clean {
            return self.look_again(end);
        }
        // Nothing is recorded before the whole of it is proven.
        let commits = u32::try_from(transactions.len()).unwrap_or(u32::MAX);
        self.cursor.advance(identity, index, commits).map_err(RecordError::Doubt)?;
        let seen = record::Seen { wall: clock::wall(), late_since: self.absent_since };
        let before = index.change.wrapping_sub(commits);
        for (number, transaction) in (1u32..).zip(&transactions) {
            let position = WalPosition {
                identity,
                frame: transaction.frame,
                checksum: transaction.checksum,
                change: before.wrapping_add(number),
                pages: transaction.pages,
            };
            self.recorder.record(transaction, position, &mut frames, seen)?;
        }
        self.settle(index);
        Ok(())
    }

    fn settle(&mut self, index: &IndexHeader) {
        self.settled = Some(*index);
        self.absent_since = None;
        self.of_two_minds = None;
    }

    /// The index is ahead of the file, or the WAL was restarted between two looks. Both pass at once,
    /// or this is no WAL that continues.
    fn look_again(&mut self, end: ScanEnd) -> Result<(), RecordError> {
        let now = clock::monotonic();
        let since = *self.of_two_minds.get_or_insert(now);
        if now.saturating_sub(since) > OF_TWO_MINDS {
            return Err(RecordError::Doubt(Doubt::Scan(end)));
        }
        clock::rest(LOOK_AGAIN);
        Ok(())
    }
}

/// The wal-index, as soon as it is whole. One that a killed writer left torn is rebuilt.
fn published(source: &mut Source) -> Result<WalIndex, SourceError> {
    loop {
        match source.index()? {
            Some(index) => return Ok(index),
            None => source.recover_index()?,
        }
    }
}

/// Whether a database that was just made may be refused only because it is not finished.
fn is_being_made(error: &SourceError) -> bool {
    matches!(error, SourceError::NotWal { .. } | SourceError::Locked { .. })
}
