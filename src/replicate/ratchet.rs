//! The read-mark ratchet: how the lock that keeps the WAL is moved without ever being without one. A
//! value without I/O: it says which step is next, the driver takes it and tells what came of it.
//!
//! **The invariant.** At every instant at least one of {the older reader, the newer reader, the pin on
//! a read slot, the write lock} is held; and one is given up only after everything up to the
//! `mxFrame` read *after its successor was acquired* has been copied. [`Holds`] states it, and every
//! step that gives something up is checked against it: one that is not allowed is not taken.
//!
//! Three procedures move the lock:
//!
//! - *Drain*: reserve the checkpoint, leap, so that the mark stands at the end, and checkpoint passively;
//!   twice at most, and only once where as much came in meanwhile. Fully backfilled, leap onto read mark
//!   0: the WAL is *parked*, and the next writer restarts it. Nobody is ever blocked.
//! - *Force*: drain and sync, then the same under the write lock, which is held for one checkpoint of what
//!   came in meanwhile. Where that sync takes long, so would this checkpoint: it is not made.
//! - *Respond*: somebody else holds the checkpoint and the write lock and waits for us. Leap, and once
//!   everything is backfilled leap onto read mark 0; if that does not help in time, hand the lock over
//!   to a pin on a free read slot, which limits no backfill, until the backfill is done.
//!
//! What is copied under the write lock is what came in since the copy before it. Where that is much (a
//! large transaction was under way), the lock is given back, and it is copied without.
//!
//! *Reserved* is the checkpoint lock, from before the mark moves until our checkpoint ends. Without that
//! the application's next commit finds a backlog that it may checkpoint, and does, in its own time. While
//! it is reserved nobody begins to wait for us: beside a checkpoint or a sync of ours, another is told at
//! once that it is in vain.

mod guards;
mod steps;
#[cfg(test)]
mod tests;

use std::time::Duration;

use genesis_wal::index::{IndexHeader, WalIndex};

pub use guards::{Guard, Holds};
pub use steps::{Outcome, Procedure, Step};

/// The pause before the write lock, or the reservation, is tried again, and how long the lock is tried.
const WRITE_PAUSE: Duration = Duration::from_micros(20);
const WRITE_PATIENCE: Duration = Duration::from_millis(20);

/// The pause before a checkpoint that met another is tried again, and how long it is tried while the
/// write lock is held.
const CHECKPOINT_PAUSE: Duration = Duration::from_micros(50);
const CHECKPOINT_PATIENCE: Duration = Duration::from_millis(3);

/// How long the checkpoint is tried to be reserved: for the mark to be moved, and before the write lock is
/// taken. An application that tries to checkpoint in vain with every commit leaves it for moments only.
const PUSH_PATIENCE: Duration = Duration::from_millis(5);
const RESERVE_PATIENCE: Duration = Duration::from_millis(50);

/// A sync within this is short enough for writers to wait for one like it. The first may have much to
/// write, the next tells how long the disk takes for little.
const SHORT_SYNC: Duration = Duration::from_millis(100);
const SYNCS: u8 = 2;

/// How often is checkpointed under the write lock: a writer that tries to get it reads for a moment, and
/// may do so behind the last frame.
const FINALS: u8 = 3;

/// How long a waiting checkpointer is answered with leaps before the lock is handed to a pin.
const LEAP_PATIENCE: Duration = Duration::from_millis(3);

/// The pause between looks at a backfill that a pin waits for, and how long it waits.
const BACKFILL_PAUSE: Duration = Duration::from_micros(30);
const BACKFILL_PATIENCE: Duration = Duration::from_millis(300);

/// How often a procedure pushes the mark to the end and checkpoints.
const ROUNDS: u8 = 2;

/// So many frames are few enough to be copied under the write lock, or this part of a WAL.
const FEW_FRAMES: u32 = 1000;
const LONG_WAL: u32 = 8;

/// How often the write lock is taken in one procedure: what came in before it the last time may be so
/// many times more, as after transactions that are all as large.
const LOCKS: u8 = 3;
const TIMES_FEW: u32 = 16;

/// A step would have given up the last lock that keeps the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unguarded;

/// Where a procedure stands: the step that was taken last, and what it was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// What comes next moves the mark to the end.
    Reserve(Then),
    /// What the last move of the mark left to backfill.
    LastCheckpoint,
    Release,
    /// A leap: begin, copy, end; then go on.
    LeapBegin(Then),
    LeapCopy(Then),
    LeapEnd(Then),
    Checkpoint,
    Sync,
    Write,
    FinalCheckpoint,
    /// Too much came in before the write lock was ours.
    GiveWay,
    Rollback,
    Pin,
    PinCopy,
    PinEnd,
    PinLook,
    PinBegin,
    PinBeginCopy,
    Unpin,
}

/// What a leap was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// To let the checkpoint reach the end.
    Push,
    /// To stand on read mark 0.
    Park,
    /// To have little left under the write lock.
    BeforeWrite,
    /// To let the final checkpoint reach the end.
    FinalPush,
    /// To stand on read mark 0 under the write lock.
    FinalPark,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    procedure: Procedure,
    at: At,
    round: u8,
    /// Frames that this round found to backfill.
    backlog: u32,
    /// How often was synced.
    syncs: u8,
    /// How often the write lock was taken.
    locks: u8,
    /// How often was checkpointed under it.
    finals: u8,
    /// When what is tried again, or measured, was first tried.
    trying_since: Duration,
}

/// The lock that keeps the WAL, and the procedure that moves it.
#[derive(Debug, Clone)]
pub struct Ratchet {
    holds: Holds,
    /// The wal-index just before the newest read transaction began.
    before: Option<WalIndex>,
    /// The wal-index that was last copied to.
    copied: Option<IndexHeader>,
    /// So many frames may be copied under the write lock.
    few: u32,
    parked: bool,
    /// No other process checkpoints.
    reserved: bool,
    /// The mark moved since the last checkpoint, under the reservation.
    has_moved: bool,
    run: Option<Run>,
}

impl Default for Ratchet {
    fn default() -> Self {
        Self::new()
    }
}

impl Ratchet {
    /// A ratchet that stands on one read transaction, since which everything was copied.
    #[must_use]
    pub fn new() -> Self {
        Self {
            holds: Holds { older: Guard::Proven, ..Holds::default() },
            before: None,
            copied: None,
            few: FEW_FRAMES,
            parked: false,
            reserved: false,
            has_moved: false,
            run: None,
        }
    }

    /// One for which so many frames are few.
    #[cfg(test)]
    pub fn with_few(few: u32) -> Self {
        Self { few, ..Self::new() }
    }

    /// What keeps the WAL now.
    #[must_use]
    pub fn holds(&self) -> Holds {
        self.holds
    }

    /// Whether the reader stands on read mark 0, begun when the WAL was fully backfilled: the next
    /// writer restarts it.
    #[must_use]
    pub fn is_parked(&self) -> bool {
        self.parked
    }

    /// Begins a procedure; the first step.
    pub fn start(&mut self, procedure: Procedure, now: Duration) -> Step {
        let at = match procedure {
            // The one that waits for us is to go on with its own.
            Procedure::Respond { .. } => At::LeapBegin(Then::Push),
            Procedure::Drain | Procedure::Force => At::Reserve(Then::Push),
        };
        let (round, backlog, syncs, locks, finals) = (1, 0, 0, 0, 0);
        let run = Run { procedure, at, round, backlog, syncs, locks, finals, trying_since: now };
        self.run = Some(run);
        step_of(at, &run, now)
    }

    /// Takes what came of the last step; the next step.
    ///
    /// # Errors
    /// [`Unguarded`] where what was done does not allow it. The procedure is over then, and what is held
    /// is to be established anew.
    pub fn next(&mut self, outcome: &Outcome) -> Result<Step, Unguarded> {
        let Some(mut run) = self.run else { return Ok(Step::Finished) };
        self.account(run.at, outcome);
        let at = self.advance(&mut run, outcome).or_else(|| self.end_of_reservation());
        self.run = at.map(|at| Run { at, ..run });
        let step = at.map_or(Step::Finished, |at| step_of(at, &run, outcome.now));
        if !self.allows(step) {
            self.run = None;
            return Err(Unguarded);
        }
        Ok(step)
    }

    /// How a procedure ends that has the checkpoint reserved. What the mark left behind it would be
    /// backfilled by the application's next commit.
    fn end_of_reservation(&self) -> Option<At> {
        let last = if self.has_moved && !self.parked { At::LastCheckpoint } else { At::Release };
        self.reserved.then_some(last)
    }

    /// Whether a step keeps the invariant.
    fn allows(&self, step: Step) -> bool {
        let mut after = self.holds;
        match step {
            Step::End => after.end(),
            Step::Rollback => after.write = Guard::Free,
            Step::Unpin => after.pin = Guard::Free,
            _ => return true,
        }
        after.is_kept()
    }

    /// Keeps the books of what is held.
    fn account(&mut self, at: At, outcome: &Outcome) {
        match at {
            At::LeapBegin(_) | At::PinBegin if outcome.done => {
                self.holds.begin();
                self.before = Some(outcome.index);
            }
            At::Reserve(_) => self.reserved = outcome.done,
            // Where it was not done it may still be reserved; to give that up twice is harmless.
            At::Checkpoint | At::FinalCheckpoint | At::LastCheckpoint => {
                self.has_moved = false;
                self.reserved &= !outcome.done;
            }
            At::Release => self.reserved = false,
            At::Write if outcome.done => self.holds.write = Guard::Fresh,
            At::Pin if outcome.done => self.holds.pin = Guard::Fresh,
            At::LeapCopy(_) | At::PinCopy | At::PinBeginCopy if outcome.done => {
                self.holds.copied();
                self.copied = Some(outcome.index.header);
                self.parked = at != At::PinCopy && self.is_parked_at(&outcome.index);
            }
            At::LeapEnd(_) | At::PinEnd => {
                self.holds.end();
                self.has_moved = self.reserved;
            }
            At::GiveWay | At::Rollback => self.holds.write = Guard::Free,
            At::Unpin => self.holds.pin = Guard::Free,
            _ => {}
        }
    }

    /// Unchanged since before the transaction began, and fully backfilled then: SQLite gave it read
    /// mark 0, or, where the checkpointer that had just done that still held this, a mark at the end.
    /// Either way the file alone is the state, and nothing more reaches it.
    fn is_parked_at(&self, copied: &WalIndex) -> bool {
        self.before.is_some_and(|before| {
            before.header == copied.header && before.backfilled == before.header.max_frame
        })
    }

    /// Where the procedure goes from here; `None` when it is over.
    fn advance(&self, run: &mut Run, outcome: &Outcome) -> Option<At> {
        match run.at {
            At::Reserve(Then::BeforeWrite) if outcome.done => {
                run.trying_since = outcome.now;
                Some(At::Sync)
            }
            At::Reserve(then) if outcome.done => Some(At::LeapBegin(then)),
            // Little is left then, or nothing.
            At::Reserve(Then::Park) => Some(At::LeapBegin(Then::Park)),
            At::Reserve(then) => reserve_again(run, then, outcome),
            At::LeapBegin(then) if outcome.done => Some(At::LeapCopy(then)),
            At::LeapBegin(_) => (self.holds.write != Guard::Free).then_some(At::Rollback),
            // What could not be copied holds the older lock: the driver has a reason to doubt.
            At::LeapCopy(then) => {
                run.backlog = outcome.index.backlog();
                outcome.done.then_some(At::LeapEnd(then))
            }
            At::LeapEnd(then) => self.after_leap(run, then, outcome),
            At::Checkpoint => after_checkpoint(run, outcome),
            At::Sync => after_sync(run, outcome),
            At::Write => self.after_write(run, outcome),
            At::GiveWay => Some(At::LeapBegin(Then::BeforeWrite)),
            At::FinalCheckpoint => {
                run.finals += u8::from(outcome.done);
                Some(after_final_checkpoint(run, outcome))
            }
            At::Pin => outcome.done.then_some(At::PinCopy),
            At::PinCopy => Some(if outcome.done { At::PinEnd } else { At::Unpin }),
            At::PinEnd => {
                run.trying_since = outcome.now;
                Some(At::PinLook)
            }
            At::PinLook => {
                let waited = outcome.now.saturating_sub(run.trying_since);
                let over = is_full(&outcome.index) || !outcome.waited_for;
                Some(if over || waited > BACKFILL_PATIENCE { At::PinBegin } else { At::PinLook })
            }
            // The pin alone keeps the WAL: there is no way but to try again.
            At::PinBegin => Some(if outcome.done { At::PinBeginCopy } else { At::PinBegin }),
            At::PinBeginCopy => outcome.done.then_some(At::Unpin),
            At::Rollback | At::Unpin | At::LastCheckpoint | At::Release => None,
        }
    }

    fn after_leap(&self, run: &mut Run, then: Then, outcome: &Outcome) -> Option<At> {
        match (then, run.procedure) {
            (Then::Push | Then::Park, _) if self.parked => None,
            (Then::Push, Procedure::Respond { since }) => {
                let waited = outcome.now.saturating_sub(since);
                if is_full(&outcome.index) {
                    Some(At::LeapBegin(Then::Park))
                } else {
                    (outcome.waited_for && waited > LEAP_PATIENCE).then_some(At::Pin)
                }
            }
            (Then::Park, Procedure::Respond { .. }) => None,
            (Then::Park, _) if run.round > ROUNDS => after_rounds(run, outcome),
            (Then::Push | Then::Park, _) => Some(At::Checkpoint),
            (Then::BeforeWrite, _) => {
                run.trying_since = outcome.now;
                Some(At::Write)
            }
            (Then::FinalPush, _) => {
                run.trying_since = outcome.now;
                Some(At::FinalCheckpoint)
            }
            (Then::FinalPark, _) => Some(At::Rollback),
        }
    }

    fn after_write(&self, run: &mut Run, outcome: &Outcome) -> Option<At> {
        if !outcome.done {
            let waited = outcome.now.saturating_sub(run.trying_since);
            // A checkpointer that waits for us holds that lock until it is answered.
            return (waited < WRITE_PATIENCE && !outcome.waited_for).then_some(At::Write);
        }
        run.locks += 1;
        let uncopied = self.uncopied(&outcome.index.header);
        let is_last = run.locks >= LOCKS;
        let most = self.few.saturating_mul(TIMES_FEW);
        // Of a long WAL more may be copied: to give way once more would make it longer still.
        let part = (outcome.index.header.max_frame / LONG_WAL).clamp(self.few, most);
        let few = if is_last { most } else { part };
        Some(match (uncopied <= few, is_last) {
            (true, _) => At::LeapBegin(Then::FinalPush),
            (false, true) => At::Rollback,
            (false, false) => At::GiveWay,
        })
    }

    /// Frames that came in since the last copy.
    fn uncopied(&self, now: &IndexHeader) -> u32 {
        let copied = self.copied.filter(|copied| copied.salts == now.salts);
        now.max_frame.saturating_sub(copied.map_or(0, |copied| copied.max_frame))
    }
}

/// Somebody else is checkpointing. A mark that moves now is work for them, within a commit.
fn reserve_again(run: &Run, then: Then, outcome: &Outcome) -> Option<At> {
    let waited = outcome.now.saturating_sub(run.trying_since);
    let patience = if then == Then::BeforeWrite { RESERVE_PATIENCE } else { PUSH_PATIENCE };
    (waited < patience && !outcome.waited_for).then_some(At::Reserve(then))
}

fn after_checkpoint(run: &mut Run, outcome: &Outcome) -> Option<At> {
    run.round += 1;
    run.trying_since = outcome.now;
    // Where commits come in as fast as they are checkpointed, another round leaves as much.
    let is_near = outcome.index.backlog() <= run.backlog / 2;
    if is_full(&outcome.index) {
        Some(At::Reserve(Then::Park))
    } else if run.round <= ROUNDS && is_near {
        Some(At::Reserve(Then::Push))
    } else {
        after_rounds(run, outcome)
    }
}

/// What is left when commits come in faster than they can be checkpointed.
fn after_rounds(run: &mut Run, outcome: &Outcome) -> Option<At> {
    run.trying_since = outcome.now;
    (run.procedure == Procedure::Force).then_some(At::Reserve(Then::BeforeWrite))
}

/// Under the write lock, writers wait for the disk as long as we do.
fn after_sync(run: &mut Run, outcome: &Outcome) -> Option<At> {
    let took = outcome.now.saturating_sub(run.trying_since);
    run.trying_since = outcome.now;
    run.syncs += 1;
    if took <= SHORT_SYNC {
        Some(At::LeapBegin(Then::BeforeWrite))
    } else {
        (run.syncs < SYNCS).then_some(At::Sync)
    }
}

fn after_final_checkpoint(run: &Run, outcome: &Outcome) -> At {
    let waited = outcome.now.saturating_sub(run.trying_since);
    if is_full(&outcome.index) {
        At::LeapBegin(Then::FinalPark)
    } else if !outcome.done && waited < CHECKPOINT_PATIENCE || outcome.done && run.finals < FINALS {
        At::FinalCheckpoint
    } else {
        At::Rollback
    }
}

/// The step that leads to a place. What is tried again is tried after a pause.
fn step_of(at: At, run: &Run, now: Duration) -> Step {
    let paused = |pause| if now == run.trying_since { Duration::ZERO } else { pause };
    match at {
        At::Reserve(_) => Step::Reserve(paused(WRITE_PAUSE)),
        At::Release => Step::Release,
        At::LeapBegin(_) | At::PinBegin => Step::Begin,
        At::LeapCopy(_) | At::PinCopy | At::PinBeginCopy => Step::Copy,
        At::LeapEnd(_) | At::PinEnd => Step::End,
        At::Checkpoint | At::LastCheckpoint => Step::Checkpoint(Duration::ZERO),
        At::FinalCheckpoint => Step::Checkpoint(paused(CHECKPOINT_PAUSE)),
        At::Sync => Step::Sync,
        At::Write => Step::Write(paused(WRITE_PAUSE)),
        At::GiveWay | At::Rollback => Step::Rollback,
        At::Pin => Step::Pin,
        At::Unpin => Step::Unpin,
        At::PinLook => Step::Look(BACKFILL_PAUSE),
    }
}

fn is_full(index: &WalIndex) -> bool {
    index.backfilled == index.header.max_frame
}
