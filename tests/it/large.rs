//! Databases over 1 GiB, where the page of SQLite's locks lies, and WALs over 4 GiB.
//!
//! `GENESIS_LARGE=1` takes every case: some minutes, and 20 GB of disk for a while.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Application, Sandbox, Sqlite, same_bytes, setting};

/// Where SQLite locks bytes: the page there is never used.
const LOCKS: u64 = 1 << 30;

/// A database that ends a few pages before the one of the locks. Most of it is a hole.
fn database(page_size: u32) -> Sandbox {
    let sandbox = Sandbox::in_memory();
    let mut shell = sandbox.application(Sqlite::Shell);
    shell.run(&format!(
        "PRAGMA page_size={page_size}; CREATE TABLE t(id INTEGER PRIMARY KEY, a);
         INSERT INTO t(a) VALUES('first');"
    ));
    shell.close();
    let pages = u32::try_from(LOCKS / u64::from(page_size) - 4).unwrap();
    let file = OpenOptions::new().write(true).open(&sandbox.db).unwrap();
    file.write_all_at(&pages.to_be_bytes(), 28).unwrap();
    file.set_len(u64::from(pages) * u64::from(page_size)).unwrap();
    drop(file);
    let mut shell = sandbox.application(Sqlite::Shell);
    shell.run("PRAGMA journal_mode=WAL;");
    shell.close();
    sandbox
}

/// The database as it is now, copied by another process.
fn copy(sandbox: &Sandbox, application: &mut Application, number: u64) -> PathBuf {
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    let copy = sandbox.path(&format!("out/state-{number}"));
    let mut cp = Command::new("cp");
    cp.arg("--sparse=always").args([&sandbox.db, &copy]);
    assert!(cp.status().unwrap().success());
    copy
}

/// Restores those of the states after transactions 2 to 6.
fn over_the_lock_page(page_size: u32, restored: &[u64]) {
    let sandbox = database(page_size);
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA busy_timeout=5000; PRAGMA synchronous=OFF;");
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    let rows = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 9)";
    let mut states = vec![];
    for (txid, sql) in (2..).zip([
        format!("INSERT INTO t(a) {rows} SELECT randomblob({page_size}) FROM c;"),
        format!("UPDATE t SET a = randomblob({page_size}) WHERE id % 3 > 0;"),
        "DELETE FROM t WHERE id > 5;".into(),
        "VACUUM;".into(),
        format!("INSERT INTO t(a) {rows} SELECT randomblob({page_size}) FROM c;"),
    ]) {
        application.run(&sql);
        states.push((txid, copy(&sandbox, &mut application, txid)));
    }
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 1);
    let longest = states.iter().map(|(_, state)| len(state)).max().unwrap();
    assert!(longest > LOCKS + u64::from(page_size) && len(&states.last().unwrap().1) < LOCKS);
    for (txid, state) in states.iter().filter(|(txid, _)| restored.contains(txid)) {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert!(same_bytes(&restored, state), "{page_size} bytes a page, transaction {txid}");
        std::fs::remove_file(restored).unwrap();
    }
}

fn len(path: &Path) -> u64 {
    path.metadata().unwrap().len()
}

#[test]
fn a_database_over_the_lock_page() {
    if setting("GENESIS_LARGE").is_none() {
        return over_the_lock_page(65536, &[3]);
    }
    for page_size in [512, 4096, 65536] {
        over_the_lock_page(page_size, &[2, 3, 4, 5, 6]);
    }
}

/// The WAL is held by a reader of the application's, and goes on growing.
#[test]
fn a_wal_over_4_gib() {
    if setting("GENESIS_LARGE").is_none() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut reader = sandbox.application(Sqlite::Python);
    reader.run("BEGIN; SELECT * FROM t;");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0;");
    let mut replicator = sandbox.replicate();
    let mut txid = 1;
    for round in 0..6 {
        application.run("INSERT INTO t VALUES(zeroblob(800000000));");
        application.run(&format!("UPDATE t SET a = 'round {round}' WHERE rowid = 1;"));
        txid += 2;
        sandbox.wait_for_txid(txid);
        if round == 5 {
            // It goes on from a place beyond 4 GiB.
            replicator.stop();
            replicator = sandbox.replicate();
        }
    }
    application.run("UPDATE t SET a = 'the end' WHERE rowid = 1;");
    sandbox.wait_for_txid(txid + 1);
    assert!(len(&sandbox.path("app/app.db-wal")) > 1 << 32);
    replicator.stop();
    assert_eq!((sandbox.last_txid(), sandbox.generations().len()), (Some(txid + 1), 1));
    reader.close();
    sandbox.assert_complete_after(application);
}
