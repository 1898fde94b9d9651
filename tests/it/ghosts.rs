//! Writers killed at each system call of a commit, above all between its last frame and its
//! publication: such a *ghost* is whole in the WAL, and no commit until a recovery makes it one. What
//! is restored is what the next connection sees, whatever that is.

use std::process::Command;

use crate::support::{
    Process, Sandbox, Sqlite, assert_same, can_trace, contents, contents_of, killed_at, wait_until,
};

/// Durable, so that the frames are synced before the commit is published.
const COMMIT: &str = "PRAGMA synchronous=FULL; INSERT INTO t VALUES(";

/// Runs a writer that is killed at its `n`-th `call`; false when it was not, for it makes fewer.
fn kill_writer(sandbox: &Sandbox, call: &str, n: u32) -> bool {
    let mut writer = Command::new("sqlite3");
    writer.args(["-batch", "-bail", "-cmd", ".timeout 5000"]).arg(&sandbox.db);
    writer.arg(format!("{COMMIT}'{call} {n}' || hex(randomblob(3000)));"));
    let code = sandbox.start(&mut killed_at(&writer, call, n)).wait().code;
    assert!([0, 137].contains(&code), "{call} {n}: {code}");
    assert!(n < 100, "{call} has no end");
    code == 137
}

/// Every call of a commit and how often it comes, until the writer ends before.
fn each_call(sandbox: &Sandbox, calls: &[&str], mut then: impl FnMut(&str, u32)) {
    for call in calls {
        for n in 1.. {
            if !kill_writer(sandbox, call, n) {
                assert!(n > 1, "no {call} at all");
                break;
            }
            then(call, n);
        }
    }
}

/// What a new connection sees.
fn seen(sandbox: &Sandbox) -> String {
    let application = sandbox.application(Sqlite::Bundled);
    let seen = contents(application.connection());
    application.close();
    seen
}

/// Waits until what is restored is what a new connection sees.
#[track_caller]
fn wait_until_restored(sandbox: &Sandbox, what: &str) {
    let expected = seen(sandbox);
    wait_until(what, || (contents_of(&sandbox.restore(&[]).0) == expected).then_some(()));
}

fn rows(sandbox: &Sandbox) -> u64 {
    seen(sandbox).lines().filter(|line| line.starts_with("t '")).count() as u64
}

/// Every row is one transaction, and none was recorded that is not a row.
#[track_caller]
fn finish(sandbox: &Sandbox, before: u64, replicator: Process) {
    let ended = replicator.stop();
    assert_same(&contents_of(&sandbox.restore(&[]).0), &seen(sandbox), "the restored database");
    assert_eq!(sandbox.generations().len(), 1, "{}", ended.stderr);
    assert_eq!(sandbox.last_txid().unwrap() - 1, rows(sandbox) - before, "{}", ended.stderr);
}

/// The wal-index as a writer leaves it that is killed between the two copies of its header.
fn tear_index(sandbox: &Sandbox) {
    let tear =
        "import sys; file = open(sys.argv[1], 'r+b'); file.seek(48 + 8); file.write(b'torn')";
    let mut command = Command::new("python3");
    command.args(["-c", tear]).arg(sandbox.path("app/app.db-shm"));
    assert!(command.status().unwrap().success());
}

/// Somebody else stays connected: nothing is recovered, and the next writer overwrites the ghost.
#[test]
fn overwritten_by_the_next_writer() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut witness = sandbox.application(Sqlite::Python);
    let before = rows(&sandbox);
    let replicator = sandbox.replicate();
    let mut killed = 0;
    each_call(&sandbox, &["pwrite64", "fdatasync", "fcntl"], |call, n| {
        killed += 1;
        if killed % 2 == 0 {
            witness.run(&format!("{COMMIT}'after {call} {n}');"));
        } else if killed % 3 == 0 {
            sandbox.application(Sqlite::Shell).run(&format!("{COMMIT}'after {call} {n}');"));
        }
        if killed % 4 == 0 {
            wait_until_restored(&sandbox, &format!("what is seen after {call} {n}"));
        }
    });
    eprintln!("{killed} writers killed");
    finish(&sandbox, before, replicator);
}

/// A recovery in place, under our reader, makes the ghost a commit like any other.
#[test]
fn made_a_commit_by_a_recovery_in_place() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut witness = sandbox.application(Sqlite::Python);
    let before = rows(&sandbox);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    let mut resurrected = 0;
    each_call(&sandbox, &["pwrite64", "fdatasync"], |call, n| {
        let visible = rows(&sandbox);
        tear_index(&sandbox);
        resurrected += rows(&sandbox) - visible;
        wait_until_restored(&sandbox, &format!("what is seen after {call} {n}"));
        witness.run(&format!("{COMMIT}'after {call} {n}');"));
    });
    eprintln!("{resurrected} ghosts became commits");
    assert!(resurrected > 0);
    finish(&sandbox, before, replicator);
}

/// Nobody looked when the writer was killed; with somebody connected, or with nobody.
#[test]
fn found_at_the_start() {
    if !can_trace() {
        return;
    }
    for witnessed in [true, false] {
        let sandbox = Sandbox::with_database();
        let application = sandbox.application(Sqlite::Python);
        let witness = witnessed.then_some(application);
        sandbox.replicate().stop();
        each_call(&sandbox, &["pwrite64", "fdatasync"], |call, n| {
            sandbox.replicate().stop();
            let what = format!("what is seen after {call} {n}");
            assert_same(&contents_of(&sandbox.restore(&[]).0), &seen(&sandbox), &what);
        });
        if let Some(mut witness) = witness {
            let replicator = sandbox.replicate();
            witness.run(&format!("{COMMIT}'last');"));
            replicator.stop();
            let restored = contents_of(&sandbox.restore(&[]).0);
            assert_same(&restored, &seen(&sandbox), "what is seen at the end");
        }
    }
}
