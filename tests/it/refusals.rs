//! What is refused, with which exit code, in which words, and that nothing is touched then.

use std::fs::File;
use std::io::Write;

use crate::support::{Fuse, Sandbox, Sqlite, files_below, write};

#[test]
fn what_is_no_database() {
    let encrypted: Vec<u8> =
        (0..8192_u32).map(|n| ((n * n) >> 3).to_le_bytes()[0] ^ 0x5a).collect();
    let text = "This is a letter, not a database. ".repeat(99).into_bytes();
    for bytes in [encrypted, text, b"short".to_vec()] {
        let sandbox = Sandbox::new();
        write(&sandbox.db, &bytes);
        let refused = sandbox.replicate_fails(&[]).expect_code(3);
        refused.expect_words(&["app.db is not an SQLite database, or it is encrypted", "--db"]);
        assert_eq!(std::fs::read(&sandbox.db).unwrap(), bytes);
        assert!(!sandbox.replica.join("genesis.json").exists() || sandbox.generations().is_empty());
    }
}

#[test]
fn what_is_no_file() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(&sandbox.db).unwrap();
    sandbox.replicate_fails(&[]).expect_code(3).expect_words(&["app.db is not a regular file"]);
}

#[test]
fn a_database_that_its_application_keeps_to_itself() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('mine');");
    let refused = sandbox.replicate_fails(&[]).expect_code(3);
    refused.expect_words(&["app.db is locked", "locking_mode=EXCLUSIVE"]);
    application.run("INSERT INTO t VALUES('still mine');");
}

/// FUSE stands for every file system that is shared over a network, or may be: it is the only one that
/// can be mounted without a server. The others are known by their numbers, which have a test of their
/// own.
#[test]
fn a_network_file_system() {
    let mut sandbox = Sandbox::with_database();
    let local = sandbox.db.clone();
    let before = std::fs::read(&local).unwrap();
    let mounted = sandbox.path("mounted");
    let Some(_mount) = Fuse::mount(local.parent().unwrap(), &mounted) else { return };
    sandbox.db = mounted.join("app.db");
    let words = ["app.db is on FUSE, where SQLite's WAL mode does not work reliably"];
    for set_wal in [&[][..], &["--set-wal"]] {
        sandbox.replicate_fails(set_wal).expect_code(3).expect_words(&words);
    }
    let mut exec = sandbox.exec_command(&[], &["touch", mounted.join("began").to_str().unwrap()]);
    sandbox.start(&mut exec).wait().expect_code(3).expect_words(&words);
    let mut left = files_below(local.parent().unwrap());
    left.retain(|name| !name.starts_with(".app.db-genesis/"));
    assert_eq!(left, ["app.db"]);
    assert_eq!(std::fs::read(&local).unwrap(), before);
    assert!(!sandbox.replica.exists());
}

#[test]
fn a_folder_that_is_not_there() {
    let mut sandbox = Sandbox::new();
    sandbox.db = sandbox.path("nowhere/app.db");
    sandbox.replicate_fails(&[]).expect_code(3).expect_words(&["nowhere/app.db"]);
}

/// A file where the folder should be stands for every place that cannot be written: permissions do
/// not stop a test that runs as root.
#[test]
fn a_replica_that_cannot_be_written() {
    let mut sandbox = Sandbox::with_database();
    File::create(&sandbox.replica).unwrap();
    sandbox.replicate_fails(&[]).expect_code(4).expect_words(&["genesis.json"]);
    sandbox.replica = sandbox.replica.join("below/a/file");
    sandbox.replicate_fails(&[]).expect_code(4);
}

#[test]
fn a_place_that_is_not_supported() {
    let sandbox = Sandbox::with_database();
    let arguments = ["list", "gopher://host/x"];
    sandbox.run(&arguments).expect_code(2).expect_words(&["no other URL is supported"]);
}

#[test]
fn a_second_replicator() {
    let sandbox = Sandbox::with_database();
    let first = sandbox.replicate();
    let holder = format!("already followed by process {}", first.id());
    sandbox.replicate_fails(&[]).expect_code(7).expect_words(&["app.db", &holder]);
    let mut exec = sandbox.exec_command(&[], &["true"]);
    sandbox.start(&mut exec).wait().expect_code(7).expect_words(&[&holder]);
    first.stop();
    sandbox.replicate().stop();
}

#[test]
fn wrong_usage() {
    let sandbox = Sandbox::with_database();
    for arguments in [
        &["replicate", "--no-such-flag"][..],
        &["replicate"],
        &["restore", "somewhere"],
        &[
            "restore",
            "somewhere",
            "--output",
            "x",
            "--txid",
            "1",
            "--timestamp",
            "2026-01-01T00:00:00Z",
        ],
        &["restore", "somewhere", "--output", "x", "--timestamp", "yesterday"],
        &["exec", "--db", "x", "--replica", "y"],
        &["no-such-command"],
    ] {
        let ended = sandbox.run(arguments).expect_code(2);
        assert!(ended.stdout.is_empty() && ended.stderr.contains("--help"), "{ended:?}");
    }
    let interval = sandbox.replicate_fails(&["--sync-interval", "6m"]).expect_code(2);
    interval.expect_words(&["5m is the most"]);
    sandbox.run(&["--help"]).expect_code(0);
}

#[test]
fn no_replica_to_read() {
    let sandbox = Sandbox::new();
    sandbox.restore_fails(&[]).expect_code(6).expect_words(&["there is no replica here"]);
    sandbox.run(&["list", sandbox.replica.to_str().unwrap()]).expect_code(6);
    std::fs::create_dir(&sandbox.replica).unwrap();
    sandbox.restore_fails(&[]).expect_code(6);
}

#[test]
fn a_replica_of_another_format() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(&sandbox.replica).unwrap();
    let describe = |text: &str| {
        let mut file = File::create(sandbox.replica.join("genesis.json")).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    describe(r#"{"format": 2, "replica": "x"}"#);
    let refused = sandbox.restore_fails(&[]);
    assert_ne!(refused.code, 6);
    refused.expect_words(&["format 2"]);
    describe("nonsense");
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&["genesis.json"]);
}

#[test]
fn an_output_that_is_there() {
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    let replica = sandbox.replica.to_str().unwrap();
    for in_the_way in ["new.db", "new.db-wal", "new.db-shm", "new.db-journal"] {
        let path = sandbox.path("out").join(in_the_way);
        write(&path, "precious");
        let output = sandbox.path("out/new.db");
        let arguments = ["restore", replica, "--output", output.to_str().unwrap()];
        let refused = sandbox.run(&arguments).expect_code(2);
        refused.expect_words(&[path.to_str().unwrap(), "move it away first"]);
        assert_eq!(files_below(&sandbox.path("out")), [in_the_way]);
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        std::fs::remove_file(&path).unwrap();
    }
    // A link to nowhere is in the way, too: what it names must not be created.
    let output = sandbox.path("out/link.db");
    std::os::unix::fs::symlink(sandbox.path("out/victim"), &output).unwrap();
    sandbox.run(&["restore", replica, "--output", output.to_str().unwrap()]).expect_code(2);
    assert!(!sandbox.path("out/victim").exists());
}

#[test]
fn an_output_that_cannot_be_written() {
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    let output = sandbox.path("nowhere/new.db");
    let replica = sandbox.replica.to_str().unwrap();
    let arguments = ["restore", replica, "--output", output.to_str().unwrap()];
    sandbox.run(&arguments).expect_code(2).expect_words(&["/nowhere"]);
    assert!(!output.parent().unwrap().exists());
}
