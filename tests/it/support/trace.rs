//! System calls seen, and made deadly, by strace.

use std::path::Path;
use std::process::Command;

/// Whether strace can trace here. Says so where it cannot: such a test proves nothing then.
pub fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        eprintln!("skipped: strace cannot trace here");
    }
    can
}

/// The same command with its `calls` written to a file. The process keeps its id: strace is no parent
/// of it.
pub fn traced(command: &Command, calls: &str, file: &Path) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-y", "-s", "300", "-e", &format!("trace={calls}"), "-o"]).arg(file);
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

/// The same command, killed when it is about to make its `n`-th `call`.
pub fn killed_at(command: &Command, call: &str, n: u32) -> Command {
    let mut traced = Command::new("strace");
    let injection = format!("inject={call}:signal=KILL:when={n}");
    traced.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &injection]);
    traced.arg(command.get_program()).args(command.get_args());
    traced
}

/// The same command whose `calls` go wrong as `how` says, such as `error=EIO:when=3`. The process keeps
/// its id.
pub fn failing_at(command: &Command, calls: &str, how: &str, file: &Path) -> Command {
    let mut traced = Command::new("strace");
    let injection = format!("inject={calls}:{how}");
    traced.args(["-D", "-f", "-qq", "-y", "-e", &format!("trace={calls}"), "-e", &injection, "-o"]);
    traced.arg(file).arg(command.get_program()).args(command.get_args());
    traced
}
