//! The one layer that tries again.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::name::ObjectName;
use genesis_wal::time::Micros;

use super::{Body, Claims, Listed, Page, Store, StoreError, StoreErrorKind};
use crate::{clock, durable};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A place that wants to be left alone for longer is asked again after this.
const LONGEST_WISH: Duration = Duration::from_mins(1);

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// Give up on what will fail again until somebody changes something.
    UnlessPermanent,
    /// Never give up: somebody may change it.
    Always,
    /// Give up also on what has failed for so long, and now fails again: somebody waits for an answer.
    For(Duration),
}

/// A store that tries again what fails, with pauses that double and are drawn at random up to their
/// length, after the time that the place wants to be left alone. Each failure is logged. Answers are given on at once: that an object is not there, or that
/// another is.
#[derive(Debug, Clone)]
pub struct Retrying {
    store: Arc<dyn Store>,
    persistence: Persistence,
}

impl Retrying {
    /// Tries again what fails in `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, persistence: Persistence) -> Self {
        Self { store, persistence }
    }
}

#[async_trait]
impl Store for Retrying {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        persist(self.persistence, || self.store.create(name, body.clone())).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        persist(self.persistence, || self.store.get(name)).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        persist(self.persistence, || self.store.get_range(name, range.clone())).await
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        persist(self.persistence, || self.store.exists(name)).await
    }

    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError> {
        persist(self.persistence, || self.store.claims(witness)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        persist(self.persistence, || self.store.list(prefix)).await
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Page, StoreError> {
        persist(self.persistence, || self.store.list_after(prefix, after)).await
    }

    fn booted_at(&self) -> Option<Micros> {
        self.store.booted_at()
    }
}

/// Does something to a store until it is done, or until that is given up.
///
/// # Errors
/// The last.
pub(crate) async fn persist<T, F>(
    persistence: Persistence,
    mut operation: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let begun = clock::monotonic();
    let mut longest = FIRST_PAUSE;
    loop {
        let error = match operation().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let again = match error.kind {
            StoreErrorKind::NotFound | StoreErrorKind::AlreadyExists => false,
            StoreErrorKind::Permanent => persistence == Persistence::Always,
            StoreErrorKind::Passing | StoreErrorKind::PerhapsDone => match persistence {
                Persistence::For(patience) => clock::monotonic().saturating_sub(begun) < patience,
                Persistence::UnlessPermanent | Persistence::Always => true,
            },
        };
        if !again {
            return Err(error);
        }
        let pause = pause(longest, error.retry_after);
        let again_in_ms = pause.as_millis();
        tracing::warn!(%error, reason = %error.source, again_in_ms, "the replica fails; trying again");
        tokio::time::sleep(pause).await;
        longest = (longest * 2).min(LONGEST_PAUSE);
    }
}

/// How long to wait: the place's wish, in seconds, and a random pause up to `longest`, so that not all who were sent
/// away come back at once.
fn pause(longest: Duration, wish: u32) -> Duration {
    Duration::from_secs(wish.into()).min(LONGEST_WISH) + jittered(longest)
}

/// A random pause up to `longest`; all of it when the kernel has no random numbers to give.
fn jittered(longest: Duration) -> Duration {
    let nanos = u64::try_from(longest.as_nanos()).unwrap_or(u64::MAX);
    durable::random().map_or(longest, |random| Duration::from_nanos(random % nanos.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(kind: StoreErrorKind) -> StoreError {
        let source = std::io::Error::other("down").into();
        StoreError { kind, action: "store", subject: "x".into(), retry_after: 0, source }
    }

    async fn outcomes(persistence: Persistence, kind: StoreErrorKind) -> (u32, bool) {
        let mut calls = 0;
        let done = persist(persistence, || {
            calls += 1;
            std::future::ready(if calls < 4 { Err(failure(kind)) } else { Ok(()) })
        });
        let done = done.await.is_ok();
        (calls, done)
    }

    #[tokio::test]
    async fn what_passes_is_tried_again_and_answers_are_not() {
        use Persistence::{Always, For, UnlessPermanent};
        assert_eq!(outcomes(UnlessPermanent, StoreErrorKind::Passing).await, (4, true));
        assert_eq!(outcomes(UnlessPermanent, StoreErrorKind::Permanent).await, (1, false));
        assert_eq!(outcomes(UnlessPermanent, StoreErrorKind::PerhapsDone).await, (4, true));
        assert_eq!(outcomes(Always, StoreErrorKind::Permanent).await, (4, true));
        assert_eq!(outcomes(For(Duration::MAX), StoreErrorKind::Passing).await, (4, true));
        assert_eq!(outcomes(For(Duration::ZERO), StoreErrorKind::Passing).await, (1, false));
        assert_eq!(outcomes(For(Duration::MAX), StoreErrorKind::Permanent).await, (1, false));
        assert_eq!(outcomes(Always, StoreErrorKind::AlreadyExists).await, (1, false));
        assert_eq!(outcomes(Always, StoreErrorKind::NotFound).await, (1, false));
    }
    #[test]
    fn a_place_is_left_alone_for_as_long_as_it_wants() {
        let longest = Duration::from_millis(100);
        let pause = |wish| pause(longest, wish);
        assert!(pause(0) <= longest);
        let wish = Duration::from_secs(7);
        assert!((wish..=wish + longest).contains(&pause(7)));
        assert!(pause(3600) <= LONGEST_WISH + longest);
    }
}
