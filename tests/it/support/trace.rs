//! System calls seen by strace.

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
