//! Objects that are not there: what is lost at the end of a history, or tells where it is cut, is missed.

use std::path::{Path, PathBuf};
use std::process::Command;

use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::part::{self, Stamp};

use crate::support::{Process, Sandbox, Sqlite, contents_of, wait_until, write};

/// A database with transactions 1 to `last`, one segment each, in a replica that is still written to.
fn replicated(last: u64) -> (Sandbox, Process) {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    for txid in 2..=last {
        insert(&sandbox, txid, &format!("value {txid}"));
    }
    (sandbox, replicator)
}

fn insert(sandbox: &Sandbox, txid: u64, value: &str) {
    sandbox.application(Sqlite::Shell).run(&format!("INSERT INTO t VALUES('{value}');"));
    sandbox.wait_for_txid(txid);
    sandbox.wait_until_shipped();
}

fn base(sandbox: &Sandbox, epoch: u32) -> PathBuf {
    sandbox.replica.join(format!("epochs/{epoch:010}.base"))
}

/// A writer that begins, and is killed before it has anything to store.
fn begin_and_die(sandbox: &Sandbox, epoch: u32) {
    let replicator = sandbox.replicate();
    wait_until("a base", || base(sandbox, epoch).exists().then_some(()));
    sandbox.wait_until_shipped();
    replicator.kill();
}

fn name(object: &Path) -> String {
    object.file_name().unwrap().to_str().unwrap().to_owned()
}

fn take_away(object: &Path) -> Vec<u8> {
    let good = std::fs::read(object).unwrap();
    std::fs::remove_file(object).unwrap();
    good
}

/// The last segment is lost, of transaction `lost`: that is told, and what there is can be restored all the
/// same.
fn assert_missed(sandbox: &Sandbox, lost: u64) {
    let (before, after) = (lost - 1, lost + 1);
    let between = format!("between {before} and {after}");
    let instead = format!("can be restored: transaction {before}");
    let late = ["--timestamp", "2100-01-01T00:00:00Z"];
    for target in [&[][..], &late, &["--txid", &lost.to_string()]] {
        sandbox.restore_fails(target).expect_code(5).expect_words(&[&between, &instead]);
    }
    sandbox.restore(&["--txid", &before.to_string()]);
    assert!(!read_by_itself(sandbox, "missed"));
}

/// Whether the reader that was written from the description restores the latest state.
fn read_by_itself(sandbox: &Sandbox, name: &str) -> bool {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/read-replica.py");
    let mut command = Command::new("python3");
    command.arg(reader).arg(&sandbox.replica).arg(sandbox.path(&format!("by-itself-{name}")));
    sandbox.start(&mut command).wait().code == 0
}

/// Transactions that the next writer has found are not used again when they are lost.
#[test]
fn a_last_segment_that_the_next_writer_has_found() {
    let (sandbox, replicator) = replicated(4);
    replicator.kill();
    begin_and_die(&sandbox, 2);
    sandbox.restore(&[]);
    let lost = sandbox.objects_ending(".seg").pop().unwrap();
    let good = take_away(&lost);
    assert_missed(&sandbox, 4);

    // Until the database is there as a whole once more, it is still missed.
    let replicator = sandbox.replicate();
    wait_until("a snapshot", || (sandbox.objects_ending(".manifest").len() == 2).then_some(()));
    let began = sandbox.objects_ending(".manifest").pop().unwrap();
    replicator.kill();
    let Ok(ObjectName::Manifest(began_with)) = key(&sandbox, &began).parse() else { panic!() };
    assert!(began_with.txid > Txid(4), "{began_with}");
    sandbox.restore(&[]);
    let _snapshot = take_away(&began);
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&["can be restored: transaction 3"]);
    write(&lost, good);
    sandbox.restore(&["--txid", "4"]);
}

/// The name of an object in the replica.
fn key(sandbox: &Sandbox, object: &Path) -> String {
    object.strip_prefix(&sandbox.replica).unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_last_segment_of_a_writer_that_has_ended() {
    let (sandbox, replicator) = replicated(4);
    replicator.stop();
    let lost = sandbox.objects_ending(".seg").pop().unwrap();
    let good = take_away(&lost);
    assert_missed(&sandbox, 4);
    write(&lost, good);
    sandbox.restore(&[]);
    assert!(read_by_itself(&sandbox, "found"));
}

/// Without its only snapshot nothing of the newest line can be restored, and an older one is not the latest.
#[test]
fn the_only_snapshot_of_the_newest_line() {
    let (sandbox, replicator) = replicated(2);
    replicator.stop();
    let older = sandbox.generations().pop().unwrap();
    let again =
        "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL;";
    sandbox.application(Sqlite::Shell).run(again);
    let mut command = sandbox.replicate_command(&["--new-generation"]);
    let replicator = sandbox.start(&mut command);
    wait_until("a snapshot", || (sandbox.objects_ending(".manifest").len() == 2).then_some(()));
    sandbox.wait_until_shipped();
    replicator.stop();
    sandbox.restore(&[]);
    let newest = sandbox.objects_ending(".manifest").pop().unwrap();
    let _lost = take_away(&newest);
    let said = ["can be restored: transaction 2", &older];
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&said);
    assert!(!read_by_itself(&sandbox, "missed"));
    sandbox.restore(&["--txid", "2"]);
    let (_, said) = sandbox.restore(&["--generation", &older]);
    assert!(said.contains("as of transaction 2,"), "{said}");
}

/// What a writer stored as transactions 4 to 6 that had been taken over from at 3, and the replica in which 4
/// is another writer's. The folder of the line's segments.
fn with_void_segments() -> (Sandbox, PathBuf, Vec<(SegmentName, Vec<u8>)>) {
    let (sandbox, replicator) = replicated(3);
    replicator.stop();
    sandbox.application(Sqlite::Shell).run("PRAGMA wal_checkpoint(TRUNCATE);");
    let stale = Sandbox::new();
    for (from, to) in [
        (&sandbox.replica, &stale.replica),
        (&sandbox.state(), &stale.state()),
        (&sandbox.db, &stale.db),
    ] {
        assert!(Command::new("cp").arg("-rT").arg(from).arg(to).status().unwrap().success());
    }
    let replicator = sandbox.replicate();
    insert(&sandbox, 4, "new");
    replicator.kill();
    let replicator = stale.start(&mut stale.replicate_command(&["--takeover"]));
    for txid in 4..=6 {
        insert(&stale, txid, "void");
    }
    replicator.kill();
    let mut void = Vec::new();
    for object in &stale.objects_ending(".seg")[2..] {
        let Ok(ObjectName::Segment(name)) = key(&stale, object).parse() else { panic!() };
        let name = SegmentName { epoch: Epoch(1), ..name };
        let mut bytes = std::fs::read(object).unwrap();
        part::restamp(&mut bytes, Stamp { generation: name.generation, epoch: name.epoch })
            .unwrap();
        void.push((name, bytes));
    }
    let folder = sandbox.replica.clone();
    (sandbox, folder, void)
}

/// Who only reads goes by what the writer has stored; who writes does not.
#[test]
fn the_newest_base() {
    let (sandbox, folder, void) = with_void_segments();
    let [(first, one), (second, two), _] = &void[..] else { panic!("{void:?}") };
    let both = SegmentName { first: first.first, ..*second };
    write(&folder.join(both.to_string()), [&one[..], two].concat());
    let lost = base(&sandbox, 2);
    let good = take_away(&lost);
    let (restored, ended) = sandbox.try_restore(&[]);
    let ended = ended.expect_code(0).expect_words(&[&name(&lost), "after=3"]);
    assert!(ended.stdout.contains("as of transaction 4,"), "{}", ended.stdout);
    let contents = contents_of(&restored);
    assert!(contents.contains("'new'") && !contents.contains("'void'"), "{contents}");
    sandbox.replicate_fails(&[]).expect_code(5).expect_words(&[&name(&lost)]);
    assert!(!read_by_itself(&sandbox, "without"));
    write(&lost, good);
    sandbox.restore(&[]);
    assert!(read_by_itself(&sandbox, "with"));
}

/// What a writer that was passed has stored behind the end says nothing of what is missing before it.
#[test]
fn void_segments_behind_the_end() {
    let (sandbox, folder, void) = with_void_segments();
    let (name, bytes) = void.last().unwrap();
    write(&folder.join(name.to_string()), bytes);
    sandbox.restore(&[]);
    assert!(read_by_itself(&sandbox, "void"));
}

/// A name that tells another time, or another writer, than what it names.
#[test]
fn names_that_tell_something_else() {
    let (sandbox, replicator) = replicated(4);
    replicator.stop();
    let rename = |object: &Path, other: ObjectName| {
        let bytes = take_away(object);
        write(&sandbox.replica.join(other.to_string()), bytes);
    };
    let segment = &sandbox.objects_ending(".seg")[1];
    let Ok(ObjectName::Segment(good)) = key(&sandbox, segment).parse() else { panic!() };
    let mut bad = good;
    bad.time.0 += 86_400_000;
    rename(segment, bad.into());
    let late = ["--timestamp", "2100-01-01T00:00:00Z"];
    for target in [&[][..], &late] {
        sandbox.restore_fails(target).expect_code(5).expect_words(&[&bad.to_string()]);
    }
    rename(&sandbox.replica.join(bad.to_string()), good.into());
    sandbox.restore(&[]);

    let manifest = &sandbox.objects_ending(".manifest")[0];
    let Ok(ObjectName::Manifest(good)) = key(&sandbox, manifest).parse() else { panic!() };
    let mut bad = good;
    bad.epoch.0 += 7;
    rename(manifest, bad.into());
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&[&bad.to_string()]);
}

/// Segments that were under way at once, of which one is lost after all were durable: what a killed writer
/// leaves looks the same. The writer itself knows better, as it has kept them.
#[test]
fn a_segment_that_others_may_have_overtaken() {
    let (sandbox, replicator) = replicated(4);
    replicator.kill();
    let segments = sandbox.objects_ending(".seg");
    let mut last = std::fs::read(&segments[2]).unwrap();
    // As if it had been made while the one before was under way.
    let end = last.len() - 8;
    last[end - 8..end].copy_from_slice(&2_u64.to_le_bytes());
    let crc = crc32fast::hash(&last[..end + 4]);
    last[end + 4..].copy_from_slice(&crc.to_le_bytes());
    write(&segments[2], last);
    let _lost = take_away(&segments[1]);

    let (_, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 2,"), "{said}");
    assert!(said.contains("between 2 and 4"), "{said}");
    let (_, said) = sandbox.restore(&["--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["missing"], serde_json::json!({"after_txid": 2, "next_txid": 4}));

    let replicator = sandbox.replicate();
    insert(&sandbox, 5, "after");
    let ended = replicator.stop();
    ended.expect_words(&["was durable", "transaction=3"]);
    let (restored, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 5,"), "{said}");
    assert!(contents_of(&restored).contains("value 3"));
    sandbox.restore(&["--txid", "3"]);
}
