//! A steady load.

use anyhow::Result;

use super::Place;
use crate::figure::Figure;
use crate::side::Side;
use crate::stage::Stage;
use crate::writer::Load;

pub fn normal(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, "NORMAL")
}

pub fn full(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, "FULL")
}

fn run(place: Place<'_>, side: &Side, synchronous: &'static str) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "info")?;
    let commits = stage.start(Load { seconds: 6, rate: 5000, synchronous })?.finish()?;
    stage.strike()?;
    let mut figures = commits.distribution();
    figures.extend([commits.answer(), commits.per_second(), commits.pauses()]);
    figures.extend([commits.wal(), commits.failed()]);
    Ok(figures)
}
