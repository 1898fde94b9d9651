//! What simulations put in the place of clocks, chance and threads, on the thread that runs them.

mod random;
mod tally;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::time::Duration;

use genesis_wal::time::Micros;
use tokio::time::Instant;

pub use random::Random;
pub(crate) use tally::tally;

thread_local! {
    static MACHINE: Cell<Option<Machine>> = const { Cell::new(None) };
    static RANDOM: RefCell<Option<Random>> = const { RefCell::new(None) };
}

/// The clocks of one simulated machine.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    /// A moment on the clock of the runtime that runs the process.
    pub moment: Instant,
    /// The time of the world at that moment.
    pub at: Duration,
    /// What the wall clock says at the start of the world.
    pub wall: Micros,
    /// What the boot-time clock says at the start of the world.
    pub boot: Duration,
    /// Which run of the machine this is.
    pub run: u64,
}

impl Machine {
    /// The time of the world, as the runtime of the process has it.
    pub fn now(self) -> Duration {
        self.at + self.moment.elapsed()
    }
}

/// Puts this thread onto a machine, or back onto the real one.
pub fn enter(machine: Option<Machine>) {
    MACHINE.set(machine);
}

/// The machine that this thread is on.
pub fn machine() -> Option<Machine> {
    MACHINE.get()
}

/// The wall clock.
pub fn wall() -> Option<Micros> {
    let micros = |machine: Machine| u64::try_from(machine.now().as_micros()).unwrap();
    machine().map(|machine| Micros(machine.wall.0 + micros(machine)))
}

/// The boot-time clock.
pub fn since_boot() -> Option<Duration> {
    machine().map(|machine| machine.boot + machine.now())
}

/// Fixes the chance of this thread.
pub fn seed(seed: Option<u64>) {
    RANDOM.set(seed.map(Random::new));
}

/// The next random number, where chance is fixed.
pub fn random() -> Option<u64> {
    RANDOM.with_borrow_mut(|random| random.as_mut().map(Random::bits))
}

/// How much is tried is up to who runs the tests.
#[allow(clippy::disallowed_methods, reason = "it is up to who runs the tests")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The seeds to run: the one of `GENESIS_SEED`, or as many as `GENESIS_SEEDS` says, from that of
/// `GENESIS_FIRST_SEED` on.
pub fn seeds(count: u64) -> Range<u64> {
    if let Some(seed) = number("GENESIS_SEED") {
        return seed..seed + 1;
    }
    let first = number("GENESIS_FIRST_SEED").unwrap_or(0);
    first..first + number("GENESIS_SEEDS").unwrap_or(count)
}

/// What a panic says.
pub fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
    text.unwrap_or_default()
}

/// The last 60 of what was noted, or as many as `GENESIS_TRACE` says.
pub fn last_of(trace: &[String]) -> String {
    let last = number("GENESIS_TRACE").map_or(60, |n| usize::try_from(n).unwrap());
    trace[trace.len().saturating_sub(last)..].join("\n")
}
