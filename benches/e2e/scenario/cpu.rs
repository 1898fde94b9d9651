//! What the replicator takes of a processor.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Place;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::machine::cpu_time;
use crate::side::Side;
use crate::stage::Stage;
use crate::writer::Load;

const LOAD: Load = Load { seconds: 11, rate: 300, synchronous: "NORMAL" };
const SPAN: Duration = Duration::from_secs(10);

/// After a second under load the load is steady, and after a second without it is quiet.
const LEAD: Duration = Duration::from_secs(1);

pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let stage = Stage::set(place.writer, side, place.folder, "info")?;
    let pid = stage.replicator.as_ref().context("nothing is replicated")?.pid();
    let writing = stage.start(LOAD)?;
    let busy = percent(pid)?;
    writing.finish()?;
    let idle = percent(pid)?;
    stage.strike()?;
    Ok(vec![
        figure("processor at 300 commits/s", "%", busy),
        figure("processor when idle", "%", idle),
    ])
}

/// How much of one processor a process takes.
fn percent(pid: u32) -> Result<f64> {
    clock::rest(LEAD);
    let (before, begun) = (cpu_time(pid)?, clock::nanos());
    clock::rest(SPAN);
    let took = Duration::from_nanos(clock::nanos() - begun);
    Ok(cpu_time(pid)?.saturating_sub(before).div_duration_f64(took) * 100.0)
}
