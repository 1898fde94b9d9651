//! What `restore` and `list` are asked for beside the state.

use std::path::Path;

use genesis_replicate::clock;
use serde_json::Value;

use crate::support::{Ended, Sandbox, Sqlite, contents_of, files_below, write};

/// A replica of transactions 1 to 4.
fn replicated() -> Sandbox {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    for txid in 2..=4_u64 {
        application.run(&format!("INSERT INTO t VALUES(randomblob({txid} * 3000));"));
        sandbox.wait_for_txid(txid);
    }
    replicator.stop();
    sandbox
}

fn json(ended: Ended) -> Value {
    serde_json::from_str(&ended.expect_code(0).stdout).unwrap()
}

fn restore(sandbox: &Sandbox, output: &Path, more: &[&str]) -> Ended {
    let replica = sandbox.replica.to_str().unwrap();
    sandbox.run(&[&["restore", replica, "--output", output.to_str().unwrap()], more].concat())
}

#[test]
fn what_would_be_and_what_was_restored_as_json() {
    let sandbox = replicated();
    let output = sandbox.path("out/new.db");
    let plan = json(restore(&sandbox, &output, &["--txid", "3", "--dry-run", "--json"]));
    assert!(!output.exists());
    assert_eq!((&plan["snapshot_txid"], &plan["reaches_txid"]), (&1.into(), &3.into()));
    let objects = sandbox.objects();
    let segments = plan["segments"].as_array().unwrap();
    assert_eq!(segments.len(), 2);
    for name in segments.iter().chain([&plan["snapshot"]]) {
        assert!(objects.iter().any(|object| object == name), "{name}");
    }
    let done = json(restore(&sandbox, &output, &["--txid", "3", "--json"]));
    assert_eq!((&done["txid"], &done["verified"]), (&3.into(), &true.into()));
    assert_eq!(done["bytes"], output.metadata().unwrap().len());
    assert_eq!(done["generation"], sandbox.generations()[0].as_str());
    assert_eq!(done["output"], output.to_str().unwrap());
}

#[test]
fn an_output_that_is_there_is_left_alone() {
    let sandbox = replicated();
    let output = sandbox.path("out/new.db");
    restore(&sandbox, &output, &["--if-exists", "skip"]).expect_code(0);
    let restored = std::fs::read(&output).unwrap();
    write(&output, b"precious");
    for more in [&["--if-exists", "skip"][..], &["--if-exists", "skip", "--force"]] {
        let skipped = restore(&sandbox, &output, more).expect_code(0);
        assert!(skipped.stdout.contains("new.db is there already"), "{skipped:?}");
    }
    let skipped = json(restore(&sandbox, &output, &["--if-exists", "skip", "--json"]));
    assert!(skipped["skipped"].as_str().unwrap().contains("there already"));
    restore(&sandbox, &output, &["--force"]).expect_code(2);
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    std::fs::remove_file(&output).unwrap();
    restore(&sandbox, &output, &["--no-verify", "--parallelism", "1"]).expect_code(0);
    assert!(std::fs::read(&output).unwrap() == restored);
}

#[test]
fn an_output_that_can_be_no_file_is_refused_before_anything_is_fetched() {
    let sandbox = replicated();
    write(&sandbox.objects_ending(".manifest")[0], b"damaged: it is not looked at");
    write(&sandbox.path("out/there"), b"precious");
    for (output, words) in [
        ("out/new.db/", "no name of a file"),
        ("out/new.db/.", "no name of a file"),
        ("out/..", "no name of a file"),
        ("out/none/new.db", "this folder does not exist"),
        ("out/there", "something is there already"),
    ] {
        for more in [&[][..], &["--dry-run"]] {
            restore(&sandbox, &sandbox.path(output), more).expect_code(2).expect_words(&[words]);
        }
    }
    assert_eq!(files_below(&sandbox.path("out")), ["there"]);
}

#[test]
fn a_stale_wal_goes_when_it_is_told_to_and_the_restore_succeeds() {
    let sandbox = replicated();
    let output = sandbox.path("out/new.db");
    for suffix in ["-wal", "-shm", "-journal"] {
        write(&sandbox.path(&format!("out/new.db{suffix}")), b"stale");
    }
    for more in [&[][..], &["--dry-run"]] {
        restore(&sandbox, &output, more).expect_code(2).expect_words(&["--force"]);
    }
    restore(&sandbox, &output, &["--force", "--txid", "99"]).expect_code(6);
    assert_eq!(files_below(&sandbox.path("out")).len(), 3);
    restore(&sandbox, &output, &["--force"]).expect_code(0);
    let mut left = files_below(&sandbox.path("out"));
    left.retain(|name| !name.starts_with(".new.db-genesis/"));
    assert_eq!(left, ["new.db"]);
}

#[test]
fn a_replica_that_holds_nothing_yet() {
    let sandbox = replicated();
    let output = sandbox.path("out/new.db");
    let skip = |replica: &Path, code: i32| {
        let replica = replica.to_str().unwrap();
        let output = output.to_str().unwrap();
        let arguments = ["restore", replica, "--output", output, "--if-no-replica", "skip"];
        sandbox.run(&arguments).expect_code(code)
    };
    let empty = sandbox.path("empty");
    assert!(skip(&empty, 0).stdout.contains("there is no replica yet"));
    std::fs::create_dir(&empty).unwrap();
    assert!(skip(&empty, 0).stdout.contains("there is no replica yet"));
    let described = sandbox.replica.join("genesis.json");
    write(&empty.join("genesis.json"), std::fs::read(&described).unwrap());
    assert!(skip(&empty, 0).stdout.contains("holds nothing yet"));
    assert!(!output.exists());

    // What is damaged is not empty.
    let manifest = &sandbox.objects_ending(".manifest")[0];
    let aside = sandbox.path("aside");
    std::fs::hard_link(manifest, &aside).unwrap();
    std::fs::remove_file(manifest).unwrap();
    skip(&sandbox.replica, 6).expect_words(&["no snapshot"]);
    std::fs::hard_link(&aside, manifest).unwrap();
    std::fs::remove_file(&described).unwrap();
    skip(&sandbox.replica, 6);
    assert!(!output.exists());
}

#[test]
fn a_state_that_is_too_early() {
    let sandbox = replicated();
    let early = sandbox.restore_fails(&["--txid", "3", "--min-txid", "4"]).expect_code(6);
    early.expect_words(&["transaction 3", "at least 4"]);
    sandbox.restore_fails(&["--min-txid", "5"]).expect_code(6);
    sandbox.restore_fails(&["--min-txid", "5", "--dry-run"]).expect_code(6);
    sandbox.restore(&["--min-txid", "4"]);
}

#[test]
fn a_database_that_was_corrupt_when_it_was_recorded() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    application.run(
        "CREATE INDEX i ON t(a); PRAGMA writable_schema=ON;
         UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(upper(a))' WHERE name = 'i';",
    );
    sandbox.replicate().stop();
    for fine in ["none", "quick"] {
        sandbox.restore(&["--integrity-check", fine]);
    }
    let refused = sandbox.restore_fails(&["--integrity-check", "full"]).expect_code(5);
    refused.expect_words(&["as it was recorded", "index i", "--integrity-check"]);
    replicated().restore(&["--integrity-check", "full"]);
}

#[test]
fn a_time_while_nobody_looked() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('seen')");
    sandbox.wait_for_txid(2);
    let (before, _) = sandbox.restore(&[]);
    replicator.stop();
    application.run("INSERT INTO t VALUES('not seen')");
    let moment = clock::wall().to_string();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(3);
    replicator.stop();
    let (restored, said) = sandbox.restore(&["--timestamp", &moment]);
    assert_eq!(contents_of(&restored), contents_of(&before));
    assert!(said.contains("while nobody looked; it is left out"), "{said}");
    let (_, said) = sandbox.restore(&["--txid", "3"]);
    assert!(said.contains("note: this transaction was committed between"), "{said}");
    let late = transactions(&sandbox, &["--since", &moment]);
    assert_eq!(late.len(), 1);
    assert!(late[0]["since"].as_str().unwrap() < moment.as_str());
}

/// What `list --transactions` says of the only generation.
fn transactions(sandbox: &Sandbox, more: &[&str]) -> Vec<Value> {
    let replica = sandbox.replica.to_str().unwrap();
    let listed = sandbox.run(&[&["list", replica, "--transactions", "--json"], more].concat());
    json(listed)["generations"][0]["transactions"].as_array().unwrap().clone()
}

#[test]
fn every_transaction_is_listed() {
    let sandbox = replicated();
    let all = transactions(&sandbox, &[]);
    let kinds: Vec<_> = all.iter().map(|row| row["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["snapshot", "commit", "commit", "commit"]);
    for (txid, row) in (1..).zip(&all) {
        assert_eq!(row["txid"], txid);
        let (restored, said) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert!(said.contains(row["time"].as_str().unwrap()), "{said}");
        assert_eq!(row["database_bytes"], restored.metadata().unwrap().len());
        assert!(row["pages"].as_u64().unwrap() > 0 && row["bytes"].as_u64().unwrap() > 0);
    }
    let times: Vec<&str> = all.iter().map(|row| row["time"].as_str().unwrap()).collect();
    // Two of them may be of one moment.
    let between = |since: &str, until: &str| -> Vec<Value> {
        let within = |row: &&Value| (since..=until).contains(&row["time"].as_str().unwrap());
        all.iter().filter(within).cloned().collect()
    };
    let (first, last) = (times[0], times[3]);
    assert_eq!(transactions(&sandbox, &["--since", times[2]]), between(times[2], last));
    assert_eq!(transactions(&sandbox, &["--until", times[2]]), between(first, times[2]));
    let some = transactions(&sandbox, &["--since", times[1], "--until", times[2]]);
    assert_eq!(some, between(times[1], times[2]));

    let replica = sandbox.replica.to_str().unwrap();
    let text = sandbox.run(&["list", replica, "--transactions"]).expect_code(0).stdout;
    let words: Vec<Vec<&str>> =
        text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words.len(), 2 + all.len());
    for (row, words) in all.iter().zip(&words[2..]) {
        let texts = ["time", "kind"].map(|key| row[key].as_str().unwrap());
        assert_eq!(words[1..3], texts);
        let numbers = ["pages", "bytes", "database_bytes"].map(|key| row[key].to_string());
        assert_eq!(
            (words[0], &words[3..]),
            (&*row["txid"].to_string(), &numbers.each_ref().map(|n| &**n)[..])
        );
    }
}

/// A reader that goes away is no failure; a disk that is full is one.
#[test]
fn output_that_cannot_be_written() {
    let sandbox = replicated();
    let replica = sandbox.replica.to_str().unwrap();
    for (arguments, code) in [
        (&["list", replica][..], 3),
        (&["list", replica, "--json"], 3),
        (&["list", replica, "--transactions"], 3),
        (&["list", replica, "--transactions", "--json"], 3),
        (&["check", replica], 3),
        (&["restore", replica, "--output", "/dev/shm/none.db", "--dry-run"], 3),
        (&["--help"], 3),
    ] {
        for (end, code) in [(">/dev/full", code), ("| true; exit ${PIPESTATUS[0]}", 0)] {
            let mut command = std::process::Command::new("bash");
            command.args(["-c", &format!("\"$0\" \"$@\" {end}")]);
            command.arg(env!("CARGO_BIN_EXE_genesis-replicate")).args(arguments);
            let ended = sandbox.start(&mut command).wait().expect_code(code);
            if code != 0 {
                ended.expect_words(&["cannot write to standard output"]);
            }
        }
    }
}

#[test]
fn backups_of_one_type_and_of_a_time() {
    let sandbox = replicated();
    let replica = sandbox.replica.to_str().unwrap();
    let counts = |more: &[&str]| {
        let listed = json(sandbox.run(&[&["list", replica, "--json"], more].concat()));
        let count = |key: &str| listed["generations"][0][key].as_array().unwrap().len();
        (count("snapshots"), count("segments"))
    };
    assert_eq!(counts(&[]), (1, 3));
    assert_eq!(counts(&["--type", "all"]), (1, 3));
    assert_eq!(counts(&["--type", "full"]), (1, 0));
    assert_eq!(counts(&["--type", "incremental"]), (0, 3));
    let time = sandbox.list()["generations"][0]["segments"][1]["time"].as_str().unwrap().to_owned();
    assert_eq!(counts(&["--since", &time]), (0, 2));
    assert_eq!(counts(&["--until", &time]), (1, 2));
}
