//! The lock that keeps the WAL is moved, step by step as the ratchet says.

use std::time::Duration;

use genesis_wal::index::WalIndex;

use super::{Tail, published};
use crate::clock;
use crate::replicate::cursor::Doubt;
use crate::replicate::ratchet::{Guard, Holds, Outcome, Procedure, Ratchet, Step};
use crate::replicate::record::RecordError;
use crate::sqlite::{Guards, Source, SourceError};

/// A step that takes longer than this is told of where everything is logged.
const LONG_STEP: Duration = Duration::from_millis(20);

/// A disk that takes longer than this for a step is told of once, whatever is logged.
const SLOW_STEP: Duration = Duration::from_secs(2);

impl Tail {
    /// Moves the lock that keeps the WAL. What keeps it from moving may pass: until then the WAL grows,
    /// and is read on.
    ///
    /// # Errors
    /// [`RecordError`], where it will not pass.
    pub fn try_to_move(
        &mut self,
        source: &mut Source,
        procedure: Procedure,
    ) -> Result<(), RecordError> {
        match self.move_lock(source, procedure) {
            Ok(()) => {
                if std::mem::take(&mut self.is_stuck) {
                    tracing::info!("the lock that keeps the WAL moves again");
                }
                Ok(())
            }
            Err(error) if error.may_pass() => {
                if !self.is_stuck {
                    let error = crate::describe(&error);
                    tracing::error!(%error, "cannot checkpoint: the WAL grows until that passes");
                }
                (self.is_stuck, self.is_loose) = (true, true);
                // Nobody's writers wait for what comes first; where this fails, it is tried again.
                source.let_others_go_on().ok();
                let max_frame = self.settled.map_or(0, |settled| settled.max_frame);
                self.engine.moved(clock::monotonic(), false, max_frame, 0);
                Ok(())
            }
            other => other,
        }
    }

    /// Makes sure of the lock after a move that failed on its way: it stands on one read transaction,
    /// since which everything was copied. Each guard is given up only after that.
    ///
    /// # Errors
    /// [`RecordError`]; it can be tried again.
    pub fn make_sure(&mut self, source: &mut Source) -> Result<(), RecordError> {
        if !self.is_loose {
            return Ok(());
        }
        // Where it is held, so is a read transaction.
        source.let_others_go_on()?;
        self.holds.end(clock::monotonic());
        let is_held = |guards: Guards| guards.older || guards.newer;
        self.mind_the_file(source);
        if !is_held(source.guards()) && !source.begin()? {
            return Err(SourceError::Locked { path: source.path().to_owned() }.into());
        }
        self.catch_up(source)?;
        let guards = source.guards();
        if guards.older && guards.newer {
            source.end_older()?;
        }
        source.unpin()?;
        (self.ratchet, self.alone_at, self.is_loose) = (Ratchet::new(), None, false);
        Ok(())
    }

    /// Where no reader limits it, what is not recorded yet may be backfilled.
    fn mind_the_file(&mut self, source: &Source) {
        let Guards { older, newer, .. } = source.guards();
        if !older && !newer {
            self.recorder.postpone_read_back();
        }
    }

    /// Takes the steps of a procedure that moves the lock.
    ///
    /// # Errors
    /// [`RecordError`]; the lock may stand on any of its guards then.
    fn move_lock(&mut self, source: &mut Source, procedure: Procedure) -> Result<(), RecordError> {
        let started = clock::monotonic();
        self.moves += 1;
        let mut has_copied = false;
        let mut step = self.ratchet.start(procedure, started);
        while step != Step::Finished {
            let before = published(source)?;
            let begun = clock::monotonic();
            let (done, copied) = self.take(step, source)?;
            let took = clock::monotonic().saturating_sub(begun);
            match step {
                Step::Write(_) if done => self.holds.begin(clock::monotonic()),
                Step::Rollback => self.holds.end(clock::monotonic()),
                _ => {}
            }
            has_copied |= copied.is_some();
            self.mind_the_file(source);
            let index = match (step, copied) {
                (Step::Begin, _) => before,
                (_, Some(copied)) => copied,
                _ => published(source)?,
            };
            let (now, waited_for) = (clock::monotonic(), source.is_waited_for()?);
            let next = match self.ratchet.next(&Outcome { now, done, index, waited_for }) {
                Ok(step) if agree(self.ratchet.holds(), source.guards()) => step,
                _ => return Err(RecordError::Doubt(Doubt::Unguarded)),
            };
            self.tell_slow(step, took, next);
            step = next;
        }
        // Where nothing was copied, the lock stands where it stood, and what was said of it is old.
        let (now, parked) = (clock::monotonic(), has_copied && self.ratchet.is_parked());
        let index = published(source)?;
        let (max_frame, backlog) = (index.header.max_frame, index.backlog());
        let micros = u64::try_from(now.saturating_sub(started).as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(
            ?procedure,
            parked,
            max_frame,
            backlog,
            micros,
            "moved the lock that keeps the WAL"
        );
        self.engine.moved(now, parked, max_frame, backlog);
        if has_copied {
            self.alone_at = self.settled.filter(|_| parked);
        }
        if parked {
            self.recorder.park();
            self.read_back(source)?;
        }
        Ok(())
    }

    fn tell_slow(&mut self, step: Step, took: Duration, next: Step) {
        if took > LONG_STEP {
            tracing::debug!(?step, ?took, "a step took long");
        }
        let is_slow = match step {
            Step::Checkpoint(_) => took > SLOW_STEP,
            // Too slow for the write lock to be taken.
            Step::Sync => took > SLOW_STEP || !matches!(next, Step::Sync | Step::Begin),
            _ => false,
        };
        if is_slow && !std::mem::replace(&mut self.is_slow_told, true) {
            tracing::warn!(
                ?took,
                "the disk is slow: a checkpoint takes long, and as writers are not held for one that does, \
                 the WAL may grow past its limit"
            );
        }
    }

    /// Takes one step: whether it was done, and for a copy the wal-index that was copied to.
    fn take(
        &mut self,
        step: Step,
        source: &mut Source,
    ) -> Result<(bool, Option<WalIndex>), RecordError> {
        match step {
            Step::Copy => Ok((true, Some(self.catch_up(source)?))),
            // Under the write lock nothing is committed that could be read meanwhile.
            Step::Checkpoint(_) if !source.guards().write => {
                Ok((source.checkpoint_beside(|source| self.read_on(source))?, None))
            }
            Step::Sync => {
                source.sync_beside(|source| self.read_on(source))?;
                Ok((true, None))
            }
            other => Ok((take(other, source)?, None)),
        }
    }

    /// Reads what is committed by now, and seals what is due, as that can take long; false when there
    /// is nothing to do.
    fn read_on(&mut self, source: &mut Source) -> Result<bool, RecordError> {
        let index = published(source)?;
        let is_unread = !self.is_settled(&index);
        if is_unread {
            self.read(source, &index.header)?;
        }
        let is_due = self.engine.seal_due(clock::monotonic(), self.recorder.waiting());
        if is_due {
            self.seal_or_keep()?;
        }
        Ok(is_unread || is_due)
    }
}

/// Takes one step, whether it was done. To copy is up to the caller.
///
/// # Errors
/// When SQLite or the system fails.
pub(in crate::replicate) fn take(step: Step, source: &mut Source) -> Result<bool, SourceError> {
    match step {
        Step::Begin => return source.begin(),
        Step::End => source.end_older()?,
        Step::Reserve(pause) => {
            clock::rest(pause);
            return source.reserve_checkpoint();
        }
        Step::Release => source.end_reservation()?,
        Step::Checkpoint(pause) => {
            clock::rest(pause);
            return source.checkpoint();
        }
        Step::Sync => source.sync_beside(|_| Ok::<_, SourceError>(false))?,
        Step::Write(pause) => {
            clock::rest(pause);
            return source.lock_writes();
        }
        Step::Rollback => source.unlock_writes()?,
        Step::Pin => return source.pin(),
        Step::Unpin => source.unpin()?,
        Step::Look(pause) => clock::rest(pause),
        Step::Copy | Step::Finished => {}
    }
    Ok(true)
}

/// Whether the ratchet's books are right. The write lock may be gone sooner: it is given back for a
/// wal-index to be rebuilt.
fn agree(books: Holds, held: Guards) -> bool {
    let is_held = |guard| guard != Guard::Free;
    let Guards { older, newer, pin, write } = held;
    let readers = (is_held(books.older), is_held(books.newer)) == (older, newer);
    readers && is_held(books.pin) == pin && is_held(books.write) >= write
}
