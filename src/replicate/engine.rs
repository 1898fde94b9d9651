//! When to read, when to ship and how long to wait: a value without I/O. What was seen goes in with
//! the time, what to do comes out.

use std::time::Duration;

/// A segment is sealed early with this many bytes waiting.
const SEAL_BYTES: u64 = 16 << 20;

/// The poll while commits keep coming.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// Commits no further apart than this keep the poll busy.
const BUSY_GAP: Duration = Duration::from_millis(10);

/// The first look after an event: it comes before the commit is visible.
const FIRST_RECHECK: Duration = Duration::from_micros(20);

/// How long an event is looked after.
const RECHECK_SPAN: Duration = Duration::from_millis(3);

/// The poll behind the events: at first, and once nothing has happened for long.
const IDLE_POLL: Duration = Duration::from_millis(100);
const QUIET_POLL: Duration = Duration::from_secs(1);

/// Silence after which the slower poll is enough.
const QUIET_AFTER: Duration = Duration::from_secs(30);

/// What the driver sees at one moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// The moment, on a clock that never goes back.
    pub now: Duration,
    /// The wal-index is not what it was when everything was read.
    pub unread: bool,
    /// The WAL was written to since the last time.
    pub written: bool,
    /// Bytes that were recorded and wait to be sealed.
    pub waiting: u64,
    /// Everything is to be finished.
    pub stopping: bool,
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
    /// Wait for so long, whatever is written.
    Sleep(Duration),
    /// Everything is recorded and sealed: end.
    Finish,
}

/// The state of the decisions.
#[derive(Debug, Clone)]
pub struct Engine {
    sync_interval: Duration,
    last_seal: Option<Duration>,
    last_read: Duration,
    /// The last two reads came close together.
    busy: bool,
    recheck: Option<Recheck>,
}

/// An event whose commit has not been seen yet.
#[derive(Debug, Clone, Copy)]
struct Recheck {
    since: Duration,
    pause: Duration,
}

impl Engine {
    /// An engine that seals what waits at most every `sync_interval`.
    #[must_use]
    pub fn new(sync_interval: Duration) -> Self {
        let (last_seal, last_read) = (None, Duration::ZERO);
        Self { sync_interval, last_seal, last_read, busy: false, recheck: None }
    }

    /// Decides what is next.
    pub fn next(&mut self, seen: &Seen) -> Action {
        if seen.unread {
            self.busy = seen.now.saturating_sub(self.last_read) <= BUSY_GAP;
            self.last_read = seen.now;
            self.recheck = None;
            return Action::Read;
        }
        let due = self.seal_due(seen);
        if seen.waiting > 0 && (seen.stopping || due == Some(Duration::ZERO)) {
            self.last_seal = Some(seen.now);
            return Action::Seal;
        }
        if seen.stopping {
            return Action::Finish;
        }
        self.pause(seen, due.unwrap_or(Duration::MAX))
    }

    /// How long until what waits is to be sealed; `None` when nothing waits.
    fn seal_due(&self, seen: &Seen) -> Option<Duration> {
        if seen.waiting == 0 {
            return None;
        }
        let next = self.last_seal.map_or(Duration::ZERO, |last| last + self.sync_interval);
        let early = seen.waiting >= SEAL_BYTES;
        Some(if early { Duration::ZERO } else { next.saturating_sub(seen.now) })
    }

    fn pause(&mut self, seen: &Seen, due: Duration) -> Action {
        let silence = seen.now.saturating_sub(self.last_read);
        self.busy &= silence <= BUSY_GAP;
        if self.busy {
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
        let poll = if silence >= QUIET_AFTER { QUIET_POLL } else { IDLE_POLL };
        Action::Wait(poll.min(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(1);

    fn at(millis: u64) -> Seen {
        Seen { now: Duration::from_millis(millis), ..Seen::default() }
    }

    #[test]
    fn the_first_transaction_ships_at_once_and_the_next_when_the_interval_ends() {
        let mut engine = Engine::new(INTERVAL);
        assert_eq!(engine.next(&Seen { waiting: 1, ..at(100) }), Action::Seal);
        let waiting = Seen { waiting: 1, ..at(400) };
        assert_eq!(engine.next(&Seen { now: Duration::from_millis(1050), ..waiting }), {
            Action::Wait(Duration::from_millis(50))
        });
        assert_eq!(engine.next(&Seen { waiting: 1, ..at(1100) }), Action::Seal);
        assert_eq!(engine.next(&Seen { waiting: 1, ..at(9000) }), Action::Seal);
    }

    #[test]
    fn much_that_waits_ships_early() {
        let mut engine = Engine::new(INTERVAL);
        assert_eq!(engine.next(&Seen { waiting: 1, ..at(100) }), Action::Seal);
        assert_eq!(engine.next(&Seen { waiting: SEAL_BYTES, ..at(101) }), Action::Seal);
    }

    #[test]
    fn stopping_reads_seals_and_ends() {
        let mut engine = Engine::new(INTERVAL);
        let stopping = Seen { stopping: true, ..at(100) };
        assert_eq!(engine.next(&Seen { unread: true, waiting: 1, ..stopping }), Action::Read);
        assert_eq!(engine.next(&Seen { waiting: 1, ..stopping }), Action::Seal);
        assert_eq!(engine.next(&stopping), Action::Finish);
    }

    #[test]
    fn an_event_is_looked_after_until_its_commit_should_be_visible() {
        let mut engine = Engine::new(INTERVAL);
        let mut now = Duration::from_secs(5);
        let mut pauses = Vec::new();
        let mut written = true;
        while let Action::Sleep(pause) = engine.next(&Seen { now, written, ..Seen::default() }) {
            written = false;
            pauses.push(pause);
            now += pause;
        }
        assert_eq!(pauses.first(), Some(&FIRST_RECHECK));
        assert!(pauses.windows(2).all(|pair| pair[1] == pair[0] * 2), "{pauses:?}");
        assert!(pauses.iter().sum::<Duration>() >= RECHECK_SPAN);
        assert!(pauses.len() < 12, "{pauses:?}");
    }

    #[test]
    fn commits_close_together_are_polled_for_and_silence_ends_that() {
        let mut engine = Engine::new(INTERVAL);
        assert_eq!(engine.next(&Seen { unread: true, ..at(1000) }), Action::Read);
        assert_eq!(engine.next(&at(1000)), Action::Wait(IDLE_POLL));
        assert_eq!(engine.next(&Seen { unread: true, ..at(1005) }), Action::Read);
        assert_eq!(engine.next(&at(1005)), Action::Sleep(BUSY_POLL));
        assert_eq!(engine.next(&at(1016)), Action::Wait(IDLE_POLL));
        assert_eq!(engine.next(&at(60_000)), Action::Wait(QUIET_POLL));
    }
}
