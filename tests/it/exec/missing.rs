//! `--restore-if-missing`: what becomes of a database that does not exist.

use std::fs::File;

use crate::support::{Ended, Sandbox, contents_of, files_below, write};

/// Shows the database, and leaves a trace of having run.
const LOOK: &str = "touch \"$DB.started\"; sqlite3 \"$DB\" 'SELECT a FROM t' 2>&1 || true";

/// A replica of a database that is gone.
fn without_database() -> Sandbox {
    let sandbox = Sandbox::with_database();
    sandbox.start(&mut sandbox.exec_command(&[], &["true"])).wait().expect_code(0);
    for file in files_below(sandbox.db.parent().unwrap()) {
        std::fs::remove_file(sandbox.path("app").join(file)).unwrap();
    }
    sandbox
}

fn exec(sandbox: &Sandbox, more: &[&str]) -> Ended {
    let more = [&["--restore-if-missing"], more].concat();
    let mut command = sandbox.exec_command(&more, &["sh", "-c", LOOK]);
    sandbox.start(command.env("DB", &sandbox.db)).wait()
}

fn has_started(sandbox: &Sandbox) -> bool {
    sandbox.path("app/app.db.started").exists()
}

#[test]
fn what_is_in_the_replica_is_there_before_the_application() {
    let sandbox = without_database();
    let ended = exec(&sandbox, &[]).expect_code(0).expect_words(&["restored", "txid=1"]);
    assert_eq!(ended.stdout, "first\n");
    assert!(contents_of(&sandbox.restore(&[]).0).contains("first"));
    assert_eq!(sandbox.generations().len(), 1);
}

#[test]
fn a_database_that_exists_is_left_alone() {
    let sandbox = without_database();
    let mut shell = sandbox.application(crate::support::Sqlite::Shell);
    shell.run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('mine');");
    shell.close();
    assert_eq!(exec(&sandbox, &[]).expect_code(0).stdout, "mine\n");
}

#[test]
fn a_replica_that_holds_nothing_yet() {
    let sandbox = Sandbox::new();
    for reason in ["there is no replica yet", "there is no replica yet", "holds nothing yet"] {
        exec(&sandbox, &[]).expect_code(0).expect_words(&[reason]);
        assert!(has_started(&sandbox));
        std::fs::remove_file(&sandbox.db).unwrap();
        if sandbox.replica.exists() {
            let text = br#"{"format": 1, "replica": "0123456789abcdef0123456789abcdef"}"#;
            write(&sandbox.replica.join("genesis.json"), text);
        } else {
            std::fs::create_dir(&sandbox.replica).unwrap();
        }
    }
}

#[test]
fn a_replica_that_cannot_be_asked() {
    let sandbox = Sandbox::new();
    File::create(&sandbox.replica).unwrap();
    let refused = exec(&sandbox, &[]).expect_code(4);
    refused.expect_words(&["the application is not started", "app.db is missing"]);
    assert!(!has_started(&sandbox));
    let patience = ["--allow-empty-on-error", "--shutdown-timeout", "100ms"];
    exec(&sandbox, &patience).expect_words(&["NOT restored"]);
    assert!(has_started(&sandbox));
}

#[test]
fn a_replica_that_is_damaged() {
    for ending in [".manifest", ".pack", "genesis.json"] {
        let sandbox = without_database();
        let object = &sandbox.objects_ending(ending)[0];
        if ending == ".pack" {
            let mut bytes = std::fs::read(object).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            write(object, &bytes);
        } else {
            std::fs::remove_file(object).unwrap();
        }
        for more in [&[][..], &["--allow-empty-on-error"]] {
            let refused = exec(&sandbox, more).expect_code(5);
            refused.expect_words(&["the application is not started"]);
            assert!(!has_started(&sandbox) && !sandbox.db.exists(), "{ending}");
        }
    }
}

#[test]
fn a_stale_wal_is_not_taken_for_a_part_of_what_is_restored() {
    let sandbox = without_database();
    let wal = sandbox.path("app/app.db-wal");
    write(&wal, "stale");
    exec(&sandbox, &[]).expect_code(2).expect_words(&["app.db-wal", "move it away"]);
    assert!(!has_started(&sandbox) && !sandbox.db.exists() && wal.exists());
}
