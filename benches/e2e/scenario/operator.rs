//! An operator's checkpoints under load.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Place;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::stage::Stage;
use crate::statistics::{millis, number, percentile};
use crate::writer::Load;

const TRIES: usize = 50;

/// No try is begun after this.
const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(50);

/// The writer is stopped when the tries are over.
const LOAD: Load = Load { seconds: 60, rate: 2000, synchronous: "NORMAL" };

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "info")?;
    let writing = stage.start(LOAD)?;
    let until = clock::nanos() + u64::try_from(PATIENCE.as_nanos())?;
    let (mut times, mut succeeded) = (Vec::new(), 0usize);
    clock::rest(Duration::from_millis(500));
    while times.len() < TRIES && clock::nanos() < until {
        let begun = clock::nanos();
        succeeded += usize::from(checkpoint(&stage.database)?);
        times.push(clock::nanos() - begun);
        clock::rest(PAUSE);
    }
    times.sort_unstable();
    let commits = writing.stop()?;
    stage.strike()?;
    Ok(vec![
        figure("checkpoints that succeeded", "%", number(succeeded * 100) / number(times.len())),
        figure("checkpoints tried", "", number(times.len())),
        figure("checkpoint, median", "ms", millis(percentile(&times, 500))),
        figure("checkpoint, worst", "ms", millis(percentile(&times, 1000))),
        commits.worst(),
        commits.pauses(),
        commits.failed(),
    ])
}

/// As the operator types it, with the start of the shell; whether it succeeded.
fn checkpoint(database: &Path) -> Result<bool> {
    let mut command = Command::new("sqlite3");
    command.args(["-cmd", ".timeout 5000"]).arg(database);
    let output = command.arg("PRAGMA wal_checkpoint(TRUNCATE)").output();
    Ok(output.context("no sqlite3")?.stdout.starts_with(b"0|"))
}
