//! `exec`: the application's own end, and everything that it committed.

mod missing;
mod signals;
mod surroundings;

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{Ended, Process, Sandbox, Sqlite, contents_of, write};

/// Runs an application to its end.
fn exec(sandbox: &Sandbox, application: &[&str]) -> Ended {
    sandbox.start(&mut sandbox.exec_command(&[], application)).wait()
}

/// Runs a shell script that knows the database as `$DB`.
fn exec_script(sandbox: &Sandbox, more: &[&str], script: &str) -> Ended {
    let mut command = sandbox.exec_command(more, &["sh", "-c", script]);
    sandbox.start(command.env("DB", &sandbox.db)).wait()
}

#[test]
fn the_exit_code_is_the_applications() {
    let sandbox = Sandbox::with_database();
    for code in [0, 1, 7, 255] {
        exec(&sandbox, &["sh", "-c", &format!("exit {code}")]).expect_code(code);
    }
    exec(&sandbox, &["sh", "-c", "kill -KILL $$"]).expect_code(128 + 9);
    exec(&sandbox, &["sh", "-c", "kill -SEGV $$"]).expect_code(128 + 11);
    exec(&sandbox, &["no-such-command"]).expect_code(127).expect_words(&["no-such-command"]);
    let missing = sandbox.path("no/such/command");
    exec(&sandbox, &[missing.to_str().unwrap()]).expect_code(127);
    File::create(sandbox.path("not-executable")).unwrap();
    exec(&sandbox, &[sandbox.path("not-executable").to_str().unwrap()]).expect_code(126);
}

/// What was committed before is in the replica, and the replica is left to others, also where nothing can
/// be started.
#[test]
fn a_command_that_cannot_be_started() {
    let sandbox = Sandbox::with_database();
    let ended = exec(&sandbox, &["no-such-command"]).expect_code(127);
    ended.expect_words(&["cannot start no-such-command", "everything committed is in the replica"]);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("first"));
}

/// As some supervisors start what they supervise.
#[test]
fn where_the_ends_of_children_are_ignored() {
    let ignore = "import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])";
    let sandbox = Sandbox::with_database();
    let insert = "sqlite3 \"$DB\" \"INSERT INTO t VALUES('shipped')\"; exit 3";
    let exec = sandbox.exec_command(&[], &["sh", "-c", insert]);
    let mut command = std::process::Command::new("python3");
    command.args(["-c", ignore]).arg(exec.get_program()).args(exec.get_args());
    sandbox.start(command.env("DB", &sandbox.db)).wait().expect_code(3);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("shipped"));
}

#[test]
fn input_and_output_are_the_applications() {
    let sandbox = Sandbox::with_database();
    let letter = sandbox.path("letter");
    write(&letter, "dear reader\n");
    let mut command =
        sandbox.exec_command(&[], &["sh", "-c", "cat; echo oops >&2; echo \"$@\"", "0", "a b", ""]);
    let mut process = sandbox.start(command.stdin(Stdio::from(File::open(letter).unwrap())));
    let ended = process.wait().expect_code(0).expect_words(&["oops\n"]);
    assert_eq!(ended.stdout, "dear reader\na b \n");
}

#[test]
fn commits_of_an_application_that_ends_at_once() {
    let sandbox = Sandbox::with_database();
    let insert = "sqlite3 \"$DB\" \"INSERT INTO t VALUES('quick')\"";
    exec_script(&sandbox, &[], insert).expect_code(0);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("quick"));
    exec_script(&sandbox, &[], &format!("{}; exit 3", insert.replace("quick", "failed")))
        .expect_code(3);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("failed"));
}

#[test]
fn what_was_unshipped_is_shipped_by_an_application_that_does_nothing() {
    let sandbox = Sandbox::with_database();
    exec(&sandbox, &["true"]).expect_code(0);
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('while nobody looked');");
    application.close();
    exec(&sandbox, &["true"]).expect_code(0);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("while nobody looked"));
}

#[test]
fn a_database_that_the_application_creates() {
    let sandbox = Sandbox::new();
    let create = "sqlite3 \"$DB\" \"PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('born')\"";
    exec_script(&sandbox, &[], create).expect_code(0);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("born"));
}

/// Such a database cannot be followed. It is the application's to decide, but not in silence.
#[test]
fn a_database_that_the_application_never_switches_to_wal() {
    let sandbox = Sandbox::new();
    let create = "sqlite3 \"$DB\" \"CREATE TABLE t(a); INSERT INTO t VALUES('unprotected')\"";
    let ended = exec_script(&sandbox, &[], create);
    assert!(!ended.stderr.contains("everything committed is in the replica"), "{ended:?}");
    ended.expect_words(&["app.db is not in WAL mode", "--set-wal"]);
}

#[test]
fn a_database_that_the_application_creates_and_goes_on_with() {
    let sandbox = Sandbox::new();
    let application = "
import os, sqlite3, sys, time
c = sqlite3.connect(os.environ['DB'], isolation_level=None)
c.execute('PRAGMA journal_mode=WAL')
c.execute('CREATE TABLE t(a)')
for n in range(50):
    c.execute('INSERT INTO t VALUES(?)', (n,))
sys.stdin.read()
for n in range(50):
    c.execute('INSERT INTO t VALUES(?)', (n,))
c.execute(\"INSERT INTO t VALUES('last')\")
os._exit(5)
";
    let mut command = sandbox.exec_command(&[], &["python3", "-c", application]);
    let mut process = sandbox.start(command.env("DB", &sandbox.db).stdin(Stdio::piped()));
    process.wait_for_log("a new generation begins");
    process.close_input();
    process.wait().expect_code(5);
    let contents = contents_of(&sandbox.restore(&[]).0);
    assert_eq!(contents.lines().count(), 102, "{contents}");
}

#[test]
fn a_replica_that_cannot_be_reached_at_the_end() {
    let sandbox = Sandbox::with_database();
    File::create(&sandbox.replica).unwrap();
    let patience = ["--shutdown-timeout", "500ms"];
    let insert = "sqlite3 \"$DB\" \"INSERT INTO t VALUES('kept')\"";
    let ended = exec_script(&sandbox, &patience, insert).expect_code(75);
    ended.expect_words(&["not everything that was committed is in the replica", "in time"]);
    exec_script(&sandbox, &patience, "exit 3").expect_code(3);

    // It comes back, and the next run makes up for it.
    std::fs::remove_file(&sandbox.replica).unwrap();
    exec(&sandbox, &["true"]).expect_code(0);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("kept"));
}

/// It takes connections and never says a word. The application does not notice.
#[test]
fn a_replica_that_never_answers() {
    let sandbox = Sandbox::with_database();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("s3://bucket/app?endpoint=http://{}", silent.local_addr().unwrap());
    let db = sandbox.db.to_str().unwrap();
    let exec = ["exec", "--db", db, "--replica", &address, "--shutdown-timeout", "500ms", "--"];
    let mut command = Process::command([&exec[..], &["sh", "-c", "echo here; exit 0"]].concat());
    command.env("AWS_ACCESS_KEY_ID", "id").env("AWS_SECRET_ACCESS_KEY", "secret");
    let begun = clock::monotonic();
    let ended = sandbox.start(&mut command).wait().expect_code(75);
    // A request that is not answered takes longer.
    assert!(clock::monotonic() < begun + Duration::from_secs(14));
    assert_eq!(ended.stdout, "here\n");
    ended.expect_words(&["in time", "nothing of it is known to be there"]);
}

/// What is sealed and not uploaded waits in the spool, and goes up one by one. The replica goes once
/// nothing is on its way.
#[test]
fn a_replica_that_goes_away_and_comes_back() {
    let sandbox = Sandbox::with_database();
    let hide = sandbox.path("hidden");
    let script = format!(
        "sqlite3 \"$DB\" \"INSERT INTO t VALUES('here')\"
         until ls {replica}/*/wal/00/*.seg && ! ls {state}/spool/*/wal/00/*.seg; do
             sleep 0.01
         done >/dev/null 2>&1
         mv {replica} {hide}; : >{replica}
         for n in 1 2 3; do sqlite3 \"$DB\" \"INSERT INTO t VALUES('away $n')\"; done",
        replica = sandbox.replica.display(),
        state = sandbox.state().display(),
        hide = hide.display(),
    );
    exec_script(&sandbox, &["--shutdown-timeout", "500ms"], &script).expect_code(75);
    std::fs::remove_file(&sandbox.replica).unwrap();
    assert!(
        std::process::Command::new("mv")
            .args([&hide, &sandbox.replica])
            .status()
            .unwrap()
            .success()
    );
    exec(&sandbox, &["true"]).expect_code(0);
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(5)));
    for txid in 1..=5_u64 {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert_eq!(contents_of(&restored).matches("\nt '").count() as u64, txid);
    }
}
