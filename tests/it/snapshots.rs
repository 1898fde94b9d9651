//! Snapshots of databases that are too large to be read at one look: in passes, beside writers, again
//! and again, interrupted.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{
    Mounted, Process, Sandbox, Sqlite, assert_same, contents_of, wait_until, write,
};

/// The most memory that a snapshot may take, however large the database: less than one of 36,000 rows
/// and its packs.
const MOST_MIB: u64 = 200;

/// In this time the file is looked at twice, unless the machine is busy.
const LOOKS: Duration = Duration::from_millis(1100);

/// Counts up rows by chance, a commit each, until it is killed.
const LOAD: &str = "
import random, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
c.execute('PRAGMA synchronous=OFF')
while True:
    c.execute('UPDATE big SET n = n + 1 WHERE id = ?', (random.randint(1, int(sys.argv[2])),))
    time.sleep(0.001)
";

fn load(sandbox: &Sandbox, rows: u32) -> Process {
    let mut python = Command::new("python3");
    sandbox.start(python.args(["-c", LOAD]).arg(&sandbox.db).arg(rows.to_string()))
}

fn bytes_of(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> u64 {
    paths.into_iter().map(|path| path.as_ref().metadata().unwrap().len()).sum()
}

#[test]
fn a_database_in_use_is_captured_in_passes() {
    const ROWS: u32 = 12_000;
    let sandbox = Sandbox::large(ROWS);
    let load = load(&sandbox, ROWS);
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("a snapshot is stored");
    let first = sandbox.last_txid().unwrap();
    sandbox.wait_for_txid(first + 50);
    load.kill();
    replicator.stop();
    // A state between the snapshot and the last commit, whole as SQLite sees it.
    let (restored, _) = sandbox.restore(&["--txid", &(first + 20).to_string()]);
    contents_of(&restored);
    sandbox.assert_complete();
}

#[test]
fn a_snapshot_is_restored_by_its_id() {
    let sandbox = Sandbox::with_database();
    let more = ["--snapshot-interval", "1s"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('in the second snapshot');");
    wait_until("a second snapshot", || {
        (sandbox.objects_ending(".manifest").len() == 2).then_some(())
    });
    application.run("INSERT INTO t VALUES('after it');");
    sandbox.wait_for_txid(3);
    replicator.stop();
    let listing = sandbox.list();
    let snapshots = listing["generations"][0]["snapshots"].as_array().unwrap();
    let [first, second] = [0, 1].map(|n| snapshots[n]["id"].as_str().unwrap());
    let listed = sandbox.run(&["list", sandbox.replica.to_str().unwrap()]).expect_code(0);
    for id in [first, second] {
        let line = format!("snapshot    {id}, of transaction ");
        assert!(listed.stdout.contains(&line), "{}", listed.stdout);
    }

    let contents = |id| contents_of(&sandbox.restore(&["--backup", id]).0);
    assert!(!contents(first).contains("in the second snapshot"));
    let second = contents(second);
    assert!(second.contains("in the second snapshot") && !second.contains("after it"));
    let refused = sandbox.restore_fails(&["--backup", "99-7"]);
    refused.expect_code(6).expect_words(&["no snapshot with the id 99-7", "list the replica"]);
    sandbox.restore_fails(&["--backup", "latest"]).expect_code(2);
}

#[test]
fn the_second_snapshot_stores_what_changed_and_an_idle_database_has_no_third() {
    let sandbox = Sandbox::large(12_000);
    let manifests = || sandbox.objects_ending(".manifest").len();
    let more = ["--snapshot-interval", "1s"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_for_log("a snapshot is stored");
    let first = bytes_of(sandbox.objects_ending(".pack"));
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("UPDATE big SET n = 1 WHERE id BETWEEN 3000 AND 3099;");
    wait_until("a second snapshot", || (manifests() == 2).then_some(()));
    let second = bytes_of(sandbox.objects_ending(".pack")) - first;
    assert!(second > 0 && second * 30 < first, "{second} bytes after {first}");
    application.run("SELECT count(*) FROM big;");
    // Two of these intervals would have passed.
    clock::rest(Duration::from_millis(2500));
    assert_eq!(manifests(), 2);
    replicator.stop();
    // By the second snapshot alone: nothing comes after it.
    sandbox.assert_complete();
}

#[test]
fn an_interrupted_snapshot_goes_on_with_what_is_stored() {
    const ROWS: u32 = 36_000;
    let sandbox = Sandbox::large(ROWS);
    let packs = || sandbox.objects_ending(".pack");
    let replicator = sandbox.replicate();
    wait_until("two packs", || (packs().len() >= 2).then_some(()));
    replicator.kill();
    assert!(sandbox.objects_ending(".manifest").is_empty());
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("UPDATE big SET n = 1 WHERE id = 5;");
    application.close();
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("a snapshot is stored");
    let peak = replicator.peak().unwrap() >> 20;
    assert!(peak < MOST_MIB, "{peak} MiB of memory");
    replicator.stop();
    let (stored, whole) = (bytes_of(packs()), sandbox.db.metadata().unwrap().len());
    // At most the pack that was on its way came twice.
    assert!(stored < whole + (40 << 20), "{stored} bytes of packs for {whole}");
    sandbox.assert_complete();
}

#[test]
fn a_wal_that_is_gone_costs_only_the_pages_that_differ() {
    let sandbox = Sandbox::large(12_000);
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop();
    let before = sandbox.objects();
    let mut application = sandbox.application(Sqlite::Python);
    application.run("UPDATE big SET n = 7 WHERE id IN (1, 6000, 12000);");
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    sandbox.replicate().stop().expect_words(&["comparing every page", "pages=3 kind=Rebase"]);
    let after = sandbox.objects().into_iter().filter(|name| !before.contains(name));
    let after: Vec<_> = after.map(|name| sandbox.replica.join(name)).collect();
    assert_eq!(after.len(), 1, "{after:?}");
    assert!(bytes_of(&after) < 40_000);
    sandbox.assert_complete();
}

#[test]
fn a_page_table_that_is_lost_torn_or_old_is_made_anew() {
    let sandbox = Sandbox::large(6_000);
    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop();
    let table = sandbox.state().join("table");
    let old = std::fs::read(&table).unwrap();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    application.run("UPDATE big SET n = 1 WHERE id < 100; DELETE FROM big WHERE id > 5000;");
    replicator.stop();
    let before = sandbox.objects();

    let mut torn = std::fs::read(&table).unwrap();
    torn.truncate(torn.len() / 2);
    for bytes in [Some(torn), Some(old), None] {
        match bytes {
            Some(bytes) => write(&table, &bytes),
            None => std::fs::remove_file(&table).unwrap(),
        }
        sandbox.replicate().stop().expect_words(&["continuing what the replica holds"]);
        assert_eq!(sandbox.objects(), before);
        assert!(table.exists());
    }
    // All local state at once.
    std::fs::remove_dir_all(sandbox.state()).unwrap();
    let replicator = sandbox.replicate();
    application.run("VACUUM;");
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 1);
    application.close();
    sandbox.assert_complete();
}

/// Whether or not the hashes of its pages are still known on this side.
#[test]
fn a_pack_that_is_gone_is_named_by_no_later_snapshot() {
    for keeps_table in [true, false] {
        let sandbox = Sandbox::large(6_000);
        let more = ["--snapshot-interval", "1s"];
        let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
        replicator.wait_for_log("a snapshot is stored");
        replicator.stop();
        std::fs::remove_file(&sandbox.objects_ending(".pack")[0]).unwrap();
        if !keeps_table {
            std::fs::remove_file(sandbox.state().join("table")).unwrap();
        }
        let mut application = sandbox.application(Sqlite::Shell);
        let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
        replicator.wait_until_followed();
        application.run("UPDATE big SET n = 1 WHERE id = 1;");
        replicator.wait_for_log("a snapshot is stored");
        replicator.stop();
        application.close();
        sandbox.assert_complete();
    }
}

/// As by `rsync --inplace`, or a failing disk that somebody mends by hand.
#[test]
fn a_page_that_is_written_past_sqlite_is_found_and_shipped() {
    let sandbox = Sandbox::large(6_000);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&["--log-level", "debug"]));
    replicator.wait_for_log("a snapshot is stored");
    replicator.wait_for_log("parked=true");
    let parked = replicator.logged("parked=true");
    let mut application = sandbox.application(Sqlite::Python);
    application.run("UPDATE big SET n = 1 WHERE id = 1;");
    sandbox.wait_for_txid(2);
    replicator.wait_for_another("parked=true", parked);
    let file = File::options().write(true).open(&sandbox.db).unwrap();
    // A write that is seen together with that checkpoint is taken for its own: then another is needed.
    wait_until("the write to be found", || {
        clock::rest(LOOKS);
        file.write_all_at(b"overwritten", 3000 * 4096 + 500).unwrap();
        let deadline = clock::monotonic() + LOOKS * 10;
        while clock::monotonic() < deadline {
            if replicator.logged("THE DATABASE FILE WAS WRITTEN TO") > 0 {
                return Some(());
            }
            clock::rest(Duration::from_millis(10));
        }
        None
    });
    replicator.wait_for_log("pages=1 kind=Rebase");
    application.run("UPDATE big SET n = 2 WHERE id = 2;");
    let ended = replicator.stop();
    assert_eq!(ended.stderr.matches("WAS WRITTEN TO").count(), 1, "{}", ended.stderr);
    assert_eq!(sandbox.generations().len(), 1);
    application.close();
    sandbox.assert_complete();
}

/// A file system of its own for the local state, which is soon full.
#[test]
fn a_full_disk_harms_no_one_and_heals() {
    let sandbox = Sandbox::large(100);
    let state = sandbox.path("state");
    let Some(_mounted) = Mounted::tmpfs("64m", &state) else { return };
    let more = ["--state-dir", state.to_str().unwrap()];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_for_log("a snapshot is stored");
    let filler = state.join("filler");
    Command::new("dd")
        .arg("if=/dev/zero")
        .arg(format!("of={}", filler.display()))
        .args(["bs=64k", "count=2000"])
        .output()
        .unwrap();
    let mut application = sandbox.application(Sqlite::Python);
    for n in 0..40 {
        application
            .run(&format!("UPDATE big SET photo = randomblob(3500), n = {n} WHERE id < 50;"));
    }
    replicator.wait_for_log("commits are not recorded one by one");
    std::fs::remove_file(&filler).unwrap();
    replicator.wait_for_log("kind=Coarse");
    application.run("UPDATE big SET n = 1000 WHERE id = 1;");
    replicator.stop();
    application.close();
    let restored = contents_of(&sandbox.restore(&[]).0);
    assert_same(&restored, &contents_of(&sandbox.db), "the restored database");
    sandbox.assert_complete();
}
