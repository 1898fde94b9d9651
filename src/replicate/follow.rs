//! The driver of one database: a thread that reads the source as the engine decides, records what was
//! committed, and hands sealed segments to the shipper. What is to be done when is the engine's to say.

mod meanwhile;
mod unanswered;
mod unreadable;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use genesis_wal::frame::frame_offset;
use genesis_wal::id::{Epoch, Txid};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::audit::Audit;
use super::cursor::Doubt;
use super::engine::{Action, Seen};
use super::establish::{EstablishError, Established, Grounds, Origin};
use super::followed;
use super::holds::HoldBook;
use super::kept::KeptPacks;
use super::likeness::{Likeness, Thoroughness};
use super::ownership::Allowed;
use super::record::{RecordError, Recorder};
use super::ship::{Outbox, ShippingEnded};
use super::snapshots::{Setup, Snapshots};
use super::spool::Spool;
use super::table::{Keeper, PageTable};
use super::tail::{Tail, Tools, published};
use super::times::Times;
use super::watch::{Alarm, Waker, Watch};
use crate::clock;
use crate::replica::Tip;
use crate::sqlite::{Held, Source, SourceError};
use crate::store::Store;

/// How often a database that is not there yet is looked for.
const AWAIT_POLL: Duration = Duration::from_millis(20);

/// How often it is looked whether the path still leads to the database.
const PLACE_POLL: Duration = Duration::from_millis(500);

/// The pause before what failed is tried again.
const TROUBLE_PAUSE: Duration = Duration::from_millis(200);

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
        matches!(self, Self::NoReplica(_) | Self::Record(RecordError::Outbox(_)))
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
    /// The time between two snapshots.
    pub snapshot_interval: Duration,
    /// The time in which the database is read once more; never without.
    pub audit_interval: Option<Duration>,
    /// With so many bytes in the WAL the write lock may be taken to empty it.
    pub wal_limit: Option<u64>,
    /// The replica's place, of whose clock is heard.
    pub store: Arc<dyn Store>,
    /// The folder of local state.
    pub folder: PathBuf,
    /// What an unfinished snapshot has left.
    pub kept: KeptPacks,
    /// Where segments are sealed.
    pub spool: Spool,
    /// Says where recording begins, once the replica has been asked.
    pub words: Receiver<Word>,
    /// What the operator allows.
    pub allowed: Allowed,
    /// Where what is made goes.
    pub outbox: Outbox,
    /// Says how far it has come.
    pub stage: watch::Sender<Stage>,
    /// Wakes it.
    pub alarm: Alarm,
    /// For those who have something to tell it.
    pub waker: Waker,
}

/// What a follower is told while it waits.
#[derive(Debug)]
pub enum Word {
    /// To compare what it holds with a recorded state.
    Compare(Box<PageTable>, Thoroughness, oneshot::Sender<Option<Likeness>>),
    /// To record nothing more before the beginning: what was recorded meanwhile is sealed when this is
    /// answered.
    Settle(oneshot::Sender<()>),
    /// To begin.
    Begin(Box<Origin>),
}

/// Tells a follower words, and wakes it.
#[derive(Debug, Clone)]
pub struct Words {
    sender: Sender<Word>,
    waker: Waker,
}

impl Words {
    /// To the follower that this waker wakes.
    #[must_use]
    pub fn new(waker: Waker) -> (Self, Receiver<Word>) {
        let (sender, words) = channel();
        (Self { sender, waker }, words)
    }

    /// Tells a word. A follower that has ended says why by itself.
    pub fn tell(&self, word: Word) {
        self.sender.send(word).ok();
        self.waker.wake();
    }
}

/// From where following begins.
enum Beginning {
    /// From the tip of the replica, with the hashes of its pages.
    Resume(Box<Tip>, Option<PageTable>, Epoch),
    /// With a database of which nothing is known.
    Anew,
    /// Again, with what is known less believed.
    Doubt(Option<Box<Recorder>>),
}

/// How following a WAL ended.
enum End {
    Stopped,
    Doubt(Doubt),
    /// Something else is to be done.
    Interrupted,
}

impl Follower {
    /// Follows the database until told to stop; then everything committed has been handed to the
    /// shipper. The last recorded transaction; `None` when there was no database.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn run(self) -> Result<Option<Txid>, FollowError> {
        let Some((mut source, mut held)) = self.await_database()? else {
            return Ok(None);
        };
        self.stage.send_replace(Stage::Followed);
        tracing::info!(database = %self.path.display(), "followed: what is committed now is kept");
        let mut holds = HoldBook::new(clock::monotonic());
        let origin = self.await_origin(&mut source, &mut held, &mut holds)?;
        let (mut beginning, mut tools) = self.unpack(origin)?;
        let mut watch = Watch::new(&self.alarm, &source.wal_path());
        loop {
            let established = self.establish(&mut source, &mut held, &mut beginning, &mut holds)?;
            let is_unheld = established.is_unheld;
            if let Err(error) = followed::remember(&self.folder, &self.path) {
                tracing::debug!(%error, "cannot write down which file is followed");
            }
            let mut tail = Tail::new(established, tools, holds);
            let begun = begin(&mut tail, is_unheld, &mut source, &held);
            let end = match begun {
                Ok(None) => self.follow(&mut source, &mut tail, &mut watch, || false),
                ended => ended.map(|end| end.unwrap_or(End::Stopped)),
            };
            // Nobody waits for what it takes to end.
            let_others_go_on(&mut source);
            tail.holds.tell_all();
            let End::Doubt(doubt) = end? else { return Ok(tail.finish()) };
            tracing::error!(
                reason = %doubt,
                "what follows does not provably continue what was recorded: comparing every page"
            );
            let (recorder, spare) = tail.dismantle();
            (beginning, tools) = (Beginning::Doubt(Some(Box::new(recorder))), spare);
            held = self.hold_again(&mut source)?;
            holds = HoldBook::new(clock::monotonic());
        }
    }

    /// Takes apart what the replica told.
    fn unpack(&self, origin: Origin) -> Result<(Beginning, Tools), FollowError> {
        let Origin { epoch, tip, unshipped, table, previous, resumed, free, last_time, .. } =
            origin;
        for name in unshipped {
            self.outbox.segment(name)?;
        }
        let (parent, branch) = (origin.parent, origin.branch);
        let setup = Setup {
            epoch,
            interval: self.snapshot_interval,
            free,
            not_before: last_time,
            previous,
            parent,
            branch,
            resumed,
            kept: self.kept.clone(),
            outbox: self.outbox.clone(),
            waker: self.waker.clone(),
        };
        let tools = self.tools(setup, self.audit_interval);
        let beginning = match tip.zip(table) {
            Some((tip, table)) => Beginning::Resume(Box::new(tip), Some(table), epoch),
            None => Beginning::Anew,
        };
        Ok((beginning, tools))
    }

    /// What a tail works with.
    fn tools(&self, setup: Setup, audit_interval: Option<Duration>) -> Tools {
        let mut times = Times::begin(&self.folder, setup.not_before, Arc::clone(&self.store));
        Tools {
            sync_interval: self.sync_interval,
            wal_limit: self.wal_limit,
            outbox: setup.outbox.clone(),
            spool: self.spool.clone(),
            folder: self.folder.clone(),
            keeper: Keeper::new(self.folder.clone()),
            snapshots: Snapshots::new(setup, times.now()),
            times,
            audit: Audit::new(audit_interval, &self.folder, self.waker.clone()),
        }
    }

    /// Where recording begins. What keeps that from being found may pass.
    fn establish(
        &self,
        source: &mut Source,
        held: &mut Held,
        beginning: &mut Beginning,
        holds: &mut HoldBook,
    ) -> Result<Established, FollowError> {
        let mut trouble = Trouble::default();
        loop {
            match self.try_to_establish(source, held, beginning, holds) {
                Err(error) if error.may_pass() && !self.alarm.stopping() => {
                    source.unlock_writes()?;
                    trouble.is_seen(&error);
                    // Nothing was copied yet: whatever is held is as good.
                    *held = self.hold_again(source)?;
                }
                Ok(established) => {
                    trouble.is_over();
                    return Ok(established);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// As [`Self::establish`], once.
    fn try_to_establish(
        &self,
        source: &mut Source,
        held: &mut Held,
        beginning: &mut Beginning,
        holds: &mut HoldBook,
    ) -> Result<Established, EstablishError> {
        self.make_readable(source, held, holds)?;
        let grounds = self.grounds(source, held);
        match beginning {
            Beginning::Resume(tip, table, epoch) => grounds.resume(tip, table, *epoch),
            Beginning::Anew => grounds.begin(),
            Beginning::Doubt(recorder) => grounds.after_doubt(recorder),
        }
    }

    fn grounds<'a>(&'a self, source: &'a Source, held: &'a Held) -> Grounds<'a> {
        let folder = self.folder.clone();
        let is_known = followed::was_followed(&self.folder, &self.path);
        let new_generation = self.allowed.new_generation || is_known;
        let (spool, wal_limit) = (&self.spool, self.wal_limit);
        Grounds { source, held, spool, folder, new_generation, wal_limit }
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

    fn follow(
        &self,
        source: &mut Source,
        tail: &mut Tail,
        watch: &mut Watch<'_>,
        mut is_interrupted: impl FnMut() -> bool,
    ) -> Result<End, FollowError> {
        let mut written = true;
        let mut next_place_check = Duration::ZERO;
        let mut trouble = Trouble::default();
        loop {
            if is_interrupted() {
                return Ok(End::Interrupted);
            }
            if clock::monotonic() >= next_place_check {
                next_place_check = clock::monotonic() + PLACE_POLL;
                tail.holds.tell_hourly(clock::monotonic());
                tail.look_at_clocks();
                if let Err(gone) = source.check_in_place() {
                    return Err(leave(source, tail, gone));
                }
                if let Err(RecordError::Doubt(doubt)) = tail.check_file(source) {
                    return Ok(End::Doubt(doubt));
                }
            }
            match self.step(source, tail, watch, &mut written) {
                Ok(None) => trouble.is_over(),
                Ok(Some(end)) => return Ok(end),
                Err(RecordError::Doubt(doubt)) => return Ok(End::Doubt(doubt)),
                Err(RecordError::Source(gone @ SourceError::Gone { .. })) => {
                    return Err(leave(source, tail, gone));
                }
                // Nobody waits for it where nothing more is shipped.
                Err(error) if error.may_pass() && !self.outbox.is_closed() => {
                    trouble.is_seen(&error);
                }
                Err(error) if error.may_pass() => return Err(ShippingEnded.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// One look, and what it calls for.
    fn step(
        &self,
        source: &mut Source,
        tail: &mut Tail,
        watch: &mut Watch<'_>,
        written: &mut bool,
    ) -> Result<Option<End>, RecordError> {
        // Asked before the look: what was committed before the question is in the look.
        let is_told = self.alarm.stopping();
        if is_told {
            tail.hurry();
        }
        let stopping = is_told && !tail.is_unfinished();
        tail.make_sure(source)?;
        let index = published(source)?;
        let seen = Seen {
            now: clock::monotonic(),
            unread: !tail.is_settled(&index),
            settles: tail.settles(),
            written: std::mem::take(written),
            waiting: tail.recorder.waiting(),
            stopping,
            max_frame: index.header.max_frame,
            backfilled: index.backfilled,
            wal_bytes: frame_offset(source.page_size(), index.header.max_frame),
            parked: tail.is_parked(&index),
            on_mark_zero: tail.is_on_mark_zero(),
            waited_for: source.is_waited_for()?,
            read_back: tail.is_read_back_due(),
        };
        match tail.attend(source) {
            Err(RecordError::Source(gone @ SourceError::Gone { .. })) => return Err(gone.into()),
            Err(error) if error.may_pass() => tail.postpone(&error),
            other => other?,
        }
        match tail.engine.next(&seen) {
            Action::Read => tail.read(source, &index.header)?,
            Action::Move(procedure) => tail.try_to_move(source, procedure)?,
            Action::Seal => tail.seal_or_keep()?,
            Action::ReadBack => tail.read_back(source)?,
            Action::Wait(time) => {
                // A commit that was on its way when the watch began makes no event.
                *written = watch.begin() || watch.wait(time);
            }
            Action::Sleep(time) => {
                clock::rest(time);
                watch.forget();
            }
            Action::Tick(time) => {
                watch.end();
                clock::rest(time);
            }
            Action::Finish => return Ok(Some(End::Stopped)),
        }
        Ok(None)
    }

    /// Holds the WAL anew, with one read transaction. What is in the way may pass.
    fn hold_again(&self, source: &mut Source) -> Result<Held, SourceError> {
        let mut trouble = Trouble::default();
        loop {
            let held = source.keep_one_reader().and_then(|()| {
                let held = source.leap()?;
                source.end_older()?;
                Ok(held)
            });
            match held {
                Err(error) if error.may_pass() && !self.alarm.stopping() => trouble.is_seen(&error),
                other => return other,
            }
        }
    }
}

/// A failure that may pass: told once, and waited out.
#[derive(Debug, Default)]
struct Trouble {
    since: Option<Duration>,
}

impl Trouble {
    fn is_seen(&mut self, error: &dyn std::error::Error) {
        if self.since.is_none() {
            self.since = Some(clock::monotonic());
            let error = crate::describe(error);
            tracing::error!(%error, "NOT PROTECTED: this must pass before anything more is recorded");
        }
        clock::rest(TROUBLE_PAUSE);
    }

    fn is_over(&mut self) {
        if let Some(since) = self.since.take() {
            let seconds = clock::monotonic().saturating_sub(since).as_secs();
            tracing::info!(seconds, "it passed: recording goes on");
        }
    }
}

/// Gives the locks back at once that keep others from writing and from checkpointing.
fn let_others_go_on(source: &mut Source) {
    if let Err(error) = source.let_others_go_on() {
        tracing::warn!(%error, "cannot give locks back at once");
    }
}

/// Takes in what was committed when the WAL came to be held; how following ended with that, if it has.
fn begin(
    tail: &mut Tail,
    is_unheld: bool,
    source: &mut Source,
    held: &Held,
) -> Result<Option<End>, FollowError> {
    let begun =
        if is_unheld { tail.read_unheld(source, &held.index) } else { tail.begin(source, held) };
    match begun {
        Err(RecordError::Doubt(doubt)) => Ok(Some(End::Doubt(doubt))),
        Err(error) if !error.may_pass() => Err(error.into()),
        _ => Ok(None),
    }
}

/// A database that was moved away is recorded to its end; then there is nothing to follow.
fn leave(source: &mut Source, tail: &mut Tail, gone: SourceError) -> FollowError {
    let_others_go_on(source);
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
