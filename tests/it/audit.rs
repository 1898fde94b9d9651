//! The database is read again, and what changed on the disk without a write is found.

use std::fs::{File, FileTimes};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Process, Sandbox, Sqlite, contents_of, same_bytes, wait_until, write};

const PAGE: u64 = 4096;

/// Blocks of 64 KiB in a database of so many pages, as the audit keeps them in mind.
fn blocks(db: &Path) -> u64 {
    db.metadata().unwrap().len().div_ceil(65_536)
}

/// Rows of a page each, which the audit reads in more than one piece.
const ROWS: u32 = 700;

/// So many take the audit some seconds, as fast as it may be.
const MANY_ROWS: u32 = 6_000;

fn replicate(sandbox: &Sandbox, interval: &str) -> Process {
    sandbox.start(&mut sandbox.replicate_command(&["--audit-interval", interval]))
}

/// As a failing disk does it: nobody can tell by the file's times.
fn rot(db: &Path, page: u64) {
    let file = File::options().read(true).write(true).open(db).unwrap();
    let written = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    let place = (page - 1) * PAGE + 1000;
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 1], place).unwrap();
    file.set_times(FileTimes::new().set_modified(written)).unwrap();
}

/// What is in the page cache of a file.
fn cached(path: &Path) -> u64 {
    let mut fincore = Command::new("fincore");
    let output = fincore.args(["--bytes", "--noheadings", "-o", "RES"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn a_page_that_rots_is_alarmed_and_shipped() {
    let sandbox = Sandbox::large(ROWS);
    let mut replicator = replicate(&sandbox, "1s");
    replicator.wait_for_log("verified: ");
    let sound = sandbox.restore(&[]).0;
    rot(&sandbox.db, 234);
    rot(&sandbox.db, 345);
    replicator.wait_for_log("THE DATABASE FILE CHANGED ON THE DISK");
    wait_until("both pages in the replica", || {
        let said = replicator.log();
        (said.contains("234") && said.contains("345") && sandbox.last_txid()? >= 2).then_some(())
    });
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("UPDATE big SET n = 1 WHERE id = 5;");
    let ended = replicator.stop();
    ended.expect_words(&["good_txid=1", "kind=Rebase"]);
    sandbox.assert_complete_after(application);
    // What it was before is still there.
    assert!(same_bytes(&sandbox.restore(&["--txid", "1"]).0, &sound));
    assert_eq!(sandbox.generations().len(), 1);
}

/// Beside a writer and its checkpoints, nothing is taken for rot; afterwards, rot is found.
#[test]
fn pages_that_are_written_are_not_taken_for_rot() {
    const WRITER: &str = "
import random, sqlite3, sys, time
c = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
c.execute('PRAGMA synchronous=OFF')
while True:
    c.execute('UPDATE big SET n = n + 1, photo = randomblob(3500) WHERE id = ?', (random.randint(1, 700),))
    if random.random() < 0.01:
        c.execute('PRAGMA wal_checkpoint(PASSIVE)').fetchall()
    time.sleep(0.003)
";
    let sandbox = Sandbox::large(ROWS);
    let mut replicator = replicate(&sandbox, "1s");
    replicator.wait_for_log("verified: ");
    let mut python = Command::new("python3");
    let writer = sandbox.start(python.args(["-c", WRITER]).arg(&sandbox.db));
    replicator.wait_for_log("is as it was recorded");
    replicator.wait_for_another("is as it was recorded", 1);
    writer.kill();
    assert!(!replicator.log().contains("CHANGED ON THE DISK"), "{}", replicator.log());
    // What a checkpoint still has to write would mend it.
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    rot(&sandbox.db, 77);
    replicator.wait_for_log("THE DATABASE FILE CHANGED ON THE DISK");
    replicator.wait_for_log("pages=[77]");
    replicator.stop();
}

#[test]
fn a_first_snapshot_is_verified_once_and_a_restart_goes_on_where_the_audit_was() {
    let sandbox = Sandbox::large(MANY_ROWS);
    let audit = sandbox.state().join("audit");
    let progress = || std::fs::read_to_string(&audit).unwrap_or_default();
    let mut replicator = replicate(&sandbox, "7d");
    replicator.wait_until_followed();
    let next = wait_until("a first piece of the first pass", || {
        let next = progress().strip_prefix("first ")?.trim().parse::<u64>().ok()?;
        (next > 0).then_some(next)
    });
    assert!(next < blocks(&sandbox.db), "the first pass is over at once");
    replicator.kill();
    assert!(progress().starts_with("first "), "{}", progress());
    let mut replicator = replicate(&sandbox, "7d");
    replicator.wait_for_log("verified: ");
    replicator.stop();
    let before = progress();
    assert!(before.starts_with("later "), "{before}");

    // A week is long; but each start reads a piece.
    let mut replicator = replicate(&sandbox, "7d");
    wait_until("a piece of a later pass", || (progress() != before).then_some(()));
    replicator.wait_until_followed();
    let ended = replicator.stop();
    assert!(progress().starts_with("later "), "{}", progress());
    assert!(!ended.stderr.contains("verified"), "{}", ended.stderr);
}

#[test]
fn nothing_is_read_where_that_is_not_wanted() {
    let sandbox = Sandbox::with_database();
    let mut replicator = replicate(&sandbox, "0s");
    replicator.wait_for_log("a snapshot is stored");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    let ended = replicator.stop();
    assert!(!ended.stderr.contains("verified"), "{}", ended.stderr);
    assert!(contents_of(&sandbox.restore(&[]).0).contains("second"));
}

/// A file that nobody reads: what goes of it, goes for want of memory.
fn control(path: &Path) -> PathBuf {
    path.with_file_name("control")
}

/// Leaves 16 KiB of each 80 KiB of a file in the page cache: so many bytes then; `None` where the file
/// system does not give its cache up.
fn cache_scattered(path: &Path) -> Option<u64> {
    const SCATTERED: &str = "
import os, sys
f = os.open(sys.argv[1], os.O_RDONLY)
os.fsync(f)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_RANDOM)
os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
for place in range(0, os.fstat(f).st_size, 81920):
    os.pread(f, 16384, place)
";
    let mut python = Command::new("python3");
    assert!(python.args(["-c", SCATTERED]).arg(path).status().unwrap().success());
    let size = path.metadata().unwrap().len();
    write(&control(path), vec![1; usize::try_from(size).unwrap()]);
    let cached = cached(path);
    if (size / 10..size / 2).contains(&cached) {
        return Some(cached);
    }
    eprintln!("skipped: this file system does not give its cache up");
    None
}

/// What the application has in the page cache stays there, and what it has not does not come.
#[track_caller]
fn assert_left_alone(path: &Path, before: u64) {
    let after = cached(path);
    if after < before && cached(&control(path)) < path.metadata().unwrap().len() {
        eprintln!("skipped: the kernel takes memory back");
        return;
    }
    // A kernel that cannot mark what it fetches keeps some pages; the first is read by SQLite.
    let tolerance = path.metadata().unwrap().len() / 20 + PAGE;
    assert!(after.abs_diff(before) <= tolerance, "{before} bytes were cached, and {after} are");
}

#[test]
fn the_audit_leaves_the_page_cache_alone() {
    let sandbox = Sandbox::large(ROWS);
    let mut replicator = replicate(&sandbox, "1s");
    replicator.wait_for_log("verified: ");
    let Some(before) = cache_scattered(&sandbox.db) else { return };
    let so_far = replicator.logged("is as it was recorded");
    replicator.wait_for_another("is as it was recorded", so_far + 1);
    assert_left_alone(&sandbox.db, before);
    replicator.stop();
}

#[test]
fn a_snapshot_leaves_the_page_cache_alone() {
    let sandbox = Sandbox::large(ROWS);
    let Some(before) = cache_scattered(&sandbox.db) else { return };
    let mut replicator = replicate(&sandbox, "0s");
    replicator.wait_for_log("a snapshot is stored");
    assert_left_alone(&sandbox.db, before);
    replicator.stop();
    sandbox.assert_complete();
}

/// What was written while nobody looked is found by reading every page.
#[test]
fn a_comparison_leaves_the_page_cache_alone() {
    let sandbox = Sandbox::large(ROWS);
    let mut replicator = replicate(&sandbox, "0s");
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("UPDATE big SET n = 1 WHERE id = 5; PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    let Some(before) = cache_scattered(&sandbox.db) else { return };
    let mut replicator = replicate(&sandbox, "0s");
    replicator.wait_for_log("recorded in one what was not seen commit by commit");
    assert_left_alone(&sandbox.db, before);
    replicator.stop();
    sandbox.assert_complete();
}
