//! While the replica does not answer, the application goes on as without us.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Application, Process, Sandbox, Sqlite, contents, contents_of, wait_until};

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
        std::fs::rename(&self.kept, &self.description).unwrap();
        drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
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

/// What it let pass is recorded in one, on the same line of history.
#[test]
fn what_was_committed_before_the_answer_is_in_the_replica_after_it() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let replicator = sandbox.replicate();
    write_megabytes(&mut application, 20);
    replicator.stop();
    let silence = Silence::begin(&sandbox.replica);
    let mut replicator = follow(&sandbox, &["--wal-limit", "1MB"]);
    write_megabytes(&mut application, 5);
    replicator.wait_for_log("the replica has not answered yet");
    truncate(&sandbox);
    application.run("INSERT INTO t VALUES ('after');");
    silence.end();
    replicator.wait_for_log("recorded in one");
    application.run("INSERT INTO t VALUES ('last');");
    let Application::Inside(connection) = &application else { panic!("no connection here") };
    let expected = contents(connection);
    replicator.stop().expect_code(0);
    assert_eq!(contents_of(&sandbox.restore(&[]).0), expected);
    assert_eq!(sandbox.generations().len(), 1);
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
