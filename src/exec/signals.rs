//! The signals that an application is told of, and who made them.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::thread;

use rustix::process::Signal;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};
use tokio::sync::mpsc;

use crate::shutdown::Ignored;

/// Those that are sent on.
const SENT_ON: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// A signal that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// The kernel made it: a key, a hangup or a new size of the terminal, for its whole process group.
    pub by_terminal: bool,
}

/// The signals that come, in order.
#[derive(Debug)]
pub struct Signals {
    arrived: mpsc::UnboundedReceiver<Arrived>,
    /// What came before the application, and is for it.
    early: VecDeque<Arrived>,
}

impl Signals {
    /// Begins to listen: from here on these signals end nothing by themselves. One that this process was
    /// started to ignore is left so, and the application is started to ignore it, too.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen() -> io::Result<Self> {
        let ignored = Ignored::now()?;
        let heard = SENT_ON.into_iter().filter(|signal| !ignored.has(*signal));
        let numbers: Vec<_> = heard.map(Signal::as_raw).collect();
        let mut origins = SignalsInfo::<WithOrigin>::new(numbers)?;
        let (sender, arrived) = mpsc::unbounded_channel();
        let run = move || {
            for Origin { signal, cause, .. } in &mut origins {
                let signal = SENT_ON.into_iter().find(|known| known.as_raw() == signal);
                let by_terminal = matches!(cause, Cause::Kernel);
                let told = signal.map(|signal| sender.send(Arrived { signal, by_terminal }));
                if matches!(told, Some(Err(_))) {
                    return;
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(run)?;
        Ok(Self { arrived, early: VecDeque::new() })
    }

    /// Drops what has come for an application that was not there: one that has no handler yet would end by
    /// what only asks it for something. What asks it to end stays.
    pub fn forget_requests(&mut self) {
        while let Ok(arrived) = self.arrived.try_recv() {
            let signal = arrived.signal;
            if [Signal::USR1, Signal::USR2].contains(&signal) {
                tracing::warn!(?signal, "dropped, as it came before the application was started");
            } else {
                self.early.push_back(arrived);
            }
        }
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> Arrived {
        if let Some(arrived) = self.early.pop_front() {
            return arrived;
        }
        match self.arrived.recv().await {
            Some(arrived) => arrived,
            // The thread lives as long as this.
            None => std::future::pending().await,
        }
    }
}

/// Whether this process has a terminal that can make signals for it.
pub fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
