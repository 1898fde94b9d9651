//! Restarts beside a database of 1 GB.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{Advice, fadvise};

use super::Place;
use super::large::Large;
use super::snapshot::change;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::statistics::{millis, number};

const QUIET: [&str; 2] = ["--audit-interval", "0s"];

/// A restart of a database that has not changed, and one after it changed and its WAL was deleted.
pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let large = Large::copy(place)?;
    let first = large.follow(side, &QUIET)?;
    first.wait_for(&["a snapshot is stored"], 1)?;
    first.stop()?;

    let before = large.stored()?;
    let again = large.follow(side, &QUIET)?;
    let followed = again.wait_for(&["followed: what is committed now is kept"], 1)?;
    again.wait_for(&["continuing what the replica holds", "as it was recorded"], 1)?;
    again.stop()?;
    let unchanged = large.stored()? - before;

    // The last connection to be closed deletes the WAL.
    change(&large.database)?;
    let before = large.stored()?;
    let reading = read_cold(&large.database)?;
    drop_from_cache(&large.database)?;
    let after = large.follow(side, &QUIET)?;
    let compared = after.wait_for(&["recorded in one what was not seen"], 1)?;
    after.stop()?;
    let bytes = number(large.database.metadata()?.len());
    let speed = |took: u64| bytes / 1e6 / (millis(took) / 1e3);
    Ok(vec![
        figure("start to followed", "ms", millis(followed)),
        figure("shipped by an unchanged restart", "bytes", number(unchanged)),
        figure("compared, cold", "MB/s", speed(compared)),
        figure("read by itself, cold", "MB/s", speed(reading)),
        figure("shipped of the database", "%", number(large.stored()? - before) / bytes * 100.0),
    ])
}

/// Nobody has the database open.
fn drop_from_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(fadvise(&file, 0, None, Advice::DontNeed)?)
}

/// How long it takes to read a file that is not in the page cache.
fn read_cold(path: &Path) -> Result<u64> {
    drop_from_cache(path)?;
    let begun = clock::nanos();
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 1 << 20]);
    while file.read(&mut buffer)? > 0 {}
    Ok(clock::nanos() - begun)
}
