//! Applications of many kinds beside the program: none is harmed, and nothing of theirs is lost.

use std::process::Command;
use std::time::Duration;

use genesis_replicate::clock;
use serde_json::{Value, json};

use crate::support::{
    Application, Ended, Process, Sandbox, Sqlite, assert_same, contents, contents_of, same_bytes,
    wait_until, wal_frames,
};

const PACED: &str = include_str!("applications/paced.py");
const THREADS: &str = include_str!("applications/threads.py");

/// No commit takes as long: its own syncs may take some seconds on a busy disk, and a writer that waits
/// for a lock in vain gives up after 5.
const PROMPT: Duration = Duration::from_secs(4);

/// How an application fared.
#[derive(Debug)]
struct Report {
    /// Commits that were refused because somebody held a lock.
    busy: u64,
    /// The longest commit.
    longest: Duration,
}

impl Report {
    fn of(ended: Ended) -> Self {
        let told: Value = serde_json::from_str(&ended.expect_code(0).stdout).unwrap();
        let longest = Duration::from_secs_f64(told["longest"].as_f64().unwrap());
        Self { busy: told["busy"].as_u64().unwrap(), longest }
    }
}

/// An application of `commits` commits, some thousand a second.
fn paced(who: &str, patience: u32, commits: u32, pragmas: &[&str]) -> [String; 2] {
    let settings = json!({
        "who": who, "patience": patience, "commits": commits, "pragmas": pragmas, "pause": 0.0005,
    });
    [PACED.to_owned(), settings.to_string()]
}

fn start(sandbox: &Sandbox, [program, settings]: [String; 2]) -> Process {
    let mut command = Command::new("python3");
    sandbox.start(command.args(["-c", &program]).arg(&sandbox.db).arg(settings))
}

fn replicate(sandbox: &Sandbox, more: &[&str]) -> Process {
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(more));
    replicator.wait_until_followed();
    replicator
}

/// Ends the program: what is restored is what the application sees, in one line of history.
#[track_caller]
fn finish(sandbox: &Sandbox, application: &Application, replicator: Process) -> Ended {
    let ended = replicator.stop();
    let expected = contents(application.connection());
    assert_same(&contents_of(&sandbox.restore(&[]).0), &expected, "the restored database");
    assert_eq!(sandbox.generations().len(), 1, "{}", ended.stderr);
    ended
}

/// The same impatient application alone, beside a program that never takes the write lock, and beside
/// one that does.
#[test]
fn without_patience() {
    let mut busy = Vec::new();
    for limit in [None, Some("0"), Some("100KB")] {
        let sandbox = Sandbox::with_database();
        let application = sandbox.application(Sqlite::Bundled);
        let more = limit.map(|limit| ["--wal-limit", limit]);
        let replicator = more.map(|more| replicate(&sandbox, &more));
        let impatient = paced("impatient", 0, 1500, &["synchronous=NORMAL"]);
        let report = Report::of(start(&sandbox, impatient).wait());
        eprintln!("--wal-limit {limit:?}: {report:?}");
        busy.push(report.busy);
        if let Some(replicator) = replicator {
            let told = finish(&sandbox, &application, replicator).stderr;
            let has_held = told.contains("held the application's writers");
            assert_eq!(has_held, limit != Some("0"), "{told}");
        }
    }
    assert_eq!(busy[..2], [0, 0]);
}

#[test]
fn however_durable_and_mapped_into_memory() {
    let sandbox = Sandbox::with_database();
    let application = sandbox.application(Sqlite::Bundled);
    let replicator = replicate(&sandbox, &["--wal-limit", "100KB"]);
    for pragmas in [
        &["synchronous=OFF"][..],
        &["synchronous=NORMAL"],
        &["synchronous=FULL"],
        &["synchronous=EXTRA", "wal_autocheckpoint=10"],
        &["mmap_size=1073741824"],
        &["mmap_size=1073741824", "cache_size=2", "wal_autocheckpoint=0"],
    ] {
        let application = paced(&pragmas.join(" "), 5, 300, pragmas);
        let report = Report::of(start(&sandbox, application).wait());
        eprintln!("{pragmas:?}: {report:?}");
        assert_eq!(report.busy, 0, "{pragmas:?}");
    }
    finish(&sandbox, &application, replicator);
}

/// Whether the application's wal-index is in memory or in a file when it shuts the others out.
#[test]
fn exclusive_until_it_lets_go() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Python);
    application.run("SELECT * FROM t; PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(1);");
    assert!(sandbox.path("app/app.db-shm").exists());
    let refused = sandbox.replicate_fails(&[]).expect_code(3);
    refused.expect_words(&["app.db is locked", "locking_mode=EXCLUSIVE"]);
    assert_eq!(sandbox.last_txid(), None);
    application.run("INSERT INTO t VALUES(2); PRAGMA locking_mode=NORMAL; SELECT * FROM t;");
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES(3);");
    finish(&sandbox, &sandbox.application(Sqlite::Bundled), replicator);
}

/// To others a process of another PID namespace has no number.
#[test]
fn in_another_pid_namespace() {
    let unshared = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command
    };
    if !unshared().arg("true").output().is_ok_and(|tried| tried.status.success()) {
        eprintln!("skipped: no PID namespace can be made here");
        return;
    }
    let sandbox = Sandbox::with_database();
    let application = sandbox.application(Sqlite::Bundled);
    let replicator = replicate(&sandbox, &["--wal-limit", "1MB", "--log-level", "debug"]);
    let [program, settings] = paced("elsewhere", 10, 3000, &["synchronous=NORMAL"]);
    let mut command = unshared();
    command.args(["python3", "-c", &program]).arg(&sandbox.db).arg(settings);
    let mut writer = sandbox.start(&mut command);
    let (mut emptied, mut longest) = (0, Duration::ZERO);
    let report = loop {
        if let Some(ended) = writer.ended() {
            break Report::of(ended);
        }
        let begun = clock::monotonic();
        let mut command = unshared();
        command.args(["sqlite3", "-cmd", ".timeout 5000"]).arg(&sandbox.db);
        let done = command.arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        // One that meets another checkpoint is told so at once; no other may fail.
        assert!(["0|0|0\n", "1|-1|-1\n"].contains(&&*said), "{said}");
        emptied += u32::from(said.starts_with('0'));
        longest = longest.max(clock::monotonic().saturating_sub(begun));
    };
    eprintln!("{emptied} times emptied in at most {longest:?}; the writer: {report:?}");
    assert!(emptied > 5 && report.busy == 0);
    // Unanswered, a checkpointer waits for 5 s, and every writer with it.
    assert!(longest.max(report.longest) < PROMPT);
    assert!(replicator.log().contains("procedure=Respond"));
    finish(&sandbox, &application, replicator);
}

/// A process that writes in one thread and checkpoints in another looks like one that waits.
#[test]
fn threads_that_write_and_checkpoint() {
    let sandbox = Sandbox::with_database();
    let application = sandbox.application(Sqlite::Bundled);
    let replicator = replicate(&sandbox, &["--wal-limit", "500KB", "--log-level", "debug"]);
    let report = Report::of(start(&sandbox, [THREADS.to_owned(), "600".to_owned()]).wait());
    let log = replicator.log();
    let moved = |way: &str| log.matches(&format!("procedure={way}")).count();
    let ways = ["Drain", "Force", "Respond"].map(moved);
    eprintln!("{report:?}; {ways:?} moves");
    assert!(ways[2] > 0, "nobody who waited was answered");
    assert!(report.longest < PROMPT);
    finish(&sandbox, &application, replicator);
}

#[test]
fn two_versions_of_sqlite_by_turns() {
    let sandbox = Sandbox::with_database();
    let replicator = replicate(&sandbox, &["--wal-limit", "50KB"]);
    let mut old = sandbox.application(Sqlite::Shell);
    let mut new = sandbox.application(Sqlite::Bundled);
    let modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
    for n in 0..60 {
        let mode = modes[n / 2 % 4];
        let writer = if n % 2 == 0 { &mut old } else { &mut new };
        writer.run(&format!("INSERT INTO t VALUES({n}); INSERT INTO t VALUES(randomblob(9000));"));
        let other = if n % 3 == 0 { &mut old } else { &mut new };
        match other {
            Application::Inside(connection) => {
                let pragma = format!("PRAGMA wal_checkpoint({mode})");
                connection.query_row(&pragma, [], |_| Ok(())).unwrap();
            }
            Application::Outside(_) => other.run(&format!("PRAGMA wal_checkpoint({mode});")),
        }
    }
    sandbox.wait_for_txid(121);
    assert_eq!(sandbox.last_txid(), Some(121));
    finish(&sandbox, &new, replicator);
    old.run("PRAGMA wal_checkpoint(TRUNCATE);");
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db));
}

#[test]
fn beside_a_long_reader_writers_go_on_and_the_wal_recovers() {
    let sandbox = Sandbox::with_database();
    let application = sandbox.application(Sqlite::Bundled);
    let replicator = replicate(&sandbox, &["--wal-limit", "500KB"]);
    let mut reader = sandbox.application(Sqlite::Shell);
    reader.run("INSERT INTO t VALUES('before'); BEGIN; SELECT count(*) FROM t;");
    let began = clock::monotonic();
    let mut meanwhile = start(&sandbox, paced("meanwhile", 5, 1500, &["synchronous=NORMAL"]));
    let report = Report::of(meanwhile.wait());
    wait_until("two seconds", || {
        (clock::monotonic() > began + Duration::from_secs(2)).then_some(())
    });
    let frames = wal_frames(application.connection());
    assert!(frames > 1500, "{frames} frames: nobody was read for long");
    reader.run("COMMIT;");

    let mut afterwards = start(&sandbox, paced("afterwards", 5, 1500, &["synchronous=NORMAL"]));
    wait_until("a small WAL", || (wal_frames(application.connection()) < 500).then_some(()));
    let after = Report::of(afterwards.wait());
    eprintln!("{frames} frames; beside the reader: {report:?}, after it: {after:?}");
    assert_eq!((report.busy, after.busy), (0, 0));
    assert!(report.longest.max(after.longest) < PROMPT);
    finish(&sandbox, &application, replicator);
}
