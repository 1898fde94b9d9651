//! The signals that ask this program to end.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::clock;

/// Signals this close together are one: supervisors signal a process and its group.
const ONE_QUESTION: Duration = Duration::from_secs(1);

/// Listens for TERM, INT and HUP, and remembers whether they came.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    asked: Option<Duration>,
}

impl Shutdown {
    /// Begins to listen: from here on these signals end nothing by themselves.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            asked: None,
        })
    }

    /// Waits until one comes that is not the first.
    pub async fn insisted(&mut self) {
        if self.asked.is_none() {
            self.asked().await;
            tracing::info!("still shipping what is committed; a second signal ends that at once");
        }
        self.asked().await;
    }

    /// Waits for the next of them; its number.
    pub async fn asked(&mut self) -> u8 {
        loop {
            let signal = tokio::select! {
                _ = self.terminate.recv() => 15,
                _ = self.interrupt.recv() => 2,
                _ = self.hangup.recv() => 1,
            };
            let now = clock::monotonic();
            if self.asked.is_none_or(|before| now.saturating_sub(before) >= ONE_QUESTION) {
                self.asked = Some(now);
                return signal;
            }
        }
    }
}
