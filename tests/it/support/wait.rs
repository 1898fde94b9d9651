//! Waiting for a condition with a deadline, and the settings of a test run.

use std::time::Duration;

use genesis_replicate::clock;

/// Nothing in these tests takes this long unless it never comes.
const DEADLINE: Duration = Duration::from_mins(2);

/// The same, where gigabytes are written.
const LARGE_DEADLINE: Duration = Duration::from_mins(10);

/// Looks again and again until there is something to see.
///
/// # Panics
/// When there is nothing by the deadline; `what` says what was waited for.
pub fn wait_until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::monotonic() + patience();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(clock::monotonic() < deadline, "waited in vain for {what}");
        clock::rest(Duration::from_millis(3));
    }
}

/// How long anything is waited for.
pub fn patience() -> Duration {
    if setting("GENESIS_LARGE").is_some() { LARGE_DEADLINE } else { DEADLINE }
}

/// A number from the environment.
#[allow(clippy::disallowed_methods, reason = "the settings of a test run come from nowhere else")]
pub fn setting(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}
