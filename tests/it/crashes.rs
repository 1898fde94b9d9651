//! A kill at every step that changes something outside this process: of the start, of sealing, shipping,
//! snapshots, checkpoints and the end. Whatever is there after it is the state after one transaction,
//! none that was durable is lost, and the next start goes on in the same line.
//!
//! A step is one line in a table. strace kills the program when it is about to make the first call of a
//! kind in any of its threads, then the second, and so on; each kill must be at a step of the table, and
//! each step must have been killed at, but for few. `GENESIS_CRASHES` sets how often.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{
    Application, BrokenCalls, Process, Sandbox, Sqlite, can_attach, contents_of, failing_at,
    setting, wait_until,
};

/// What is about to be done, by which call, and what the call names.
type Step = (&'static str, &'static str, &'static [&'static str]);

const STEPS: &[Step] = &[
    ("claim an epoch", "renameat2", &["/replica/epochs/"]),
    ("place a sealed segment in the spool", "renameat2", &["-genesis/spool/", ".seg\""]),
    ("make a folder in the spool", "mkdir", &["-genesis/spool/"]),
    ("place a segment in the replica", "renameat2", &["/replica/", ".seg\""]),
    ("place a pack", "renameat2", &["/replica/", ".pack\""]),
    ("make a folder for what packs are stored", "mkdir", &["-genesis/packs"]),
    ("place a manifest", "renameat2", &[".manifest\""]),
    ("make an object durable", "fsync", &["/replica/", "/.tmp-"]),
    ("make an object's name durable", "fsync", &["/replica/"]),
    ("make local state durable", "fsync", &["-genesis"]),
    ("replace the page table", "rename", &["-genesis/table\""]),
    ("let a file go that has no name", "unlink", &["-genesis/.tmp-"]),
    ("forget a shipped segment", "unlink", &["-genesis/spool/"]),
    ("write the spool", "pwrite64", &["-genesis/spool/.tmp-"]),
    ("write a page of a checkpoint", "pwrite64", &["/app.db>"]),
    ("keep in mind how far the audit is", "pwrite64", &["-genesis/audit>"]),
    ("hand over a block of the last pass", "pwrite64", &["-genesis/.tmp-"]),
    ("make the WAL durable", DATABASE_SYNCS, &["/app.db-wal>"]),
    ("make a checkpoint durable", DATABASE_SYNCS, &["/app.db>"]),
];

/// Steps that need not be hit: their calls are few, and most often another thread's come before them.
const SELDOM: &[Step] = &[
    ("keep in mind that a pack is stored", "renameat2", &["-genesis/packs"]),
    ("make the WAL durable, among all syncs", "fsync", &["/app.db-wal>"]),
    ("make a checkpoint durable, among all syncs", "fsync", &["/app.db>"]),
];

/// The syncs of the database's files alone: other threads sync more often.
const DATABASE_SYNCS: &str = "fsync,fdatasync";

/// Rows that each run commits.
const ROWS: usize = 3;

/// After so many runs in a row that nothing killed, there is no such call.
const UNHURT: u32 = 2;

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
    fn run(&mut self, call: &str, number: u32, is_started: bool) -> Option<String> {
        let trace = self.sandbox.path("logs/crash");
        let more = ["--snapshot-interval", "1ms", "--audit-interval", "1s", "--log-level", "debug"];
        let mut command = self.sandbox.replicate_command(&more);
        let how = format!("signal=KILL:when={number}");
        if !is_started && call != DATABASE_SYNCS {
            command = failing_at(&command, call, &how, &trace);
        }
        let files = ["app.db", "app.db-wal"].map(|name| self.sandbox.db.with_file_name(name));
        let files = if call == DATABASE_SYNCS { &files[..] } else { &[] };
        let mut replicator = self.sandbox.start(&mut command);
        let _killer = is_started.then(|| {
            replicator.wait_for_log("continuing what the replica holds");
            BrokenCalls::begin(replicator.id(), call, &how, files, &trace)
        });
        let waits = ["followed", "a snapshot is stored", "shipped", "parked=true"];
        for (n, words) in (0..).zip(waits) {
            if n > 0 && n <= ROWS {
                self.commit();
            }
            wait_until(words, || {
                let is_over = replicator.ended().is_some() || is_dead(&replicator);
                (is_over || replicator.log().contains(words)).then_some(())
            });
        }
        if !is_dead(&replicator) {
            replicator.signal(rustix::process::Signal::TERM);
        }
        let ended = replicator.wait();
        assert!([0, 137].contains(&ended.code), "{call} {number}: {ended:?}");
        (ended.code == 137).then(|| killed_call(call, replicator.id(), &trace))
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

/// Kills at every call of a kind, again and again until each of its steps was hit.
fn kill_at_every(call: &str) {
    if !can_attach() {
        return;
    }
    let steps = || STEPS.iter().filter(|(_, by, _)| *by == call);
    let mut scene = Scene::new();
    let mut missing: BTreeSet<&str> = steps().map(|(name, ..)| *name).collect();
    for round in 0.. {
        for is_started in [false, true] {
            let (mut number, mut unhurt) = (0, 0);
            while unhurt < UNHURT {
                number += 1;
                let durable = scene.check(0, call);
                let Some(killed) = scene.run(call, number, is_started) else {
                    unhurt += 1;
                    continue;
                };
                unhurt = 0;
                let names = |words: &[&str]| words.iter().all(|word| killed.contains(word));
                let seldom = SELDOM.iter().filter(|(_, by, _)| *by == call);
                let known = steps().chain(seldom).find(|(_, _, words)| names(words));
                let step = known.map(|(name, ..)| *name);
                let step = step.unwrap_or_else(|| panic!("no step of the table: {killed:?}"));
                missing.remove(step);
                scene.check(durable, step);
                scene.go_on(step);
            }
        }
        let rounds = setting("GENESIS_CRASHES").unwrap_or(1);
        if round + 1 >= rounds && missing.is_empty() {
            break;
        }
        assert!(round < rounds.max(10), "never killed at: {missing:?}");
    }
}

#[test]
fn at_every_rename() {
    kill_at_every("renameat2");
    kill_at_every("rename");
}

#[test]
fn at_every_sync() {
    kill_at_every("fsync");
    kill_at_every(DATABASE_SYNCS);
}

#[test]
fn at_every_write_in_place() {
    kill_at_every("pwrite64");
}

#[test]
fn at_every_removal_and_folder() {
    kill_at_every("unlink");
    kill_at_every("mkdir");
}
