//! The only reader of clocks.

use std::io;
use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use genesis_wal::time::Micros;
use rustix::time::{ClockId, clock_gettime};

#[cfg(test)]
use crate::simulated;

/// Time since the first call in this process. It never goes back and is nobody's wall clock.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this module owns the clocks")]
pub fn monotonic() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    #[cfg(test)]
    if let Some(machine) = simulated::machine() {
        return machine.now();
    }
    START.get_or_init(Instant::now).elapsed()
}

/// `CLOCK_MONOTONIC`, in nanoseconds: what other processes of this machine can compare with theirs.
#[must_use]
pub fn machine_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// `CLOCK_BOOTTIME`: since this machine was started, suspended or not. Nobody can set it.
#[must_use]
pub fn since_boot() -> Duration {
    #[cfg(test)]
    if let Some(time) = simulated::since_boot() {
        return time;
    }
    let now = clock_gettime(ClockId::Boottime);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Names this run of the machine: the boot-time clock of another one says nothing.
///
/// # Errors
/// When the kernel does not tell.
pub fn boot_id() -> io::Result<String> {
    #[cfg(test)]
    if let Some(machine) = simulated::machine() {
        return Ok(format!("{:036x}", machine.run));
    }
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The wall clock, as far as anybody trusts it; 1970 when it stands before that.
#[must_use]
#[allow(clippy::disallowed_methods, reason = "this module owns the clocks")]
pub fn wall() -> Micros {
    #[cfg(test)]
    if let Some(time) = simulated::wall() {
        return time;
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

/// Lets this thread rest.
#[allow(clippy::disallowed_methods, reason = "this module owns the clocks")]
pub fn rest(time: Duration) {
    std::thread::sleep(time);
}
