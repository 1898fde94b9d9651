//! The times of commits, as the clocks of this machine and the rules of [`commit_clock`] give them.

mod commit_clock;
mod kept;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genesis_wal::time::Micros;

pub use self::commit_clock::{CommitClock, Given, Reading, Standing};
use self::kept::Kept;
use crate::clock;
use crate::store::Store;

/// So far the time may have been steered before the file says so.
const KEPT_WITHIN: Duration = Duration::from_secs(1);

/// Gives commits their times.
#[derive(Debug)]
pub struct Times {
    clock: CommitClock,
    /// A witness, where it has a clock of its own.
    store: Arc<dyn Store>,
    told: Standing,
    kept: Option<Kept>,
    /// What the next process on this machine goes on from.
    written: Option<Given>,
}

impl Times {
    /// Times after `floor`, the last one that is recorded. What outlasts this process is in `folder`.
    #[must_use]
    pub fn begin(folder: &Path, floor: Micros, store: Arc<dyn Store>) -> Self {
        let (kept, last) = Kept::open(folder).unzip();
        let last = last.flatten();
        let clock = CommitClock::begin(&reading(&*store), floor, last);
        let mut times = Self { clock, store, told: Standing::Together, kept, written: last };
        times.look();
        times
    }

    /// The time now.
    pub fn now(&mut self) -> Micros {
        let (time, standing) = self.clock.read(&reading(&*self.store));
        self.tell(standing);
        time
    }

    /// Looks at the wall clock, so that it is noticed soon when it was set. From time to time.
    pub fn look(&mut self) {
        self.now();
        let given = self.clock.given();
        let went_on = |last: &Given| last.time + given.boot.saturating_sub(last.boot);
        let is_written = |last| went_on(last).abs_diff(given.time) <= KEPT_WITHIN;
        if let Some(kept) = &self.kept
            && !self.written.as_ref().is_some_and(is_written)
        {
            self.written = Some(given);
            if let Err(error) = kept.write(given) {
                tracing::warn!(
                    %error,
                    "cannot write down the time: the next start believes the wall clock"
                );
            }
        }
    }

    fn tell(&mut self, standing: Standing) {
        if std::mem::discriminant(&standing) == std::mem::discriminant(&self.told) {
            return;
        }
        let was_together = std::mem::replace(&mut self.told, standing) == Standing::Together;
        match standing {
            Standing::Together if was_together => {}
            Standing::Together => tracing::info!("commit times are those of the wall clock again"),
            Standing::WallAhead(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the wall clock was set ahead: commit times go on without it until it stood for ten \
                 minutes"
            ),
            Standing::WallBehind(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the wall clock was set back: commit times go on without it"
            ),
            Standing::Jumped(by) => tracing::warn!(
                seconds = by.as_secs(),
                "the wall clock is believed: commit times jump ahead"
            ),
            Standing::Waiting(by) => tracing::warn!(
                seconds = by.as_secs(),
                "commit times are ahead of the wall clock, and never go back: until it has caught \
                 up, they go at half speed"
            ),
        }
    }
}

fn reading(store: &dyn Store) -> Reading {
    let (boot, wall) = (clock::since_boot(), clock::wall());
    let boot_micros = u64::try_from(boot.as_micros()).unwrap_or(u64::MAX);
    let witness = store.booted_at().map(|at| Micros(at.0.saturating_add(boot_micros)));
    Reading { boot, wall, witness }
}
