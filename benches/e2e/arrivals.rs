//! When objects arrive in the folder of a replica: when they are renamed to their names, which is a
//! sync of the folder before they are durable.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use anyhow::{Result, anyhow};
use genesis_wal::name::ObjectName;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::clock;
use crate::writer::Commits;

const POLL_MILLIS: u16 = 50;

/// An object, and when it was there.
#[derive(Debug)]
pub struct Arrival {
    pub at: u64,
    /// Relative to the replica.
    pub name: String,
}

/// A thread that watches a replica.
#[derive(Debug)]
pub struct Arrivals {
    stop: Arc<AtomicBool>,
    /// When something arrived last.
    latest: Arc<AtomicU64>,
    thread: JoinHandle<Result<Vec<Arrival>>>,
}

impl Arrivals {
    /// Begins to watch a folder, with all in it.
    pub fn watch(replica: &Path) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut watch = Watch::new(replica)?;
        let latest = Arc::new(AtomicU64::new(0));
        let (told, newest) = (Arc::clone(&stop), Arc::clone(&latest));
        let thread = std::thread::spawn(move || {
            while !told.load(Ordering::Relaxed) {
                watch.wait()?;
                newest.store(watch.seen.last().map_or(0, |last| last.at), Ordering::Relaxed);
            }
            Ok(watch.seen)
        });
        Ok(Self { stop, latest, thread })
    }

    /// When something arrived last; 0 before anything did.
    pub fn latest(&self) -> u64 {
        self.latest.load(Ordering::Relaxed)
    }

    /// Ends it: what has arrived.
    pub fn finish(self) -> Result<Vec<Arrival>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the thread that watches died"))?
    }
}

struct Watch {
    inotify: Inotify,
    root: PathBuf,
    folders: HashMap<WatchDescriptor, PathBuf>,
    seen: Vec<Arrival>,
}

impl Watch {
    fn new(root: &Path) -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let mut watch = Self { inotify, root: root.into(), folders: HashMap::new(), seen: vec![] };
        watch.add(root)?;
        watch.seen.clear();
        Ok(watch)
    }

    /// Watches a folder; what is in it already came in before it could be watched.
    fn add(&mut self, folder: &Path) -> Result<()> {
        let flags =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ONLYDIR;
        let descriptor = self.inotify.add_watch(folder, flags)?;
        self.folders.insert(descriptor, folder.to_owned());
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.add(&entry.path())?;
            } else {
                self.note(&entry.path(), clock::nanos());
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<()> {
        poll(&mut [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)], POLL_MILLIS)?;
        let at = clock::nanos();
        match self.inotify.read_events() {
            Ok(events) => events.into_iter().for_each(|event| self.take(event, at)),
            Err(nix::Error::EAGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn take(&mut self, event: InotifyEvent, at: u64) {
        let folder = self.folders.get(&event.wd);
        let Some(path) = folder.zip(event.name).map(|(folder, name)| folder.join(name)) else {
            return;
        };
        if event.mask.contains(AddWatchFlags::IN_ISDIR) {
            // It may be gone again.
            self.add(&path).ok();
        } else if event.mask.contains(AddWatchFlags::IN_MOVED_TO) {
            self.note(&path, at);
        }
    }

    fn note(&mut self, path: &Path, at: u64) {
        let name = path.strip_prefix(&self.root).unwrap_or(path).display().to_string();
        if !name.contains("tmp") {
            self.seen.push(Arrival { at, name });
        }
    }
}

/// How to tell from a replica's objects which commits it holds.
#[derive(Debug, Clone, Copy)]
pub enum Numbering {
    /// The names tell: the first commit is the one after this transaction.
    After(u64),
    /// They do not; a commit is taken to be in the first object that arrives after it. It may be in a
    /// later one: this flatters.
    NextObject,
}

/// For every commit how many nanoseconds later it was in the replica; `None` for one that was never
/// seen to arrive.
pub fn lags(commits: &Commits, arrivals: &[Arrival], numbering: Numbering) -> Vec<Option<u64>> {
    let mut held = arrivals.iter().filter_map(|arrival| holds(arrival, numbering)).peekable();
    let lag = |(number, ended): (u64, u64)| {
        let is_before = |(at, last): &(u64, Option<u64>)| match last {
            Some(last) => *last < number,
            None => *at < ended,
        };
        while held.next_if(is_before).is_some() {}
        held.peek().map(|(at, _)| at.saturating_sub(ended))
    };
    (1..).zip(commits.all.iter().map(|commit| commit.ended)).map(lag).collect()
}

/// When an object with transactions arrived, and up to which commit it goes, if that is known.
pub fn holds(arrival: &Arrival, numbering: Numbering) -> Option<(u64, Option<u64>)> {
    match numbering {
        Numbering::After(base) => match arrival.name.parse().ok()? {
            ObjectName::Segment(name) => Some((arrival.at, Some(name.last.0.saturating_sub(base)))),
            _ => None,
        },
        Numbering::NextObject => {
            let name = &arrival.name;
            let is_wal =
                name.contains("/wal/") || name.contains("ltx/0/") || name.contains("0000/");
            is_wal.then_some((arrival.at, None))
        }
    }
}
