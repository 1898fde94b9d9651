//! The power fails, and the WAL that is found afterwards ends before what was committed last: SQLite
//! promises no more with `synchronous=NORMAL`. Where it still reaches back to what was recorded, the line
//! goes on commit by commit; where it does not, the pages that differ are recorded in one.

use std::fs::File;

use crate::support::{Application, Sandbox, Sqlite, contents, contents_of};

/// A frame of a page of 4 KiB.
const FRAME: u64 = 24 + 4096;

/// Who is there first afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    Application,
    Replicator,
}

/// Transactions 1 to 3 are in the replica, and two more were committed while nobody looked, a frame each
/// and none of them in the database file, when the power failed.
fn without_power() -> Sandbox {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Python);
    application.run("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES('recorded 1');");
    // Whoever reads keeps what comes now in the WAL.
    let mut reader = sandbox.application(Sqlite::Shell);
    reader.run("BEGIN; SELECT count(*) FROM t;");
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    for txid in 2..=3 {
        application.run(&format!("INSERT INTO t VALUES('recorded {txid}');"));
        sandbox.wait_for_txid(txid);
    }
    replicator.kill();
    for txid in 4..=5 {
        application.run(&format!("INSERT INTO t VALUES('unseen {txid}');"));
    }
    application.kill();
    reader.kill();
    // The wal-index is not written to the disk.
    std::fs::remove_file(sandbox.path("app/app.db-shm")).unwrap();
    sandbox
}

/// Cuts so many bytes off the WAL.
fn cut(sandbox: &Sandbox, bytes: u64) {
    let wal = File::options().write(true).open(sandbox.path("app/app.db-wal")).unwrap();
    let length = wal.metadata().unwrap().len();
    assert_eq!(length, 32 + 5 * FRAME);
    wal.set_len(length - bytes).unwrap();
}

/// Lets everybody come back; what is restored is what the application has. Returns what was logged.
fn come_back(sandbox: &Sandbox, first: First) -> String {
    let commit = |application: &mut Application| {
        application.run("INSERT INTO t VALUES('after');");
    };
    let mut application = sandbox.application(Sqlite::Bundled);
    if first == First::Application {
        commit(&mut application);
    }
    let replicator = sandbox.replicate();
    if first == First::Replicator {
        commit(&mut application);
    }
    let ended = replicator.stop();
    assert_eq!(sandbox.generations().len(), 1, "{}", ended.stderr);
    let restored = contents_of(&sandbox.restore(&[]).0);
    assert_eq!(restored, contents(application.connection()), "{}", ended.stderr);
    assert!(restored.contains("'after'"), "{restored}");
    sandbox.assert_complete_after(application);
    ended.stderr
}

#[test]
fn of_commits_that_nobody_has_seen() {
    for first in [First::Application, First::Replicator] {
        // In the middle of the last frame, in that of the one before, and between the two.
        for (bytes, left) in [(2000, 1), (FRAME, 1), (FRAME + 4000, 0), (2 * FRAME, 0)] {
            let sandbox = without_power();
            cut(&sandbox, bytes);
            let said = come_back(&sandbox, first);
            assert!(!said.contains("comparing every page"), "{first:?}, {bytes}: {said}");
            // Those that are left, and the one after.
            assert_eq!(sandbox.last_txid(), Some(3 + left + 1), "{first:?}, {bytes}: {said}");
            let all = contents_of(&sandbox.restore(&[]).0);
            assert_eq!(all.matches("'unseen").count() as u64, left, "{all}");
            assert_eq!(all.matches("'recorded").count(), 3, "{all}");
        }
    }
}

/// The replica knows more than the database: that stays in its history, and what is there now is a
/// record of its own.
#[test]
fn of_commits_that_the_replica_holds() {
    for first in [First::Application, First::Replicator] {
        for bytes in [2 * FRAME + 1000, 3 * FRAME, 4 * FRAME] {
            let sandbox = without_power();
            cut(&sandbox, bytes);
            let said = come_back(&sandbox, first);
            let words = ["WARN", "the WAL does not reach back to what was recorded", "Rebase"];
            for word in words {
                assert!(said.contains(word), "{word} is not in, {first:?}, {bytes}:\n{said}");
            }
            let before = contents_of(&sandbox.restore(&["--txid", "3"]).0);
            assert_eq!(before.matches("'recorded").count(), 3, "{before}");
        }
    }
}
