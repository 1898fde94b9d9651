//! Restarts: what continues, what begins anew, and that nothing is lost or numbered twice.

use genesis_replicate::clock;

use crate::support::{Application, Sandbox, Sqlite, assert_same, contents_of, same_bytes};

/// A database that was replicated for a while: transactions 1 to 3 are in the replica.
fn replicated(sandbox: &Sandbox) -> Application {
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('second'); INSERT INTO t VALUES('third');");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(3)));
    application
}

#[test]
fn nothing_changed_and_nothing_is_shipped() {
    let sandbox = Sandbox::with_database();
    let application = replicated(&sandbox);
    let before = sandbox.objects();
    for _ in 0..3 {
        sandbox.replicate().stop();
    }
    assert_eq!(sandbox.objects(), before);

    let mut application = application;
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('fourth');");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(4)));
    sandbox.assert_complete_after(application);
}

#[test]
fn commits_while_we_were_away_are_shipped_as_late() {
    let sandbox = Sandbox::with_database();
    // Nobody empties the WAL before a reader of it.
    let mut reader = sandbox.application(Sqlite::Bundled);
    reader.run("BEGIN; SELECT * FROM t;");
    let mut application = replicated(&sandbox);
    let away = clock::wall().to_string();
    application.run("INSERT INTO t VALUES('away'); INSERT INTO t VALUES('away too');");
    let between = clock::wall().to_string();
    drop(reader);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(5);
    application.run("INSERT INTO t VALUES('back');");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(6)));

    // Nobody knows when they were committed: a time in between gets the state before, and is told.
    for time in [&away, &between] {
        let (restored, said) = sandbox.restore(&["--timestamp", time]);
        assert!(said.contains("as of transaction 3,"), "{said}");
        assert!(said.contains("while nobody looked"), "{said}");
        assert!(!contents_of(&restored).contains("away"));
    }
    let (_, said) = sandbox.restore(&[]);
    assert!(!said.contains("while nobody looked"), "{said}");
    let (restored, _) = sandbox.restore(&["--txid", "4"]);
    assert!(contents_of(&restored).ends_with("t 'away'\n"));
    sandbox.assert_complete_after(application);
}

/// Nothing holds what is in the WAL and in the database: it is read while nobody can write.
#[test]
fn commits_that_were_checkpointed_while_we_were_away_are_shipped_one_by_one() {
    let sandbox = Sandbox::with_database();
    let mut application = replicated(&sandbox);
    application.run("INSERT INTO t VALUES('away'); INSERT INTO t VALUES('away too');");
    application.run("PRAGMA wal_checkpoint(FULL);");
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(5);
    application.run("INSERT INTO t VALUES('back');");
    let ended = replicator.stop();
    assert!(!ended.stderr.contains("comparing every page"), "{}", ended.stderr);
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(6)));
    let (restored, _) = sandbox.restore(&["--txid", "4"]);
    assert!(contents_of(&restored).ends_with("t 'away'\n"));
    sandbox.assert_complete_after(application);
}

#[test]
fn an_application_that_was_closed_and_opened_without_a_change() {
    let sandbox = Sandbox::with_database();
    replicated(&sandbox).close();
    let mut application = sandbox.application(Sqlite::Python);
    application.run("SELECT * FROM t;");
    let before = sandbox.objects();
    sandbox.replicate().stop();
    assert_eq!(sandbox.objects(), before);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    sandbox.replicate().stop();
    assert_eq!(sandbox.objects(), before);

    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('fourth');");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(4)));
    sandbox.assert_complete_after(application);
}

#[test]
fn a_change_that_nobody_saw_is_shipped_as_one_record_of_the_pages_that_differ() {
    let sandbox = Sandbox::with_database();
    replicated(&sandbox).close();
    let old = sandbox.restore(&[]).0;
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('unseen'); PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(4);
    application.run("INSERT INTO t VALUES('seen');");
    let ended = replicator.stop();
    ended.expect_words(&["comparing every page", "recorded in one", "Rebase"]);

    // The line goes on, and what was before stays.
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(5)));
    let listed = sandbox.run(&["list", sandbox.replica.to_str().unwrap(), "--transactions"]);
    let listed = listed.expect_code(0).stdout;
    let kinds: Vec<_> = listed.lines().filter(|line| line.contains("rebase")).collect();
    assert_eq!(kinds.len(), 1, "{listed}");
    let (restored, _) = sandbox.restore(&["--txid", "3"]);
    assert!(same_bytes(&restored, &old));
    let (restored, _) = sandbox.restore(&["--txid", "4"]);
    let expected = contents_of(&old) + "t 'unseen'\n";
    assert_same(&contents_of(&restored), &expected, "the state that was found");
    sandbox.assert_complete_after(application);
}

/// A database of the same name that is another one: it is refused, and when it is wanted, the replica
/// keeps both histories.
#[test]
fn another_database_in_its_place() {
    let sandbox = Sandbox::with_database();
    replicated(&sandbox).close();
    let old = sandbox.restore(&[]).0;
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(sandbox.path(&format!("app/app.db{suffix}"))).ok();
    }
    let mut application = sandbox.application(Sqlite::Python);
    application.run("PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE other(x);");
    let refused = sandbox.replicate_fails(&[]).expect_code(7);
    refused.expect_words(&["another database than the one in the replica", "--new-generation"]);
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(3)));
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&["--new-generation"]));
    replicator.wait_until_followed();
    application.run("INSERT INTO other VALUES(1);");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (2, Some(5)));
    assert!(same_bytes(&sandbox.restore(&["--txid", "3"]).0, &old));
    sandbox.assert_complete_after(application);
}

/// Half of the pages tell a database from another that has come to its place, where there are some; the
/// same file may have changed as it likes.
#[test]
fn another_database_of_the_same_shape_in_its_place() {
    let fill = |seed: u64| {
        format!(
            "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300)
             INSERT INTO t SELECT {seed} || hex(randomblob(200)) FROM c;"
        )
    };
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(&fill(1));
    sandbox.replicate().stop();
    // It grows to thrice its size while nobody looks, and is the same.
    application.run(&fill(2));
    application.run(&fill(3));
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    sandbox.replicate().stop();

    let mut application = sandbox.application(Sqlite::Shell);
    application.run("DELETE FROM t;");
    application.run(&[fill(4), fill(5), fill(6)].concat());
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    let lines = sandbox.generations().len();
    sandbox.replicate().stop();
    assert_eq!(sandbox.generations().len(), lines + 1);
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db));

    // A copy of another database in its place.
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("DELETE FROM t;");
    application.run(&[fill(7), fill(8), fill(9)].concat());
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.run(&format!("VACUUM INTO '{}';", sandbox.path("app/other.db").display()));
    application.run("DELETE FROM t;");
    application.run(&[fill(1), fill(2), fill(3)].concat());
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    sandbox.replicate().stop();
    std::fs::remove_file(&sandbox.db).unwrap();
    genesis_replicate::durable::rename(&sandbox.path("app/other.db"), &sandbox.db).unwrap();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA journal_mode=WAL;");
    application.close();
    let before = sandbox.objects();
    let refused = sandbox.replicate_fails(&[]).expect_code(7);
    refused.expect_words(&["another database than the one in the replica", "--new-generation"]);
    assert_eq!(sandbox.objects(), before);
    let mut allowed = sandbox.start(&mut sandbox.replicate_command(&["--new-generation"]));
    allowed.wait_until_followed();
    allowed.stop();
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db));
}

/// Each start ends cleanly with what came before it, however short it is.
#[test]
fn many_short_runs() {
    let sandbox = Sandbox::with_database();
    let mut application = replicated(&sandbox);
    for n in 4..=15_u64 {
        let replicator = sandbox.replicate();
        application.run(&format!("INSERT INTO t VALUES({n});"));
        replicator.stop();
        assert_eq!(sandbox.last_txid(), Some(n));
    }
    assert_eq!(sandbox.generations().len(), 1);
    sandbox.assert_complete_after(application);
}
