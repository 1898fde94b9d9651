//! The first process of a container inherits the children of those that end before them. It has to
//! take note of their ends, or they stay in the process table for ever.

use std::io;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid, waitpid};
use nix::unistd::Pid as NixPid;
use rustix::process::Pid;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long an end is left to whoever waits for it in this process: helpers that find credentials.
const PAUSE: Duration = Duration::from_secs(1);

/// Children that nobody else waits for.
#[derive(Debug)]
pub struct Orphans {
    ends: Signal,
    /// Some have ended since they were looked for.
    are_due: bool,
    application: NixPid,
}

impl Orphans {
    /// Children that this process inherits, if it is the first one.
    pub fn if_ours(application: Pid) -> io::Result<Option<Self>> {
        if std::process::id() != 1 {
            return Ok(None);
        }
        let application = NixPid::from_raw(application.as_raw_nonzero().get());
        Ok(Some(Self { ends: signal(SignalKind::child())?, are_due: false, application }))
    }

    /// Takes note of all that have ended, but for the application itself.
    fn reap_all(&self) {
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        // Looked at first, because the application's end is waited for elsewhere.
        while let Ok(status) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT)
            && let Some(pid) = status.pid().filter(|pid| *pid != self.application)
            && waitpid(pid, Some(WaitPidFlag::WNOHANG)).is_ok()
        {
            tracing::debug!(pid = pid.as_raw(), "an orphan ended");
        }
    }
}

/// Waits until children have ended and takes note of them; for ever where there are none. What is given
/// up in between is done by the next call.
pub async fn reap(orphans: &mut Option<Orphans>) {
    let Some(orphans) = orphans else {
        return std::future::pending().await;
    };
    if !orphans.are_due {
        orphans.ends.recv().await;
        orphans.are_due = true;
    }
    tokio::time::sleep(PAUSE).await;
    orphans.are_due = false;
    orphans.reap_all();
}
