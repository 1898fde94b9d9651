//! Random histories: every transaction can be restored, byte for byte.
//!
//! `GENESIS_HISTORIES` sets their number, `GENESIS_SEED` repeats a run's choices.

use rusqlite::Connection;

use crate::support::{
    Application, Process, Random, Repeatable, Sandbox, Sqlite, setting, wait_until,
};

const HISTORIES: u64 = 2;

/// Transactions in a history.
const LENGTH: usize = 40;

/// What is logged when a start has found out from where it records.
const RECORDING: [&str; 2] =
    ["continuing what the replica holds", "every page is as it was recorded"];

const ROWS: &str = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i <";

/// A followed database that others write to, and its bytes after each transaction.
struct Scene {
    sandbox: Sandbox,
    random: Random,
    application: Application,
    other: Application,
    watcher: Connection,
    replicator: Option<Process>,
    states: Vec<Vec<u8>>,
}

impl Scene {
    fn begin(mut random: Random) -> Self {
        let sandbox = Sandbox::new();
        let mut shell = sandbox.application(Sqlite::Shell);
        let page_size = random.of(&[512, 1024, 4096, 16384, 65536]);
        let auto_vacuum = random.of(&["NONE", "FULL", "INCREMENTAL"]);
        let reserved = random.of(&[0, 0, 8, 32]);
        shell.run(&format!(
            ".filectrl reserve_bytes {reserved}
             PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum};
             PRAGMA journal_mode=WAL; CREATE TABLE step(n); INSERT INTO step VALUES(0);
             CREATE TABLE t(id INTEGER PRIMARY KEY, a, b);"
        ));
        shell.close();
        let writers = [Sqlite::Bundled, Sqlite::Shell, Sqlite::Python];
        let mut application = sandbox.application(random.of(&writers));
        application.run("PRAGMA synchronous=OFF; PRAGMA cache_size=5;");
        let other = sandbox.application(Sqlite::Python);
        let replicator = Some(sandbox.replicate());
        let watcher = Connection::open(&sandbox.db).unwrap();
        let states = Vec::new();
        let mut scene = Self { sandbox, random, application, other, watcher, replicator, states };
        scene.remember();
        scene
    }

    fn remember(&mut self) {
        self.states.push(self.watcher.serialize("main").unwrap().to_vec());
    }

    /// One transaction, or something between two.
    fn step(&mut self) {
        match self.random.next(12) {
            0 => self.checkpoint(),
            1 => {
                let change = self.changes();
                self.application.run(&format!("BEGIN; {change} ROLLBACK;"));
            }
            2 => self.restart(),
            3 => self.commit_with("VACUUM;"),
            _ => {
                let (before, change) = (self.random.of(&["", "SAVEPOINT o;"]), self.changes());
                let after = if before.is_empty() { "" } else { "RELEASE o;" };
                let number = self.states.len();
                self.commit_with(&format!(
                    "BEGIN; {before} {change} UPDATE step SET n = {number}; {after} COMMIT;"
                ));
            }
        }
    }

    fn commit_with(&mut self, sql: &str) {
        self.application.run(sql);
        self.remember();
    }

    fn checkpoint(&mut self) {
        let mode = self.random.of(&["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
        let sql = format!("PRAGMA busy_timeout=5000; PRAGMA wal_checkpoint({mode});");
        self.other.run(&sql);
    }

    /// What is not shipped when a kill comes, or is committed while nobody looks, may come as one
    /// record: nothing is.
    fn restart(&mut self) {
        let replicator = self.replicator.take().unwrap();
        if self.random.next(2) == 0 {
            replicator.stop();
        } else {
            self.sandbox.wait_for_txid(self.states.len() as u64);
            replicator.kill();
        }
        let replicator = self.sandbox.replicate();
        // Behind frames without checksums every page is compared first.
        wait_until("the place from which it goes on", || {
            let is_known = RECORDING.iter().any(|text| replicator.logged(text) > 0);
            is_known.then_some(())
        });
        self.replicator = Some(replicator);
    }

    /// One to four changes, some of them taken back within the transaction.
    fn changes(&mut self) -> String {
        let count = 1 + self.random.next(4);
        let changes: Vec<_> = (0..count).map(|_| self.change_or_not()).collect();
        changes.join(" ")
    }

    fn change_or_not(&mut self) -> String {
        let change = self.change();
        match self.random.next(6) {
            0 => format!("SAVEPOINT s; {change} ROLLBACK TO s; RELEASE s;"),
            1 => format!("SAVEPOINT s; {change} RELEASE s;"),
            _ => change,
        }
    }

    fn change(&mut self) -> String {
        let (n, m) = (self.random.next(1000), self.random.next(9) + 2);
        match self.random.next(11) {
            0 | 1 => {
                format!("INSERT INTO t(a, b) {ROWS} {n}) SELECT i, randomblob({m} * 9) FROM c;")
            }
            2 => format!("UPDATE t SET a = a + 1 WHERE id % {m} = 0;"),
            3 => {
                format!("UPDATE t SET b = zeroblob({n}) WHERE id = (SELECT max(id) FROM t) - {m};")
            }
            4 => format!("DELETE FROM t WHERE id % {m} = 1;"),
            5 => format!("DELETE FROM t WHERE id > {n};"),
            6 => format!("INSERT INTO t(a, b) VALUES({n}, randomblob({n} * 100));"),
            7 => "CREATE INDEX IF NOT EXISTS i ON t(b, a);".into(),
            8 => "DROP INDEX IF EXISTS i;".into(),
            9 => format!(
                "DROP TABLE IF EXISTS u; CREATE TABLE u(x PRIMARY KEY, y) WITHOUT ROWID;
                 INSERT INTO u SELECT id, b FROM t WHERE id < {n};"
            ),
            _ => format!("PRAGMA incremental_vacuum({m});"),
        }
    }

    fn check(self) {
        let Self { sandbox, application, other, watcher, replicator, states, .. } = self;
        watcher.close().unwrap();
        replicator.unwrap().stop();
        other.close();
        application.close();
        assert_eq!(sandbox.last_txid(), Some(states.len() as u64));
        assert_eq!(sandbox.generations().len(), 1);
        for (txid, state) in (1..).zip(&states) {
            let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
            assert!(std::fs::read(restored).unwrap() == *state, "transaction {txid}");
        }
    }
}

#[test]
fn every_transaction_byte_for_byte() {
    let run = Repeatable::new();
    let mut random = run.random();
    for _ in 0..setting("GENESIS_HISTORIES").unwrap_or(HISTORIES) {
        let mut scene = Scene::begin(random.clone());
        random.next(u64::MAX);
        while scene.states.len() < LENGTH {
            scene.step();
        }
        scene.check();
    }
}
