//! How soon a commit is found and recorded.

use anyhow::Result;

use super::Place;
use crate::detection::{Recorded, delays};
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::stage::{Stage, settle};
use crate::statistics::{millis, percentile};
use crate::writer::Load;

/// Names of the figures of each rate.
const RATES: [(u32, [&str; 3]); 2] = [
    (
        50,
        [
            "detected at 50 commits/s, median",
            "detected at 50 commits/s, p99",
            "detected at 50 commits/s, worst",
        ],
    ),
    (
        300,
        [
            "detected at 300 commits/s, median",
            "detected at 300 commits/s, p99",
            "detected at 300 commits/s, worst",
        ],
    ),
];

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "trace")?;
    let mut runs = Vec::new();
    for (rate, names) in RATES {
        let load = Load { seconds: 10, rate, synchronous: "NORMAL" };
        runs.push((names, stage.start(load)?.finish()?));
        settle();
    }
    let recorded = Recorded::all(&stage.strike()?);
    let mut figures = Vec::new();
    for (names, commits) in runs {
        let mut delays = delays(&commits, &recorded)?;
        delays.sort_unstable();
        let figure_of =
            |(name, permille)| figure(name, "ms", millis(percentile(&delays, permille)));
        figures.extend(names.into_iter().zip([500, 990, 1000]).map(figure_of));
    }
    Ok(figures)
}
