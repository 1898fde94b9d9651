//! The one layer that tries again.

use std::time::Duration;

use super::{StoreError, StoreErrorKind};
use crate::durable;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Give up on what will fail again until somebody changes something.
    UnlessPermanent,
    /// Never give up: somebody may change it.
    Always,
}

/// Calls `operation` until it succeeds, with pauses that double and are drawn at random up to their
/// length. Each failure is logged.
///
/// # Errors
/// [`StoreErrorKind::NotFound`] and [`StoreErrorKind::AlreadyExists`], which are answers, and with
/// [`Persistence::UnlessPermanent`] permanent failures.
pub async fn persist<T>(
    persistence: Persistence,
    mut operation: impl AsyncFnMut() -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let mut longest = FIRST_PAUSE;
    loop {
        let error = match operation().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let retry = match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists => false,
            StoreErrorKind::Permanent => persistence == Persistence::Always,
            StoreErrorKind::Passing => true,
        };
        if !retry {
            return Err(error);
        }
        let pause = jittered(longest);
        tracing::warn!(
            error = %error,
            reason = %error.source,
            again_in_ms = pause.as_millis(),
            "the replica does not take what was committed; trying again"
        );
        tokio::time::sleep(pause).await;
        longest = (longest * 2).min(LONGEST_PAUSE);
    }
}

/// A random pause up to `longest`; all of it when the kernel has no random numbers to give.
fn jittered(longest: Duration) -> Duration {
    let share = durable::random().map_or(1.0, |random| (random >> 11) as f64 / (1u64 << 53) as f64);
    longest.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: StoreErrorKind) -> StoreError {
        let source = std::io::Error::other("down").into();
        StoreError { kind, action: "store", subject: "x".into(), source }
    }

    async fn outcomes(persistence: Persistence, kind: StoreErrorKind) -> (u32, bool) {
        let mut calls = 0;
        let done = persist(persistence, async || {
            calls += 1;
            if calls < 4 { Err(failure(kind)) } else { Ok(()) }
        });
        let done = done.await.is_ok();
        (calls, done)
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_answers_are_not() {
        use Persistence::{Always, UnlessPermanent};
        assert_eq!(outcomes(UnlessPermanent, StoreErrorKind::Passing).await, (4, true));
        assert_eq!(outcomes(UnlessPermanent, StoreErrorKind::Permanent).await, (1, false));
        assert_eq!(outcomes(Always, StoreErrorKind::Permanent).await, (4, true));
        assert_eq!(outcomes(Always, StoreErrorKind::AlreadyExists).await, (1, false));
        assert_eq!(outcomes(Always, StoreErrorKind::NotFound).await, (1, false));
    }
}
