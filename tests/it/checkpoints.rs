//! The WAL is kept, but not for ever: it is emptied in our own process, and an operator's checkpoint
//! goes through. What it loses is noticed.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::{
    Application, Process, Sandbox, Sqlite, can_trace, contents, contents_of, failing_on, rows,
    traced, wait_until,
};

/// Between commits: some 1,500 come in a second.
const PAUSE: Duration = Duration::from_micros(500);

fn wal(sandbox: &Sandbox) -> PathBuf {
    sandbox.db.with_file_name("app.db-wal")
}

/// Waits until so many rows were added.
fn wait_for_rows(application: &Application, more: u64) {
    let before = rows(application.connection());
    wait_until("more rows", || (rows(application.connection()) >= before + more).then_some(()));
}

#[test]
fn a_wal_under_steady_load_stays_near_its_limit() {
    let sandbox = Sandbox::with_database();
    let mut command = sandbox.replicate_command(&["--wal-limit", "1MB"]);
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    let application = sandbox.application(Sqlite::Bundled);
    let writer = sandbox.load(PAUSE);
    // More than 4,000 bytes of WAL each: 40 times the limit, and all of it without a checkpoint.
    wait_for_rows(&application, 10_000);
    writer.kill();
    let bytes = wal(&sandbox).metadata().unwrap().len();
    assert!(bytes < 35_000_000, "the WAL has {bytes} bytes");
    let expected = contents(application.connection());
    let words = ["held the application's writers", "count=", "p99_micros=", "max_micros="];
    replicator.stop().expect_words(&words);
    assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
}

#[test]
fn a_wal_is_on_its_way_to_the_disk_while_it_grows() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let trace = sandbox.path("logs/writeback");
    let command = traced(&sandbox.replicate_command(&[]), "sync_file_range", &trace);
    let mut replicator = sandbox.start(&mut { command });
    replicator.wait_until_followed();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES(randomblob(3500000));");
    sandbox.wait_for_txid(2);
    replicator.stop();
    let calls = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    let call = calls.lines().find(|line| line.contains("sync_file_range(")).unwrap();
    assert!(call.contains("/app.db-wal>, 0, 3"), "{call}");
    assert!(call.contains("SYNC_FILE_RANGE_WRITE"), "{call}");
}

#[test]
fn that_the_wal_does_not_get_to_the_disk_is_told_and_harms_nothing() {
    assert_harmless("EIO", true);
}

/// Where there is no such call, checkpoints sync all of it, as ever.
#[test]
fn a_system_that_cannot_send_the_wal_ahead_is_none_to_tell_of() {
    assert_harmless("ENOSYS", false);
}

fn assert_harmless(error: &str, is_told: bool) {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let (command, how) = (sandbox.replicate_command(&[]), format!("error={error}"));
    let mut replicator =
        sandbox.start(&mut failing_on(&command, "sync_file_range", &how, &wal(&sandbox)));
    replicator.wait_until_followed();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES(randomblob(3500000));");
    if is_told {
        replicator.wait_for_log("the system cannot write the WAL to the disk");
    }
    application.run("INSERT INTO t VALUES(randomblob(3500000));");
    sandbox.wait_for_txid(3);
    let ended = replicator.stop();
    assert_eq!(ended.stderr.contains("ERROR"), is_told, "{}", ended.stderr);
    assert_eq!(contents_of(&sandbox.restore(&[]).0), contents_of(&sandbox.db));
}

#[test]
fn an_operator_empties_the_wal_of_an_idle_application_at_once() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Python);
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    // Without a timeout: it succeeds once the lock has been parked, in the silence after a commit.
    wait_until("an empty WAL", || {
        let mut shell = Command::new("sqlite3");
        let done = shell.arg(&sandbox.db).arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
        (done.stdout == b"0|0|0\n").then_some(())
    });
    assert_eq!(wal(&sandbox).metadata().unwrap().len(), 0);
    application.run("INSERT INTO t VALUES('third');");
    replicator.stop();
    assert!(contents_of(&sandbox.restore(&[]).0).contains("third"));
    assert_eq!(sandbox.generations().len(), 1);
}

#[test]
fn an_operator_with_patience_empties_the_wal_under_load() {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    let application = sandbox.application(Sqlite::Bundled);
    let writer = sandbox.load(PAUSE);
    for _ in 0..10 {
        wait_for_rows(&application, 100);
        // One that meets another checkpoint is told so at once; no other may fail.
        wait_until("an empty WAL", || {
            let mut shell = Command::new("sqlite3");
            shell.args(["-cmd", ".timeout 5000"]).arg(&sandbox.db);
            let done = shell.arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
            let said = String::from_utf8_lossy(&done.stdout);
            assert!(["0|0|0\n", "1|-1|-1\n"].contains(&&*said), "{said}");
            said.starts_with('0').then_some(())
        });
    }
    writer.kill();
    let expected = contents(application.connection());
    replicator.stop();
    assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
    assert_eq!(sandbox.generations().len(), 1);
}

/// Replicates with checkpoints whose writes never arrive, as it is to the database when an old SQLite
/// resets a WAL under them.
fn replicate_with_lost_checkpoints(sandbox: &Sandbox) -> Process {
    let (command, lost) = (sandbox.replicate_command(&[]), "retval=4096");
    let mut replicator = sandbox.start(&mut failing_on(&command, "pwrite64", lost, &sandbox.db));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    replicator
}

/// The replica keeps the commits, and says that the database has lost them.
#[test]
fn commits_that_a_checkpoint_loses_are_alarmed() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let mut replicator = replicate_with_lost_checkpoints(&sandbox);
    application.run("INSERT INTO t VALUES('lost');");
    replicator.wait_for_log("LOST COMMITS");
    sandbox.wait_for_txid(2);
    drop(replicator);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("lost"));
}

/// Much is read back a little at a time, and none of it is left out.
#[test]
fn every_page_that_a_checkpoint_loses_is_found() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = replicate_with_lost_checkpoints(&sandbox);
    application.run("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES(randomblob(4092 * 3000));");
    wait_until("3,000 lost pages", || {
        let log = replicator.log();
        let alarms = log.lines().filter_map(|line| line.split_once("LOST COMMITS"));
        let pages = |(_, alarm): (&str, &str)| -> u64 {
            let pages = alarm.split("pages=").nth(1).unwrap();
            pages.split(' ').next().unwrap().parse().unwrap()
        };
        let found: Vec<_> = alarms.map(pages).collect();
        (found.len() > 1 && found.iter().sum::<u64>() >= 3000).then_some(())
    });
}

#[test]
fn the_wal_is_emptied_by_hand_with_and_without_a_replicator() {
    let sandbox = Sandbox::with_database();
    let db = sandbox.db.to_str().unwrap();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    sandbox.run(&["checkpoint", "--truncate", "--db", db]).expect_code(0);
    assert_eq!(wal(&sandbox).metadata().unwrap().len(), 0);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    application.run("INSERT INTO t VALUES('third');");
    sandbox.run(&["checkpoint", "--truncate", "--db", db]).expect_code(0);
    assert_eq!(wal(&sandbox).metadata().unwrap().len(), 0);
    application.run("BEGIN; SELECT * FROM t;");
    sandbox.application(Sqlite::Python).run("INSERT INTO t VALUES('fourth');");
    let kept = ["checkpoint", "--truncate", "--db", db, "--timeout", "100ms"];
    sandbox.run(&kept).expect_code(3).expect_words(&["long read"]);
    application.run("COMMIT;");
    replicator.stop();
    assert!(contents_of(&sandbox.restore(&[]).0).contains("fourth"));
    application.run("PRAGMA journal_mode=DELETE;");
    application.close();
    let refused = sandbox.run(&["checkpoint", "--truncate", "--db", db]).expect_code(3);
    assert!(!refused.stderr.contains("--set-wal"), "{}", refused.stderr);
    refused.expect_words(&["not in WAL mode", "no WAL to empty"]);
}
