//! Who holds SQLite's write lock, looked at from beside.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::clock;

/// The write lock's byte in the `-shm`.
const WRITE: i64 = 120;

const PAUSE: Duration = Duration::from_micros(50);

/// A thread that looks at the write lock.
#[derive(Debug)]
pub struct Holds {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u64>>>,
}

impl Holds {
    /// Begins to look whether the process holds the write lock.
    pub fn watch(database: &Path, pid: u32) -> Result<Self> {
        let mut name = database.as_os_str().to_owned();
        name.push("-shm");
        // Without a connection to the database there is no wal-index, and nobody to look at.
        let index = (pid != 0).then(|| File::open(name)).transpose().context("no wal-index")?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            index.map_or(Ok(Vec::new()), |index| look(&index, pid, &told))
        });
        Ok(Self { stop, thread })
    }

    /// Ends it: how long it was held each time, in nanoseconds, from the last look that did not see it
    /// to the first that did not any more. So no hold was longer.
    pub fn finish(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_panic| anyhow!("the thread that looks died"))?
    }
}

fn look(index: &File, pid: u32, stop: &AtomicBool) -> Result<Vec<u64>> {
    let mut holds = Vec::new();
    let (mut free_at, mut held) = (clock::nanos(), false);
    while !stop.load(Ordering::Relaxed) {
        let is_held = holder(index)? == Some(pid);
        let now = clock::nanos();
        if held && !is_held {
            holds.push(now - free_at);
        }
        if !is_held {
            free_at = now;
        }
        held = is_held;
        clock::rest(PAUSE);
    }
    Ok(holds)
}

/// The process that holds the write lock.
fn holder(index: &File) -> Result<Option<u32>> {
    let as_short = |n: i32| i16::try_from(n).unwrap_or(i16::MAX);
    let mut lock = libc::flock {
        l_type: as_short(libc::F_WRLCK),
        l_whence: as_short(libc::SEEK_SET),
        l_start: WRITE,
        l_len: 1,
        l_pid: 0,
    };
    fcntl(index, FcntlArg::F_OFD_GETLK(&mut lock))?;
    let held = i32::from(lock.l_type) == libc::F_WRLCK;
    Ok(held.then(|| u32::try_from(lock.l_pid).unwrap_or_default()))
}
