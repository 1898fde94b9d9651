//! Recording before the replica has answered.
//!
//! A host that recorded last has all that is needed to go on: the page table, and the segments that lead from
//! there to the end of its line. So what is committed while a store is away is recorded commit by commit
//! from the start on, into the spool and under the epoch of before. Once a replica is claimed, what is in
//! the spool is adopted like what a process that was killed has left: shipped where it continues the replica,
//! else put aside. So nothing is promised here.
//!
//! It is only done where the WAL cannot keep what is committed until the answer comes.

use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use super::{End, FollowError, Follower, Word, begin, let_others_go_on};
use crate::clock;
use crate::replicate::capture::Known;
use crate::replicate::followed::was_followed;
use crate::replicate::holds::HoldBook;
use crate::replicate::restored::RestoredState;
use crate::replicate::ship::{Outbox, ShippingEnded};
use crate::replicate::snapshots::Setup;
use crate::replicate::table::at_local_end;
use crate::replicate::tail::Tail;
use crate::replicate::watch::Watch;
use crate::sqlite::{Held, Source};

/// No snapshot is begun before an answer.
const NEVER: Duration = Duration::from_hours(24 * 365);

impl Follower {
    /// Records what is committed until a word comes; the word. `None` when nothing can be recorded, or
    /// nothing more is to be. The WAL is held anew then.
    ///
    /// # Errors
    /// When the replica cannot be used, or the database is gone or fails.
    pub(super) fn record_meanwhile(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
    ) -> Result<Option<Word>, FollowError> {
        // Nothing is shipped of what is queued.
        let (outbox, _queued) = Outbox::new();
        let Some((mut tail, is_unheld)) = self.go_on(source, held, holds, outbox)? else {
            return Ok(None);
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
        if let End::Doubt(doubt) = &end {
            tracing::error!(
                reason = %doubt,
                "what follows does not provably continue what was recorded: what is committed until the \
                 replica answers will not be recorded commit by commit"
            );
        }
        // The table is not of the last transaction after a doubt.
        let is_certain = !matches!(end, End::Doubt(_));
        match tail.recorder.seal() {
            Ok(_) if is_certain => drop(tail.finish()),
            Ok(_) => {}
            Err(error) => {
                let error = crate::describe(&error);
                tracing::error!(%error, "what was recorded meanwhile cannot be sealed");
            }
        }
        *held = self.hold_again(source)?;
        Ok(heard?)
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
        self.make_readable(source, held, holds)?;
        let established = at_local_end(&self.spool, &self.folder).map(|found| {
            let (tip, table, epoch) = found?;
            let grounds = self.grounds(source, held);
            let established = match grounds.continues(&tip) {
                Ok(true) => grounds.resume(&tip, &mut Some(table), epoch),
                Ok(false) => return None,
                Err(error) => Err(error),
            };
            Some(established.map(|established| (tip, epoch, established)))
        });
        let (tip, epoch, established) = match established.map(Option::transpose) {
            Ok(Ok(Some(found))) => found,
            Ok(Ok(None)) => return Ok(None),
            Ok(Err(error)) => {
                let error = crate::describe(&error);
                tracing::warn!(%error, "what this host recorded last cannot be gone on with");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(%error, "what this host recorded last cannot be read");
                return Ok(None);
            }
        };
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
}
