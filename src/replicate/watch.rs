//! Wakes the follower when the WAL is written to, or when it is told to.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

use crate::clock;

/// The sending side: tells a follower to finish, or to look.
#[derive(Debug, Clone)]
pub struct Waker {
    stop: Arc<AtomicBool>,
    wake: SyncSender<()>,
}

/// The receiving side.
#[derive(Debug)]
pub struct Alarm {
    stop: Arc<AtomicBool>,
    wake: Receiver<()>,
}

/// A waker and its alarm.
#[must_use]
pub fn alarm() -> (Waker, Alarm) {
    let stop = Arc::new(AtomicBool::new(false));
    // One place: several wakes before the next look are one.
    let (sender, receiver) = sync_channel(1);
    let waker = Waker { stop: Arc::clone(&stop), wake: sender };
    (waker, Alarm { stop, wake: receiver })
}

impl Waker {
    /// Asks the follower to finish.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Asks the follower to look.
    pub fn wake(&self) {
        // A full channel is a wake that waits already; a closed one has nobody to wake.
        self.wake.try_send(()).ok();
    }

    /// Wakes whenever the file at `path` is written to, for as long as the watcher lives. Without
    /// one, which is logged, the poll behind the events finds every commit, later.
    #[must_use]
    pub fn watch(&self, path: &Path) -> Option<RecommendedWatcher> {
        let waker = self.clone();
        let on_event = move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| matches!(event.kind, EventKind::Modify(_))) {
                waker.wake();
            }
        };
        let watcher = notify::recommended_watcher(on_event).and_then(|mut watcher| {
            watcher.watch(path, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        watcher
            .inspect_err(|error| {
                tracing::warn!(%error, "cannot watch the WAL; commits are found by polling");
            })
            .ok()
    }
}

impl Alarm {
    /// Whether the follower is to finish.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Waits for a wake, at most for `time`; whether one came.
    #[must_use]
    pub fn wait(&self, time: Duration) -> bool {
        match self.wake.recv_timeout(time) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => {
                clock::rest(time);
                false
            }
        }
    }

    /// Forgets the wakes that have come.
    pub fn clear(&self) {
        self.wake.try_recv().ok();
    }
}
