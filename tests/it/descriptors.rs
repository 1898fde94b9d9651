//! The descriptors and locks of the program, by its own system calls: every one of them, in order.
//!
//! To close any descriptor of the database or of its `-shm` drops all locks that SQLite holds on that
//! file. So none is closed before the end, and these books of what is held are exact.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{Process, Sandbox, Sqlite, can_trace, traced, wait_until};

/// What was done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    /// The log says that the database is followed.
    Followed,
    /// Asked to end.
    Terminated,
    Open {
        file: String,
        descriptor: u32,
        /// SQLite follows no link, the program itself goes by the canonical path.
        by_sqlite: bool,
    },
    Duplicate,
    Close {
        file: String,
        descriptor: u32,
    },
    Lock {
        file: String,
        /// Belongs to the open file, not to the process.
        of_file: bool,
        kind: String,
        bytes: std::ops::Range<u64>,
    },
}

/// The database and its `-shm`.
fn is_guarded(file: &str) -> bool {
    file.ends_with("/app.db") || file.ends_with("/app.db-shm")
}

/// `5</a/path>` as number and path.
fn descriptor(text: &str) -> Option<(u32, &str)> {
    let (number, rest) = text.split_once('<')?;
    let file = rest.strip_suffix("(deleted)").unwrap_or(rest).strip_suffix('>')?;
    Some((number.parse().ok()?, file))
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split_once(&format!("{name}="))?.1.split([',', '}']).next()
}

/// Reads one finished call.
fn event(call: &str) -> Option<Event> {
    if call.starts_with("--- SIGTERM") {
        return Some(Event::Terminated);
    }
    let (name, rest) = call.split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if name == "write" {
        return arguments.contains("followed: what is committed").then_some(Event::Followed);
    }
    if name == "openat" {
        let (descriptor, file) = descriptor(result)?;
        let by_sqlite = arguments.contains("O_NOFOLLOW");
        let open = Event::Open { file: file.to_owned(), descriptor, by_sqlite };
        return is_guarded(file).then_some(open);
    }
    let first = arguments.split([',', ')']).next()?;
    let (descriptor, file) = descriptor(first).filter(|(_, file)| is_guarded(file))?;
    let file = file.to_owned();
    match name {
        "close" => Some(Event::Close { file, descriptor }),
        "fcntl" if arguments.contains("SETLK") => {
            let start: u64 = field(arguments, "l_start")?.parse().ok()?;
            let bytes = start..start + field(arguments, "l_len")?.parse::<u64>().ok()?;
            let of_file = arguments.contains("F_OFD_");
            let kind = field(arguments, "l_type")?.to_owned();
            (result.trim() == "0").then_some(Event::Lock { file, of_file, kind, bytes })
        }
        "fcntl" => arguments.contains("F_DUPFD").then_some(Event::Duplicate),
        _ => Some(Event::Duplicate),
    }
}

/// The events of a trace. Calls that others came between are told at their end.
fn events(trace: &str) -> Vec<Event> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut events = Vec::new();
    for line in trace.lines() {
        let Some((pid, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some((start, _)) = call.split_once(" <unfinished ...>") {
            begun.insert(pid, start);
        } else if call.starts_with("<... ") {
            let start = begun.remove(pid).unwrap_or_default();
            let (_, end) = call.split_once(" resumed>").unwrap();
            events.extend(event(&format!("{start}{end}")));
        } else {
            events.extend(event(call));
        }
    }
    events
}

/// The locks on the `-shm` that the kernel holds for the program: by byte, and by whose they are.
#[derive(Debug, Default)]
struct Books(BTreeMap<(u64, bool), String>);

impl Books {
    fn enter(&mut self, event: &Event) {
        match event {
            Event::Lock { file, of_file, kind, bytes } if file.ends_with("-shm") => {
                for byte in bytes.clone() {
                    match &**kind {
                        "F_UNLCK" => self.0.remove(&(byte, *of_file)),
                        _ => self.0.insert((byte, *of_file), kind.clone()),
                    };
                }
            }
            Event::Close { file, .. } if file.ends_with("-shm") => self.0.clear(),
            _ => {}
        }
    }

    /// By a read mark, or by the write lock.
    fn keep_the_wal(&self) -> bool {
        self.0.iter().any(|((byte, _), kind)| match &**kind {
            "F_RDLCK" => (123..=127).contains(byte),
            _ => *byte == 120,
        })
    }
}

/// From the first log line to the question to end, and from there on.
fn check(events: &[Event]) -> Result<(), String> {
    let position = |of: &Event| events.iter().position(|event| event == of).unwrap();
    let (followed, terminated) = (position(&Event::Followed), position(&Event::Terminated));
    let is_close = |event: &Event| matches!(event, Event::Close { .. });
    let end = events.iter().position(is_close).unwrap_or(events.len());
    if end < terminated {
        return Err(format!("{:?} is number {end}, the signal {terminated}", events[end]));
    }
    let mut books = Books::default();
    for (n, event) in events[..terminated].iter().enumerate() {
        books.enter(event);
        if n >= followed && !books.keep_the_wal() {
            return Err(format!("{books:?} after {event:?}, number {n}"));
        }
    }
    let taken = |event: &&Event| matches!(event, Event::Lock { kind, .. } if kind != "F_UNLCK");
    if let Some(lock) = events[end..].iter().find(taken) {
        return Err(format!("after the first close: {lock:?}"));
    }
    if events.contains(&Event::Duplicate) {
        return Err("a descriptor was duplicated".to_owned());
    }
    ["/app.db", "/app.db-shm"].iter().try_for_each(|file| check_ends(events, file))
}

/// The program opens a file once, and closes it after SQLite has closed all of its own.
fn check_ends(events: &[Event], of: &str) -> Result<(), String> {
    let mut own = BTreeSet::new();
    let mut of_sqlite = BTreeSet::new();
    for event in events {
        match event {
            Event::Open { file, descriptor, by_sqlite } if file.ends_with(of) => {
                if *by_sqlite { &mut of_sqlite } else { &mut own }.insert(*descriptor);
            }
            Event::Close { file, descriptor } if file.ends_with(of) => {
                let before = of_sqlite.clone();
                let was_own = !of_sqlite.remove(descriptor);
                if was_own && !before.is_empty() {
                    return Err(format!("{event:?} while SQLite has {before:?}"));
                }
            }
            _ => {}
        }
    }
    if own.len() == 1 { Ok(()) } else { Err(format!("{of} was opened as {own:?} beside SQLite")) }
}

#[test]
fn nothing_is_closed_and_something_is_locked_until_the_end() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let trace = sandbox.path("trace");
    let more = ["--wal-limit", "200KB", "--log-level", "debug"];
    let calls = "openat,close,dup,dup2,dup3,fcntl,write";
    let mut command = traced(&sandbox.replicate_command(&more), calls, &trace);
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    let load = sandbox.load(Duration::from_micros(500));
    let moved = |replicator: &Process, way: &str| {
        let moved = format!("procedure={way}");
        (replicator.log().matches(&moved).count() >= 10).then_some(())
    };
    wait_until("moves at the limit", || moved(&replicator, "Force"));
    wait_until("answers to checkpoints", || {
        let mut shell = Command::new("sqlite3");
        shell.args(["-cmd", ".timeout 2000"]).arg(&sandbox.db);
        shell.arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
        moved(&replicator, "Respond")
    });
    load.kill();
    let mut shell = sandbox.application(Sqlite::Shell);
    wait_until("moves in silence", || {
        shell.run("INSERT INTO t VALUES('again');");
        // Longer than what counts as silence.
        clock::rest(Duration::from_millis(220));
        moved(&replicator, "Drain")
    });
    replicator.stop();
    let text = wait_until("the end of the trace", || {
        let text = std::fs::read_to_string(&trace).unwrap();
        text.contains("+++ exited with 0 +++\n").then_some(text)
    });
    let events = events(&text);
    eprintln!("{} openings, closings and locks", events.len());
    assert_eq!(check(&events), Ok(()));
}

#[test]
fn a_gap_and_an_early_close_would_be_noticed() {
    let followed = r#"1 write(2</x/0.err>, "INFO followed: what is committed now is kept", 9) = 9"#;
    let term = "1 --- SIGTERM {si_signo=SIGTERM} ---";
    let lock = |kind: &str, byte: u32| {
        format!(
            "2 fcntl(5</x/app.db-shm>, F_SETLK, {{l_type={kind}, l_whence=SEEK_SET, \
             l_start={byte}, l_len=1}} <unfinished ...>\n3 close(9</x/other>) = 0\n\
             2 <... fcntl resumed>) = 0"
        )
    };
    let own = "2 openat(AT_FDCWD</x>, \"app.db-shm\", O_RDONLY|O_CLOEXEC) = 6</x/app.db-shm>\n\
               2 openat(AT_FDCWD</x>, \"app.db\", O_RDONLY|O_CLOEXEC) = 7</x/app.db>";
    let kept = [own, &lock("F_RDLCK", 124), followed, &lock("F_RDLCK", 123)].join("\n");
    let fails = |then: &str| {
        let trace = format!("{kept}\n{then}\n{term}\n");
        check(&events(&trace)).is_err()
    };
    assert!(!fails(&lock("F_UNLCK", 124)));
    assert!(fails(&format!("{}\n{}", lock("F_UNLCK", 124), lock("F_UNLCK", 123))));
    assert!(fails("2 close(6</x/app.db-shm>) = 0"));
    assert!(fails("2 dup(7</x/app.db>) = 8</x/app.db>"));
}
