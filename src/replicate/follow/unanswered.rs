//! What is done for the application while the replica has not told where recording begins.
//!
//! The WAL is held still then, so that what is committed meanwhile can be recorded commit by commit.
//! Where somebody waits for that hold, or the WAL grows too large, what this host recorded last is gone on
//! with, as far as it is known here: see [`meanwhile`](super::meanwhile). Else the hold is given up for one
//! that begins later: nothing was copied yet, so that any is as good. What is passed over is recorded in one,
//! by a comparison of the pages.

use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use genesis_wal::frame::frame_offset;
use genesis_wal::index::IndexHeader;

use super::meanwhile::Ended;
use super::{FollowError, Follower, Origin, PLACE_POLL, Trouble, Word, let_others_go_on};
use crate::clock;
use crate::replicate::engine::{Engine, Seen};
use crate::replicate::holds::HoldBook;
use crate::replicate::likeness::compare;
use crate::replicate::ratchet::{Outcome, Procedure, Ratchet, Step};
use crate::replicate::ship::ShippingEnded;
use crate::replicate::tail::{published, take};
use crate::sqlite::{Held, Source, SourceError};

/// How often it is looked who waits and how large the WAL is, until the replica answers.
const LOOK: Duration = Duration::from_millis(5);

impl Follower {
    /// Waits until it is known where recording begins. However long that takes, it is in nobody's way.
    ///
    /// # Errors
    /// When the replica cannot be used, or the database is gone or fails.
    pub(super) fn await_origin(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
    ) -> Result<Origin, FollowError> {
        let engine = Engine::new(self.sync_interval, self.wal_limit);
        let mut wait = Wait {
            engine,
            holds,
            next_place_check: Duration::ZERO,
            last: held.index.header,
            was_moved: false,
        };
        let mut trouble = Trouble::default();
        let mut may_record = true;
        let (mut heard, mut is_doubtful) = (None, false);
        loop {
            match heard.take().map_or_else(|| self.words.recv_timeout(LOOK), Ok) {
                Ok(Word::Begin(mut origin)) => {
                    if let Some(tip) = origin.tip.as_mut().filter(|_| is_doubtful) {
                        // No place proves what follows: every page is compared.
                        tip.reached.position = None;
                    }
                    return Ok(*origin);
                }
                Ok(Word::Settle(reply)) => {
                    may_record = false;
                    // Who asked may have given up.
                    reply.send(()).ok();
                }
                Ok(Word::Compare(recorded, thoroughness, reply)) => {
                    let compared = compare(source, held, &recorded, thoroughness);
                    let likeness = compared.unwrap_or_else(|error| {
                        let error = crate::describe(&error);
                        tracing::error!(%error, "cannot compare the database with the replica");
                        None
                    });
                    reply.send(likeness).ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(ShippingEnded.into()),
            }
            let looked = wait.look(source, held).and_then(|due| {
                let Some(procedure) = due.filter(|_| !may_record) else { return Ok(due) };
                wait.pass_over(source, procedure)?;
                *held = self.hold_again(source)?;
                Ok(None)
            });
            match looked {
                Ok(None) => trouble.is_over(),
                Ok(Some(_due)) => {
                    trouble.is_over();
                    match self.record_meanwhile(source, held, wait.holds)? {
                        Ended::Told(word) => heard = Some(word),
                        Ended::Over => may_record = false,
                        Ended::Doubt => (may_record, is_doubtful) = (false, true),
                    }
                }
                Err(error) if error.may_pass() => trouble.is_seen(&error),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The wait for the replica's answer.
struct Wait<'a> {
    engine: Engine,
    holds: &'a mut HoldBook,
    next_place_check: Duration,
    /// The wal-index at the last look.
    last: IndexHeader,
    was_moved: bool,
}

impl Wait<'_> {
    /// Looks whether the hold on the WAL is in anybody's way; how it is to be moved then.
    fn look(&mut self, source: &mut Source, held: &Held) -> Result<Option<Procedure>, SourceError> {
        if clock::monotonic() >= self.next_place_check {
            self.next_place_check = clock::monotonic() + PLACE_POLL;
            source.check_in_place()?;
        }
        let index = published(source)?;
        let header = index.header;
        let seen = Seen {
            now: clock::monotonic(),
            unread: std::mem::replace(&mut self.last, header) != header,
            max_frame: header.max_frame,
            backfilled: index.backfilled,
            wal_bytes: frame_offset(source.page_size(), header.max_frame),
            parked: !held.overlay && header == held.index.header,
            on_mark_zero: !held.overlay,
            waited_for: source.is_waited_for()?,
            ..Seen::default()
        };
        Ok(self.engine.next_unrecorded(&seen))
    }

    /// Moves the hold past what is not recorded. Then the WAL is to be held anew.
    fn pass_over(&mut self, source: &mut Source, procedure: Procedure) -> Result<(), SourceError> {
        if !std::mem::replace(&mut self.was_moved, true) {
            tracing::warn!(
                ?procedure,
                "the replica has not answered yet, and the WAL is to be emptied: what is committed \
                 until it does will not be recorded commit by commit"
            );
        }
        let parked = move_lock(source, procedure, self.holds).unwrap_or_else(|error| {
            let error = crate::describe(&error);
            tracing::error!(%error, "cannot checkpoint: the WAL grows until that passes");
            let_others_go_on(source);
            self.holds.end(clock::monotonic());
            None
        });
        let parked = parked.is_some();
        let index = published(source)?;
        let (max_frame, backlog) = (index.header.max_frame, index.backlog());
        self.engine.moved(clock::monotonic(), parked, max_frame, backlog);
        Ok(())
    }
}

/// Takes the steps of a procedure that moves the lock, without copying anything; what it holds where it is
/// parked. The lock may stand on any of its guards after an error.
pub(super) fn move_lock(
    source: &mut Source,
    procedure: Procedure,
    holds: &mut HoldBook,
) -> Result<Option<Held>, SourceError> {
    let mut ratchet = Ratchet::new();
    let mut at_copy = None;
    let mut step = ratchet.start(procedure, clock::monotonic());
    while step != Step::Finished {
        let before = published(source)?;
        let done = take(step, source)?;
        match step {
            Step::Write(_) if done => holds.begin(clock::monotonic()),
            Step::Rollback => holds.end(clock::monotonic()),
            _ => {}
        }
        let index = if step == Step::Begin { before } else { published(source)? };
        if step == Step::Copy {
            at_copy = Some(index);
        }
        let (now, waited_for) = (clock::monotonic(), source.is_waited_for()?);
        // Nothing was copied that a lock would have to keep.
        step = ratchet.next(&Outcome { now, done, index, waited_for }).unwrap_or(Step::Finished);
    }
    let parked = at_copy.filter(|_| ratchet.is_parked());
    Ok(parked.map(|index| Held { index, overlay: false }))
}
