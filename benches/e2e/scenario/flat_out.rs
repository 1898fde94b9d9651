//! One writer as fast as it goes.

use anyhow::Result;

use super::Place;
use crate::arrivals::{Arrival, Numbering, lags};
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::stage::Stage;
use crate::statistics::millis;
use crate::writer::{Commits, Load};

const LOAD: Load = Load { seconds: 5, rate: 0, synchronous: "NORMAL" };

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "info")?;
    let watched = stage.watch()?;
    let commits = stage.start(LOAD)?.finish()?;
    let mut figures = vec![commits.per_second(), commits.wal(), commits.failed(), commits.pauses()];
    figures.extend(commits.distribution());
    if let Some(watched) = watched {
        let numbering = watched.numbering;
        figures.extend(lag(&commits, &watched.finish(commits.end())?, numbering));
    }
    stage.strike()?;
    Ok(figures)
}

/// Lags at their worst, and at the end.
fn lag(commits: &Commits, arrivals: &[Arrival], numbering: Numbering) -> Vec<Figure> {
    let last = figure_of_last(commits, arrivals, numbering);
    let worst = match numbering {
        Numbering::After(_) => lags(commits, arrivals, numbering).into_iter().flatten().max(),
        Numbering::NextObject => None,
    };
    let worst = worst.map(|lag| figure("commit to replica, worst", "ms", millis(lag)));
    worst.into_iter().chain(last).collect()
}

/// Where names do not tell what an object holds, the last one to arrive is taken to hold the last.
fn figure_of_last(commits: &Commits, arrivals: &[Arrival], numbering: Numbering) -> Option<Figure> {
    let lag = match numbering {
        Numbering::After(_) => lags(commits, arrivals, numbering).pop().flatten(),
        Numbering::NextObject => arrivals.last().map(|last| last.at.saturating_sub(commits.end())),
    };
    lag.map(|lag| figure("last commit to replica", "ms", millis(lag)))
}
