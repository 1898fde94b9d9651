//! How long the replicator holds the write lock: by its own book, and seen from outside. And how often
//! it moves the lock that keeps the WAL, by its own log.

use anyhow::Result;

use super::Place;
use crate::figure::{Figure, figure};
use crate::lock::Holds;
use crate::log::{lines_that_say, number_in};
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
    let mut seen = holds.finish()?;
    seen.sort_unstable();
    let followed = stage.replicator.is_some();
    let log = stage.strike()?;
    let mut figures = vec![commits.pauses(), commits.worst(), commits.failed()];
    if followed {
        figures.extend(booked(&log));
        figures.extend([
            figure("seen held from outside, times", "", number(seen.len())),
            figure("seen held from outside, worst", "ms", millis(percentile(&seen, 1000))),
        ]);
        figures.extend(moves(&log));
    }
    Ok(figures)
}

/// The replicator's own book, which it logs when it ends. Where it says nothing there was no hold.
fn booked(log: &str) -> Vec<Figure> {
    let told = lines_that_say(log, "held the application's writers for checkpoints");
    let told = told.last();
    let held = |name: &str| told.map_or(0, |told| number_in(told, name));
    vec![
        figure("write lock held, times", "", number(held("count"))),
        figure("write lock held, p50", "ms", millis(held("p50_micros") * 1000)),
        figure("write lock held, p99", "ms", millis(held("p99_micros") * 1000)),
        figure("write lock held, worst", "ms", millis(held("max_micros") * 1000)),
    ]
}

/// What the log says of the moves of the lock.
fn moves(log: &str) -> Vec<Figure> {
    let moves = lines_that_say(log, "moved the lock that keeps the WAL");
    let (forced, drains): (Vec<_>, Vec<_>) =
        moves.iter().partition(|fields| fields["procedure"] == "Force");
    let mut times: Vec<_> =
        forced.iter().map(|fields| number_in(fields, "micros") * 1000).collect();
    times.sort_unstable();
    vec![
        figure("moves without the write lock", "", number(drains.len())),
        figure("moves that end with it, median", "ms", millis(percentile(&times, 500))),
        figure("moves that end with it, worst", "ms", millis(percentile(&times, 1000))),
    ]
}
