//! The database is taken from under the program: replaced, renamed or deleted. That is a stop in
//! words, never another database's pages in this one's history.

use std::process::Command;
use std::time::Duration;

use crate::support::{
    Ended, Process, Sandbox, Sqlite, assert_same, contents, contents_of, same_bytes,
};

fn shell(command: &str, sandbox: &Sandbox) {
    let mut process = Command::new("sh");
    let done = process.args(["-ec", command]).current_dir(sandbox.path("app")).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}

/// A replicator whose replica holds a database of two commits, `first` and `second`.
fn replicated() -> (Sandbox, Process) {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    sandbox.application(Sqlite::Shell).run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    (sandbox, replicator)
}

/// The program ends by itself and says what happened; what it had is in the replica.
#[track_caller]
fn expect_stop(sandbox: &Sandbox, mut replicator: Process, any_of: &[&str]) -> Ended {
    let ended = replicator.wait().expect_code(3);
    assert!(ended.stderr.contains("app.db"), "{}", ended.stderr);
    let named = any_of.iter().any(|word| ended.stderr.contains(word));
    assert!(named, "none of {any_of:?} is in:\n{}", ended.stderr);
    let restored = contents_of(&sandbox.restore(&[]).0);
    assert!(restored.contains("'first'") && restored.contains("'second'"), "{restored}");
    assert!(!restored.contains("'other'"), "{restored}");
    ended
}

/// A start on what is there now keeps the old history, and begins another.
fn expect_a_new_start(sandbox: &Sandbox) {
    sandbox.replicate().stop();
    assert_eq!(sandbox.generations().len(), 2);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'other'"));
    let old = sandbox.restore(&["--generation", &sandbox.generations()[0]]).0;
    assert!(contents_of(&old).contains("'second'"));
}

const OTHER: &str = "sqlite3 other.db \
     \"PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('other'), (randomblob(20000));\"";

#[test]
fn replaced_by_another() {
    let (sandbox, replicator) = replicated();
    shell(OTHER, &sandbox);
    shell("mv other.db app.db", &sandbox);
    expect_stop(&sandbox, replicator, &["replaced", "another file"]);
    shell("rm -f app.db-wal app.db-shm", &sandbox);
    expect_a_new_start(&sandbox);
}

/// What replaces it is not ours to write, and what its old application has mapped is not ours to cut
/// off: not even when it is replaced before the first checkpoint, for which connections are opened on
/// demand, by path.
#[test]
fn what_replaces_it_is_not_written_to() {
    let sandbox = Sandbox::with_database();
    shell(OTHER, &sandbox);
    shell("cp other.db kept.db", &sandbox);
    let more = ["--wal-limit", "300KB", "--log-level", "debug"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_for_log("a new generation begins");
    // It writes to the file that it opened.
    let mut load = sandbox.load(Duration::from_micros(200));
    replicator.wait_for_log("shipped");
    shell("mv other.db app.db", &sandbox);
    let ended = replicator.wait();
    assert!(same_bytes(&sandbox.db, &sandbox.path("app/kept.db")), "{}", ended.stderr);
    ended.expect_code(3).expect_words(&["app.db", "replaced"]);
    assert!(load.ended().is_none(), "the application died");
}

/// As by a careful hand: with nothing of the old one left behind.
#[test]
fn replaced_with_all_that_belongs_to_it() {
    let (sandbox, replicator) = replicated();
    shell(OTHER, &sandbox);
    shell("rm app.db app.db-wal app.db-shm; mv other.db app.db", &sandbox);
    let mut application = sandbox.application(Sqlite::Python);
    application.run("INSERT INTO t VALUES('other');");
    expect_stop(&sandbox, replicator, &["replaced", "another file", "deleted", "gone"]);
    expect_a_new_start(&sandbox);
}

#[test]
fn deleted() {
    let (sandbox, replicator) = replicated();
    shell("rm app.db app.db-wal app.db-shm", &sandbox);
    expect_stop(&sandbox, replicator, &["deleted", "gone", "removed", "no longer"]);
}

#[test]
fn renamed_while_its_application_goes_on() {
    let (sandbox, replicator) = replicated();
    let mut application = sandbox.application(Sqlite::Python);
    application.run("INSERT INTO t VALUES('third');");
    shell("mv app.db moved.db", &sandbox);
    application.run("INSERT INTO t VALUES('fourth');");
    let words = ["renamed", "moved", "deleted", "gone", "removed", "no longer"];
    expect_stop(&sandbox, replicator, &words);
}

/// SQLite needs the database for itself to leave WAL mode, and we read it.
#[test]
fn no_rollback_journal_while_it_is_followed() {
    let (sandbox, replicator) = replicated();
    let mut shell = Command::new("sqlite3");
    let refused = shell.arg(&sandbox.db).arg("PRAGMA journal_mode=DELETE;").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("database is locked"), "{said}");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('third');");
    replicator.stop();
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'third'"));
    assert_eq!(sandbox.generations().len(), 1);
}

/// Once nobody follows it, a database may keep a rollback journal, and come back to a WAL of which
/// nothing is known. However the program ended: nothing is lost, and it is said that history breaks.
#[test]
fn a_rollback_journal_while_nobody_follows() {
    for end in [|replicator: Process| drop(replicator.stop()), Process::kill] {
        let (sandbox, replicator) = replicated();
        let mut application = sandbox.application(Sqlite::Shell);
        end(replicator);
        application.run("INSERT INTO t VALUES('third');");
        application.run("PRAGMA journal_mode=DELETE; INSERT INTO t VALUES('fourth');");
        let refused = sandbox.replicate_fails(&[]).expect_code(3);
        refused.expect_words(&["app.db is not in WAL mode: its journal mode is delete"]);
        application.run("DELETE FROM t WHERE a='first'; CREATE TABLE u(b);");
        application.run("PRAGMA journal_mode=WAL; INSERT INTO u VALUES('fifth');");
        let replicator = sandbox.replicate();
        application.run("INSERT INTO u VALUES('sixth');");
        let said = replicator.stop();
        said.expect_words(&["WARN", "the WAL does not reach back to what was recorded"]);

        let restored = contents_of(&sandbox.restore(&[]).0);
        let application = sandbox.application(Sqlite::Bundled);
        assert_same(&restored, &contents(application.connection()), "the restored database");
        assert!(restored.contains("'fourth'") && restored.contains("'sixth'"), "{restored}");
        let before = contents_of(&sandbox.restore(&["--txid", "2"]).0);
        assert!(before.contains("'second'") && !before.contains("'fourth'"), "{before}");
    }
}
