//! A storm: writers, hostile checkpointers of all modes, spilled and rolled back transactions, VACUUM,
//! long readers, and kill -9 of any of them, while restores are taken. Every restored state balances,
//! and the last one is the database, byte for byte, in one unbroken line of history.
//!
//! `GENESIS_STORM_SECONDS` sets how long it lasts, `GENESIS_SEED` repeats a run's choices.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use genesis_replicate::{clock, durable};
use rusqlite::{Connection, OpenFlags};

use crate::support::{Process, Sandbox, Sqlite, same_bytes, setting};

const ACTOR: &str = include_str!("storm/actor.py");
const ROLES: [&str; 8] = [
    "writer",
    "writer",
    "writer",
    "writer",
    "checkpointer",
    "checkpointer",
    "checkpointer",
    "chaos",
];
const MONEY: i64 = 500 * 1000;

fn actor(sandbox: &Sandbox, role: &str, seed: u64) -> Process {
    let mut command = Command::new("python3");
    command.args(["-c", ACTOR]).arg(&sandbox.db).args([role, &seed.to_string()]);
    sandbox.start(&mut command)
}

/// The money in a restored database, which must be sound.
fn balance(restored: &Path) -> i64 {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file:{}?immutable=1", restored.display());
    let connection = Connection::open_with_flags(uri, flags).unwrap();
    let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
    assert_eq!(check.unwrap(), "ok");
    connection.query_row("SELECT sum(cents) FROM account", [], |row| row.get(0)).unwrap()
}

#[test]
fn every_state_of_a_storm_balances_and_the_last_is_the_database() {
    let seconds = setting("GENESIS_STORM_SECONDS").unwrap_or(8);
    let seed = setting("GENESIS_SEED").unwrap_or_else(|| durable::random().unwrap() % 1_000_000);
    eprintln!("to repeat the choices of this run: GENESIS_SEED={seed}");
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(
        "PRAGMA auto_vacuum=INCREMENTAL; PRAGMA journal_mode=WAL;
         CREATE TABLE account(id INTEGER PRIMARY KEY, cents INTEGER);
         CREATE TABLE entry(id INTEGER PRIMARY KEY, note BLOB);
         WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499)
         INSERT INTO account SELECT i, 1000 FROM n;",
    );
    // However long it lasts, a restore has little to go through.
    let mut command = sandbox.replicate_command(&["--snapshot-interval", "1m"]);
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    let mut actors: Vec<Process> =
        (0..).zip(ROLES).map(|(n, role)| actor(&sandbox, role, seed + n)).collect();
    let end = clock::monotonic() + Duration::from_secs(seconds);
    let mut killed = 0;
    while clock::monotonic() < end {
        let (restored, _) = sandbox.restore(&[]);
        assert_eq!(balance(&restored), MONEY);
        std::fs::remove_file(restored).unwrap();
        let victim = usize::try_from(seed + killed * 7).unwrap() % actors.len();
        killed += 1;
        let next = actor(&sandbox, ROLES[victim], seed + 100 + killed);
        std::mem::replace(&mut actors[victim], next).kill();
    }
    actors.into_iter().for_each(Process::kill);
    let ended = replicator.stop();
    assert!(killed > 0);
    assert_eq!(sandbox.generations().len(), 1, "{}", ended.stderr);
    assert!(!ended.stderr.contains("LOST COMMITS"), "a false alarm: {}", ended.stderr);

    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    let (restored, _) = sandbox.restore(&[]);
    assert_eq!(balance(&restored), MONEY);
    assert!(same_bytes(&restored, &sandbox.db), "seed {seed}");
}
