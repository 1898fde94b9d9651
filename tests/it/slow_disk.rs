//! A disk that takes seconds to sync: commits are shipped all the same, and nobody waits for what we sync.

use std::process::Command;
use std::time::Duration;

use genesis_replicate::clock;
use rusqlite::{Connection, ErrorCode};

use crate::support::{Process, Sandbox, Sqlite, can_trace, contents, contents_of, failing_on};

/// An operator who empties the WAL again and again.
const OPERATOR: &str = "
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=20)
while True:
    connection.execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()
    time.sleep(0.2)
";

/// How long each sync of the database takes.
const SYNC: Duration = Duration::from_secs(2);

fn replicate_on_a_slow_disk(sandbox: &Sandbox, more: &[&str]) -> Process {
    let command = sandbox.replicate_command(more);
    let late = format!("delay_enter={}", SYNC.as_micros());
    let mut replicator =
        sandbox.start(&mut failing_on(&command, "fsync,fdatasync", &late, &sandbox.db));
    replicator.wait_until_followed();
    replicator
}

/// The longest that something took, which may be under way.
#[derive(Default)]
struct Longest(Duration);

impl Longest {
    fn add(&mut self, since: Duration) {
        self.0 = self.0.max(clock::monotonic().saturating_sub(since));
    }
}

#[test]
fn what_is_committed_is_shipped_and_nobody_waits() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let more = ["--wal-limit", "200KB", "--log-level", "debug", "--sync-interval", "200ms"];
    let mut replicator = replicate_on_a_slow_disk(&sandbox, &more);
    sandbox.wait_for_txid(1);
    let application = sandbox.application(Sqlite::Bundled);
    application.connection().busy_timeout(Duration::from_secs(20)).unwrap();
    let mut operator = Command::new("python3");
    let operator = sandbox.start(operator.args(["-c", OPERATOR]).arg(&sandbox.db));
    let (mut held, mut unshipped) = (Longest::default(), Longest::default());
    let begun = clock::monotonic();
    let (mut shipped, mut shipped_at) = (0, begun);
    while clock::monotonic() < begun + SYNC * 8 {
        let begun = clock::monotonic();
        application.connection().execute_batch("INSERT INTO t VALUES(randomblob(3000))").unwrap();
        held.add(begun);
        let now = replicator.logged("shipped first");
        if now > shipped {
            (shipped, shipped_at) = (now, clock::monotonic());
        }
        unshipped.add(shipped_at);
        clock::rest(Duration::from_millis(5));
    }
    operator.kill();
    assert!(held.0 < SYNC / 2, "a writer was held for {:?}", held.0);
    assert!(unshipped.0 < SYNC, "nothing was shipped for {:?}", unshipped.0);
    replicator.wait_for_log("the disk is slow");
    let expected = contents(application.connection());
    replicator.stop();
    assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
}

/// Flips a byte in the page of a frame.
fn damage(sandbox: &Sandbox, frame: u64) {
    use std::os::unix::fs::FileExt;
    let wal = sandbox.db.with_file_name("app.db-wal");
    let wal = std::fs::File::options().read(true).write(true).open(wal).unwrap();
    let (at, mut byte) = (32 + frame * (24 + 4096) - 100, [0]);
    wal.read_exact_at(&mut byte, at).unwrap();
    wal.write_all_at(&[!byte[0]], at).unwrap();
}

#[test]
fn a_wal_that_cannot_be_read_is_backfilled_without_holding_anybody() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let application = Connection::open(&sandbox.db).unwrap();
    application.busy_timeout(Duration::ZERO).unwrap();
    let insert = "INSERT INTO t VALUES(randomblob(200000))";
    application.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    for _ in 0..20 {
        application.execute_batch(insert).unwrap();
    }
    damage(&sandbox, 30);
    let mut replicator = replicate_on_a_slow_disk(&sandbox, &["--wal-limit", "0"]);
    let begun = clock::monotonic();
    while clock::monotonic() < begun + SYNC * 4 {
        let inserted = application.execute_batch("INSERT INTO t VALUES(randomblob(500))");
        let busy = inserted.is_err_and(|e| e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy));
        assert!(!busy, "held after {:?}", clock::monotonic().saturating_sub(begun));
        clock::rest(Duration::from_millis(5));
    }
    // In silence it comes to an end.
    replicator.wait_for_log("it is backfilled now");
    sandbox.wait_for_txid(1);
    application.execute_batch("INSERT INTO t VALUES('last')").unwrap();
    // Read by another: this one may have the page as it was.
    let expected = contents(sandbox.application(Sqlite::Bundled).connection());
    replicator.stop();
    assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
}
