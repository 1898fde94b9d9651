//! The driver of one database: a thread that reads the source as the engine decides, records what was
//! committed, and hands sealed segments to the shipper. What is to be done when is the engine's to say.

use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use genesis_wal::frame::frame_offset;
use genesis_wal::id::Txid;
use genesis_wal::time::Micros;
use thiserror::Error;
use tokio::sync::watch;

use super::capture::CaptureError;
use super::cursor::Doubt;
use super::engine::{Action, Engine, Seen};
use super::establish::{self, Continuity, EstablishError, Established, Numbers, Origin};
use super::record::RecordError;
use super::ship::{Outbox, ShippingEnded};
use super::spool::Spool;
use super::tail::{Tail, published};
use super::watch::{Alarm, Watch};
use crate::clock;
use crate::sqlite::{Held, Source, SourceError};

/// How often a database that is not there yet is looked for.
const AWAIT_POLL: Duration = Duration::from_millis(20);

/// How often it is looked whether the path still leads to the database.
const PLACE_POLL: Duration = Duration::from_millis(500);

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
    Record(#[from] RecordError),
    /// The replica cannot be used, or shipping has ended; that side says why.
    #[error("the replica takes nothing more")]
    NoReplica(#[from] ShippingEnded),
}

impl FollowError {
    /// Whether this is only the consequence of a failure on the replica's side.
    #[must_use]
    pub fn is_for_want_of_a_replica(&self) -> bool {
        matches!(
            self,
            Self::NoReplica(_)
                | Self::Record(RecordError::Outbox(_))
                | Self::Establish(EstablishError::Capture(CaptureError::Shipping(_)))
        )
    }
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
    pub outbox: Outbox,
    /// Says how far it has come.
    pub stage: watch::Sender<Stage>,
    /// Tells it to finish.
    pub alarm: Alarm,
}

/// How following a WAL ended.
enum End {
    Stopped,
    Doubt(Doubt),
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
        self.stage.send_replace(Stage::Followed);
        tracing::info!(database = %self.path.display(), "followed: what is committed now is kept");
        let origin = self.origin.recv().map_err(|_ended| ShippingEnded)?;
        let epoch = origin.epoch;
        let mut established = self.establish(&mut source, &held, origin)?;
        let mut watch = Watch::new(&self.alarm, &source.wal_path());
        let mut attempt = 0;
        loop {
            let engine = Engine::new(self.sync_interval, self.wal_limit);
            let mut tail = Tail::new(established, engine, self.outbox.clone());
            let end = self.follow(&mut source, &mut tail, &mut watch);
            tail.holds.tell_all();
            let End::Doubt(doubt) = end? else {
                return Ok(Some(tail.recorder.last()));
            };
            tracing::error!(
                reason = %doubt,
                "what follows does not provably continue what was recorded: a new generation begins"
            );
            tail.seal()?;
            attempt += 1;
            let txid = tail.recorder.last().next().ok_or(RecordError::TxidsExhausted)?;
            let not_before = tail.recorder.last_time();
            let numbers = Numbers { epoch, attempt, txid, not_before };
            established = self.begin_anew(&mut source, numbers)?;
        }
    }

    /// Begins a new generation with whatever the database holds now.
    fn begin_anew(
        &self,
        source: &mut Source,
        numbers: Numbers,
    ) -> Result<Established, FollowError> {
        source.keep_one_reader()?;
        let held = source.leap()?;
        source.end_older()?;
        self.begin_generation(source, &held, numbers)
    }

    /// Begins a new generation with a snapshot of the held state. Where the WAL cannot be read, that is
    /// the state of the file once everything is backfilled: SQLite itself goes by the wal-index.
    fn begin_generation(
        &self,
        source: &mut Source,
        held: &Held,
        numbers: Numbers,
    ) -> Result<Established, FollowError> {
        let begin = |source: &Source, held: &Held| {
            establish::begin_generation(source, held, numbers, &self.spool, &self.outbox)
        };
        match begin(source, held) {
            Err(EstablishError::Wal(end)) => {
                tracing::error!(
                    reason = %end,
                    "the application's SQLite left a WAL that no recovery could read; backfilling it"
                );
                let held = source.backfill_all()?;
                Ok(begin(source, &held)?)
            }
            other => Ok(other?),
        }
    }

    /// Opens the database as soon as there is one; `None` when told to stop before.
    fn await_database(&self) -> Result<Option<(Source, Held)>, SourceError> {
        let mut waited = false;
        loop {
            // Asked before the look: what was made before the question is in the look.
            let stopping = self.alarm.stopping();
            // A database that is being made is not touched before it is in WAL mode: the switch needs
            // it for itself. At the end it is looked at whatever it is.
            let untouched = waited && !stopping && !self.set_wal && !Source::is_wal(&self.path);
            match (!untouched).then(|| Source::open(&self.path, self.set_wal)) {
                Some(Ok(opened)) => return Ok(Some(opened)),
                Some(Err(error)) if error.is_not_yet() => {
                    if stopping {
                        return Ok(None);
                    }
                    if !waited {
                        tracing::info!(reason = %error, "waiting for the database");
                        self.stage.send_replace(Stage::Waiting);
                    }
                    waited = true;
                }
                Some(Err(SourceError::Locked { .. })) if waited && !stopping => {}
                Some(Err(error)) => return Err(error),
                None => {}
            }
            self.alarm.wait(AWAIT_POLL);
        }
    }

    fn establish(
        &self,
        source: &mut Source,
        held: &Held,
        origin: Origin,
    ) -> Result<Established, FollowError> {
        let Origin { epoch, tip, free, .. } = origin;
        let mut not_before = Micros(0);
        if let Some((tip, unshipped)) = tip {
            for name in unshipped {
                self.outbox.segment(name)?;
            }
            let (generation, txid) = (tip.generation, tip.reached.txid.0);
            match establish::resume(source, held, &tip, epoch, &self.spool)? {
                Continuity::Proven(established) => {
                    tracing::info!(%generation, txid, "continuing what the replica holds");
                    return Ok(*established);
                }
                Continuity::Unproven(reason) => tracing::warn!(
                    %generation, txid, %reason,
                    "the database does not provably continue the replica: a new generation begins"
                ),
            }
            not_before = tip.reached.time;
        }
        let numbers = Numbers { epoch, attempt: 0, txid: free, not_before };
        self.begin_generation(source, held, numbers)
    }

    fn follow(
        &self,
        source: &mut Source,
        tail: &mut Tail,
        watch: &mut Watch<'_>,
    ) -> Result<End, FollowError> {
        let mut written = true;
        let mut next_place_check = Duration::ZERO;
        loop {
            if clock::monotonic() >= next_place_check {
                next_place_check = clock::monotonic() + PLACE_POLL;
                tail.holds.tell_hourly(clock::monotonic());
                if let Err(gone) = source.check_in_place() {
                    return Err(leave(source, tail, gone));
                }
            }
            // Asked before the look: what was committed before the question is in the look.
            let stopping = self.alarm.stopping();
            let index = published(source)?;
            let seen = Seen {
                now: clock::monotonic(),
                unread: !tail.is_settled(&index),
                settles: tail.settles(),
                written,
                waiting: tail.recorder.waiting(),
                stopping,
                max_frame: index.header.max_frame,
                backfilled: index.backfilled,
                wal_bytes: frame_offset(source.page_size(), index.header.max_frame),
                parked: tail.is_parked(&index),
                waited_for: source.is_waited_for()?,
            };
            written = false;
            let done = match tail.engine.next(&seen) {
                Action::Read => tail.read(source, &index.header),
                Action::Move(procedure) => tail.move_lock(source, procedure),
                Action::Seal => tail.seal(),
                Action::Wait(time) => {
                    // A commit that was on its way when the watch began makes no event.
                    written = watch.begin() || watch.wait(time);
                    Ok(())
                }
                Action::Sleep(time) => {
                    clock::rest(time);
                    watch.forget();
                    Ok(())
                }
                Action::Tick(time) => {
                    watch.end();
                    clock::rest(time);
                    Ok(())
                }
                Action::Finish => return Ok(End::Stopped),
            };
            match done {
                Err(RecordError::Doubt(doubt)) => return Ok(End::Doubt(doubt)),
                Err(RecordError::Source(gone @ SourceError::Gone { .. })) => {
                    return Err(leave(source, tail, gone));
                }
                other => other?,
            }
        }
    }
}

/// A database that was moved away is recorded to its end; then there is nothing to follow.
fn leave(source: &mut Source, tail: &mut Tail, gone: SourceError) -> FollowError {
    let mut finish = || -> Result<(), RecordError> {
        let index = published(source)?;
        while !tail.is_settled(&index) && published(source)?.header == index.header {
            tail.read(source, &index.header)?;
        }
        tail.seal()
    };
    match finish() {
        Ok(()) => gone.into(),
        Err(error) => error.into(),
    }
}
