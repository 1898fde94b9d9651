//! The spool: what waits in it while the replica is away, and its limit.

use std::path::{Path, PathBuf};
use std::process::Command;

use genesis_wal::id::Epoch;
use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::part::{Stamp, restamp};
use serde_json::Value;

use crate::support::{
    Application, Mounted, Process, Sandbox, Sqlite, can_trace, contents_of, failing_at,
    files_below, rename, rows_of, wait_until, wal_frames, write,
};

/// The replica's folder while it is away.
fn away(sandbox: &Sandbox) -> PathBuf {
    sandbox.path("away")
}

fn waiting_bytes(sandbox: &Sandbox) -> u64 {
    let spool = sandbox.state().join("spool");
    let files = files_below(&spool).into_iter().filter(|name| !name.starts_with("shipped/"));
    // A file may go while it is looked at.
    files.filter_map(|name| spool.join(name).metadata().ok()).map(|found| found.len()).sum()
}

fn commit(application: &mut Application, commits: &mut u64) {
    application.run("INSERT INTO t VALUES(hex(randomblob(1000)));");
    *commits += 1;
}

fn records(sandbox: &Sandbox) -> Vec<Value> {
    let replica = sandbox.replica.to_str().unwrap();
    let listed = sandbox.run(&["list", replica, "--transactions", "--json"]).expect_code(0);
    let listing: Value = serde_json::from_str(&listed.stdout).unwrap();
    let lines = listing["generations"].as_array().unwrap();
    assert_eq!(lines.len(), 1);
    lines[0]["transactions"].as_array().unwrap().clone()
}

/// Commits without a replica until the spool is full, and then goes on.
fn fill(sandbox: &Sandbox, application: &mut Application, replicator: &Process) -> u64 {
    let mut commits = 1;
    wait_until("a full spool", || {
        for _ in 0..20 {
            commit(application, &mut commits);
        }
        replicator.log().contains("the spool is at its limit").then_some(())
    });
    let waiting = waiting_bytes(sandbox);
    assert!((200_000..600_000).contains(&waiting), "{waiting}");
    for _ in 0..2000 {
        commit(application, &mut commits);
    }
    assert!(waiting_bytes(sandbox) < 600_000, "{}", waiting_bytes(sandbox));
    // The WAL is emptied all the same.
    wait_until("a small WAL", || {
        commit(application, &mut commits);
        (wal_frames(application.connection()) < 500).then_some(())
    });
    let peak = replicator.peak().unwrap();
    assert!(peak < 100 << 20, "{peak}");
    commits
}

#[test]
fn a_full_spool_is_shipped_one_by_one_and_what_came_later_as_one_record() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let more = ["--spool-limit", "300kB", "--sync-interval", "5ms", "--wal-limit", "1MB"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    rename(&sandbox.replica, &away(&sandbox));
    let mut commits = fill(&sandbox, &mut application, &replicator);
    replicator.wait_for_log("cannot be recorded before there is room");
    rename(&away(&sandbox), &sandbox.replica);
    replicator.wait_for_log("recorded in one");
    wait_until("an empty spool", || (waiting_bytes(&sandbox) == 0).then_some(()));
    for _ in 0..3 {
        commit(&mut application, &mut commits);
    }
    replicator.stop();

    let records = records(&sandbox);
    let coarse: Vec<usize> =
        (1..records.len()).filter(|&n| records[n]["kind"] != "commit").collect();
    let [coarse] = coarse[..] else { panic!("{coarse:?} of {}", records.len()) };
    assert!(coarse > 20 && coarse + 3 < records.len(), "{coarse} of {}", records.len());
    assert_eq!(records[coarse]["kind"], "coarse");
    for txid in [2, coarse as u64 / 2, coarse as u64 - 1] {
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert_eq!(rows_of(&restored), txid, "one by one");
    }
    let stands_for = commits - (records.len() as u64 - 1);
    assert_eq!(records[coarse]["commits"], stands_for);
    sandbox.assert_complete_after(application);
    assert_eq!(rows_of(&sandbox.db), commits);
}

/// One segment takes all of a small disk: what is written of it is sealed, shipped and so makes room.
#[test]
fn a_segment_that_fills_the_disk_is_sealed() {
    let sandbox = Sandbox::with_database();
    let state = sandbox.path("state");
    let Some(_mounted) = Mounted::tmpfs("3m", &state) else { return };
    let mut application = sandbox.application(Sqlite::Python);
    let state = state.to_str().unwrap();
    let more = ["--state-dir", state, "--sync-interval", "4s", "--spool-keep", "0"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    wait_until("a full disk", || {
        application.run("INSERT INTO t VALUES(hex(randomblob(40000)));");
        replicator.log().contains("commits are not recorded one by one").then_some(())
    });
    replicator.wait_for_log("recorded in one");
    application.run("INSERT INTO t VALUES('last');");
    replicator.stop();
    let kinds: Vec<_> = records(&sandbox).iter().map(|record| record["kind"].clone()).collect();
    assert!(kinds.iter().filter(|kind| *kind == "commit").count() > 20, "{kinds:?}");
    sandbox.assert_complete_after(application);
}

/// A followed database whose replica has gone away with a segment in the spool, on a disk of little room.
struct Waiting {
    sandbox: Sandbox,
    state: PathBuf,
    application: Application,
    replicator: Process,
    _mounted: Mounted,
}

impl Waiting {
    /// `None` where nothing can be mounted.
    fn new() -> Option<Self> {
        let sandbox = Sandbox::with_database();
        let state = sandbox.path("state");
        let mounted = Mounted::tmpfs("3m", &state)?;
        let mut application = sandbox.application(Sqlite::Bundled);
        let mut command = sandbox.replicate_command(&shipping_at_once(&state));
        let mut replicator = sandbox.start(&mut command);
        replicator.wait_until_followed();
        sandbox.wait_for_txid(1);
        rename(&sandbox.replica, &away(&sandbox));
        application.run("INSERT INTO t VALUES(hex(randomblob(100000)));");
        let waits = || files_below(&state).into_iter().any(|name| name.contains("/wal/"));
        wait_until("a segment in the spool", || waits().then_some(()));
        Some(Self { sandbox, state, application, replicator, _mounted: mounted })
    }
}

fn shipping_at_once(state: &Path) -> [&str; 4] {
    ["--state-dir", state.to_str().unwrap(), "--sync-interval", "5ms"]
}

/// What fails on the local disk after the replica is claimed is tried again with that claim.
#[test]
#[allow(clippy::disallowed_methods, reason = "no file of a running database")]
fn a_full_disk_at_the_start_costs_one_epoch() {
    let Some(Waiting { sandbox, state, _mounted, mut application, replicator }) = Waiting::new()
    else {
        return;
    };
    replicator.kill();
    rename(&away(&sandbox), &sandbox.replica);
    let is_claim = |name: &&String| name.contains(".base");
    let claims = || files_below(&sandbox.replica).iter().filter(is_claim).count();
    let claimed = claims();

    let filler = state.join("filler");
    std::fs::write(&filler, vec![1; 4_000_000]).unwrap_err();
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&shipping_at_once(&state)));
    wait_until("two tries", || {
        let log = replicator.log();
        (log.matches("the local state cannot be used").count() == 2).then_some(())
    });
    std::fs::remove_file(filler).unwrap();
    sandbox.wait_for_txid(2);
    replicator.wait_until_followed();
    assert_eq!(claims(), claimed + 1);
    application.run("INSERT INTO t VALUES('last');");
    replicator.stop();
    sandbox.assert_complete_after(application);
}

/// Another writer has taken over, and the disk does not take what was recorded since: nobody waits for
/// that.
#[test]
#[allow(clippy::disallowed_methods, reason = "no file of a running database")]
fn a_full_disk_does_not_hold_up_the_end_of_a_writer_that_was_passed() {
    let Some(Waiting { sandbox, state, _mounted, mut application, mut replicator }) =
        Waiting::new()
    else {
        return;
    };
    std::fs::write(state.join("filler"), vec![1; 4_000_000]).unwrap_err();
    application.run("INSERT INTO t VALUES('has no room');");
    replicator.wait_for_log("cannot write the spool");
    std::fs::write(away(&sandbox).join("epochs/0000000002"), "another's").unwrap();
    rename(&away(&sandbox), &sandbox.replica);
    replicator.wait().expect_code(7).expect_words(&["fenced"]);
}

/// A transaction that would take what is to stay free of the disk is not written, until there is room.
#[test]
fn a_large_transaction_leaves_some_of_the_disk_free() {
    let sandbox = Sandbox::with_database();
    let state = sandbox.path("state");
    let Some(mounted) = Mounted::tmpfs("200m", &state) else { return };
    let mut application = sandbox.application(Sqlite::Bundled);
    let more = ["--state-dir", state.to_str().unwrap(), "--spool-keep", "0"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    application.run(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 800)
         INSERT INTO t SELECT randomblob(60000) FROM n;",
    );
    replicator.wait_for_log("commits are not recorded one by one");
    let free = || rustix::fs::statvfs(&state).map(|f| f.f_bavail * f.f_frsize).unwrap();
    wait_until("what was written to be taken back", || {
        assert!(free() > 160 << 20, "{}", free());
        (free() > 190 << 20).then_some(())
    });
    replicator.wait_for_log("cannot be recorded before there is room");
    mounted.grow("3g");
    replicator.wait_for_log("recorded in one");
    assert_eq!(replicator.log().matches("before there is room").count(), 1);
    application.run("INSERT INTO t VALUES('last');");
    replicator.stop();
    sandbox.assert_complete_after(application);
}

/// What is committed is recorded all the same, and the WAL is emptied.
#[test]
fn a_disk_without_room_for_the_page_table_holds_nothing_up() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Python);
    let command = sandbox.replicate_command(&[]);
    let trace = sandbox.path("trace");
    let mut command = failing_at(&command, "fallocate", "error=ENOSPC", &[], &trace);
    let mut replicator = sandbox.start(&mut command);
    replicator.wait_until_followed();
    replicator.wait_for_log("it is kept in memory");
    application.run("INSERT INTO t VALUES('recorded');");
    sandbox.wait_for_txid(2);
    wait_until("an empty WAL", || {
        let mut shell = Command::new("sqlite3");
        let done = shell.arg(&sandbox.db).arg("PRAGMA wal_checkpoint(TRUNCATE);").output().unwrap();
        (done.stdout == b"0|0|0\n").then_some(())
    });
    replicator.stop();
    sandbox.assert_complete_after(application);
}

/// A start was killed when it had put its stamp on a segment, and not yet removed the one without.
#[test]
fn a_segment_with_two_stamps_is_one() {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    rename(&sandbox.replica, &away(&sandbox));
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    let spool = sandbox.state().join("spool");
    let waiting = wait_until("a segment in the spool", || {
        let mut names = files_below(&spool).into_iter();
        names.find(|name| name.parse::<ObjectName>().is_ok())
    });
    replicator.kill();
    rename(&away(&sandbox), &sandbox.replica);
    let Ok(ObjectName::Segment(name)) = waiting.parse() else { panic!("{waiting}") };
    // Not the epoch of the next start, which would find its own stamp on it.
    let twin = SegmentName { epoch: Epoch(name.epoch.0 + 5), ..name };
    let mut part = std::fs::read(spool.join(&waiting)).unwrap();
    restamp(&mut part, Stamp { generation: twin.generation, epoch: twin.epoch }).unwrap();
    write(&spool.join(twin.to_string()), &part);

    let mut replicator = sandbox.replicate();
    replicator.wait_for_log("continuing what the replica holds");
    sandbox.wait_for_txid(2);
    let ended = replicator.stop();
    assert!(!ended.stderr.contains("put aside"), "{}", ended.stderr);
    assert_eq!(files_below(&spool.join("orphans")), [""; 0]);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'second'"));
}
