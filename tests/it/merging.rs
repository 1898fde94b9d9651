//! Many small segments become few large ones, and every transaction stays as it was.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{Application, Sandbox, Sqlite, files_below, rows_of, same_bytes, wait_until};

/// A segment for each transaction, unless they come faster.
const EAGER: [&str; 2] = ["--sync-interval", "1ms"];

/// The segments of a level, in order.
fn segments(sandbox: &Sandbox, level: u8) -> Vec<PathBuf> {
    let mut segments = sandbox.objects_ending(".seg");
    let level = format!("{level:02}");
    segments.retain(|path| path.parent().unwrap().ends_with(format!("wal/{level}")));
    segments
}

/// Commits transactions, each of which goes into a segment of its own.
fn commit_one_by_one(sandbox: &Sandbox, application: &mut Application, count: u64) {
    for _ in 0..count {
        let before = segments(sandbox, 0).len();
        application.run("INSERT INTO t VALUES(hex(randomblob(20)));");
        wait_until("a segment", || (segments(sandbox, 0).len() > before).then_some(()));
    }
}

/// Segments that a restore of a transaction fetches.
fn planned(sandbox: &Sandbox, txid: u64) -> usize {
    let (_, ended) = sandbox.try_restore(&["--txid", &txid.to_string(), "--dry-run", "--json"]);
    let plan: serde_json::Value = serde_json::from_str(&ended.expect_code(0).stdout).unwrap();
    plan["segments"].as_array().unwrap().len()
}

/// Waits for a merged segment. The end waits for no merging that takes long.
fn wait_for_merged(sandbox: &Sandbox, level: u8) {
    wait_until(&format!("a segment of level {level}"), || {
        (!segments(sandbox, level).is_empty()).then_some(())
    });
}

#[test]
fn thousands_of_transactions_are_restored_from_few_objects() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Bundled);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&EAGER));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    let mut commits = 1;
    wait_until("more than a thousand segments", || {
        for _ in 0..200 {
            application.run("INSERT INTO t VALUES(hex(randomblob(30)));");
            commits += 1;
            clock::rest(Duration::from_micros(700));
        }
        (segments(&sandbox, 0).len() > 1100).then_some(())
    });
    wait_for_merged(&sandbox, 2);
    sandbox.wait_for_txid(commits);
    wait_until("all to be merged", || (planned(&sandbox, commits) <= 100).then_some(()));
    replicator.stop();
    assert_eq!(sandbox.last_txid(), Some(commits));
    let all = segments(&sandbox, 0).len();
    for txid in (1..=commits).step_by(401).chain([commits]) {
        let count = planned(&sandbox, txid);
        assert!(count <= 100, "{count} of {all} segments for transaction {txid}");
        let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
        assert_eq!(rows_of(&restored), txid);
    }
    sandbox.assert_complete_after(application);
}

/// Merging goes on from what the replica holds; with copies in the spool and without.
#[test]
fn restarts_do_not_keep_segments_from_being_merged() {
    for keep in ["64MiB", "0"] {
        let sandbox = Sandbox::with_database();
        let mut application = sandbox.application(Sqlite::Shell);
        let more = [&EAGER[..], &["--spool-keep", keep]].concat();
        // What the merged one was made of is kept no longer.
        let left = if keep == "0" { 0 } else { 5 };
        let kept = || files_below(&sandbox.state().join("spool"));
        for n in 1..=4 {
            let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
            replicator.wait_until_followed();
            commit_one_by_one(&sandbox, &mut application, 9);
            if n == 4 {
                wait_for_merged(&sandbox, 1);
                wait_until("a tidy spool", || (kept().len() == left).then_some(()));
            }
            replicator.stop();
        }
        assert_eq!((segments(&sandbox, 0).len(), segments(&sandbox, 1).len()), (36, 1), "{keep}");
        assert_eq!((planned(&sandbox, 20), planned(&sandbox, 37)), (1, 5));
        assert_eq!(kept().len(), left, "{:?}", kept());
        let (restored, _) = sandbox.restore(&["--txid", "20"]);
        assert_eq!(rows_of(&restored), 20);
        sandbox.assert_complete_after(application);
    }
}

/// Flips a bit in the middle of an object.
fn damage(path: &Path) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 150).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 150).unwrap();
}

/// A copy in the spool is proven before it is used, and so is what the replica holds.
#[test]
fn damage_is_never_merged_and_a_damaged_merged_segment_is_not_needed() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let run = |application: &mut Application, count| {
        let mut replicator = sandbox.start(&mut sandbox.replicate_command(&EAGER));
        replicator.wait_until_followed();
        commit_one_by_one(&sandbox, application, count);
        replicator
    };
    run(&mut application, 20).stop();
    for kept in files_below(&sandbox.state().join("spool")) {
        damage(&sandbox.state().join("spool").join(kept));
    }
    let replicator = run(&mut application, 12);
    wait_for_merged(&sandbox, 1);
    replicator.stop();
    let merged = segments(&sandbox, 1);
    assert_eq!(merged.len(), 1);
    let whole: u64 = segments(&sandbox, 0).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert_eq!(merged[0].metadata().unwrap().len(), whole);
    let before = sandbox.restore(&["--txid", "30"]).0;
    damage(&merged[0]);
    let (after, ended) = sandbox.try_restore(&["--txid", "30"]);
    ended.expect_code(0).expect_words(&["is damaged", "other objects"]);
    assert!(same_bytes(&before, &after));
    std::fs::remove_file(&merged[0]).unwrap();

    // One of the replica's own that is damaged is left out of what is merged, and told.
    damage(&segments(&sandbox, 0)[10]);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&EAGER));
    replicator.wait_until_followed();
    commit_one_by_one(&sandbox, &mut application, 1);
    replicator.wait_for_log("cannot be merged");
    replicator.stop();
    assert_eq!(segments(&sandbox, 1).len(), 0);
}

/// A start goes by what a damaged segment was merged from, too.
#[test]
fn a_start_does_not_need_a_damaged_merged_segment() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&EAGER));
    replicator.wait_until_followed();
    commit_one_by_one(&sandbox, &mut application, 32);
    wait_for_merged(&sandbox, 1);
    replicator.stop();
    damage(&segments(&sandbox, 1)[0]);
    std::fs::remove_file(sandbox.state().join("table")).unwrap();
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&EAGER));
    replicator.wait_until_followed();
    commit_one_by_one(&sandbox, &mut application, 1);
    replicator.stop();
    assert_eq!((sandbox.generations().len(), sandbox.last_txid()), (1, Some(34)));
    sandbox.assert_complete_after(application);
}
