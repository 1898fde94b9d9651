//! Child processes.

use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::clock;

const POLL: Duration = Duration::from_millis(2);

/// Runs a command that must succeed.
pub fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

/// Asks a process to end.
pub fn terminate(child: &Child) -> Result<()> {
    kill_process(Pid::from_child(child), Signal::TERM)?;
    Ok(())
}

/// Waits for a process to end, for so long.
pub fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus> {
    let until = clock::nanos() + u64::try_from(patience.as_nanos())?;
    while clock::nanos() < until {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        clock::rest(POLL);
    }
    bail!("a process does not end within {patience:?}")
}
