//! A kill at every step that changes something outside this process: of the start, of sealing, shipping,
//! snapshots, checkpoints and the end. Whatever is there after it is the state after one transaction,
//! none that was durable is lost, and the next start goes on in the same line.
//!
//! A step is one line in a table. strace kills the program when it is about to make the first call of a
//! kind in any of its threads, then the second, and so on; each kill must be at a step of the table, and
//! each step must have been killed at several times, but for few. Where other calls of the kind come first
//! too often, those on the step's files alone are counted.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::support::{
    Application, BrokenCalls, Process, Sandbox, Sqlite, can_attach, contents_of, failing_at,
    files_below, setting, wait_until,
};

/// What is about to be done, by which call, on what, and words that the call names.
type Step = (&'static str, &'static str, On, &'static [&'static str]);

/// The calls that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum On {
    /// All.
    Anything,
    /// All; yet another thread's call most often comes before this step, which need not be hit.
    Seldom,
    /// Those on the database's files.
    Database,
    /// Those on the audit's place.
    Audit,
    /// Those on shipped segments that were kept at the start.
    Kept,
    /// Those on the folders that the first segment makes in the spool.
    Folders,
}

use On::{Anything, Audit, Database, Folders, Kept, Seldom};

const STEPS: &[Step] = &[
    ("claim an epoch", "renameat2", Anything, &["/replica/epochs/"]),
    ("place a sealed segment in the spool", "renameat2", Anything, &["-genesis/spool/", ".seg\""]),
    ("make a folder in the spool", "mkdir", Folders, &["-genesis/spool/"]),
    ("place a segment in the replica", "renameat2", Anything, &["/replica/", ".seg\""]),
    ("place a pack", "renameat2", Anything, &["/replica/", ".pack\""]),
    ("keep in mind that a pack is stored", "renameat2", Seldom, &["-genesis/packs"]),
    ("make a folder for what packs are stored", "mkdir", Anything, &["-genesis/packs"]),
    ("place a manifest", "renameat2", Anything, &[".manifest\""]),
    ("make an object durable", "fsync", Anything, &["/replica/", "/.tmp-"]),
    ("make an object's name durable", "fsync", Anything, &["/replica/"]),
    ("make local state durable", "fsync", Anything, &["-genesis"]),
    ("replace the page table", "rename", Anything, &["-genesis/table\""]),
    ("let a file go that has no name", "unlink", Anything, &["-genesis/.tmp-"]),
    ("forget a shipped segment", "unlink", Kept, &["-genesis/spool/"]),
    ("write the spool", "pwrite64", Anything, &["-genesis/spool/.tmp-"]),
    ("write a page of a checkpoint", "pwrite64", Database, &["/app.db>"]),
    ("hand over a block of the last pass", "pwrite64", Anything, &["-genesis/.tmp-"]),
    ("keep in mind how far the audit is", "pwrite64", Audit, &["-genesis/audit>"]),
    ("make the WAL durable", "fsync,fdatasync", Database, &["/app.db-wal>"]),
    ("make a checkpoint durable", "fsync,fdatasync", Database, &["/app.db>"]),
];

/// Rows that each run commits.
const ROWS: usize = 3;

/// How often each step is hit, unless `GENESIS_CRASHES` says so.
const TIMES: u64 = 5;

/// Scenes for each time: what makes a step seldom is the load of the machine.
const SCENES: u64 = 10;

/// After so many runs in a row that nothing killed, there is no such call.
const UNHURT: u32 = 2;

/// Calls after so many are like those before: a merge forgets 32 segments, one after another.
const MOST: u32 = 12;

/// A followed database whose rows are counted up.
struct Scene {
    sandbox: Sandbox,
    application: Application,
    rows: usize,
}

impl Scene {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let mut application = sandbox.application(Sqlite::Shell);
        application.run(
            "PRAGMA journal_mode=WAL; CREATE TABLE t(a); CREATE TABLE pad(b);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 40)
             INSERT INTO pad SELECT printf('%03000d', n) FROM c;",
        );
        let replicator = sandbox.replicate();
        sandbox.wait_for_txid(1);
        replicator.stop();
        Self { sandbox, application, rows: 0 }
    }

    fn commit(&mut self) {
        self.rows += 1;
        let row = self.rows;
        self.application.run(&format!("INSERT INTO t VALUES('row {row:06}');"));
    }

    /// Runs everything once, killed at the `number`-th call of a kind, counted from the start or from
    /// when it goes on: the call, if there was one.
    fn run(&mut self, call: &str, on: On, number: u32, is_started: bool) -> Option<String> {
        let trace = self.sandbox.path("logs/crash");
        let more = ["--snapshot-interval", "1ms", "--audit-interval", "1s", "--log-level", "debug"];
        let mut command = self.sandbox.replicate_command(&more);
        let how = format!("signal=KILL:when={number}");
        let files = self.files(on);
        if !is_started {
            command = failing_at(&command, call, &how, &files, &trace);
        }
        let mut replicator = self.sandbox.start(&mut command);
        let _killer = is_started.then(|| {
            replicator.wait_for_log("continuing what the replica holds");
            BrokenCalls::begin(replicator.id(), call, &how, &files, &trace)
        });
        let waits = ["followed", "a snapshot is stored", "shipped", "parked=true"];
        // What is shipped is forgotten when it is merged.
        let merged = (on == Kept).then_some("merged");
        for (n, words) in (0..).zip(waits.into_iter().chain(merged)) {
            if n > 0 && n <= ROWS {
                self.commit();
            }
            wait_until(words, || {
                let is_over = replicator.ended().is_some() || is_dead(&replicator);
                let is_there = is_over || replicator.log().contains(words);
                if !is_there && Some(words) == merged {
                    self.commit();
                }
                is_there.then_some(())
            });
        }
        if !is_dead(&replicator) {
            replicator.signal(rustix::process::Signal::TERM);
        }
        let ended = replicator.wait();
        assert!([0, 137].contains(&ended.code), "{call} {number}: {ended:?}");
        (ended.code == 137).then(|| killed_call(call, replicator.id(), &trace))
    }

    /// The files whose calls are counted; none where all are.
    fn files(&self, on: On) -> Vec<PathBuf> {
        let beside = |name: &str| self.sandbox.db.with_file_name(name);
        let kept = self.sandbox.state().join("spool/shipped");
        match on {
            Anything | Seldom => Vec::new(),
            Database => vec![beside("app.db"), beside("app.db-wal")],
            Audit => vec![self.sandbox.state().join("audit")],
            Folders => {
                let below =
                    |folder: &str| format!("spool/{}{folder}", self.sandbox.generations()[0]);
                ["", "/wal", "/wal/00"].map(|f| self.sandbox.state().join(below(f))).into()
            }
            Kept => files_below(&kept).into_iter().map(|name| kept.join(name)).collect(),
        }
    }

    /// What is restored is the state after one transaction, and none before `durable`.
    fn check(&self, durable: usize, what: &str) -> usize {
        let restored = contents_of(&self.sandbox.restore(&[]).0);
        let rows: Vec<_> = restored.lines().filter(|line| line.starts_with("t 'row ")).collect();
        let expected: Vec<_> = (1..=rows.len()).map(|n| format!("t 'row {n:06}'")).collect();
        assert_eq!(rows, expected, "{what}");
        assert!((durable..=self.rows).contains(&rows.len()), "{what}: {} rows", rows.len());
        rows.len()
    }

    /// The next start goes on.
    fn go_on(&mut self, what: &str) {
        let mut replicator = self.sandbox.replicate();
        self.commit();
        replicator.wait_until_followed();
        let ended = replicator.stop();
        assert!(!ended.stderr.contains("ERROR"), "{what}: {}", ended.stderr);
        assert_eq!(self.sandbox.generations().len(), 1, "{what}");
        assert_eq!(self.check(self.rows, what), self.rows);
    }
}

/// Whether it was killed; its tracer may still be at work.
fn is_dead(process: &Process) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap_or_default();
    stat.rsplit(") ").next().is_none_or(|rest| rest.is_empty() || rest.starts_with('Z'))
}

/// The call that was about to be made. The tracer may write it down later than the process ends.
fn killed_call(call: &str, pid: u32, trace: &Path) -> String {
    let pid = pid.to_string();
    let is_end = |line: &str| {
        line.split_whitespace().next() == Some(&pid) && line.ends_with("+++ killed by SIGKILL +++")
    };
    let calls = wait_until("the end of the trace", || {
        let calls = String::from_utf8_lossy(&std::fs::read(trace).unwrap()).into_owned();
        calls.lines().any(is_end).then_some(calls)
    });
    let is_one = |line: &str| call.split(',').any(|call| line.contains(&format!(" {call}(")));
    let unmade =
        |line: &&str| is_one(line) && (line.ends_with("= ?") || line.contains("<unfinished"));
    calls.lines().rfind(unmade).unwrap_or_default().to_owned()
}

/// Kills at every call of a kind, in one scene after another until each of its steps was hit often enough.
fn kill_at_every(call: &str, on: On) {
    if !can_attach() {
        return;
    }
    let times = setting("GENESIS_CRASHES").unwrap_or(TIMES).max(1);
    let is_same = |by: &str| by.split(',').any(|by| call.split(',').any(|call| call == by));
    let steps = || STEPS.iter().filter(|(_, by, ..)| is_same(by));
    let counted = steps().filter(|(_, _, counted, _)| *counted == on);
    let mut missing: BTreeMap<&str, u64> = counted.map(|(name, ..)| (*name, times)).collect();
    for _ in 0..SCENES * times {
        if missing.is_empty() {
            return;
        }
        let mut scene = Scene::new();
        if on == Kept {
            scene.go_on("a first segment");
        }
        for is_started in [false, true] {
            let (mut number, mut unhurt) = (0, 0);
            while unhurt < UNHURT && number < MOST {
                number += 1;
                let durable = scene.check(0, call);
                let Some(killed) = scene.run(call, on, number, is_started) else {
                    unhurt += 1;
                    continue;
                };
                unhurt = 0;
                let known = steps().find(|(.., words)| words.iter().all(|w| killed.contains(w)));
                let step = known.map(|(name, ..)| *name);
                let step = step.unwrap_or_else(|| panic!("no step of the table: {killed:?}"));
                scene.check(durable, step);
                scene.go_on(step);
                if let Some(left) = missing.get_mut(step) {
                    *left -= 1;
                }
                missing.retain(|_, left| *left > 0);
            }
        }
    }
    assert!(missing.is_empty(), "not killed so often more at: {missing:?}");
}

#[test]
fn at_every_rename() {
    kill_at_every("renameat2", Anything);
    kill_at_every("rename", Anything);
}

#[test]
fn at_every_sync() {
    kill_at_every("fsync", Anything);
    kill_at_every("fsync,fdatasync", Database);
}

#[test]
fn at_every_write_in_place() {
    kill_at_every("pwrite64", Anything);
    kill_at_every("pwrite64", Audit);
    kill_at_every("pwrite64", Database);
}

#[test]
fn at_every_removal_and_folder() {
    kill_at_every("unlink", Anything);
    kill_at_every("unlink", Kept);
    kill_at_every("mkdir", Anything);
    kill_at_every("mkdir", Folders);
}
