//! Processes that end with the test, whatever becomes of it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Once};

use genesis_replicate::store::CREDENTIAL_VARIABLES;
use rustix::process::{Pid, Signal, kill_process};

use super::wait_until;

/// What leads the program elsewhere, beside credentials.
const ELSEWHERE: [&str; 6] = [
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "GENESIS_REPLICATE_CONFIG",
];

/// A running process whose output goes to files. It is killed when this is dropped; if the test is
/// failing then, what it said is printed.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; 128 + n after signal n.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Whether a process's mask of this name has a signal.
fn is_in_mask(name: &str, process: u32, signal: Signal) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(name));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

/// Tests in the background of a shell are started so that they ignore some signals, as would be what they
/// start. Where a signal is handled, it is started with the default.
fn ignore_nothing() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for signal in [Signal::HUP, Signal::INT, Signal::QUIT] {
            let nobody_asks = Arc::new(AtomicBool::new(false));
            let is_ignored = is_in_mask("SigIgn:", std::process::id(), signal);
            if is_ignored {
                signal_hook::flag::register(signal.as_raw(), nobody_asks).unwrap();
            }
        }
    });
}

impl Process {
    /// Starts a command, with its output in files in `folder`.
    pub fn start(command: &mut Command, folder: &Path) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        ignore_nothing();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stdout = folder.join(format!("{number}.out"));
        let stderr = folder.join(format!("{number}.err"));
        let create = |path: &Path| File::create(path).unwrap();
        command.stdout(create(&stdout)).stderr(create(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, stdout, stderr }
    }

    /// A command of the program under test. Its standard input is empty, and it knows nothing of the
    /// surroundings in which the tests run that would lead it elsewhere.
    pub fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genesis-replicate"));
        command.args(arguments).stdin(Stdio::null());
        for variable in CREDENTIAL_VARIABLES.iter().chain(&ELSEWHERE) {
            command.env_remove(variable);
        }
        command
    }

    /// The most memory that it has had, in bytes, while it runs.
    pub fn peak(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib << 10)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap()
    }

    /// What it has written to its standard output so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap()
    }

    /// Waits until it has logged `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        self.wait_for_another(text, 0);
    }

    /// How often it has logged `text` so far.
    pub fn logged(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// Waits until it has logged `text` more often than `before`.
    pub fn wait_for_another(&mut self, text: &str, before: usize) {
        wait_until(&format!("{text:?} in the log, {before} times and once more"), || {
            let logged = self.logged(text) > before;
            let ended = self.child.try_wait().unwrap();
            assert!(
                logged || ended.is_none(),
                "ended ({ended:?}) without {text:?}:\n{}",
                self.log()
            );
            logged.then_some(())
        });
    }

    /// Waits until it follows its database: what is committed from here on is kept.
    pub fn wait_until_followed(&mut self) {
        self.wait_for_log("followed");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Whether it has a handler for a signal.
    pub fn listens_for(&self, signal: Signal) -> bool {
        is_in_mask("SigCgt:", self.id(), signal)
    }

    /// Writes to its standard input.
    pub fn write(&mut self, bytes: &[u8]) {
        self.child.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Closes its standard input.
    pub fn close_input(&mut self) {
        drop(self.child.stdin.take().unwrap());
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<Ended> {
        let status = self.child.try_wait().unwrap()?;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap();
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
        Some(Ended { code, stdout: read(&self.stdout), stderr: read(&self.stderr) })
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Ended {
        wait_until("the end of a process", || self.ended())
    }

    /// Asks it to end, and waits for a clean end.
    pub fn stop(mut self) -> Ended {
        self.signal(Signal::TERM);
        self.wait().expect_code(0)
    }

    /// Kills it at once. It must not have ended before.
    pub fn kill(mut self) {
        let ended = self.ended();
        assert!(ended.is_none(), "ended by itself: {ended:?}");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("process {} said:\n{}", self.id(), self.log());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }
}

impl Ended {
    /// The same, with the exit code that it must have.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        self
    }

    /// The same, with every one of `words` in what it said on standard error.
    #[track_caller]
    pub fn expect_words(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in:\n{}", self.stderr);
        }
        self
    }
}
