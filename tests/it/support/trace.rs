//! System calls seen, and made deadly, by strace.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::wait_until;

/// Whether strace can trace here. Says so where it cannot: such a test proves nothing then.
pub fn can_trace() -> bool {
    let tried = Command::new("strace").args(["-D", "-qq", "-o", "/dev/null", "true"]).output();
    let can = tried.is_ok_and(|tried| tried.status.success());
    if !can {
        eprintln!("skipped: strace cannot trace here");
    }
    can
}

/// Whether strace can trace what runs already, too. Says so where it cannot.
pub fn can_attach() -> bool {
    let mut idle = Command::new("sleep").arg("60").spawn().unwrap();
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-o", "/dev/null", "-p", &idle.id().to_string()]).stderr(Stdio::null());
    let can = strace.spawn().is_ok_and(|mut strace| {
        let task = format!("/proc/{}", idle.id());
        let can = wait_until("strace to attach", || match strace.try_wait().unwrap() {
            Some(_refused) => Some(false),
            None => is_traced(Path::new(&task), &strace).then_some(true),
        });
        strace.kill().ok();
        strace.wait().unwrap();
        can
    });
    idle.kill().unwrap();
    idle.wait().unwrap();
    if !can {
        eprintln!("skipped: strace cannot attach to a process here");
    }
    can
}

/// Whether a task, which is a folder in `/proc`, is traced by this.
pub fn is_traced(task: &Path, by: &Child) -> bool {
    let tracer = format!("TracerPid:\t{}\n", by.id());
    std::fs::read_to_string(task.join("status")).is_ok_and(|status| status.contains(&tracer))
}

/// The same command with its `calls` written to a file. The process keeps its id: strace is no parent
/// of it.
pub fn traced(command: &Command, calls: &str, file: &Path) -> Command {
    let mut strace = Command::new("strace");
    strace.args(["-D", "-f", "-y", "-s", "300", "-e", &format!("trace={calls}"), "-o"]).arg(file);
    before(strace, command)
}

/// The same command, killed when it is about to make its `n`-th `call`.
pub fn killed_at(command: &Command, call: &str, n: u32) -> Command {
    let mut strace = Command::new("strace");
    let injection = format!("inject={call}:signal=KILL:when={n}");
    strace.args(["-qq", "-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &injection]);
    before(strace, command)
}

/// The same command whose `calls` go wrong as `how` says, such as `error=EIO:when=3`: those on `paths`,
/// or all where there are none. They are written to a file. The process keeps its id.
pub fn failing_at(
    command: &Command,
    calls: &str,
    how: &str,
    paths: &[PathBuf],
    file: &Path,
) -> Command {
    let mut strace = failing(calls, how);
    strace.args(["-qq", "-y", "-o"]).arg(file);
    for path in paths {
        strace.arg("-P").arg(path);
    }
    before(strace, command)
}

/// The same command whose `calls` on one file go wrong. The process keeps its id.
pub fn failing_on(command: &Command, calls: &str, how: &str, on: &Path) -> Command {
    failing_at(command, calls, how, &[on.to_owned()], Path::new("/dev/null"))
}

fn failing(calls: &str, how: &str) -> Command {
    let mut strace = Command::new("strace");
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{how}"));
    strace.args(["-D", "-f", "-e", &trace, "-e", &inject]);
    strace
}

/// strace before a command, with what the command was given to know.
fn before(mut strace: Command, command: &Command) -> Command {
    strace.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(key, value),
            None => strace.env_remove(key),
        };
    }
    strace
}
