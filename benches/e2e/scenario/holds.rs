//! How long the replicator holds the write lock, seen from outside, and how often it moves the lock
//! that keeps the WAL, by its own log.

use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

use super::Place;
use crate::figure::{Figure, figure};
use crate::lock::Holds;
use crate::side::{Replicator, Side};
use crate::stage::Stage;
use crate::statistics::{millis, number, percentile};
use crate::writer::Load;

const LOAD: Load = Load { seconds: 6, rate: 5000, synchronous: "NORMAL" };

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "debug")?;
    let pid = stage.replicator.as_ref().map_or(0, Replicator::pid);
    let holds = Holds::watch(&stage.database, pid)?;
    let commits = stage.start(LOAD)?.finish()?;
    let mut holds = holds.finish()?;
    holds.sort_unstable();
    let log = std::fs::read_to_string(&stage.log.path).unwrap_or_default();
    let followed = stage.replicator.is_some();
    stage.strike()?;
    let mut figures = vec![commits.pauses(), commits.worst(), commits.failed()];
    if followed {
        figures.push(figure("write lock held, times", "", number(holds.len())));
        figures.extend([
            figure("write lock held, p50", "ms", millis(percentile(&holds, 500))),
            figure("write lock held, p99", "ms", millis(percentile(&holds, 990))),
            figure("write lock held, worst", "ms", millis(percentile(&holds, 1000))),
        ]);
        figures.extend(moves(&log));
    }
    Ok(figures)
}

#[derive(Deserialize)]
struct Line {
    fields: Move,
}

#[derive(Deserialize)]
struct Move {
    procedure: String,
    /// A number; the log writes long ones as text.
    micros: Value,
}

impl Move {
    fn nanos(&self) -> u64 {
        let text = self.micros.as_str().and_then(|text| text.parse().ok());
        text.or(self.micros.as_u64()).unwrap_or_default() * 1000
    }
}

/// What the log says of the moves of the lock.
fn moves(log: &str) -> Vec<Figure> {
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let (forced, drains): (Vec<_>, Vec<_>) =
        lines.map(|line| line.fields).partition(|step| step.procedure == "Force");
    let mut times: Vec<_> = forced.iter().map(Move::nanos).collect();
    times.sort_unstable();
    vec![
        figure("moves without the write lock", "", number(drains.len())),
        figure("moves that end with it, median", "ms", millis(percentile(&times, 500))),
        figure("moves that end with it, worst", "ms", millis(percentile(&times, 1000))),
    ]
}
