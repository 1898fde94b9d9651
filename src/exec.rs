//! The application that `exec` runs: its signals and its end.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

/// A running application.
///
/// On a terminal it stays in our process group, so that it can read the terminal and gets the signals
/// that the keyboard makes by itself; elsewhere it leads a group of its own, to which every signal is
/// sent on.
#[derive(Debug)]
pub struct Application {
    child: Child,
    pid: Pid,
    own_group: bool,
    signals: Signals,
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
    /// Starts a command with its arguments. It is sent what comes of `signals`, also what has come.
    ///
    /// # Errors
    /// What the system says.
    pub fn start(command: &[OsString], signals: Signals) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let own_group = !io::stdin().is_terminal();
        let mut command = Command::new(program);
        command.args(arguments);
        if own_group {
            command.process_group(0);
        }
        let child = command.spawn()?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { child, pid, own_group, signals })
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
            }
        }
    }

    fn send(&self, signal: Signal) {
        let from_keyboard = [Signal::INT, Signal::QUIT, Signal::WINCH].contains(&signal);
        let sent = match (self.own_group, from_keyboard) {
            (true, _) => kill_process_group(self.pid, signal),
            (false, true) => return,
            (false, false) => kill_process(self.pid, signal),
        };
        if let Err(error) = sent {
            tracing::debug!(?signal, %error, "the application is gone");
        }
    }
}

/// The signals that an application is told of.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(Signal, unix::Signal)>,
}

impl Signals {
    /// Begins to listen: from here on these signals end nothing by themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        let signals = [
            Signal::TERM,
            Signal::INT,
            Signal::HUP,
            Signal::QUIT,
            Signal::USR1,
            Signal::USR2,
            Signal::WINCH,
        ];
        let listen =
            |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        Ok(Self { streams: signals.into_iter().map(listen).collect::<io::Result<_>>()? })
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            let arrived = self.streams.iter_mut().find_map(|(signal, stream)| {
                matches!(stream.poll_recv(context), std::task::Poll::Ready(Some(())))
                    .then_some(*signal)
            });
            arrived.map_or(std::task::Poll::Pending, std::task::Poll::Ready)
        })
        .await
    }
}
