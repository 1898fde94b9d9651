//! Where a database may be, and when it may come.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{
    Application, Process, Sandbox, Sqlite, assert_same, contents_of, mode, same_bytes, wait_until,
};

const MAKE: &str = "PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('first');";

/// Commits, ends everything, and compares what is restored with the database.
fn finish(sandbox: &Sandbox, mut application: Application, replicator: Process) {
    application.run("INSERT INTO t VALUES('last');");
    replicator.stop();
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    let (restored, _) = sandbox.restore(&[]);
    assert!(same_bytes(&restored, &sandbox.db));
    assert!(contents_of(&restored).contains("last"));
}

#[test]
fn a_database_that_comes_late() {
    let sandbox = Sandbox::new();
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&[]));
    replicator.wait_for_log("waiting for the database");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(MAKE);
    replicator.wait_until_followed();
    finish(&sandbox, application, replicator);
}

#[test]
fn an_empty_file_is_waited_for() {
    let sandbox = Sandbox::new();
    std::fs::File::create(&sandbox.db).unwrap();
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&[]));
    replicator.wait_for_log("is empty");
    let mut application = sandbox.application(Sqlite::Python);
    application.run(MAKE);
    replicator.wait_until_followed();
    finish(&sandbox, application, replicator);
}

#[test]
fn a_database_that_never_comes_is_no_failure() {
    let sandbox = Sandbox::new();
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&[]));
    replicator.wait_for_log("waiting for the database");
    replicator.stop();
    assert!(!sandbox.db.exists());
}

#[test]
fn an_empty_wal() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(MAKE);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    let wal = sandbox.path("app/app.db-wal");
    assert_eq!(wal.metadata().unwrap().len(), 0);
    let replicator = sandbox.replicate();
    finish(&sandbox, application, replicator);
}

#[test]
fn a_wal_that_waits_for_recovery() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(MAKE);
    application.run("INSERT INTO t VALUES('only in the WAL');");
    application.kill();
    assert!(sandbox.path("app/app.db-wal").metadata().unwrap().len() > 0);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    let (restored, _) = sandbox.restore(&[]);
    assert!(contents_of(&restored).contains("only in the WAL"));
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
}

#[test]
fn a_rollback_journal_is_switched_only_when_told() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("CREATE TABLE t(a); INSERT INTO t VALUES('first');");
    application.close();
    let refused = sandbox.replicate_fails(&[]).expect_code(3);
    refused.expect_words(&["is not in WAL mode", "delete", "--set-wal"]);
    assert_eq!(std::fs::read(&sandbox.db).unwrap()[18..20], [1, 1]);

    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&["--set-wal"]));
    replicator.wait_until_followed();
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
}

#[test]
fn names_with_a_meaning_elsewhere() {
    for name in
        ["with space.db", "ünï-数据.db", "50%20.db", "what?.db", "a#b.db", "a&b=c;d.db", "'q\"'.db"]
    {
        let sandbox = Sandbox::named(name);
        let mut application = sandbox.application(Sqlite::Shell);
        application.run(MAKE);
        let replicator = sandbox.replicate();
        assert_eq!(mode(&sandbox.state()), 0o700, "{name}");
        finish(&sandbox, application, replicator);
    }
}

#[test]
fn relative_paths() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(MAKE);
    let mut command = Process::command(["replicate", "--db", "app.db", "--replica", "../replica"]);
    let mut replicator = sandbox.start(command.current_dir(sandbox.path("app")));
    replicator.wait_until_followed();
    finish(&sandbox, application, replicator);

    let arguments = ["restore", "../replica", "--output", "here.db"];
    let mut restore = Process::command(arguments);
    sandbox.start(restore.current_dir(sandbox.path("app"))).wait().expect_code(0);
    assert!(same_bytes(&sandbox.path("app/here.db"), &sandbox.db));
}

#[test]
fn a_file_url() {
    let sandbox = Sandbox::with_database();
    let url = format!("file://{}", sandbox.replica.display());
    let mut command = Process::command(["replicate", "--db"]);
    let mut replicator = sandbox.start(command.arg(&sandbox.db).args(["--replica", &url]));
    replicator.wait_until_followed();
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
}

/// `SQLite` keeps the WAL where the database really is, and so do we.
#[test]
fn a_symbolic_link() {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(MAKE);
    let link = sandbox.path("link.db");
    std::os::unix::fs::symlink(&sandbox.db, &link).unwrap();
    let mut command = Process::command(["replicate", "--db"]);
    let command = command.arg(&link).arg("--replica").arg(&sandbox.replica);
    let mut replicator = sandbox.start(command);
    replicator.wait_until_followed();
    assert!(sandbox.state().is_dir() && !sandbox.path(".link.db-genesis").exists());
    let second = sandbox.replicate_fails(&[]).expect_code(7);
    second.expect_words(&[&format!("process {}", replicator.id())]);
    finish(&sandbox, application, replicator);
    assert!(!sandbox.path("link.db-wal").exists());
}

#[test]
fn the_state_folder_can_be_elsewhere() {
    let sandbox = Sandbox::with_database();
    let state = sandbox.path("elsewhere/state");
    let more = ["--state-dir", state.to_str().unwrap()];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_until_followed();
    assert_eq!(mode(&state), 0o700);
    assert!(!sandbox.state().exists());
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
}

/// Whatever the umask lets through, nobody else may read a copy of the data.
#[test]
fn nobody_else_can_read_the_copies() {
    fn assert_private(folder: &Path) {
        assert_eq!(mode(folder), 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                assert_private(&path);
            } else {
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    let sandbox = Sandbox::with_database();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_genesis-replicate")]);
    command.args(["replicate", "--db"]).arg(&sandbox.db).arg("--replica").arg(&sandbox.replica);
    let mut replicator = sandbox.start(command.stdin(Stdio::null()));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
    assert_private(&sandbox.replica);
    assert_eq!(mode(&sandbox.state()), 0o700);
    assert_eq!(mode(&sandbox.state().join("lock")), 0o600);
}

/// An application that comes and goes is no reason to lose a commit.
#[test]
fn an_application_that_opens_and_closes_for_each_commit() {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    for n in 0..20 {
        let mut application = sandbox.application(Sqlite::Shell);
        application.run(&format!("INSERT INTO t VALUES({n});"));
        application.close();
    }
    wait_until("every commit", || sandbox.last_txid().filter(|last| *last == 21));
    let (restored, _) = sandbox.restore(&[]);
    finish(&sandbox, sandbox.application(Sqlite::Shell), replicator);
    let expected = contents_of(&restored) + "t 'last'\n";
    assert_same(&contents_of(&sandbox.db), &expected, "the database");
}
