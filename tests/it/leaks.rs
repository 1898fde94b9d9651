//! Snapshots, audits, comparisons, checkpoints and connections come and go for long, and leave nothing
//! behind in the process: no descriptor, no thread, no mapping, no memory.
//!
//! `GENESIS_SOAK_SECONDS` says for how long.

use std::fs::{DirEntry, File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use genesis_replicate::clock;

use crate::support::{Process, Random, Sandbox, Sqlite, same_bytes, setting, wait_until};

/// Nothing needs more of the runtime's threads than this at once.
const MOST_OF_THE_POOL: usize = 24;

/// A stack, a heap, and the guards behind them.
const MAPPINGS_OF_A_THREAD: usize = 4;

/// What a process has.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    descriptors: usize,
    /// But for those of the runtime's pool.
    threads: usize,
    /// Those: they come and go with the load, each with a few mappings.
    pool: usize,
    mappings: usize,
    /// In KiB.
    memory: usize,
}

impl Use {
    fn of(process: &Process) -> Self {
        let folder = PathBuf::from(format!("/proc/{}", process.id()));
        let entries = |name| std::fs::read_dir(folder.join(name)).unwrap().count();
        let text = |name| std::fs::read_to_string(folder.join(name)).unwrap();
        let status = text("status");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let tasks = || std::fs::read_dir(folder.join("task")).unwrap();
        // A thread may be gone when it is asked for its name.
        let name = |task: DirEntry| std::fs::read_to_string(task.path().join("comm"));
        let names = tasks().filter_map(|task| name(task.unwrap()).ok());
        let (pool, threads): (Vec<_>, Vec<_>) =
            names.partition(|name| name.starts_with("tokio-rt-worker"));
        Self {
            descriptors: entries("fd"),
            threads: threads.len(),
            pool: pool.len(),
            mappings: text("maps").lines().count(),
            memory: memory.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// The greater of each.
    fn most(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.max(other.descriptors),
            threads: self.threads.max(other.threads),
            pool: self.pool.max(other.pool),
            mappings: self.mappings.max(other.mappings),
            memory: self.memory.max(other.memory),
        }
    }
}

#[test]
fn nothing_is_left_behind() {
    const OFTEN: [&str; 6] =
        ["--snapshot-interval", "100ms", "--audit-interval", "1s", "--wal-limit", "200KB"];
    let lasts = Duration::from_secs(setting("GENESIS_SOAK_SECONDS").unwrap_or(8));
    let sandbox = Sandbox::new();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
         CREATE TABLE big(id INTEGER PRIMARY KEY, n INT, photo BLOB);
         WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 1000)
         INSERT INTO big SELECT n, 0, randomblob(3500) FROM c;",
    );
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&OFTEN));
    replicator.wait_for_log("a snapshot is stored");
    let mut random = Random::new(7);
    let begun = clock::monotonic();
    let (mut early, mut late) = (Use::default(), Use::default());
    for round in 1u64.. {
        let passed = clock::monotonic().saturating_sub(begun);
        if passed > lasts {
            break;
        }
        application.run(&format!("UPDATE big SET n = n + 1 WHERE id % 50 = {};", random.next(50)));
        if round % 4 == 0 {
            let mut other = sandbox.application(Sqlite::Shell);
            other.run("UPDATE big SET n = n + 1 WHERE id = 77;");
            other.close();
        }
        if round % 8 == 0 {
            application.run("PRAGMA wal_checkpoint(TRUNCATE);");
        }
        if round % 100 == 0 {
            write_past_sqlite(&sandbox, &replicator);
        }
        let now = Use::of(&replicator);
        if passed < lasts / 2 {
            early = early.most(now);
        } else if passed > lasts / 4 * 3 {
            late = late.most(now);
        }
    }
    assert_plateau(early, late);
    let ended = replicator.stop();
    assert!(ended.stderr.matches("a snapshot is stored").count() > 3, "{}", ended.stderr);
    application.run("PRAGMA wal_checkpoint(TRUNCATE);");
    application.close();
    assert!(same_bytes(&sandbox.restore(&[]).0, &sandbox.db));
}

/// As if somebody had: every page is compared then. A write beside a checkpoint passes for that one's.
fn write_past_sqlite(sandbox: &Sandbox, replicator: &Process) {
    let comparisons = || replicator.log().matches("comparing every page").count();
    let (before, mut time) = (comparisons(), SystemTime::UNIX_EPOCH);
    let file = File::options().write(true).open(&sandbox.db).unwrap();
    wait_until("the write to be noticed", || {
        time += Duration::from_secs(1);
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        (comparisons() > before).then_some(())
    });
}

/// What was needed at most late is what was needed at most early, but for the odd thread with its stack
/// and its heap.
fn assert_plateau(early: Use, late: Use) {
    let what = format!("early {early:?}, late {late:?}");
    let grown = late.pool.saturating_sub(early.pool);
    assert!(late.descriptors <= early.descriptors + 4, "descriptors: {what}");
    assert!(late.threads <= early.threads + 2, "threads: {what}");
    assert!(late.pool <= MOST_OF_THE_POOL, "the pool: {what}");
    assert!(
        late.mappings <= early.mappings + 16 + grown * MAPPINGS_OF_A_THREAD,
        "mappings: {what}"
    );
    assert!(late.memory <= early.memory + early.memory / 4, "memory: {what}");
    eprintln!("{what}");
}
