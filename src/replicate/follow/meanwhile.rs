//! Recording before the replica has answered.
//!
//! A host that recorded last has all that is needed to go on: the page table, and the segments that lead from
//! there to the end of its line. So what is committed while a store is away is recorded commit by commit
//! from the start on, into the spool and under the epoch of before. Once a replica is claimed, what is in
//! the spool is adopted like what a process that was killed has left: shipped where it continues the replica,
//! else put aside. So nothing is promised here.
//!
//! It is only done where the WAL cannot keep what is committed until the answer comes, and ends when the spool
//! is adopted: from then until recording begins, the WAL is all that keeps it.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use genesis_wal::id::Epoch;

use super::{End, FollowError, Follower, Trouble, Word, begin, let_others_go_on};
use crate::clock;
use crate::replica::Tip;
use crate::replicate::capture::Known;
use crate::replicate::cursor::Doubt;
use crate::replicate::establish::{EstablishError, Established};
use crate::replicate::followed::was_followed;
use crate::replicate::holds::HoldBook;
use crate::replicate::record::RecordError;
use crate::replicate::restored::RestoredState;
use crate::replicate::ship::{Outbox, ShippingEnded};
use crate::replicate::snapshots::Setup;
use crate::replicate::table::at_local_end;
use crate::replicate::tail::Tail;
use crate::replicate::watch::Watch;
use crate::sqlite::{Held, Source};

/// No snapshot is begun before an answer.
const NEVER: Duration = Duration::from_hours(24 * 365);

/// How recording came to its end.
pub(super) enum Ended {
    /// A word came.
    Told(Word),
    /// Nothing can be recorded, or nothing more is to be.
    Over,
    /// What follows does not provably continue what was recorded: where recording begins, every page is to
    /// be compared.
    Doubt,
}

impl Follower {
    /// Records what is committed until a word comes. The WAL is held anew then.
    ///
    /// # Errors
    /// When the replica cannot be used, or the database is gone or fails.
    pub(super) fn record_meanwhile(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
    ) -> Result<Ended, FollowError> {
        // Nothing is shipped of what is queued.
        let (outbox, _queued) = Outbox::new();
        let Some((mut tail, is_unheld)) = self.go_on(source, held, holds, outbox)? else {
            return Ok(Ended::Over);
        };
        tracing::warn!(
            "the replica has not answered yet: until it does, what is committed is recorded in the spool"
        );
        let mut watch = Watch::new(&self.alarm, &source.wal_path());
        let mut heard = Ok(None);
        let end = match begin(&mut tail, is_unheld, source, held)? {
            None => self.follow(source, &mut tail, &mut watch, || {
                heard = match self.words.try_recv() {
                    Ok(word) => Ok(Some(word)),
                    Err(TryRecvError::Empty) => Ok(None),
                    Err(TryRecvError::Disconnected) => Err(ShippingEnded),
                };
                !matches!(heard, Ok(None))
            })?,
            Some(end) => end,
        };
        let_others_go_on(source);
        *holds = std::mem::replace(&mut tail.holds, HoldBook::new(clock::monotonic()));
        let doubt = match end {
            End::Doubt(doubt) => {
                *held = self.hold_again(source)?;
                Some(doubt)
            }
            End::Stopped | End::Interrupted => self.read_up_to_hold(source, held, &mut tail)?,
        };
        let is_sealed = seal(&mut tail);
        if let Some(reason) = doubt {
            tracing::error!(
                %reason,
                "what follows does not provably continue what was recorded: what is committed until the \
                 replica answers will not be recorded commit by commit"
            );
            return Ok(Ended::Doubt);
        }
        if is_sealed {
            // The table on the disk is of what is sealed.
            let _last = tail.finish();
        }
        Ok(heard?.map_or(Ended::Over, Ended::Told))
    }

    /// Holds the WAL anew, and reads all that is held before what held it is given up; the doubt that came
    /// of it.
    fn read_up_to_hold(
        &self,
        source: &mut Source,
        held: &mut Held,
        tail: &mut Tail,
    ) -> Result<Option<Doubt>, FollowError> {
        let mut trouble = Trouble::default();
        loop {
            let read = source.keep_one_reader().map_err(RecordError::from).and_then(|()| {
                *held = source.leap()?;
                while !tail.is_settled(&held.index) {
                    tail.read(source, &held.index.header)?;
                }
                Ok(source.end_older()?)
            });
            match read {
                Ok(()) => return Ok(None),
                Err(RecordError::Doubt(doubt)) => {
                    source.end_older()?;
                    return Ok(Some(doubt));
                }
                Err(error) if error.may_pass() && !self.alarm.stopping() => trouble.is_seen(&error),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// A tail at the end of what this host recorded, and whether nothing holds what follows; `None` where
    /// that end is not known, or the WAL does not go on from there.
    fn go_on(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
        outbox: Outbox,
    ) -> Result<Option<(Tail, bool)>, FollowError> {
        let is_asked_for_another = self.allowed.takeover || self.allowed.new_generation;
        if is_asked_for_another
            || !was_followed(&self.folder, &self.path)
            || RestoredState::read(&self.folder, &self.path).is_some()
        {
            return Ok(None);
        }
        let found = match self.find_end(source, held, holds) {
            Err(error) if error.may_pass() => {
                let error = crate::describe(&error);
                tracing::warn!(%error, "what this host recorded last cannot be gone on with");
                source.unlock_writes()?;
                *held = self.hold_again(source)?;
                return Ok(None);
            }
            other => other?,
        };
        let Some((established, tip, epoch)) = found else { return Ok(None) };
        let is_unheld = established.is_unheld;
        let setup = Setup {
            epoch,
            interval: NEVER,
            free: tip.reached.txid,
            not_before: tip.reached.time,
            previous: None,
            parent: None,
            branch: None,
            resumed: Known::default(),
            kept: self.kept.clone(),
            outbox,
            waker: self.waker.clone(),
        };
        let mut tools = self.tools(setup, None);
        tools.snapshots.give_up(NEVER);
        let holds = std::mem::replace(holds, HoldBook::new(clock::monotonic()));
        Ok(Some((Tail::new(established, tools, holds), is_unheld)))
    }

    fn find_end(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
    ) -> Result<Option<(Established, Tip, Epoch)>, EstablishError> {
        self.make_readable(source, held, holds)?;
        let Some((tip, table, epoch)) = at_local_end(&self.spool, &self.folder)? else {
            return Ok(None);
        };
        let established = self.grounds(source, held).go_on(&tip, &mut Some(table), epoch)?;
        Ok(established.map(|established| (established, tip, epoch)))
    }
}

/// Seals all that was recorded; whether that is done.
fn seal(tail: &mut Tail) -> bool {
    while tail.recorder.waiting() > 0 {
        match tail.recorder.seal() {
            Ok(Some(_sealed)) => {}
            Ok(None) => break,
            Err(error) => {
                let error = crate::describe(&error);
                tracing::error!(%error, "what was recorded meanwhile cannot be sealed");
                return false;
            }
        }
    }
    true
}
