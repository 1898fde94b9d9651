//! Calls to the system that fail: once, and for as long as a fault lasts. The application is unharmed,
//! what happened is told, and when the fault is over nothing is missing.
//!
//! A fault is one line in a table. `GENESIS_FAULTS` sets how many calls of each kind fail at a start, one
//! after another.

mod limits;
mod local;

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use genesis_replicate::clock;

use crate::kill::{Model, Running, Writer};
use crate::support::{
    BrokenCalls, Process, Sandbox, Sqlite, assert_same, can_attach, can_trace, contents_of,
    failing_at, setting, wait_until,
};

/// Which calls fail.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// Those on a file of the database, by what its name ends with.
    Database(&'static str),
    /// All of them.
    Anywhere,
}

/// A fault: what fails how, and what is said of it while it lasts.
#[derive(Debug, Clone, Copy)]
struct Row {
    calls: &'static str,
    error: &'static str,
    place: Where,
    /// One of these comes to be in the log where it lasts.
    said: &'static [&'static str],
}

const fn row(
    calls: &'static str,
    error: &'static str,
    place: Where,
    said: &'static [&'static str],
) -> Row {
    Row { calls, error, place, said }
}

const READS: &str = "pread64,preadv2";
const SYNCS: &str = "fsync,fdatasync";
const TRIED_AGAIN: &str = "the replica fails; trying again";

/// Faults of the database's files.
const SOURCE: [Row; 6] = [
    row(READS, "EIO", Where::Database(""), &["Input/output error"]),
    row(READS, "EIO", Where::Database("-wal"), &["NOT PROTECTED"]),
    row(READS, "EIO", Where::Database("-shm"), &["NOT PROTECTED"]),
    row(SYNCS, "EIO", Where::Database(""), &["cannot checkpoint"]),
    row(SYNCS, "EIO", Where::Database("-wal"), &["cannot checkpoint"]),
    row("pwrite64", "ENOSPC", Where::Database(""), &["cannot checkpoint"]),
];

/// Faults of everything that this process does.
const ANYWHERE: [Row; 11] = [
    row("pwrite64", "ENOSPC", Where::Anywhere, &["NOT PROTECTED"]),
    row("ftruncate", "EIO", Where::Anywhere, &["NOT PROTECTED"]),
    row(SYNCS, "EIO", Where::Anywhere, &[TRIED_AGAIN]),
    row("copy_file_range,sendfile", "ENOSPC", Where::Anywhere, &[TRIED_AGAIN]),
    row("renameat2", "EROFS", Where::Anywhere, &["NOT PROTECTED", TRIED_AGAIN]),
    row("openat", "EMFILE", Where::Anywhere, &["NOT PROTECTED"]),
    row("openat", "EACCES", Where::Anywhere, &["NOT PROTECTED"]),
    row("mkdir", "EROFS", Where::Anywhere, &["Read-only file system"]),
    row("unlink", "EROFS", Where::Anywhere, &["cannot remove"]),
    row(
        "clone3,clone",
        "EAGAIN",
        Where::Anywhere,
        &["cannot start a thread", "the snapshot failed"],
    ),
    row(READS, "EIO", Where::Anywhere, &["NOT PROTECTED"]),
];

/// Faults of the start: each call of these, and with what it fails.
const START: [(&str, &str); 7] = [
    ("openat", "EMFILE"),
    (READS, "EIO"),
    ("fallocate", "ENOSPC"),
    ("mkdir", "EROFS"),
    ("renameat2", "EROFS"),
    ("getdents64", "EIO"),
    (SYNCS, "EIO"),
];

/// The calls of the start that fail, by their number, unless all up to one are to.
const NUMBERS: [u64; 4] = [1, 3, 8, 21];

/// Everything that is done now and then is done all the time.
const BUSY: [&str; 6] =
    ["--snapshot-interval", "200ms", "--audit-interval", "1s", "--wal-limit", "30KB"];

/// How long a fault lasts at least.
const LASTS: Duration = Duration::from_secs(1);

/// An application and its database, which is followed.
struct Scene<'a> {
    sandbox: &'a Sandbox,
    writer: &'a Writer<'a>,
    model: Model,
}

impl Scene<'_> {
    /// Lets a fault come and go, once or for a while; then nothing is missing.
    fn play(&mut self, row: Row, once: bool, replicator: &mut Process) {
        let what = format!("{row:?}, {}", if once { "once" } else { "for a while" });
        let before = replicator.log().len();
        let fault = self.begin(row, once, replicator);
        wait_until(&format!("{what}: the call"), || (fault.hits() > 0).then_some(()));
        let acknowledged = self.writer.acknowledged();
        if !once {
            clock::rest(LASTS);
            // The application does not stand still.
            self.writer.wait_for(acknowledged + 1);
            wait_until(&format!("{what}: one of {:?} in the log", row.said), || {
                let said = replicator.log().split_off(before);
                row.said.iter().any(|words| said.contains(words)).then_some(())
            });
        }
        fault.end();
        assert!(replicator.ended().is_none(), "{what}: it ended\n{}", replicator.log());
        self.heal(&what);
    }

    fn begin(&self, row: Row, once: bool, replicator: &Process) -> BrokenCalls {
        let paths: Vec<PathBuf> = match row.place {
            Where::Database(suffix) => {
                vec![self.sandbox.db.with_file_name(format!("app.db{suffix}"))]
            }
            Where::Anywhere => Vec::new(),
        };
        let when = if once { ":when=1" } else { "" };
        let how = format!("error={}{when}", row.error);
        BrokenCalls::begin(
            replicator.id(),
            row.calls,
            &how,
            &paths,
            &self.sandbox.path("logs/fault"),
        )
    }

    /// What is acknowledged now comes to be in the replica, as the application made it.
    fn heal(&mut self, what: &str) {
        let acknowledged = self.writer.acknowledged();
        let (restored, n) = wait_until(&format!("{what}: to be healed"), || {
            let (restored, _) = self.sandbox.restore(&[]);
            let n = Writer::step_of(&restored);
            (n >= acknowledged).then_some((restored, n))
        });
        assert_same(&contents_of(&restored), &self.model.contents(n), what);
    }

    /// Ends everything; nothing is missing.
    fn finish(&mut self, running: Running, replicator: Process) {
        running.stop();
        replicator.stop();
        let restored = self.sandbox.restore(&[]).0;
        let n = Writer::step_of(&restored);
        assert_eq!(n, self.writer.acknowledged());
        assert_same(&contents_of(&restored), &self.model.contents(n), "the end");
    }
}

/// Lets every fault of a table come, once and for a while, while a database is followed.
fn play_all(rows: &[Row]) {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::new();
    let writer = Writer::create(&sandbox);
    let mut scene = Scene { sandbox: &sandbox, writer: &writer, model: Model::new() };
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&BUSY));
    replicator.wait_for_log("a snapshot is stored");
    let running = writer.start(7);
    writer.wait_for(writer.acknowledged() + 20);
    for row in rows {
        scene.play(*row, true, &mut replicator);
        scene.play(*row, false, &mut replicator);
    }
    scene.finish(running, replicator);
    assert_eq!(sandbox.generations().len(), 1);
}

#[test]
fn of_the_database() {
    play_all(&SOURCE);
}

#[test]
fn of_everything_else() {
    play_all(&ANYWHERE);
}

/// A start in which a call fails either ends in words, or the fault is waited out. Either way, nothing
/// is missing after the next.
#[test]
fn of_the_start() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::new();
    let writer = Writer::create(&sandbox);
    let mut scene = Scene { sandbox: &sandbox, writer: &writer, model: Model::new() };
    let running = writer.start(7);
    let numbers = match setting("GENESIS_FAULTS") {
        Some(last) => (1..=last).collect(),
        None => NUMBERS.to_vec(),
    };
    let mut command = sandbox.replicate_command(&BUSY);
    for (calls, error) in START {
        for number in &numbers {
            let what = format!("{calls} number {number} of a start: {error}");
            let trace = sandbox.path("logs/fault");
            let how = format!("error={error}:when={number}");
            let mut replicator = sandbox.start(&mut failing_at(&command, calls, &how, &[], &trace));
            let is_started = wait_until(&what, || {
                if let Some(ended) = replicator.ended() {
                    assert!([2, 3, 4, 127].contains(&ended.code), "{what}: {ended:?}");
                    assert!(!ended.stderr.contains("panicked"), "{what}: {ended:?}");
                    return Some(false);
                }
                let has = |words| replicator.log().contains(words);
                (has("a snapshot is stored") || has("continuing")).then_some(true)
            });
            if is_started {
                scene.heal(&what);
                replicator.stop();
            }
        }
    }
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    scene.finish(running, replicator);
}

/// The page table cannot be written at the end: the next start makes it anew.
#[test]
fn of_the_page_table_at_the_end() {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    for n in 0..3 {
        let mut replicator = sandbox.replicate();
        replicator.wait_until_followed();
        let trace = sandbox.path("logs/fault");
        let fault = BrokenCalls::begin(replicator.id(), "rename", "error=EROFS", &[], &trace);
        application.run(&format!("INSERT INTO t VALUES('row {n}');"));
        let ended = replicator.stop();
        ended.expect_words(&["cannot write the page table"]);
        assert!(fault.hits() > 0);
        assert!(contents_of(&sandbox.restore(&[]).0).contains(&format!("'row {n}'")));
    }
    assert_eq!(sandbox.generations().len(), 1);
}

/// A folder's sync that failed is not taken for a success the next time: the object is written anew.
#[test]
fn of_a_sync_that_then_seems_to_succeed() {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    let segments = || sandbox.objects_ending(".seg");
    let before = segments();
    let folder = before[0].parent().unwrap().to_owned();
    let trace = sandbox.path("logs/fault");
    let fault = BrokenCalls::begin(replicator.id(), "fsync", "error=EIO", &[folder], &trace);
    application.run("INSERT INTO t VALUES('third');");
    let placed = wait_until("the segment", || segments().into_iter().find(|s| !before.contains(s)));
    wait_until("a sync that fails", || (fault.hits() > 0).then_some(()));
    // Open as long as it is compared: its inode is nobody else's.
    let first = File::open(&placed).unwrap();
    fault.end();
    replicator.stop();
    let inodes = [first.metadata(), placed.metadata()].map(|found| found.unwrap().ino());
    assert_ne!(inodes[0], inodes[1], "it was only synced again");
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'third'"));
}

#[test]
fn of_a_file_that_is_being_captured() {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::large(6_000);
    let mut application = sandbox.application(Sqlite::Python);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&BUSY));
    replicator.wait_for_log("a snapshot is stored");
    let trace = sandbox.path("logs/fault");
    let fault = BrokenCalls::begin(
        replicator.id(),
        READS,
        "error=EIO",
        std::slice::from_ref(&sandbox.db),
        &trace,
    );
    application.run("UPDATE big SET n = n + 1;");
    replicator.wait_for_log("cannot read the database for a snapshot");
    fault.end();
    replicator.wait_for_another("a snapshot is stored", 1);
    replicator.stop();
    sandbox.assert_complete_after(application);
}

/// Commits come in faster than blocks can be read: the last pass comes nevertheless.
#[test]
fn of_a_disk_that_is_slower_than_the_application() {
    const LOAD: &str = "
import random, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
c.execute('PRAGMA synchronous=OFF')
while True:
    c.execute('BEGIN IMMEDIATE')
    for n in range(50):
        c.execute('UPDATE big SET n = n + 1 WHERE id = ?', (random.randint(1, 5000),))
    c.execute('COMMIT')
    time.sleep(0.01)
";
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::large(5_000);
    let application = sandbox.application(Sqlite::Python);
    let mut python = Command::new("python3");
    let load = sandbox.start(python.args(["-c", LOAD]).arg(&sandbox.db));
    let command = sandbox.replicate_command(&BUSY);
    let trace = sandbox.path("logs/fault");
    let mut replicator =
        sandbox.start(&mut failing_at(&command, "preadv2", "delay_enter=1500", &[], &trace));
    replicator.wait_for_log("commits come in faster than a snapshot can follow");
    replicator.wait_for_log("a snapshot is stored");
    load.kill();
    replicator.stop();
    application.close();
    sandbox.assert_complete();
}

/// What nothing holds must be read under the write lock, and somebody keeps that: every page is
/// compared instead.
#[test]
fn of_a_write_lock_that_is_not_to_be_had() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    // Until this ends, the WAL is not emptied.
    let mut reader = sandbox.application(Sqlite::Shell);
    reader.run("BEGIN; SELECT count(*) FROM t;");
    application.run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    replicator.kill();
    reader.close();
    application.run("INSERT INTO t VALUES('third'); PRAGMA wal_checkpoint(PASSIVE);");
    application.run("BEGIN IMMEDIATE;");
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("moved on before it was read");
    application.run("COMMIT;");
    replicator.wait_for_log("recorded in one what was not seen commit by commit");
    application.run("INSERT INTO t VALUES('fourth');");
    replicator.stop();
    let restored = contents_of(&sandbox.restore(&[]).0);
    assert!(restored.contains("'third'") && restored.contains("'fourth'"), "{restored}");
    assert_eq!(sandbox.generations().len(), 1);
}
