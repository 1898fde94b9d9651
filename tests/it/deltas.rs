//! Every state byte for byte, and how its pages are stored.

use std::collections::HashMap;

use genesis_wal::part::Part;
use genesis_wal::reader::Reader;
use genesis_wal::segment::fragments;
use rusqlite::Connection;

use crate::support::{Sandbox, Sqlite};

/// What happens to the database. Each is one transaction, or none where it is commented so.
const HISTORY: [&str; 24] = [
    "INSERT INTO t(a, b) WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 700)
     SELECT i, randomblob(90) FROM c;",
    "UPDATE t SET a = a + 1 WHERE id % 7 = 0;",
    "CREATE INDEX i ON t(a);",
    "INSERT INTO t(a, b) VALUES(1, randomblob(70000)), (2, randomblob(3)), (3, zeroblob(200000));",
    "-- somebody checkpoints
     PRAGMA wal_checkpoint(PASSIVE);",
    "UPDATE t SET b = randomblob(50) WHERE id BETWEEN 100 AND 110;",
    "-- spills, and comes to nothing
     BEGIN; UPDATE t SET b = randomblob(100); ROLLBACK;",
    // It spills: one page has several frames in the transaction, and the last one counts.
    "BEGIN; UPDATE t SET a = a + 1; SAVEPOINT s; DELETE FROM t WHERE id > 50; ROLLBACK TO s;
     UPDATE t SET b = randomblob(100) WHERE id > 400; UPDATE t SET a = a + 1; RELEASE s; COMMIT;",
    "UPDATE t SET a = a + 1 WHERE id = 3;",
    "-- somebody checkpoints
     PRAGMA wal_checkpoint(TRUNCATE);",
    "UPDATE t SET a = a + 1 WHERE id = 3;",
    "DELETE FROM t WHERE id % 3 > 0;",
    "PRAGMA incremental_vacuum(20);",
    "INSERT INTO t(a, b) SELECT a, randomblob(200) FROM t;",
    "DROP INDEX i;",
    "CREATE TABLE u(x PRIMARY KEY, y) WITHOUT ROWID;",
    "INSERT INTO u SELECT id, b FROM t;",
    "DELETE FROM t WHERE id > 20;",
    "VACUUM;",
    "INSERT INTO t(a, b) SELECT x, y FROM u;",
    "-- somebody checkpoints
     PRAGMA wal_checkpoint(RESTART);",
    "DROP TABLE u;",
    "CREATE INDEX i ON t(b, a);",
    "REINDEX;",
];

/// A followed database, and its bytes after each transaction.
struct Recorded {
    sandbox: Sandbox,
    states: Vec<Vec<u8>>,
}

/// Lets all of it happen while the database is followed, and `updates` small changes after it.
fn record(page_size: u32, auto_vacuum: &str, reserved: u8, updates: u32) -> Recorded {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(&format!(
        ".filectrl reserve_bytes {reserved}
         PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA journal_mode=WAL;
         PRAGMA cache_size=5; PRAGMA cache_spill=ON; PRAGMA synchronous=OFF;
         CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);"
    ));
    let mut other = sandbox.application(Sqlite::Python);
    let replicator = sandbox.replicate();
    let mut watcher = Connection::open(&sandbox.db).unwrap();
    let mut bytes = || watcher.serialize("main").unwrap().to_vec();
    let mut states = vec![bytes()];
    for sql in HISTORY {
        let checkpoints = sql.contains("wal_checkpoint");
        if checkpoints { &mut other } else { &mut application }.run(sql);
        let changes_nothing = sql.starts_with("--")
            || (sql.contains("incremental_vacuum") && auto_vacuum != "INCREMENTAL");
        if !changes_nothing {
            states.push(bytes());
        }
    }
    for n in 0..updates {
        application.run(&format!("UPDATE t SET a = 1000 + {n} WHERE id = 3;"));
        states.push(bytes());
    }
    watcher.close().unwrap();
    replicator.stop();
    other.close();
    application.close();
    Recorded { sandbox, states }
}

fn check(page_size: u32, auto_vacuum: &str, reserved: u8, updates: u32) -> Sandbox {
    let what = format!("{page_size} bytes a page, {reserved} reserved, auto_vacuum {auto_vacuum}");
    let Recorded { sandbox, states } = record(page_size, auto_vacuum, reserved, updates);
    // SQLite writes it into the header.
    assert!(states.iter().all(|state| state[20] == reserved), "{what}");
    assert_eq!(sandbox.last_txid(), Some(states.len() as u64), "{what}");
    assert_eq!(sandbox.generations().len(), 1, "{what}");
    for (txid, state) in (1..).zip(&states) {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert!(std::fs::read(restored).unwrap() == *state, "{what}, transaction {txid}");
    }
    sandbox
}

/// How the images of each page are stored, in the order of the transactions: whether as a delta.
fn images(sandbox: &Sandbox) -> HashMap<u32, Vec<bool>> {
    let mut images: HashMap<u32, Vec<bool>> = HashMap::new();
    for object in sandbox.objects_ending(".seg") {
        let bytes = std::fs::read(object).unwrap();
        let mut reader = Reader::new(&bytes);
        while !reader.rest().is_empty() {
            for fragment in fragments(&Part::decode(&mut reader).unwrap()) {
                for record in fragment.unwrap().pages {
                    images.entry(record.number.get()).or_default().push(record.is_delta());
                }
            }
        }
    }
    images
}

#[test]
fn every_page_size() {
    for page_size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
        check(page_size, "NONE", 0, 0);
    }
}

#[test]
fn every_kind_of_auto_vacuum() {
    for page_size in [512, 4096, 65536] {
        check(page_size, "FULL", 0, 0);
        check(page_size, "INCREMENTAL", 0, 0);
    }
}

/// 480 bytes of a page are the least that SQLite wants to use.
#[test]
fn every_number_of_reserved_bytes() {
    for (page_size, reserved) in
        [(512, 8), (512, 32), (1024, 255), (4096, 8), (4096, 255), (65536, 32), (65536, 255)]
    {
        check(page_size, "FULL", reserved, 0);
    }
}

#[test]
fn a_page_that_changes_a_little_is_a_delta_but_for_every_33rd_time() {
    for page_size in [4096, 65536] {
        let images = images(&check(page_size, "NONE", 0, 70));
        let longest_run = |stored: &Vec<bool>| {
            stored.split(|is_delta| !is_delta).map(<[bool]>::len).max().unwrap_or_default()
        };
        assert_eq!(images.values().map(longest_run).max(), Some(32), "{page_size}");
        let deltas = images.values().flatten().filter(|is_delta| **is_delta).count();
        assert!(deltas > 80, "{page_size}: {deltas}");
    }
}
