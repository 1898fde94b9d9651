//! End to end, with each SQLite that an application may bring.

use crate::support::{Sandbox, Sqlite, assert_same, contents_of, mode, same_bytes};

fn round_trip(sqlite: Sqlite) {
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(sqlite);
    application.run(
        "PRAGMA journal_mode=WAL;
         CREATE TABLE users(id INTEGER PRIMARY KEY, name TEXT, photo BLOB);
         INSERT INTO users(name) VALUES('Ada'), ('Grace');",
    );
    let replicator = sandbox.replicate();
    for n in 0..20 {
        application.run(&format!(
            "BEGIN; INSERT INTO users(name, photo) VALUES('user {n}', randomblob({n} * 700));
             UPDATE users SET name = name || '.' WHERE id % 3 = {n} % 3; COMMIT;"
        ));
    }
    sandbox.wait_for_txid(21);
    let listing = sandbox.list();
    let window = &listing["generations"][0]["windows"][0];
    assert_eq!((window["first_txid"].as_u64(), window["last_txid"].as_u64()), (Some(1), Some(21)));
    application.run("DELETE FROM users WHERE id % 2 = 0;");

    // The last commit is in the replica because the end waits for it.
    let ended = replicator.stop();
    assert!(ended.stderr.contains("everything committed is in the replica txid=22"), "{ended:?}");
    assert_eq!(sandbox.last_txid(), Some(22));
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();

    let (restored, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 22"), "{said}");
    assert!(same_bytes(&restored, &sandbox.db));
    assert_same(&contents_of(&restored), &contents_of(&sandbox.db), "the restored database");
    assert_eq!((mode(&sandbox.replica), mode(&sandbox.state())), (0o700, 0o700));
}

#[test]
fn the_bundled_sqlite() {
    round_trip(Sqlite::Bundled);
}

#[test]
fn the_shell() {
    round_trip(Sqlite::Shell);
}

#[test]
fn python() {
    round_trip(Sqlite::Python);
}
