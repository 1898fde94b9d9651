//! How long a commit is on its way into the replica.

use anyhow::{Context, Result, ensure};

use super::Place;
use crate::arrivals::{Numbering, lags};
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::stage::Stage;
use crate::statistics::{millis, percentile};
use crate::writer::Load;

const LOAD: Load = Load { seconds: 6, rate: 300, synchronous: "NORMAL" };

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "info")?;
    let watched = stage.watch()?;
    let commits = stage.start(LOAD)?.finish()?;
    let mut figures = commits.distribution();
    if let Some(watched) = watched {
        let numbering = watched.numbering;
        let lags: Option<Vec<_>> =
            lags(&commits, &watched.finish(commits.end())?, numbering).into_iter().collect();
        ensure!(
            lags.is_some() || matches!(numbering, Numbering::NextObject),
            "commits are missing"
        );
        let mut lags = lags.context("the replica's objects are not recognised")?;
        lags.sort_unstable();
        figures.extend([
            figure("commit to replica, median", "ms", millis(percentile(&lags, 500))),
            figure("commit to replica, p99", "ms", millis(percentile(&lags, 990))),
            figure("commit to replica, worst", "ms", millis(percentile(&lags, 1000))),
        ]);
    }
    stage.strike()?;
    Ok(figures)
}
