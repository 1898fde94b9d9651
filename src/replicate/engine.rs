//! When to read, when to ship and how long to wait: a value without I/O. What was seen goes in with
//! the time, what to do comes out.

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::ratchet::Procedure;

/// A segment is sealed early with this many bytes waiting.
pub const SEAL_BYTES: u64 = 16 << 20;

/// The pause after a seal that failed, however much waits.
const SEAL_RETRY: Duration = Duration::from_millis(500);

/// The poll while commits keep coming.
const BUSY_POLL: Duration = Duration::from_micros(1500);

/// Commits no further apart than this keep the poll busy.
const BUSY_GAP: Duration = Duration::from_millis(10);

/// The first look after an event: it comes before the commit is visible.
const FIRST_RECHECK: Duration = Duration::from_micros(20);

/// How long an event is looked after.
const RECHECK_SPAN: Duration = Duration::from_millis(3);

/// The poll behind the events: at first, and once nothing has happened for long.
const IDLE_POLL: Duration = Duration::from_millis(250);
const QUIET_POLL: Duration = Duration::from_secs(1);

/// Silence after which the slower poll is enough.
const QUIET_AFTER: Duration = Duration::from_secs(10);

/// So many frames to backfill are worth a checkpoint.
const DRAIN_FRAMES: u32 = 1000;

/// On read mark 0 the application's own checkpoints, past so many frames and by default with every commit
/// from then on, sort the whole WAL before they find that they may do nothing. That mark is left before:
/// where these looks more, with as many frames each as the last one, would pass it.
const LOOKS_AHEAD: u32 = 2;

/// So many frames that are left after a move tell that commits come in as fast as they are checkpointed.
/// The next drain comes when the WAL has grown by so many times its length, within these limits.
const OUTRUN_FRAMES: u32 = 250;
const OUTRUN_GROWTH: u32 = 3;
const OUTRUN_DRAIN_FRAMES: u32 = 16_384;

/// Silence after which whatever there is to backfill is checkpointed.
const DRAIN_AFTER: Duration = Duration::from_millis(200);

/// The pause before a lock that could not be parked is moved again in silence: at first, and at most.
const FIRST_MOVE_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_MOVE_PAUSE: Duration = Duration::from_secs(10);

/// The pause before the write lock is taken again after it was in vain, as somebody reads an old state:
/// at first, and at most. The WAL grows on meanwhile whatever is done.
const FIRST_FORCE_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_FORCE_PAUSE: Duration = Duration::from_secs(10);

/// A checkpointer that waits is answered at every look for so long; one that waits on in vain then
/// no more often than this.
const RESPOND_PAUSE: Duration = Duration::from_millis(50);

/// How long a checkpointer may wait while we seem to be in nobody's way.
const PARKED_PATIENCE: Duration = Duration::from_millis(3);

/// How often a slice of what is to be read back is read: half of the time is left to others.
const READ_BACK_EVERY: Duration = Duration::from_millis(4);

/// The poll while a checkpointer might come to wait for us.
const UNPARKED_POLL: Duration = Duration::from_millis(10);

/// A WAL of so many bytes is too large to be kept for what may be recorded later, where there is no
/// limit to it.
const UNRECORDED_LIMIT: u64 = 16 << 20;

/// What the driver sees at one moment.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is one independent observation")]
pub struct Seen {
    /// The moment, on a clock that never goes back.
    pub now: Duration,
    /// The wal-index is not what it was when everything was read.
    pub unread: bool,
    /// How often everything had been read.
    pub settles: u64,
    /// The WAL was written to since the last time.
    pub written: bool,
    /// Bytes that were recorded and wait to be sealed.
    pub waiting: u64,
    /// Everything is to be finished.
    pub stopping: bool,
    /// The last committed frame of the WAL.
    pub max_frame: u32,
    /// Frames of it that are in the database.
    pub backfilled: u32,
    /// Bytes in the WAL up to the last committed frame.
    pub wal_bytes: u64,
    /// The lock is where the next writer restarts the WAL.
    pub parked: bool,
    /// The lock stands on read mark 0 (or on the last frame, as it does beside a checkpointer that had
    /// not yet left that mark), whatever was committed since.
    pub on_mark_zero: bool,
    /// Another process holds the checkpoint and the write lock.
    pub waited_for: bool,
    /// Pages of the database are to be compared with what was recorded, and can be.
    pub read_back: bool,
}

/// What the driver is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Read and record what is committed.
    Read,
    /// Seal what waits, for upload.
    Seal,
    /// Wait for so long, or until the WAL is written to.
    Wait(Duration),
    /// Wait for so long, whatever is written: a commit is on its way.
    Sleep(Duration),
    /// The same while commits keep coming: the WAL need not be watched.
    Tick(Duration),
    /// Move the lock that keeps the WAL.
    Move(Procedure),
    /// Compare some pages of the database with what was recorded.
    ReadBack,
    /// Everything is recorded and sealed: end.
    Finish,
}

/// The state of the decisions.
#[derive(Debug, Clone)]
pub struct Engine {
    sync_interval: Duration,
    last_seal: Option<Duration>,
    /// After a seal that failed, none is early before then.
    early_from: Duration,
    last_read: Duration,
    /// The last two reads came close together.
    busy: bool,
    recheck: Option<Recheck>,
    /// With so many bytes in the WAL the write lock may be taken to empty it.
    wal_limit: Option<u64>,
    last_move: Duration,
    move_pause: Duration,
    /// The last move left much to backfill, as much was committed meanwhile.
    is_outrun: bool,
    /// The last move was a force.
    has_forced: bool,
    /// No force before then; zero where none was in vain.
    force_from: Duration,
    force_pause: Duration,
    /// The last frame when the lock had been moved and was not parked; 0 once it is.
    moved_at: u32,
    /// The last frame at the last look: less means that the WAL was restarted.
    last_max_frame: u32,
    /// Frames that were committed between the last two looks.
    growth: u32,
    /// A checkpointer that seems to wait for us: since when, and at which last frame.
    waiting: Option<(Duration, u32)>,
    last_response: Option<Duration>,
    next_read_back: Duration,
    /// Told to finish: with so many settles everything committed by then has been read.
    last_settle: Option<u64>,
}

/// An event whose commit has not been seen yet.
#[derive(Debug, Clone, Copy)]
struct Recheck {
    since: Duration,
    pause: Duration,
}

impl Engine {
    /// An engine that seals what waits at most every `sync_interval`, and empties a WAL of more than
    /// `wal_limit` bytes under the write lock.
    #[must_use]
    pub fn new(sync_interval: Duration, wal_limit: Option<u64>) -> Self {
        Self {
            sync_interval,
            last_seal: None,
            early_from: Duration::ZERO,
            last_read: Duration::ZERO,
            busy: false,
            recheck: None,
            wal_limit,
            last_move: Duration::ZERO,
            move_pause: FIRST_MOVE_PAUSE,
            is_outrun: false,
            has_forced: false,
            force_from: Duration::ZERO,
            force_pause: FIRST_FORCE_PAUSE,
            moved_at: 0,
            last_max_frame: 0,
            growth: 0,
            waiting: None,
            last_response: None,
            next_read_back: Duration::ZERO,
            last_settle: None,
        }
    }

    /// Learns that a segment could not be sealed.
    pub fn seal_failed(&mut self, now: Duration) {
        self.early_from = now + SEAL_RETRY;
    }

    /// Learns how a move of the lock ended, with this last frame and so many frames left to backfill.
    pub fn moved(&mut self, now: Duration, parked: bool, max_frame: u32, backlog: u32) {
        self.last_move = now;
        self.moved_at = if parked { 0 } else { max_frame };
        self.is_outrun = !parked && backlog >= OUTRUN_FRAMES;
        self.move_pause =
            if parked { FIRST_MOVE_PAUSE } else { (self.move_pause * 2).min(LONGEST_MOVE_PAUSE) };
        let has_forced = std::mem::take(&mut self.has_forced);
        if parked {
            (self.force_from, self.force_pause) = (Duration::ZERO, FIRST_FORCE_PAUSE);
        } else if has_forced {
            self.force_from = now + self.force_pause;
            self.force_pause = (self.force_pause * 2).min(LONGEST_FORCE_PAUSE);
        }
    }

    /// Decides what is next.
    pub fn next(&mut self, seen: &Seen) -> Action {
        if let Some(response) = self.response(seen) {
            return Action::Move(response);
        }
        if self.seal_due(seen.now, seen.waiting) {
            return Action::Seal;
        }
        if seen.stopping {
            return self.finish(seen);
        }
        // Before the read, or it would never come about under steady commits; a move reads, too.
        if let Some(procedure) = self.move_for_size(seen) {
            return Action::Move(procedure);
        }
        if seen.unread {
            self.move_pause = FIRST_MOVE_PAUSE;
            self.busy = seen.now.saturating_sub(self.last_read) <= BUSY_GAP;
            self.last_read = seen.now;
            self.recheck = None;
            return Action::Read;
        }
        if !seen.parked && self.silent_move_due(seen) == Duration::ZERO {
            return Action::Move(Procedure::Drain);
        }
        let mut due = self.until_seal(seen.now, seen.waiting).unwrap_or(Duration::MAX);
        if seen.read_back {
            let left = self.next_read_back.saturating_sub(seen.now);
            if left == Duration::ZERO {
                self.next_read_back = seen.now + READ_BACK_EVERY;
                return Action::ReadBack;
            }
            due = due.min(left);
        }
        self.pause(seen, due)
    }

    /// Whether what waits, so many bytes, is to be sealed now; it is held to be, then.
    pub fn seal_due(&mut self, now: Duration, waiting: u64) -> bool {
        let due = self.until_seal(now, waiting) == Some(Duration::ZERO);
        if due {
            self.last_seal = Some(now);
        }
        due
    }

    /// Decides which way the lock is to be moved while nothing can be recorded yet. What is passed over
    /// then is not recorded commit by commit: so only where somebody waits, or the WAL is too large.
    pub fn next_unrecorded(&mut self, seen: &Seen) -> Option<Procedure> {
        if let Some(response) = self.response(seen) {
            return Some(response);
        }
        if seen.unread {
            (self.last_read, self.move_pause) = (seen.now, FIRST_MOVE_PAUSE);
        }
        if seen.wal_bytes < self.wal_limit.unwrap_or(UNRECORDED_LIMIT) {
            return None;
        }
        let silent = !seen.parked && self.silent_move_due(seen) == Duration::ZERO;
        self.move_for_size(seen).or_else(|| silent.then_some(Procedure::Drain))
    }

    /// Takes what is seen of the WAL and of who waits for it; how to let those through.
    fn response(&mut self, seen: &Seen) -> Option<Procedure> {
        if seen.max_frame < self.last_max_frame {
            (self.moved_at, self.force_from) = (0, Duration::ZERO);
            self.force_pause = FIRST_FORCE_PAUSE;
        }
        self.growth = seen.max_frame.checked_sub(self.last_max_frame).unwrap_or(seen.max_frame);
        self.last_max_frame = seen.max_frame;
        let since = self.checkpointer_waits(seen)?;
        self.last_response = Some(seen.now);
        Some(Procedure::Respond { since })
    }

    /// Reads what was committed before the question, however much is committed since, seals and ends.
    fn finish(&mut self, seen: &Seen) -> Action {
        let last = *self.last_settle.get_or_insert(seen.settles + u64::from(seen.unread));
        if seen.settles < last {
            Action::Read
        } else if seen.waiting > 0 {
            Action::Seal
        } else {
            Action::Finish
        }
    }

    /// Since when a checkpointer has been waiting for us: seen in two looks with nothing committed
    /// between, for a process that writes and checkpoints in two threads looks the same for a moment.
    fn checkpointer_waits(&mut self, seen: &Seen) -> Option<Duration> {
        if !seen.waited_for {
            self.waiting = None;
            return None;
        }
        match self.waiting {
            Some((since, max_frame)) if max_frame == seen.max_frame => {
                let waited = seen.now.saturating_sub(since);
                // On read mark 0 after a full backfill we are in nobody's way; but a checkpointer that
                // was just done may have kept us from that mark.
                if seen.parked && waited < PARKED_PATIENCE {
                    return None;
                }
                let brief = waited < RESPOND_PAUSE && !seen.parked;
                let pause = if brief { BUSY_POLL } else { RESPOND_PAUSE };
                let due = self.last_response.map_or(Duration::ZERO, |last| last + pause);
                (seen.now >= due).then_some(since)
            }
            _ => {
                self.waiting = Some((seen.now, seen.max_frame));
                None
            }
        }
    }

    /// Which way the lock is to be moved for the sake of the WAL's size.
    fn move_for_size(&mut self, seen: &Seen) -> Option<Procedure> {
        let backlog = seen.max_frame.saturating_sub(seen.backfilled);
        let ahead = if seen.on_mark_zero { self.growth.saturating_mul(LOOKS_AHEAD) } else { 0 };
        let many = backlog > 0 && backlog.saturating_add(ahead) >= DRAIN_FRAMES;
        let over = self.wal_limit.is_some_and(|limit| seen.wal_bytes >= limit) && backlog > 0;
        let grown = seen.max_frame.saturating_sub(self.moved_at);
        let is_in_vain = self.force_from > Duration::ZERO;
        let may_force = seen.now >= self.force_from && (grown >= DRAIN_FRAMES || !is_in_vain);
        self.has_forced = over && may_force;
        if self.has_forced {
            return Some(Procedure::Force);
        }
        ((many || over) && grown >= self.next_growth()).then_some(Procedure::Drain)
    }

    /// By how many frames the WAL has grown before the next drain. Where commits come in as fast as they
    /// are checkpointed, and it is emptied by force in the end, the next is of many more: the fewer
    /// checkpoints, the fewer pages are written.
    fn next_growth(&self) -> u32 {
        match self.moved_at {
            0 => 0,
            at if self.is_outrun && self.wal_limit.is_some() => {
                at.saturating_mul(OUTRUN_GROWTH).clamp(DRAIN_FRAMES, OUTRUN_DRAIN_FRAMES)
            }
            _ => DRAIN_FRAMES,
        }
    }

    /// How long until the lock is moved because nothing is committed.
    fn silent_move_due(&self, seen: &Seen) -> Duration {
        let due = (self.last_read + DRAIN_AFTER).max(self.last_move + self.move_pause);
        due.saturating_sub(seen.now)
    }

    /// How long until what waits is to be sealed; `None` when nothing waits.
    fn until_seal(&self, now: Duration, waiting: u64) -> Option<Duration> {
        if waiting == 0 {
            return None;
        }
        let next = self.last_seal.map_or(Duration::ZERO, |last| last + self.sync_interval);
        let early = waiting >= SEAL_BYTES && now >= self.early_from;
        Some(if early { Duration::ZERO } else { next.saturating_sub(now) })
    }

    fn pause(&mut self, seen: &Seen, due: Duration) -> Action {
        let silence = seen.now.saturating_sub(self.last_read);
        self.busy &= silence <= BUSY_GAP;
        if self.busy {
            return Action::Tick(BUSY_POLL.min(due));
        }
        if seen.waited_for {
            return Action::Sleep(BUSY_POLL.min(due));
        }
        if seen.written {
            let fresh = Recheck { since: seen.now, pause: FIRST_RECHECK };
            self.recheck = Some(self.recheck.map_or(fresh, |r| Recheck { since: seen.now, ..r }));
        }
        if let Some(recheck) = &mut self.recheck {
            if seen.now.saturating_sub(recheck.since) < RECHECK_SPAN {
                let pause = recheck.pause;
                recheck.pause = (pause * 2).min(RECHECK_SPAN);
                return Action::Sleep(pause.min(due));
            }
            self.recheck = None;
        }
        let poll = if !seen.parked {
            UNPARKED_POLL.min(self.silent_move_due(seen))
        } else if silence >= QUIET_AFTER {
            QUIET_POLL
        } else {
            IDLE_POLL
        };
        Action::Wait(poll.min(due))
    }
}
