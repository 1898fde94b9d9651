//! Wakes the follower when the WAL is written to, or when it is told to finish.
//!
//! The kernel tells each write to a file that is watched, and to be told costs the application more
//! than anything else that is done beside it. So the WAL is watched only while nothing happens.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};

use crate::clock;

/// Room for events; equal ones that follow each other are one.
const EVENTS: usize = 1024;

/// The sending side: tells a follower to finish, or to look.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

/// The receiving side.
#[derive(Debug)]
pub struct Alarm(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    stop: AtomicBool,
    /// Readable when it was told to look, or to stop.
    rung: OwnedFd,
}

impl Bell {
    fn ring(&self) -> bool {
        let rung = rustix::io::write(&self.rung, &1u64.to_ne_bytes());
        // A full counter is a bell that rings already.
        matches!(rung, Ok(_) | Err(rustix::io::Errno::AGAIN))
    }

    /// Forgets that it rang. The word to stop stands: it is set before the bell rings for it.
    fn hush(&self) {
        // Nothing to read is a bell that does not ring.
        rustix::io::read(&self.rung, &mut [0; 8]).ok();
    }
}

/// A waker and its alarm.
///
/// # Errors
/// When the system has no descriptor left.
pub fn alarm() -> io::Result<(Waker, Alarm)> {
    let rung = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let bell = Arc::new(Bell { stop: AtomicBool::new(false), rung });
    Ok((Waker(Arc::clone(&bell)), Alarm(bell)))
}

impl Waker {
    /// Asks the follower to finish.
    pub fn stop(&self) {
        self.0.stop.store(true, Ordering::Release);
        if !self.0.ring() {
            tracing::warn!("the follower is told to finish, and learns of it later");
        }
    }

    /// Asks the follower to look: there is something to attend to. It looks by itself, later.
    pub fn wake(&self) {
        self.0.ring();
    }
}

impl Alarm {
    /// Whether the follower is to finish.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.0.stop.load(Ordering::Acquire)
    }

    /// Waits for a word, at most for `time`.
    pub fn wait(&self, time: Duration) {
        wait(&mut [PollFd::new(&self.0.rung, PollFlags::IN)], time);
        self.0.hush();
    }
}

/// The WAL, which is watched or not.
#[derive(Debug)]
pub struct Watch<'a> {
    alarm: &'a Alarm,
    path: PathBuf,
    /// `None` where the system offers none: then the poll behind the events finds every commit, later.
    events: Option<OwnedFd>,
    watched: Option<i32>,
}

impl<'a> Watch<'a> {
    /// The file at `path`, not watched yet.
    #[must_use]
    pub fn new(alarm: &'a Alarm, path: &Path) -> Self {
        let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let events = events.inspect_err(|&error| say_so(error)).ok();
        Self { alarm, path: path.to_owned(), events, watched: None }
    }

    /// Begins to watch; false when it is watched already, or cannot be. What was written before is in
    /// no event: it is to be looked for.
    pub fn begin(&mut self) -> bool {
        let Some(events) = self.events.as_ref().filter(|_| self.watched.is_none()) else {
            return false;
        };
        match inotify::add_watch(events, &self.path, WatchFlags::MODIFY) {
            Ok(watched) => {
                self.watched = Some(watched);
                // What is told of an earlier watch is old.
                self.forget();
                true
            }
            Err(error) => {
                say_so(error);
                self.events = None;
                false
            }
        }
    }

    /// Watches no longer.
    pub fn end(&mut self) {
        if let (Some(events), Some(watched)) = (&self.events, self.watched.take()) {
            // It is gone already where its file is.
            inotify::remove_watch(events, watched).ok();
        }
    }

    /// Forgets the events that have come.
    pub fn forget(&mut self) {
        let Some(events) = &self.events else { return };
        let mut room = [MaybeUninit::uninit(); EVENTS];
        let mut reader = Reader::new(events, &mut room);
        while let Ok(event) = reader.next() {
            if event.events().contains(ReadFlags::IGNORED) && self.watched == Some(event.wd()) {
                self.watched = None;
            }
        }
    }

    /// Waits until the file is written to while it is watched, or a word comes, at most
    /// for `time`; whether it was written to.
    pub fn wait(&mut self, time: Duration) -> bool {
        let Some(events) = &self.events else {
            self.alarm.wait(time);
            return false;
        };
        let rung = PollFd::new(&self.alarm.0.rung, PollFlags::IN);
        let mut both = [PollFd::new(events, PollFlags::IN), rung];
        wait(&mut both, time);
        self.alarm.0.hush();
        let [written, _] = both;
        let written = !written.revents().is_empty();
        if written {
            self.forget();
        }
        written
    }
}

fn say_so(error: rustix::io::Errno) {
    tracing::warn!(%error, "cannot watch the WAL; commits are found by polling");
}

/// Waits for one of several descriptors, at most for `time`. A signal ends it sooner.
fn wait(descriptors: &mut [PollFd<'_>], time: Duration) {
    let waited = match Timespec::try_from(time) {
        Ok(time) => poll(descriptors, Some(&time)),
        Err(_longer_than_time) => poll(descriptors, None),
    };
    if waited.is_err_and(|error| error != rustix::io::Errno::INTR) {
        clock::rest(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_millis(30);

    /// Whether it waits for the whole of the pause.
    fn waits(wait: impl FnOnce()) -> bool {
        let begun = clock::monotonic();
        wait();
        clock::monotonic().saturating_sub(begun) >= PAUSE
    }

    #[test]
    fn the_word_to_stop_wakes_once_and_stands() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.db-wal");
        std::fs::File::create(&path).unwrap();
        let (waker, alarm) = alarm().unwrap();
        waker.stop();
        assert!(!waits(|| alarm.wait(PAUSE)) && alarm.stopping());
        assert!(waits(|| alarm.wait(PAUSE)), "what is left to do is not waited for");
        let mut watch = Watch::new(&alarm, &path);
        assert!(watch.begin());
        waker.wake();
        assert!(!waits(|| _ = watch.wait(PAUSE)));
        assert!(waits(|| _ = watch.wait(PAUSE)));
        assert!(alarm.stopping());
    }
}
