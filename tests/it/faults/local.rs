//! What cannot be kept in local state, or read again after a doubt.

use std::fs::File;
use std::os::unix::fs::FileExt;

use genesis_replicate::durable;

use super::READS;
use crate::support::{BrokenCalls, Sandbox, Sqlite, can_attach, contents_of, wait_until};

/// The database grows beyond the room that the page table has, and there is none.
#[test]
fn of_a_page_table_that_cannot_grow() {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(
        "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE t(a); INSERT INTO t VALUES('first');",
    );
    for (n, error) in ["ENOMEM", "ENOSPC"].into_iter().enumerate() {
        let mut replicator = sandbox.replicate();
        sandbox.wait_for_txid(1);
        let trace = sandbox.path("logs/fault");
        let how = format!("error={error}");
        let fault = BrokenCalls::begin(replicator.id(), "fallocate", &how, &[], &trace);
        // So many pages are not in it yet, nor beside it.
        application.run("INSERT INTO t VALUES(zeroblob(40000000));");
        replicator.wait_for_log("it is kept in memory");
        application.run(&format!("INSERT INTO t VALUES('row {n}');"));
        assert!(replicator.ended().is_none());
        assert!(fault.end() > 0);
        wait_until("all of it in the replica", || {
            let (restored, ended) = sandbox.try_restore(&[]);
            (ended.code == 0 && contents_of(&restored).contains(&format!("'row {n}'")))
                .then_some(())
        });
        replicator.stop();
    }
    assert_eq!(sandbox.generations().len(), 1);
    sandbox.assert_complete_after(application);
}

/// Where the page table and the footers of stored packs belong is something else.
#[test]
fn of_a_page_table_and_footers_that_cannot_be_kept() {
    let sandbox = Sandbox::large(6_000);
    let (table, packs) = (sandbox.state().join("table"), sandbox.state().join("packs"));
    durable::create_folders(&table.join("in the way"), 0o700).unwrap();
    File::create(&packs).unwrap();
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("a snapshot is stored");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("UPDATE big SET n = 1 WHERE id = 7;");
    sandbox.wait_for_txid(2);
    let ended = replicator.stop();
    ended.expect_words(&[
        "cannot write the page table",
        "cannot keep in mind that a pack was stored",
    ]);
    std::fs::remove_dir_all(&table).unwrap();
    std::fs::remove_file(&packs).unwrap();
    application.run("UPDATE big SET n = 2 WHERE id = 7;");
    sandbox.replicate().stop();
    sandbox.assert_complete_after(application);
    assert_eq!(sandbox.generations().len(), 1);
}

/// Somebody writes over the file while the WAL cannot be read: the WAL is held again, and waited for.
#[test]
fn of_a_wal_that_is_to_be_held_again() {
    if !can_attach() {
        return;
    }
    let sandbox = Sandbox::large(100);
    let mut application = sandbox.application(Sqlite::Python);
    let mut replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    // Until this ends, the WAL is not emptied.
    let mut reader = sandbox.application(Sqlite::Shell);
    reader.run("BEGIN; SELECT count(*) FROM big;");
    application.run("UPDATE big SET n = 2 WHERE id = 7;");
    sandbox.wait_for_txid(2);
    let (trace, wal) = (sandbox.path("logs/fault"), sandbox.path("app/app.db-wal"));
    let fault = BrokenCalls::begin(replicator.id(), READS, "error=EIO", &[wal], &trace);
    let file = File::options().read(true).write(true).open(&sandbox.db).unwrap();
    // A write beside a checkpoint of ours passes for that one's.
    wait_until("the write to be noticed", || {
        // The version number of a library that wrote it last: nobody reads it.
        file.write_all_at(&[0, 0, 0, 9], 96).unwrap();
        replicator.log().contains("comparing every page").then_some(())
    });
    replicator.wait_for_log("NOT PROTECTED");
    application.run("UPDATE big SET n = 3 WHERE id = 7;");
    assert!(replicator.ended().is_none() && fault.end() > 0);
    replicator.wait_for_log("it passed: recording goes on");
    reader.close();
    application.run("UPDATE big SET n = 4 WHERE id = 7;");
    replicator.stop();
    sandbox.assert_complete_after(application);
    assert_eq!(sandbox.generations().len(), 1);
}
