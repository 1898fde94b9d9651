//! System calls of a running process that fail for a while.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::trace::is_traced;
use super::wait_until;

/// Calls that fail, from when this is made until it is [ended](Self::end).
#[derive(Debug)]
pub struct BrokenCalls {
    strace: Child,
    trace: PathBuf,
}

impl BrokenCalls {
    /// Makes `calls` (as strace names them, with commas between) of a process fail with `how`, such as
    /// `error=EIO` or `error=EIO:when=1`: those on one of `paths`, or all of them. What was hit is
    /// written to `trace`.
    pub fn begin(pid: u32, calls: &str, how: &str, paths: &[PathBuf], trace: &Path) -> Self {
        File::create(trace).unwrap();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-p", &pid.to_string(), "-e", &format!("trace={calls}")]);
        strace.args(["-e", &format!("inject={calls}:{how}"), "-o"]).arg(trace);
        for path in paths {
            strace.arg("-P").arg(path);
        }
        let mut strace = strace.stderr(Stdio::null()).spawn().unwrap();
        wait_until("strace to attach", || {
            if let Some(status) = strace.try_wait().unwrap() {
                // It has ended well with a process that was killed by it.
                assert!(status.success(), "strace cannot attach");
                return Some(());
            }
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
            tasks.flatten().all(|task| is_traced(&task.path(), &strace)).then_some(())
        });
        Self { strace, trace: trace.to_owned() }
    }

    /// How many calls have failed so far.
    pub fn hits(&self) -> usize {
        String::from_utf8_lossy(&std::fs::read(&self.trace).unwrap()).matches("(INJECTED").count()
    }

    /// Ends it: calls are made again.
    pub fn end(mut self) -> usize {
        let pid = Pid::from_raw(self.strace.id().cast_signed()).unwrap();
        kill_process(pid, Signal::INT).ok();
        self.strace.wait().unwrap();
        self.hits()
    }
}

impl Drop for BrokenCalls {
    fn drop(&mut self) {
        self.strace.kill().ok();
        self.strace.wait().ok();
    }
}
