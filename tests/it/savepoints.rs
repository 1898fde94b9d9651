//! Transactions that go back to a savepoint after pages of theirs were spilled. SQLite up to 3.49 commits
//! frames of them without salts and checksums.

use rusqlite::Connection;

use crate::support::{Application, Sandbox, Sqlite};

const DATABASE: &str = "PRAGMA page_size=1024; PRAGMA journal_mode=WAL; \
     CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); \
     WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 40) \
     INSERT INTO t SELECT i, 0, zeroblob(300) FROM c;";

/// One transaction. What it takes back is written twice, and the second time in place.
fn with_a_savepoint(kept: u64, number: u64) -> String {
    format!(
        "BEGIN; UPDATE t SET b = zeroblob(301) WHERE id > 40 - {kept}; SAVEPOINT s; \
         UPDATE t SET a = a + 1; DELETE FROM t WHERE id > {number} * 3; ROLLBACK TO s; RELEASE s; \
         UPDATE t SET a = {number} WHERE id <= 1 + {kept}; COMMIT;"
    )
}

/// Commits with and without savepoints, some while nobody follows; the states after each.
fn play(sandbox: &Sandbox, sqlite: Sqlite) -> Vec<Vec<u8>> {
    let mut application = sandbox.application(sqlite);
    application.run(DATABASE);
    application.run("PRAGMA cache_size=5; PRAGMA synchronous=OFF;");
    let mut replicator = sandbox.replicate();
    let mut watcher = Connection::open(&sandbox.db).unwrap();
    let mut state = || watcher.serialize("main").unwrap().to_vec();
    let mut states = vec![state()];
    let mut commit = |application: &mut Application, sql: &str| {
        application.run(sql);
        states.push(state());
        states.len() as u64
    };
    for number in 1..=12 {
        let last = commit(&mut application, &with_a_savepoint(number % 4, number));
        // Some are followed by another before anybody can have looked, others are the last for a while.
        if number % 3 == 0 {
            sandbox.wait_for_txid(last);
        } else {
            commit(
                &mut application,
                &format!("UPDATE t SET a = {number} + 100 WHERE id = {number};"),
            );
        }
        if number % 6 == 0 {
            replicator.kill();
            replicator = sandbox.replicate();
        }
    }
    watcher.close().unwrap();
    let ended = replicator.stop();
    assert!(ended.stderr.contains("3.50"), "{}", ended.stderr);
    application.close();
    states
}

#[test]
fn every_transaction_of_an_older_sqlite() {
    for sqlite in [Sqlite::Shell, Sqlite::Python] {
        let sandbox = Sandbox::new();
        let states = play(&sandbox, sqlite);
        // A start goes on from no such place: what it finds may be recorded anew.
        let restore = |txid: u64| {
            let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
            std::fs::read(restored).unwrap()
        };
        let mut restored: Vec<_> = (1..=sandbox.last_txid().unwrap()).map(restore).collect();
        restored.dedup();
        assert!(restored == states, "{sqlite:?}: {} of {}", restored.len(), states.len());
    }
}
