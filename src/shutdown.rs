//! The signals that ask this program to end.

use std::io;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Listener, SignalKind, signal};

use crate::clock;

/// Signals this close together are one: supervisors signal a process and its group.
const ONE_QUESTION: Duration = Duration::from_secs(1);

/// Listens for TERM, INT and HUP, and remembers whether they came.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Option<Listener>,
    interrupt: Option<Listener>,
    hangup: Option<Listener>,
    asked: Option<Duration>,
}

impl Shutdown {
    /// Begins to listen: from here on these signals end nothing by themselves. One that this process was
    /// started to ignore, as `nohup` has it, is left so.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        let ignored = Ignored::now()?;
        let listen = |asked: Signal| {
            let kind = SignalKind::from_raw(asked.as_raw());
            (!ignored.has(asked)).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            terminate: listen(Signal::TERM)?,
            interrupt: listen(Signal::INT)?,
            hangup: listen(Signal::HUP)?,
            asked: None,
        })
    }

    /// Waits until one comes that is not the first.
    pub async fn insisted(&mut self) {
        if self.asked.is_none() {
            self.asked().await;
            tracing::info!(
                "still shipping what is committed; a second signal ends that at once, but none within \
                 a second of this one"
            );
        }
        self.asked().await;
    }

    /// Waits for the next of them; its number.
    pub async fn asked(&mut self) -> u8 {
        loop {
            let signal = tokio::select! {
                () = next(&mut self.terminate) => 15,
                () = next(&mut self.interrupt) => 2,
                () = next(&mut self.hangup) => 1,
            };
            let now = clock::monotonic();
            if self.asked.is_none_or(|before| now.saturating_sub(before) >= ONE_QUESTION) {
                self.asked = Some(now);
                return signal;
            }
        }
    }

    /// Learns that what was asked to end has ended. A signal that came some time ago asked for something
    /// else, and is forgotten; one that came just now is the question that this answers, and so is what
    /// follows it closely: a signal that was made before the end may be heard of after it.
    pub fn has_ended(&mut self) {
        let now = clock::monotonic();
        let is_recent = |asked: Duration| now.saturating_sub(asked) < ONE_QUESTION;
        self.asked = self.asked.filter(|asked| is_recent(*asked)).map(|_| now);
    }
}

async fn next(listener: &mut Option<Listener>) {
    match listener {
        // There is no end to signals.
        Some(listener) => drop(listener.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores: those that it was started with, as long as it sets none itself.
#[derive(Debug, Clone, Copy)]
pub struct Ignored(u64);

impl Ignored {
    /// As it is now; none where there is no `/proc`.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn now() -> io::Result<Self> {
        let status = match std::fs::read_to_string("/proc/self/status") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self(0)),
            read => read?,
        };
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        mask.map(Self).ok_or_else(|| io::Error::other("/proc/self/status names no ignored signals"))
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn has(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.as_raw() - 1)) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_asked_for_something_else_is_forgotten_and_the_question_is_asked_until_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut shutdown = runtime.block_on(async { Shutdown::listen().unwrap() });
        let now = clock::monotonic();
        let just_now = now.checked_sub(ONE_QUESTION / 2);
        for (asked, kept) in
            [(None, false), (just_now, true), (now.checked_sub(ONE_QUESTION), false)]
        {
            shutdown.asked = asked;
            shutdown.has_ended();
            assert_eq!(shutdown.asked.is_some(), kept, "{asked:?}");
            // What comes within a second of the end is no second question.
            assert!(shutdown.asked.is_none_or(|asked| asked >= now), "{asked:?}");
        }
    }
}
