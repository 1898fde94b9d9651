//! Every transaction of a history can be restored, by its number and by its time.

use genesis_replicate::clock;
use genesis_wal::time::Micros;

use crate::support::{Application, Sandbox, Sqlite, assert_same, contents, contents_of};

/// An application that remembers what the database held after each commit.
struct Historian {
    application: Application,
    states: Vec<String>,
}

impl Historian {
    fn begin(sandbox: &Sandbox) -> Self {
        let mut application = sandbox.application(Sqlite::Bundled);
        application.run(
            "PRAGMA journal_mode=WAL; PRAGMA cache_size=5;
             CREATE TABLE step(n); INSERT INTO step VALUES(NULL);
             CREATE TABLE t(id INTEGER PRIMARY KEY, a, b); CREATE INDEX i ON t(a);
             INSERT INTO t(a, b) VALUES('first', 1);",
        );
        let mut historian = Self { application, states: Vec::new() };
        historian.remember();
        historian
    }

    /// Runs what is one transaction.
    fn commit(&mut self, sql: &str) {
        self.application.run(sql);
        self.remember();
    }

    fn remember(&mut self) {
        let connection = self.application.connection();
        self.states.push(contents(connection));
    }

    /// The id of the last commit: 1 is the state in which the replicator found the database.
    fn txid(&self) -> u64 {
        self.states.len() as u64
    }

    /// The state after a transaction.
    fn state(&self, txid: u64) -> &str {
        &self.states[usize::try_from(txid).unwrap() - 1]
    }
}

/// One transaction of many kinds. Some of them change no row; the step they always do.
fn transaction(n: u64) -> String {
    let many = "WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 200)";
    let change = match n % 8 {
        0 => format!(
            "INSERT INTO t(a, b) {many} SELECT 'row ' || i || ' of {n}', randomblob(90) FROM c"
        ),
        1 => format!("UPDATE t SET b = {n} WHERE id % 5 = {n} % 5"),
        2 => format!("DELETE FROM t WHERE id % 3 = {n} % 3"),
        3 => format!("INSERT INTO t(a, b) VALUES('blob', randomblob({n} * 1000))"),
        4 => format!("CREATE TABLE extra{n}(x); INSERT INTO extra{n} VALUES({n})"),
        5 => format!(
            "SAVEPOINT s; UPDATE t SET a = 'gone'; ROLLBACK TO s; RELEASE s; UPDATE t SET a = a || {n}"
        ),
        6 => format!("UPDATE t SET a = 'one' WHERE id = 1; UPDATE t SET a = '{n}' WHERE id = 1"),
        _ => format!("INSERT INTO t(a) VALUES('{n}')"),
    };
    format!("BEGIN; {change}; UPDATE step SET n = {n}; COMMIT")
}

#[test]
fn every_transaction_by_its_number() {
    let sandbox = Sandbox::new();
    let mut historian = Historian::begin(&sandbox);
    let replicator = sandbox.replicate();
    for n in 0..56 {
        historian.commit(&transaction(n));
        if n % 20 == 10 {
            // What is rolled back is no transaction.
            historian.application.run("BEGIN; UPDATE t SET b = randomblob(999); ROLLBACK");
        }
    }
    historian.commit("VACUUM");
    replicator.stop();
    assert_eq!(sandbox.last_txid(), Some(historian.txid()));
    for txid in 1..=historian.txid() {
        let (restored, said) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert!(said.contains(&format!("as of transaction {txid},")), "{said}");
        let what = format!("the state after transaction {txid}");
        assert_same(&contents_of(&restored), historian.state(txid), &what);
    }
    for beyond in [historian.txid() + 1, u64::MAX] {
        let failed = sandbox.restore_fails(&["--txid", &beyond.to_string()]).expect_code(6);
        failed.expect_words(&[&format!("transaction {beyond}"), "transactions 1 to 58"]);
    }
    sandbox.restore_fails(&["--txid", "0"]).expect_code(6);
}

#[test]
fn every_transaction_by_its_time() {
    let sandbox = Sandbox::new();
    let before = clock::wall();
    let mut historian = Historian::begin(&sandbox);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    let mut moments = vec![(clock::wall(), 1)];
    for n in 0..8 {
        historian.commit(&transaction(n));
        sandbox.wait_for_txid(historian.txid());
        moments.push((clock::wall(), historian.txid()));
    }
    replicator.stop();

    let at = |time: Micros| {
        let (restored, said) = sandbox.restore(&["--timestamp", &time.to_string()]);
        (contents_of(&restored), said)
    };
    for (moment, txid) in moments {
        let (state, said) = at(moment);
        assert_same(
            &state,
            historian.state(txid),
            &format!("at {moment}, expected {txid}: {said}"),
        );
        // The moment of the commit itself, as `restore` tells it, and the microsecond before.
        let committed = committed(&said);
        assert_same(&at(committed).0, historian.state(txid), "at the commit");
        if txid > 1 {
            let earlier = at(Micros(committed.0 - 1)).0;
            assert_same(&earlier, historian.state(txid - 1), "before the commit");
        }
    }
    let future = Micros(clock::wall().0 + 3_600_000_000);
    assert_same(&at(future).0, historian.state(historian.txid()), "in the future");
    let failed = sandbox.restore_fails(&["--timestamp", &before.to_string()]).expect_code(6);
    failed.expect_words(&["before the first state that is kept", "transactions 1 to 9"]);
}

/// The time of a commit in what `restore` says.
fn committed(said: &str) -> Micros {
    let (_, rest) = said.split_once("committed ").unwrap();
    let time = rest.lines().next().unwrap().parse::<jiff::Timestamp>().unwrap();
    Micros(time.as_microsecond().try_into().unwrap())
}
