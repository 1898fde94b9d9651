//! The clock that the writer's times are on, too.

use nix::time::{ClockId, clock_gettime};

pub use genesis_replicate::clock::rest;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn nanos() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or_else(
        |_| 0,
        |t| t.tv_sec().unsigned_abs() * 1_000_000_000 + t.tv_nsec().unsigned_abs(),
    );
    debug_assert!(now > 0, "every Linux has this clock");
    now
}
