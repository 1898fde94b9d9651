//! Signals go on to the application: each one, once, whoever makes it.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Process, Sandbox, contents_of, rename, wait_until, write};

const SIGNALS: [Signal; 7] = [
    Signal::TERM,
    Signal::INT,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];

/// Commits every signal, and then writes it down. It ends with the first one after `end` is written into
/// its place, with 128 + n.
const APPLICATION: &str = "
import os, signal, sqlite3, time
connection = sqlite3.connect(os.environ['DB'], isolation_level=None, timeout=20)
def note(number, frame):
    # What the test writes once it has seen this note is for the next signal.
    is_last = os.path.exists(os.environ['NOTES'] + '.end')
    connection.execute('INSERT INTO t VALUES(?)', (f'signal {number}',))
    with open(os.environ['NOTES'], 'a') as notes:
        notes.write(f'{number}\\n')
    if is_last:
        os._exit(128 + number)
for number in (15, 2, 1, 3, 10, 12, 28):
    signal.signal(number, note)
parent = os.getppid()
with open(os.environ['NOTES'], 'w') as notes:
    notes.write(f'{parent}\\n')
while os.getppid() == parent:
    time.sleep(0.01)
";

/// The application under `exec`, and what it has written down.
struct Noted {
    sandbox: Sandbox,
    notes: PathBuf,
}

impl Noted {
    fn new() -> Self {
        let sandbox = Sandbox::with_database();
        let notes = sandbox.path("notes");
        Self { sandbox, notes }
    }

    /// Starts it behind a command that sets up how.
    fn start(&self, prefix: &[&str], application: &[&str]) -> Process {
        let exec = self.sandbox.exec_command(&[], application);
        let mut command = Command::new(prefix[0]);
        if prefix[0] == "script" {
            // In the place of the shell that it is given to, which would lead the session, and end by the
            // first key.
            let words = [exec.get_program()].into_iter().chain(exec.get_args());
            let quoted = words.map(|word| format!(" '{}'", word.to_str().unwrap()));
            command
                .args(&prefix[1..])
                .arg(format!("exec{}", quoted.collect::<String>()))
                .arg("/dev/null");
        } else {
            command.args(&prefix[1..]).arg(exec.get_program()).args(exec.get_args());
        }
        command.env("DB", &self.sandbox.db).env("NOTES", &self.notes).stdin(Stdio::piped());
        command.env("APPLICATION", APPLICATION);
        self.sandbox.start(&mut command)
    }

    fn lines(&self) -> Vec<i32> {
        let notes = std::fs::read_to_string(&self.notes).unwrap_or_default();
        notes.lines().map(|line| line.parse().unwrap()).collect()
    }

    /// The process that runs the application.
    fn runner(&self) -> Pid {
        let runner = wait_until("the application", || self.lines().first().copied());
        Pid::from_raw(runner).unwrap()
    }

    /// Waits until the application has had exactly these.
    #[track_caller]
    fn expect(&self, signals: &[Signal]) {
        let expected: Vec<_> = signals.iter().map(|signal| signal.as_raw()).collect();
        wait_until(&format!("signals {expected:?}"), || {
            (self.lines().len() > expected.len()).then_some(())
        });
        assert_eq!(self.lines()[1..], expected);
    }

    /// Sends each signal and waits until it was noted, once: a second time would come before the next.
    fn send_each(&self) {
        let runner = self.runner();
        for (sent, signal) in SIGNALS.into_iter().enumerate() {
            kill_process(runner, signal).unwrap();
            self.expect(&SIGNALS[..=sent]);
        }
    }

    /// Whether everything that a handler committed can be restored.
    fn expect_shipped(&self) {
        let restored = contents_of(&self.sandbox.restore(&[]).0);
        for number in &self.lines()[1..] {
            assert!(restored.contains(&format!("'signal {number}'")), "{number}: {restored}");
        }
    }

    fn end_with_the_next(&self) {
        File::create(self.notes.with_extension("end")).unwrap();
    }
}

/// Runs the application in the shell's place.
const DIRECT: [&str; 3] = ["sh", "-c", "exec python3 -c \"$APPLICATION\""];

#[test]
fn every_signal_reaches_the_application_once() {
    // Without a terminal, and on one.
    for prefix in [&["setsid"][..], &["script", "-qec"]] {
        let noted = Noted::new();
        let mut process = noted.start(prefix, &DIRECT);
        noted.send_each();
        noted.end_with_the_next();
        kill_process(noted.runner(), Signal::USR1).unwrap();
        process.wait().expect_code(128 + Signal::USR1.as_raw());
        noted.expect_shipped();
    }
}

/// A terminal that goes away tells the leader of its session alone: a shell that tells its jobs, or us.
#[test]
fn a_hangup_reaches_the_application_where_we_lead_the_session() {
    let noted = Noted::new();
    let terminal = noted.start(&["script", "-qec"], &DIRECT);
    noted.runner();
    noted.end_with_the_next();
    terminal.kill();
    noted.expect(&[Signal::HUP]);
    wait_until("its last words in the replica", || {
        let (restored, ended) = noted.sandbox.try_restore(&[]);
        (ended.code == 0 && contents_of(&restored).contains("'signal 1'")).then_some(())
    });
}

/// What it is started to ignore, the application is started to ignore: as if it had been started by
/// itself, behind `nohup` or in the background of a shell.
#[test]
fn what_is_ignored_stays_ignored() {
    let ignore = ["setsid", "sh", "-c", "trap '' HUP INT QUIT WINCH; exec \"$0\" \"$@\""];
    let noted = Noted::new();
    let look = ["sh", "-c", "grep SigIgn /proc/self/status"];
    let inherited = noted.start(&ignore, &look).wait().expect_code(0).stdout;
    let alone = Command::new(ignore[0]).args(&ignore[1..]).args(look).output().unwrap();
    assert_eq!(inherited.as_bytes(), alone.stdout);

    let mut process = noted.start(&ignore, &DIRECT);
    let runner = noted.runner();
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::WINCH, Signal::USR1] {
        kill_process(runner, signal).unwrap();
    }
    noted.expect(&[Signal::USR1]);
    noted.end_with_the_next();
    process.signal(Signal::TERM);
    process.wait().expect_code(128 + Signal::TERM.as_raw());
    noted.expect_shipped();
}

/// What its handler commits is in the replica before the end.
#[test]
fn the_exit_code_tells_of_the_signal() {
    for signal in SIGNALS {
        let noted = Noted::new();
        let mut process = noted.start(&["setsid"], &DIRECT);
        noted.runner();
        noted.end_with_the_next();
        process.signal(signal);
        process.wait().expect_code(128 + signal.as_raw());
        noted.expect_shipped();
    }
}

/// A shell does not send signals on to what it runs; so they go to the whole group.
#[test]
fn signals_reach_what_the_application_started() {
    let noted = Noted::new();
    let shell = "trap 'wait; exit 9' TERM; python3 -c \"$APPLICATION\" & wait";
    let mut process = noted.start(&["setsid"], &["sh", "-c", shell]);
    wait_until("the application", || noted.lines().first().copied());
    noted.end_with_the_next();
    process.signal(Signal::TERM);
    process.wait().expect_code(9);
    noted.expect(&[Signal::TERM]);
    noted.expect_shipped();
}

/// The terminal tells both; the application is not told twice.
#[test]
fn keys_reach_the_application_once() {
    let noted = Noted::new();
    let mut process = noted.start(&["script", "-qec"], &DIRECT);
    let runner = noted.runner();
    let mut expected = Vec::new();
    for _ in 0..8 {
        for (key, signal) in [(b"\x03", Signal::INT), (b"\x1c", Signal::QUIT)] {
            process.write(key);
            expected.push(signal);
            noted.expect(&expected);
        }
    }
    kill_process(runner, Signal::USR1).unwrap();
    expected.push(Signal::USR1);
    noted.expect(&expected);
    noted.end_with_the_next();
    process.write(b"\x03");
    process.wait().expect_code(128 + Signal::INT.as_raw());
    noted.expect_shipped();
}

#[test]
fn an_application_that_is_killed() {
    let noted = Noted::new();
    let script = "sqlite3 \"$DB\" \"INSERT INTO t VALUES('last words')\"; kill -KILL $$";
    let mut process = noted.start(&["setsid"], &["sh", "-c", script]);
    process.wait().expect_code(137);
    assert!(contents_of(&noted.sandbox.restore(&[]).0).contains("last words"));
}

/// The first signal after the application's end is the question that is being answered already; the
/// second ends the wait for a replica that does not answer.
#[test]
fn a_second_signal_ends_at_once() {
    let sandbox = Sandbox::with_database();
    File::create(&sandbox.replica).unwrap();
    let mut command = sandbox.exec_command(&["--shutdown-timeout", "10m"], &["true"]);
    let mut process = sandbox.start(&mut command);
    process.wait_for_log("the application ended");
    process.signal(Signal::TERM);
    process.wait_for_log("a second signal ends that at once");
    // Signals that are close together are one.
    let ended = wait_until("the end", || {
        process.signal(Signal::TERM);
        process.ended()
    });
    ended.expect_code(75).expect_words(&["told to end at once"]);
}

/// A replica that does not answer: opening a pipe waits for a writer. Its place.
fn without_an_answer(sandbox: &Sandbox) -> PathBuf {
    std::fs::create_dir(&sandbox.replica).unwrap();
    let description = sandbox.replica.join("genesis.json");
    assert!(Command::new("mkfifo").arg(&description).status().unwrap().success());
    description
}

/// What asks for something else than the end is not for an application that is not there yet, whose
/// default it would be to end.
#[test]
fn a_request_before_the_application_starts() {
    let sandbox = Sandbox::new();
    let description = without_an_answer(&sandbox);
    let mut command = sandbox.exec_command(&["--restore-if-missing"], &["sleep", "0.5"]);
    let mut process = sandbox.start(&mut command);
    // The open waits until it asks, which it does when it listens already.
    let pipe = File::options().write(true).open(&description).unwrap();
    assert!(process.listens_for(Signal::USR1) && process.listens_for(Signal::USR2));
    for signal in [Signal::USR1, Signal::USR2] {
        process.signal(signal);
    }
    // In one step: it may be asking at any moment.
    let answer = sandbox.path("answer");
    write(&answer, br#"{"format": 1, "replica": "0123456789abcdef0123456789abcdef"}"#);
    rename(&answer, &description);
    // What is read of the pipe is no answer: it asks again.
    drop(pipe);
    let ended = process.wait().expect_code(0);
    ended.expect_words(&["USR1", "USR2", "before the application was started"]);
}

/// A signal before there is an application ends the whole.
#[test]
fn a_signal_before_the_application_starts() {
    let sandbox = Sandbox::new();
    without_an_answer(&sandbox);
    let started = sandbox.path("started");
    let mut command =
        sandbox.exec_command(&["--restore-if-missing"], &["touch", started.to_str().unwrap()]);
    let mut process = sandbox.start(&mut command);
    let ended = wait_until("the end", || {
        // Until it listens, a signal ends it by itself.
        process.listens_for(Signal::TERM).then(|| process.signal(Signal::TERM));
        process.ended()
    });
    ended.expect_code(128 + Signal::TERM.as_raw());
    assert!(!started.exists());
}
