//! While the replica does not answer, the application goes on as without us.

use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::OFlags;

use crate::support::{
    Application, Process, Sandbox, Sqlite, contents, contents_of, files_below, rename, same_bytes,
    wait_until, write,
};

/// A replica that does not answer: opening a pipe waits for a writer.
struct Silence {
    description: PathBuf,
    kept: PathBuf,
}

#[allow(clippy::disallowed_methods, reason = "no file of a running database")]
impl Silence {
    fn begin(replica: &Path) -> Self {
        let (description, kept) = (replica.join("genesis.json"), replica.join("kept"));
        std::fs::create_dir_all(replica).unwrap();
        std::fs::rename(&description, &kept).ok();
        assert!(Command::new("mkfifo").arg(&description).status().unwrap().success());
        Self { description, kept }
    }

    /// From here on the replica answers.
    fn end(self) {
        let pipe = self.description.with_file_name("pipe");
        std::fs::rename(&self.description, &pipe).unwrap();
        std::fs::rename(&self.kept, &self.description).ok();
        // Nobody may have come to it yet.
        let nobody_is_waited_for = OFlags::NONBLOCK.bits().cast_signed();
        std::fs::OpenOptions::new().write(true).custom_flags(nobody_is_waited_for).open(&pipe).ok();
        std::fs::remove_file(pipe).unwrap();
    }
}

fn write_megabytes(application: &mut Application, count: u32) {
    for _ in 0..count {
        application.run("INSERT INTO t VALUES (hex(randomblob(500000)));");
    }
}

fn wal_bytes(sandbox: &Sandbox) -> u64 {
    sandbox.db.with_file_name("app.db-wal").metadata().unwrap().len()
}

/// What tells a WAL from the one before it.
fn salts(sandbox: &Sandbox) -> Vec<u8> {
    let wal = std::fs::read(sandbox.db.with_file_name("app.db-wal")).unwrap();
    wal.get(16..24).unwrap_or_default().to_vec()
}

/// An operator's checkpoint, which waits up to five seconds for others.
fn truncate(sandbox: &Sandbox) {
    wait_until("an empty WAL", || {
        let mut shell = Command::new("sqlite3");
        shell.args(["-cmd", ".timeout 5000"]).arg(&sandbox.db);
        let done = shell.arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        // One that meets another checkpoint is told so at once; no other may fail.
        assert!(["0|0|0\n", "1|-1|-1\n"].contains(&&*said), "{said}");
        said.starts_with('0').then_some(())
    });
}

fn follow(sandbox: &Sandbox, more: &[&str]) -> Process {
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(more));
    replicator.wait_until_followed();
    replicator
}

#[test]
fn the_wal_stays_small() {
    let sandbox = Sandbox::with_database();
    let silence = Silence::begin(&sandbox.replica);
    let replicator = follow(&sandbox, &["--wal-limit", "4MB"]);
    let mut application = sandbox.application(Sqlite::Bundled);
    for _ in 0..5 {
        let before = salts(&sandbox);
        write_megabytes(&mut application, 20);
        wait_until("a WAL that begins anew", || {
            application.run("INSERT INTO t VALUES ('small');");
            (salts(&sandbox) != before).then_some(())
        });
    }
    let bytes = wal_bytes(&sandbox);
    assert!(bytes < 60_000_000, "of 100 MB the WAL has {bytes} bytes");
    drop((replicator, silence));
}

#[test]
fn an_operator_empties_the_wal() {
    for limit in ["4MB", "0"] {
        let sandbox = Sandbox::with_database();
        let silence = Silence::begin(&sandbox.replica);
        let replicator = follow(&sandbox, &["--wal-limit", limit]);
        let mut application = sandbox.application(Sqlite::Bundled);
        write_megabytes(&mut application, 3);
        truncate(&sandbox);
        assert_eq!(wal_bytes(&sandbox), 0);
        write_megabytes(&mut application, 50);
        truncate(&sandbox);
        assert_eq!(wal_bytes(&sandbox), 0);
        drop((replicator, silence));
    }
}

/// A host whose replica holds all that it has committed, and does not answer; the last transaction.
fn silenced(megabytes: u32) -> (Sandbox, Application, Silence, u64) {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let replicator = sandbox.replicate();
    // What is committed during the first snapshot is in that, and in no segment.
    sandbox.wait_for_txid(1);
    write_megabytes(&mut application, megabytes);
    replicator.stop();
    let (last, silence) = (sandbox.last_txid().unwrap(), Silence::begin(&sandbox.replica));
    (sandbox, application, silence, last)
}

fn state_of(application: &Application) -> String {
    let Application::Inside(connection) = application else { panic!("no connection here") };
    contents(connection)
}

/// Commits more than the WAL may hold, and empties it; the state after each transaction.
fn commit_and_truncate(sandbox: &Sandbox, application: &mut Application) -> Vec<String> {
    let mut states = Vec::new();
    for _ in 0..5 {
        write_megabytes(application, 1);
        states.push(state_of(application));
    }
    truncate(sandbox);
    application.run("INSERT INTO t VALUES ('after');");
    states.push(state_of(application));
    states
}

/// Each of the transactions after `last` is in the replica by itself, and none after them.
fn assert_one_by_one(sandbox: &Sandbox, last: u64, states: &[String]) {
    for (txid, expected) in (last + 1..).zip(states) {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert_eq!(&contents_of(&restored), expected, "transaction {txid}");
    }
    assert_eq!(sandbox.last_txid(), Some(last + states.len() as u64));
    assert_eq!(sandbox.generations().len(), 1);
}

#[test]
fn who_recorded_last_records_each_commit_before_the_answer() {
    let (sandbox, mut application, silence, last) = silenced(3);
    let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
    let mut states = commit_and_truncate(&sandbox, &mut application);
    replicator.wait_for_log("is recorded in the spool");
    states.extend(commit_and_truncate(&sandbox, &mut application));
    silence.end();
    sandbox.wait_for_txid(last + states.len() as u64);
    application.run("INSERT INTO t VALUES ('last');");
    states.push(state_of(&application));
    replicator.stop().expect_code(0);
    assert_one_by_one(&sandbox, last, &states);
}

#[test]
fn what_was_recorded_before_the_answer_outlives_a_kill() {
    let (sandbox, mut application, silence, last) = silenced(3);
    let mut states = Vec::new();
    for _ in 0..3 {
        let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
        states.extend(commit_and_truncate(&sandbox, &mut application));
        replicator.wait_for_log("is recorded in the spool");
        let last = format!("-{:020}-", last + states.len() as u64);
        wait_until("the last commit in the spool", || {
            let files = files_below(&sandbox.state().join("spool"));
            files.iter().any(|file| file.contains(&last)).then_some(())
        });
        replicator.kill();
    }
    let replicator = follow(&sandbox, &[]);
    silence.end();
    sandbox.wait_for_txid(last + states.len() as u64);
    replicator.stop().expect_code(0);
    assert_one_by_one(&sandbox, last, &states);
}

/// Somebody wrote into the database file past SQLite: nothing continues what was recorded then.
#[test]
fn what_is_overwritten_before_the_answer_is_found_after_it() {
    let (sandbox, mut application, silence, _) = silenced(3);
    let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
    commit_and_truncate(&sandbox, &mut application);
    replicator.wait_for_log("is recorded in the spool");
    let file = std::fs::OpenOptions::new().write(true).open(&sandbox.db).unwrap();
    wait_until("a word of it", || {
        // In the middle of a text.
        file.write_all_at(&[b'z'; 100], 100 * 4096 + 2000).unwrap();
        (replicator.logged("THE DATABASE FILE WAS WRITTEN TO") > 0).then_some(())
    });
    silence.end();
    replicator.wait_for_log("recorded in one");
    replicator.stop().expect_code(0);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db));
}

/// Who went on meanwhile is not overwritten, and what was recorded without knowing of them is put aside.
#[test]
fn what_was_recorded_before_the_answer_gives_way_to_another_writer() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    application.run("INSERT INTO t VALUES ('here and there');");
    replicator.stop();
    let other =
        Sandbox::new().with_replica(sandbox.replica.with_file_name("away").to_str().unwrap());
    for name in ["app.db", "app.db-wal"] {
        write(
            &other.db.with_file_name(name),
            std::fs::read(sandbox.db.with_file_name(name)).unwrap(),
        );
    }
    rename(&sandbox.replica, &other.replica);
    let silence = Silence::begin(&sandbox.replica);
    let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
    commit_and_truncate(&sandbox, &mut application);
    replicator.wait_for_log("is recorded in the spool");

    let mut elsewhere = other.replicate();
    elsewhere.wait_until_followed();
    other.application(Sqlite::Bundled).run("INSERT INTO t VALUES ('elsewhere');");
    elsewhere.stop().expect_code(0);
    let theirs = other.last_txid().unwrap();
    let expected = contents_of(&other.restore(&[]).0);

    rename(&sandbox.replica, &sandbox.replica.with_file_name("silent"));
    rename(&other.replica, &sandbox.replica);
    Silence {
        description: sandbox.replica.with_file_name("silent").join("genesis.json"),
        ..silence
    }
    .end();
    replicator.wait_for_log("continues nothing: put aside");
    // Of the few pages that there were most have changed.
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop().expect_code(0);
    assert_eq!(contents_of(&sandbox.restore(&[]).0), state_of(&application));
    assert_eq!(contents_of(&sandbox.restore(&["--txid", &theirs.to_string()]).0), expected);
}

/// Where local state does not tell what was recorded last, what the WAL could not keep is recorded in one, on
/// the same line of history.
#[test]
fn what_was_committed_before_the_answer_is_in_the_replica_after_it() {
    let no_table = |sandbox: &Sandbox| std::fs::remove_file(sandbox.state().join("table")).unwrap();
    let last_kept = |sandbox: &Sandbox| {
        let kept = sandbox.state().join("spool/shipped");
        kept.join(files_below(&kept).last().unwrap())
    };
    let damaged_segment = |sandbox: &Sandbox| {
        let mut bytes = std::fs::read(last_kept(sandbox)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        write(&last_kept(sandbox), bytes);
    };
    let lost_segment = |sandbox: &Sandbox| std::fs::remove_file(last_kept(sandbox)).unwrap();
    let ways: [&dyn Fn(&Sandbox); 3] = [&no_table, &damaged_segment, &lost_segment];
    for forget in ways {
        let (sandbox, mut application, silence, _) = silenced(20);
        forget(&sandbox);
        let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
        write_megabytes(&mut application, 5);
        replicator.wait_for_log("will not be recorded commit by commit");
        truncate(&sandbox);
        application.run("INSERT INTO t VALUES ('after');");
        silence.end();
        replicator.wait_for_log("recorded in one");
        application.run("INSERT INTO t VALUES ('last');");
        let expected = state_of(&application);
        replicator.stop().expect_code(0);
        assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
        assert_eq!(sandbox.generations().len(), 1);
    }
}

/// Where nobody is in want, every commit is kept for the answer.
#[test]
fn few_commits_before_the_answer_are_recorded_one_by_one() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    replicator.stop();
    let before = sandbox.last_txid().unwrap();
    let silence = Silence::begin(&sandbox.replica);
    let replicator = follow(&sandbox, &[]);
    for _ in 0..30 {
        application.run("INSERT INTO t VALUES ('one');");
    }
    silence.end();
    sandbox.wait_for_txid(before + 30);
    replicator.stop().expect_code(0);
    assert_eq!(sandbox.last_txid(), Some(before + 30));
}

/// A database that goes away is told of, whether the replica answers or not.
#[test]
fn a_database_that_is_deleted_ends_it() {
    let sandbox = Sandbox::with_database();
    let _silence = Silence::begin(&sandbox.replica);
    let mut replicator = follow(&sandbox, &[]);
    std::fs::remove_file(&sandbox.db).unwrap();
    replicator.wait_for_log("deleted or renamed");
}
