//! The application: a process of its own with the system's SQLite.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::figure::{Figure, figure};
use crate::process::{succeed, terminate};
use crate::statistics::{micros, millis, number, percentile};

const C: &str = include_str!("writer.c");
const PYTHON: &str = include_str!("writer.py");

/// How the application is run.
#[derive(Debug)]
pub struct Writer {
    program: PathBuf,
    arguments: &'static [&'static str],
    /// What it is, with its SQLite's version.
    pub description: String,
}

impl Writer {
    /// Compiles the writer in C; where that does not work, Python's module is the writer.
    pub fn build(folder: &Path) -> Result<Self> {
        let program = folder.join("writer");
        if let Err(reason) = compile(&program) {
            eprintln!("! no writer in C ({reason:#}): Python's writes, at a fraction of its speed");
            let version =
                output("python3", &["-c", "import sqlite3; print(sqlite3.sqlite_version)"])?;
            let description = format!("Python, SQLite {version}");
            return Ok(Self { program: "python3".into(), arguments: &["-c", PYTHON], description });
        }
        let version = output("sqlite3", &["--version"]).unwrap_or_default();
        let version = version.split(' ').next().unwrap_or_default().to_owned();
        Ok(Self { program, arguments: &[], description: format!("C, SQLite {version}") })
    }

    /// Makes a database with some content.
    pub fn make(&self, database: &Path) -> Result<()> {
        succeed(self.command(database).arg("init"))
    }

    /// Commits once.
    pub fn commit(&self, database: &Path) -> Result<()> {
        succeed(self.command(database).arg("once"))
    }

    /// Begins to commit.
    pub fn start(&self, database: &Path, load: Load) -> Result<Writing> {
        let out = database.with_extension("commits");
        let mut command = self.command(database);
        command.arg("run").arg(&out).arg(load.seconds.to_string()).arg(load.rate.to_string());
        let child = command.arg(load.synchronous).spawn().context("no writer")?;
        Ok(Writing { child, out })
    }

    fn command(&self, database: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(self.arguments).arg(database);
        command
    }
}

/// How the application commits.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub seconds: u32,
    /// Commits a second; 0 is as many as it can.
    pub rate: u32,
    pub synchronous: &'static str,
}

/// A writer at work. It is killed when this is dropped.
#[derive(Debug)]
pub struct Writing {
    child: Child,
    out: PathBuf,
}

impl Writing {
    /// Waits for its end, and reads what it noted.
    pub fn finish(mut self) -> Result<Commits> {
        let status = self.child.wait()?;
        ensure!(status.success(), "the writer failed: {status}");
        Commits::read(&std::fs::read(&self.out)?).context("the writer's notes are cut off")
    }

    /// Ends it early.
    pub fn stop(self) -> Result<Commits> {
        terminate(&self.child)?;
        self.finish()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// One commit; nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    pub begun: u64,
    pub ended: u64,
}

impl Commit {
    fn time(self) -> u64 {
        self.ended - self.begun
    }
}

/// What a writer noted.
#[derive(Debug)]
pub struct Commits {
    pub all: Vec<Commit>,
    errors: u64,
    greatest_wal: u64,
    /// The times from when a commit was due to its end, sorted.
    answers: Vec<u64>,
    /// The times of the commits, sorted.
    times: Vec<u64>,
}

/// Who waits longer than this was held by somebody.
const PAUSE: u64 = 10_000_000;

impl Commits {
    fn read(notes: &[u8]) -> Option<Self> {
        let (words, []) = notes.as_chunks::<8>() else { return None };
        let mut words = words.iter().map(|word| u64::from_ne_bytes(*word));
        let [count, errors, greatest_wal, _] =
            [words.next()?, words.next()?, words.next()?, words.next()?];
        let (mut all, mut answers) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let [due, begun, ended] = [words.next()?, words.next()?, words.next()?];
            answers.push(ended.saturating_sub(due));
            all.push(Commit { begun, ended });
        }
        let mut times: Vec<_> = all.iter().map(|commit| commit.time()).collect();
        times.sort_unstable();
        answers.sort_unstable();
        Some(Self { all, errors, greatest_wal, answers, times })
    }

    /// When the last one ended.
    pub fn end(&self) -> u64 {
        self.all.last().map_or(0, |commit| commit.ended)
    }

    /// The longest, in milliseconds.
    pub fn worst(&self) -> Figure {
        figure("commit, worst", "ms", millis(percentile(&self.times, 1000)))
    }

    pub fn per_second(&self) -> Figure {
        let took = self.end() - self.all.first().map_or(0, |commit| commit.begun);
        figure("commits", "1/s", number(self.all.len()) / number(took.max(1)) * 1e9)
    }

    pub fn wal(&self) -> Figure {
        figure("WAL, greatest", "MB", number(self.greatest_wal) / 1e6)
    }

    pub fn failed(&self) -> Figure {
        figure("failed commits", "", number(self.errors))
    }

    pub fn pauses(&self) -> Figure {
        let pauses = self.times.iter().rev().take_while(|time| **time > PAUSE).count();
        figure("pauses over 10 ms", "", number(pauses))
    }

    /// The distribution of the commit times.
    pub fn distribution(&self) -> Vec<Figure> {
        let time = |permille| micros(percentile(&self.times, permille));
        vec![
            figure("commit p50", "µs", time(500)),
            figure("commit p99", "µs", time(990)),
            figure("commit p99.9", "µs", time(999)),
            self.worst(),
        ]
    }

    /// How late commits were, measured from when they were due.
    pub fn answer(&self) -> Figure {
        figure("due to committed p99.9", "µs", micros(percentile(&self.answers, 999)))
    }
}

fn compile(program: &Path) -> Result<()> {
    let mut command = Command::new("cc");
    command.args(["-O2", "-x", "c", "-", "-lsqlite3", "-o"]).arg(program);
    let piped = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = piped.context("no C compiler")?;
    child.stdin.take().context("no pipe")?.write_all(C.as_bytes())?;
    let output = child.wait_with_output()?;
    let message = String::from_utf8_lossy(&output.stderr);
    let first = message.lines().find(|line| line.contains("error")).unwrap_or_default();
    ensure!(output.status.success(), "{first}; is libsqlite3-dev installed?");
    Ok(())
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("no {program}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
