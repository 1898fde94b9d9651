//! Frames that can be read once, and then not any more.

use crate::support::{Process, Sandbox, Sqlite, can_trace, contents_of, failing_on};

/// Pages of a transaction that is encoded as several parts, of 1 MiB each.
const PAGES: u32 = 2100;

/// The reads of single frames that fail: after those of the first look at the transaction, which go
/// beyond the window of 4 MiB, and before the end of the second.
const FAILS: &str = "650";

/// A replicator that cannot read one frame of a large transaction when it has encoded half of it.
fn start(sandbox: &Sandbox, more: &[&str]) -> Process {
    start_injected(sandbox, &format!("retval=0:when={FAILS}"), more)
}

/// A replicator whose reads of the WAL come back otherwise.
fn start_injected(sandbox: &Sandbox, how: &str, more: &[&str]) -> Process {
    let wal = sandbox.db.with_file_name("app.db-wal");
    let command = sandbox.replicate_command(more);
    sandbox.start(&mut failing_on(&command, "pread64", how, &wal))
}

/// What was encoded of the transaction is taken back: the old history ends before it, whole, and what
/// follows begins anew with it.
#[test]
fn in_the_middle_of_a_transaction_of_several_parts() {
    if !can_trace() {
        return;
    }
    // Once in a segment of its own, and once in one that holds another transaction already.
    for (more, before) in [(&[][..], 1), (&["--sync-interval", "5m"], 2)] {
        let sandbox = Sandbox::with_database();
        let mut application = sandbox.application(Sqlite::Shell);
        let mut replicator = start(&sandbox, more);
        replicator.wait_until_followed();
        application.run("INSERT INTO t VALUES('before 1');");
        // It is shipped at once, and what follows within the interval is not.
        sandbox.wait_for_txid(2);
        if before == 2 {
            application.run("INSERT INTO t VALUES('before 2');");
        }
        application.run(&format!("INSERT INTO t VALUES(randomblob({PAGES} * 4092));"));
        replicator.wait_for_log("could not be read again");
        application.run("INSERT INTO t VALUES('after');");
        replicator.stop();

        let [old, _new] = &sandbox.generations()[..] else { panic!("not two generations") };
        let restored = contents_of(&sandbox.restore(&["--generation", old]).0);
        assert!(restored.contains(&format!("'before {before}'")), "{restored}");
        assert!(!restored.contains("Blob"), "half of a transaction");
        let restored = contents_of(&sandbox.restore(&[]).0);
        assert!(restored.contains("Blob") && restored.contains("'after'"));
    }
}

/// A disk that fails to read for a second: it is told, waited out, and nothing is lost.
#[test]
fn reads_that_fail_for_a_while() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let mut replicator = start_injected(&sandbox, "error=EIO:when=16..20", &[]);
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    // One at a time, so that each is read by itself.
    for n in 0..20 {
        application.run(&format!("INSERT INTO t VALUES('row {n}');"));
        sandbox.wait_for_txid(n + 2);
    }
    replicator.wait_for_log("NOT PROTECTED");
    replicator.wait_for_log("it passed: recording goes on");
    application.run("INSERT INTO t VALUES('after');");
    let ended = replicator.stop();
    ended.expect_words(&["cannot read the WAL of", "app.db", "Input/output error"]);
    assert_eq!(sandbox.generations().len(), 1);
    let restored = contents_of(&sandbox.restore(&[]).0);
    assert!(restored.contains("'row 19'") && restored.contains("'after'"), "{restored}");
}
