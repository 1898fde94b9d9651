//! The application that `exec` runs: its signals and its end.

mod orphans;
mod signals;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, getpid, getsid, kill_process, kill_process_group};
use tokio::process::{Child, Command};

use self::orphans::Orphans;
pub use self::signals::{Arrived, Signals};

/// A running application.
///
/// Where there is a terminal it stays in our process group, so that it can use the terminal as if it
/// had been started by itself. The signals that the terminal makes reach it without us then, but for a
/// hangup where we lead the session, and the others are sent on to it. Elsewhere it leads a group of its own, to which every signal is sent on.
#[derive(Debug)]
pub struct Application {
    child: Child,
    pid: Pid,
    has_own_group: bool,
    signals: Signals,
    orphans: Option<Orphans>,
}

/// How an application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(ExitStatus);

impl Ended {
    /// The code to end with: its own, or 128 + n after signal n.
    #[must_use]
    pub fn code(self) -> u8 {
        let code = self.0.code().or_else(|| self.0.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }
}

impl Application {
    /// Starts a command with its arguments, without some variables of the environment. It is sent what
    /// comes of `signals`, and what has come that asks it to end.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(
        command: &[OsString],
        withheld: &[&str],
        mut signals: Signals,
    ) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let has_own_group = !signals::has_terminal();
        let mut command = Command::new(program);
        command.args(arguments);
        for name in withheld {
            command.env_remove(name);
        }
        if has_own_group {
            command.process_group(0);
        }
        signals.forget_requests();
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let orphans = Orphans::if_ours(pid)?;
        Ok(Self { child, pid, has_own_group, signals, orphans })
    }

    /// Waits for the end, and sends on the signals that come until then.
    ///
    /// # Errors
    /// What the system says.
    pub async fn wait(&mut self) -> io::Result<Ended> {
        loop {
            tokio::select! {
                status = self.child.wait() => return status.map(Ended),
                signal = self.signals.next() => self.send(signal),
                () = orphans::reap(&mut self.orphans) => {}
            }
        }
    }

    fn send(&self, Arrived { signal, by_terminal }: Arrived) {
        let sent = match (self.has_own_group, by_terminal) {
            (true, _) => kill_process_group(self.pid, signal),
            // A terminal that hangs up tells the leader of its session alone.
            (false, true) if signal == Signal::HUP && leads_the_session() => {
                kill_process(self.pid, signal)
            }
            (false, true) => return,
            (false, false) => kill_process(self.pid, signal),
        };
        if let Err(error) = sent {
            tracing::debug!(?signal, %error, "the application is gone");
        }
    }
}

fn leads_the_session() -> bool {
    getsid(None).is_ok_and(|leader| leader == getpid())
}
