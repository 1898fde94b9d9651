//! Every page size, growing and shrinking, with transactions that do not fit the cache.

use rusqlite::Connection;

use crate::support::{Sandbox, Sqlite, assert_same, contents, contents_of, same_bytes};

/// What happens to the database, one transaction after another. What is rolled back is none.
const HISTORY: [&str; 13] = [
    "INSERT INTO t(a) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 900)
     SELECT printf('%0180d', i) FROM c;",
    "INSERT INTO t(a) VALUES(randomblob(70000)), (randomblob(3)), (zeroblob(200000));",
    "BEGIN; UPDATE t SET a = a || 'spilled' WHERE id < 400; SAVEPOINT s; DELETE FROM t;
     ROLLBACK TO s; UPDATE t SET a = a || 'again' WHERE id > 200; RELEASE s; COMMIT;",
    "-- rolled back, after frames of it were written
     BEGIN; UPDATE t SET a = 'never' || a; ROLLBACK;",
    "DELETE FROM t WHERE id % 3 > 0;",
    "PRAGMA incremental_vacuum(7);",
    "VACUUM;",
    "INSERT INTO t(a) SELECT a FROM t;",
    "-- rolled back
     BEGIN; INSERT INTO t(a) SELECT a FROM t; ROLLBACK;",
    "CREATE TABLE u(x PRIMARY KEY, y) WITHOUT ROWID;",
    "INSERT INTO u SELECT id, a FROM t;",
    "DELETE FROM t WHERE id > 2;",
    "DROP TABLE u;",
];

fn history(page_size: u32, auto_vacuum: &str) {
    let what = format!("{page_size} bytes a page, auto_vacuum {auto_vacuum}");
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(&format!(
        "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA journal_mode=WAL;
         PRAGMA cache_size=5; PRAGMA cache_spill=ON; PRAGMA synchronous=OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, a);"
    ));
    let replicator = sandbox.replicate();
    let watcher = Connection::open(&sandbox.db).unwrap();
    let found = |pragma: &str| watcher.pragma_query_value(None, pragma, |row| row.get(0));
    assert_eq!(found("page_size"), Ok(page_size), "{what}");

    let mut states = vec![contents(&watcher)];
    for sql in HISTORY {
        let vacuums = sql.contains("incremental_vacuum");
        application.run(sql);
        if !sql.starts_with("--") && (!vacuums || auto_vacuum == "INCREMENTAL") {
            states.push(contents(&watcher));
        }
    }
    watcher.close().unwrap();
    replicator.stop();
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();

    assert_eq!(sandbox.last_txid(), Some(states.len() as u64), "{what}");
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db), "{what}");
    for (txid, state) in (1..).zip(&states) {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        let len = restored.metadata().unwrap().len();
        assert_eq!(len % u64::from(page_size), 0, "{what}, transaction {txid}");
        assert_same(&contents_of(&restored), state, &format!("{what}, transaction {txid}"));
    }
}

#[test]
fn small_pages() {
    for page_size in [512, 1024, 2048, 4096] {
        history(page_size, "NONE");
    }
}

#[test]
fn large_pages() {
    for page_size in [8192, 16384, 32768, 65536] {
        history(page_size, "NONE");
    }
}

#[test]
fn full_auto_vacuum() {
    for page_size in [512, 4096, 65536] {
        history(page_size, "FULL");
    }
}

#[test]
fn incremental_auto_vacuum() {
    for page_size in [512, 4096, 65536] {
        history(page_size, "INCREMENTAL");
    }
}
