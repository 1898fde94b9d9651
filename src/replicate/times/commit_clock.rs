//! What time commits get: a value without I/O.
//!
//! A wall clock may be set in either direction, by hand, by the network, or by a machine that was
//! paused, and a wrong time that is recorded once cannot be taken back. So the time of a commit is the
//! last one that was given plus what the boot-time clock counted since, which nobody can set, and it is
//! steered towards the wall clock:
//!
//! | the wall clock is | it is believed | what happens |
//! | --- | --- | --- |
//! | less than a minute away | yes | the difference is made good by at most a 20th of the time that passes |
//! | ahead | by the rules below | the time jumps to it |
//! | behind | by the rules below | the time goes at half speed until it is reached: it never goes back |
//! | either | not yet | the time goes on by the boot-time clock |
//!
//! A wall clock that is further away is believed where a witness, the clock of the replica's store,
//! stands within a minute of it, and not where that stands elsewhere. Without a witness it is believed
//! when it went on steadily for ten minutes. One that stands before this program was written is never
//! believed, and one after that at once where the time itself is before: that was a machine without a
//! clock before the network told it.

use std::time::Duration;

use genesis_wal::time::Micros;

/// Differences to the wall clock up to this are made good without a doubt.
const DOUBTFUL: Duration = Duration::from_mins(1);

/// How long a wall clock that was set has to go on steadily.
const STEADY: Duration = Duration::from_mins(10);

/// A small difference is made good by one part in so many of the time that passes, and a wall clock
/// that is far behind is waited for by one part in so many.
const GENTLE: u32 = 20;
const HALF: u32 = 2;

/// 2026-01-01T00:00:00Z: no commit that is recorded was made before.
const WRITTEN: Duration = Duration::from_hours(490_896);

/// What the clocks say at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Since the machine was started, suspended or not.
    pub boot: Duration,
    /// The wall clock.
    pub wall: Micros,
    /// What the clock of the replica's store says now, where it has one of its own.
    pub witness: Option<Micros>,
}

/// A time that was given, and when by the boot-time clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Given {
    /// The boot-time clock.
    pub boot: Duration,
    /// The time, since 1970.
    pub time: Duration,
}

/// How the time stands to the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// They are one, but for what is being made good.
    Together,
    /// It is that much ahead, and not believed.
    WallAhead(Duration),
    /// It is that much behind, and not believed.
    WallBehind(Duration),
    /// It was so much ahead, and the time jumped to it.
    Jumped(Duration),
    /// It is that much behind, and waited for at half speed.
    Waiting(Duration),
}

/// Gives times to commits, which never go back.
#[derive(Debug, Clone)]
pub struct CommitClock {
    given: Given,
    /// A wall clock that is far away, and since when it has gone on steadily.
    far: Option<Far>,
}

#[derive(Debug, Clone, Copy)]
struct Far {
    since: Duration,
    /// The wall clock then.
    wall: Duration,
}

impl CommitClock {
    /// A clock that gives no time before `floor`, the last one that is recorded. `last` was given
    /// since the machine was started; without one the wall clock is where it begins, or the witness
    /// if they disagree.
    #[must_use]
    pub fn begin(reading: &Reading, floor: Micros, last: Option<Given>) -> Self {
        let (wall, floor) = (Duration::from_micros(reading.wall.0), Duration::from_micros(floor.0));
        let goes_on = last.and_then(|last| Some(last.time + reading.boot.checked_sub(last.boot)?));
        let witness = reading.witness.map(|witness| Duration::from_micros(witness.0));
        let read = witness.filter(|witness| witness.abs_diff(wall) > DOUBTFUL).unwrap_or(wall);
        let time = goes_on.unwrap_or(read).max(floor);
        Self { given: Given { boot: reading.boot, time }, far: None }
    }

    /// The last time that was given.
    #[must_use]
    pub fn given(&self) -> Given {
        self.given
    }

    /// The time at this moment, and how it stands to the wall clock.
    pub fn read(&mut self, reading: &Reading) -> (Micros, Standing) {
        let elapsed = reading.boot.saturating_sub(self.given.boot);
        let wall = Duration::from_micros(reading.wall.0);
        let reckoned = self.given.time + elapsed;
        let difference = reckoned.abs_diff(wall);
        let is_ahead = wall > reckoned;
        let is_near = difference <= DOUBTFUL;
        let is_believed = is_near || self.believes(reading, reckoned);
        let made_good = |part| difference.min(elapsed / part);
        let (time, standing) = match (is_near, is_believed, is_ahead) {
            (true, _, true) => (reckoned + made_good(GENTLE), Standing::Together),
            (true, _, false) => (reckoned.saturating_sub(made_good(GENTLE)), Standing::Together),
            (false, false, true) => (reckoned, Standing::WallAhead(difference)),
            (false, false, false) => (reckoned, Standing::WallBehind(difference)),
            (false, true, true) => (wall, Standing::Jumped(difference)),
            (false, true, false) => {
                (reckoned.saturating_sub(made_good(HALF)), Standing::Waiting(difference))
            }
        };
        if is_near || matches!(standing, Standing::Jumped(_)) {
            self.far = None;
        }
        self.given = Given { boot: reading.boot.max(self.given.boot), time };
        (Micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)), standing)
    }

    /// Whether a wall clock is believed that is far from the time that was reckoned.
    fn believes(&mut self, reading: &Reading, reckoned: Duration) -> bool {
        let wall = Duration::from_micros(reading.wall.0);
        let expected = |far: &Far| far.wall + reading.boot.saturating_sub(far.since);
        let is_steady = |far: &Far| expected(far).abs_diff(wall) <= DOUBTFUL;
        let new = Far { since: reading.boot, wall };
        let far = *self.far.insert(self.far.filter(is_steady).unwrap_or(new));
        if wall < WRITTEN {
            return false;
        }
        match reading.witness {
            Some(witness) => Duration::from_micros(witness.0).abs_diff(wall) <= DOUBTFUL,
            None => reckoned < WRITTEN || reading.boot.saturating_sub(far.since) >= STEADY,
        }
    }
}

#[cfg(test)]
mod tests;
