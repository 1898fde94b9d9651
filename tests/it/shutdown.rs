//! The end: everything committed is in the replica, and nothing of ours in the database.

use rustix::process::Signal;

use crate::kill::Writer;
use crate::support::{Sandbox, Sqlite, contents_of};

/// The application goes on through the end, so every moment of it is a chance to lose a commit; and
/// all but the first waits for an upload that is not due yet.
fn everything_until_the_signal(signal: Signal) {
    let sandbox = Sandbox::new();
    let writer = Writer::create(&sandbox);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&["--sync-interval", "5m"]));
    replicator.wait_until_followed();
    let running = writer.start(1);
    writer.wait_for(60);
    let acknowledged = writer.acknowledged();
    replicator.signal(signal);
    replicator.wait().expect_code(0).expect_words(&["everything committed is in the replica"]);
    let (restored, _) = sandbox.restore(&[]);
    let found = Writer::step_of(&restored);
    assert!(found >= acknowledged, "{acknowledged} was committed before {signal:?}, found {found}");
    assert!(found <= writer.acknowledged() + 1);
    running.stop();
}

#[test]
fn after_term() {
    everything_until_the_signal(Signal::TERM);
}

#[test]
fn after_int() {
    everything_until_the_signal(Signal::INT);
}

#[test]
fn after_hup() {
    everything_until_the_signal(Signal::HUP);
}

/// As `nohup` starts it.
#[test]
fn what_is_ignored_stays_ignored() {
    let sandbox = Sandbox::with_database();
    let replicate = sandbox.replicate_command(&[]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.arg(replicate.get_program()).args(replicate.get_args());
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    assert!(replicator.listens_for(Signal::TERM) && !replicator.listens_for(Signal::HUP));
    replicator.signal(Signal::HUP);
    sandbox.application(Sqlite::Shell).run("INSERT INTO t VALUES('later');");
    sandbox.wait_for_txid(2);
    assert!(replicator.ended().is_none());
    replicator.stop();
}

#[test]
fn a_quiet_database_is_not_touched_at_all() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES(1);");
    application.run("INSERT INTO t VALUES(2); PRAGMA wal_checkpoint;");
    let files = [sandbox.db.clone(), sandbox.path("app/app.db-wal")];
    let bytes = || files.clone().map(|path| std::fs::read(path).unwrap());
    let before = bytes();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    replicator.stop();
    assert!(bytes() == before);
    // Nor when we are the last to leave: nothing is checkpointed, nothing deleted.
    application.kill();
    sandbox.replicate().stop();
    assert!(bytes() == before);
}

#[test]
fn only_the_applications_commits_are_in_the_database() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); PRAGMA user_version=7;");
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    let before = std::fs::read(&sandbox.db).unwrap();
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES(1);");
    application.close();
    replicator.stop();
    // The WAL is where the application left it.
    assert!(sandbox.path("app/app.db-wal").metadata().unwrap().len() > 32);

    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    let after = std::fs::read(&sandbox.db).unwrap();
    assert!(after[..100] == before[..100], "the header of the database");
    let expected = "table t: CREATE TABLE t(a)\nt Integer(1)\n";
    assert_eq!(contents_of(&sandbox.db), expected);
}

/// A replica that was wiped, or whose volume went away and left an empty mount point: a segment is
/// worth nothing without what it rests on, so this is a new snapshot or a failure.
#[test]
fn a_replica_that_was_wiped_meanwhile() {
    let sandbox = Sandbox::with_database();
    let mut command = sandbox.replicate_command(&["--shutdown-timeout", "2s"]);
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    std::fs::remove_dir_all(&sandbox.replica).unwrap();
    sandbox.application(Sqlite::Shell).run("INSERT INTO t VALUES('after');");
    replicator.signal(Signal::TERM);
    let ended = replicator.wait();
    if ended.code == 0 {
        assert!(contents_of(&sandbox.restore(&[]).0).contains("after"));
    } else {
        let words = ["not everything that was committed is in the replica", "genesis.json is gone"];
        ended.expect_code(75).expect_words(&words);
    }
}
