//! Replication goes on from what was restored: on the same line from its end, on another from before.

use std::path::{Path, PathBuf};
use std::process::Command;

use genesis_replicate::clock;

use crate::support::{
    Process, Sandbox, Sqlite, contents_of, files_below, mode, same_bytes, wait_until, write,
};

/// Makes the database large: several packs' worth of blocks that never change.
const FILL: &str = "CREATE TABLE large(b);
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 400)
    INSERT INTO large SELECT randomblob(10000) FROM c;";

/// A database of which transactions 1 to 6 are in the replica, and what it was after each.
fn replicated() -> (Sandbox, Vec<PathBuf>) {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(FILL);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    for txid in 2..=6_u64 {
        application.run(&format!("INSERT INTO t VALUES('{txid}');"));
        sandbox.wait_for_txid(txid);
    }
    replicator.stop();
    application.close();
    let states = (1..=6).map(|txid: u64| sandbox.restore(&["--txid", &txid.to_string()]).0);
    let states = states.collect();
    (sandbox, states)
}

/// The database is gone; its local state is not.
fn lose(sandbox: &Sandbox) {
    for suffix in ["", "-wal", "-shm"] {
        let path = sandbox.db.with_file_name(format!("app.db{suffix}"));
        assert!(Command::new("rm").arg("-f").arg(path).status().unwrap().success());
    }
}

fn restore_to(sandbox: &Sandbox, target: &Path, more: &[&str]) {
    let (replica, target) = (sandbox.replica.to_str().unwrap(), target.to_str().unwrap());
    let arguments = [&["restore", replica, "--output", target], more].concat();
    sandbox.run(&arguments).expect_code(0);
}

fn insert(sandbox: &Sandbox, value: &str) {
    sandbox.application(Sqlite::Shell).run(&format!("INSERT INTO t VALUES('{value}');"));
}

/// Bytes in packs.
fn packed(sandbox: &Sandbox) -> u64 {
    let packs = sandbox.objects_ending(".pack").into_iter();
    packs.map(|pack| pack.metadata().unwrap().len()).sum()
}

#[test]
fn the_latest_state_goes_on_without_an_upload() {
    let (sandbox, _) = replicated();
    let before = sandbox.objects();
    lose(&sandbox);
    restore_to(&sandbox, &sandbox.db, &[]);
    assert_eq!(mode(&sandbox.state()), 0o700);
    for _ in 0..2 {
        sandbox.replicate().stop().expect_words(&["everything committed is in the replica"]);
        assert_eq!(sandbox.objects(), before);
    }
    let replicator = sandbox.replicate();
    insert(&sandbox, "7");
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(7)));
    sandbox.assert_complete();
}

/// The host is gone for good, and has released nothing: a restored database may take its place, also
/// where its application writes before it is followed.
#[test]
fn the_latest_state_on_another_host() {
    let (sandbox, _) = replicated();
    let replicator = sandbox.replicate();
    insert(&sandbox, "7");
    sandbox.wait_for_txid(7);
    replicator.kill();
    let before = sandbox.objects();

    let mut other = Sandbox::new();
    other.replica.clone_from(&sandbox.replica);
    restore_to(&other, &other.db, &[]);
    assert!(files_below(&other.state()).contains(&"table".to_owned()));
    let mut application = other.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('8');");
    let replicator = other.replicate();
    insert(&other, "9");
    replicator.stop();
    assert_eq!(other.generations().len(), 1);
    assert!(other.objects().len() <= before.len() + 2);
    other.assert_complete_after(application);
    sandbox.replicate().stop().expect_words(&["comparing every page"]);
}

#[test]
fn an_earlier_state_begins_another_line_with_what_is_stored() {
    let (sandbox, states) = replicated();
    let (old, stored) = (sandbox.generations()[0].clone(), packed(&sandbox));
    let end_of_old = clock::wall().to_string();
    lose(&sandbox);
    restore_to(&sandbox, &sandbox.db, &["--txid", "3"]);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(7);
    insert(&sandbox, "instead");
    replicator.stop().expect_words(&["restored to an earlier state", "a new generation begins"]);

    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (2, Some(8)));
    let listing = sandbox.list();
    let parent = &listing["generations"][1]["parent"];
    assert_eq!((parent["generation"].as_str().unwrap(), &parent["txid"]), (&*old, &3.into()));
    let listed = sandbox.run(&["list", sandbox.replica.to_str().unwrap()]).expect_code(0).stdout;
    assert!(listed.contains(&format!("begun with  transaction 3 of generation {old}")), "{listed}");
    let more = packed(&sandbox) - stored;
    assert!(more * 10 < stored, "{more} bytes more than {stored}");

    // Each state of either line, by its number, and by the time at which it was the current one.
    for (txid, state) in (1..).zip(&states) {
        let txid = format!("{txid}");
        assert!(same_bytes(&sandbox.restore(&["--txid", &txid]).0, state));
        let more = ["--generation", &old, "--txid", &txid];
        assert!(same_bytes(&sandbox.restore(&more).0, state));
    }
    assert!(same_bytes(&sandbox.restore(&["--timestamp", &end_of_old]).0, &states[5]));
    assert!(same_bytes(&sandbox.restore(&["--txid", "7"]).0, &states[2]));
    let contents = contents_of(&sandbox.restore(&[]).0);
    assert!(contents.contains("'instead'") && !contents.contains("'4'"));

    // The next start goes on with it, and so does its next snapshot with what it began with.
    let before = sandbox.objects();
    sandbox.replicate().stop();
    assert_eq!(sandbox.objects(), before);
    let more = ["--snapshot-interval", "1ms"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 2);
    let [_, first, _] = &sandbox.objects_ending(".manifest")[..] else { panic!("not three") };
    std::fs::remove_file(first).unwrap();
    assert_eq!(sandbox.list()["generations"][1]["parent"]["txid"], 3);
    sandbox.assert_complete();
}

/// What was committed and never shipped when the database was lost is still in the local state. It is
/// shipped on its own line, before another begins with what was restored.
#[test]
fn what_waited_in_the_spool_is_not_lost() {
    let (sandbox, states) = replicated();
    let hidden = sandbox.path("hidden");
    let replicator = sandbox.replicate();
    insert(&sandbox, "7");
    sandbox.wait_for_txid(7);
    let moved = |from: &Path, to: &Path| {
        assert!(Command::new("mv").args([from, to]).status().unwrap().success());
    };
    moved(&sandbox.replica, &hidden);
    std::fs::File::create(&sandbox.replica).unwrap();
    insert(&sandbox, "8");
    let spool = sandbox.state().join("spool");
    wait_until("transaction 8 in the spool", || {
        files_below(&spool).iter().any(|name| name.contains("/00000000000000000008-")).then_some(())
    });
    replicator.kill();
    std::fs::remove_file(&sandbox.replica).unwrap();
    moved(&hidden, &sandbox.replica);

    lose(&sandbox);
    restore_to(&sandbox, &sandbox.db, &[]);
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(9);
    insert(&sandbox, "10");
    replicator.stop();
    let listing = sandbox.list();
    assert_eq!(listing["generations"][1]["parent"]["txid"], 7);
    assert!(contents_of(&sandbox.restore(&["--txid", "8"]).0).contains("'8'"));
    assert!(!contents_of(&sandbox.restore(&[]).0).contains("'8'"));
    assert!(same_bytes(&sandbox.restore(&["--txid", "6"]).0, &states[5]));
    sandbox.assert_complete();
}

/// A file of the same name that was not restored is what it is, whatever a restore has left.
#[test]
fn another_file_in_the_place_of_the_restored_one() {
    let (sandbox, _) = replicated();
    lose(&sandbox);
    restore_to(&sandbox, &sandbox.db, &["--txid", "3"]);
    let latest = sandbox.restore(&[]).0;
    let copied = Command::new("sh")
        .args(["-c", "rm \"$1\" && cp \"$0\" \"$1\""])
        .args([&latest, &sandbox.db])
        .status();
    assert!(copied.unwrap().success());
    let before = sandbox.objects();
    sandbox.replicate().stop();
    assert_eq!(sandbox.objects(), before);
}

/// The options of a restore that know where the local state is, with a configuration or without.
type Way = (&'static str, &'static [&'static str]);

/// Local state elsewhere: what the configuration says of the output, or the command line.
#[test]
fn local_state_that_is_elsewhere_is_told_what_was_restored() {
    let configured = "state_dir = 'state'\n[[db]]\npath = 'app/app.db'\nreplica = 'replica'";
    let ways: [Way; 3] = [
        (configured, &["--db", "app.db"]),
        (configured, &["replica"]),
        ("", &["replica", "--state-dir", "state"]),
    ];
    for (configuration, way) in ways {
        let sandbox = Sandbox::with_database();
        let file = sandbox.path("genesis-replicate.toml");
        write(&file, configuration.as_bytes());
        let run = |arguments: &[&str]| {
            let mut command = Process::command(arguments);
            sandbox.start(command.current_dir(sandbox.path(""))).wait().expect_code(0)
        };
        let exec = |sql: &str| {
            let db = sandbox.db.to_str().unwrap();
            let exec =
                ["exec", "--db", "app/app.db", "--replica", "replica", "--state-dir", "state"];
            run(&[&exec[..], &["--", "sqlite3", db, sql]].concat())
        };
        exec("INSERT INTO t VALUES('second')");
        exec("INSERT INTO t VALUES('third')");
        let last = sandbox.last_txid().unwrap();
        lose(&sandbox);
        let earlier = ["--output", "app/app.db", "--txid", "1"];
        run(&[&["restore"], way, &earlier].concat());
        assert!(!sandbox.state().exists(), "{way:?}");
        exec("INSERT INTO t VALUES('instead')").expect_words(&["restored to an earlier state"]);
        assert_eq!(sandbox.generations().len(), 2, "{way:?}");
        let kept = sandbox.restore(&["--txid", &last.to_string()]).0;
        assert!(contents_of(&kept).contains("'third'"), "{way:?}");
    }
}
