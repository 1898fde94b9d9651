//! Snapshots of a database of 1 GB: the first, the second, and what an application beside them sees.

use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::Connection;
use tempfile::TempDir;

use super::Place;
use super::large::Large;
use super::restore::{copy_and_sync, large_database};
use crate::clock;
use crate::figure::{Figure, figure};
use crate::side::Side;
use crate::statistics::{millis, number};
use crate::writer::{Load, Writing};

const STORED: &str = "a snapshot is stored";
const BEGINS: &str = "a snapshot begins";

/// A row in each hundredth block of 64 KiB gets other bytes.
const ONE_PER_CENT: &str = "UPDATE t SET bytes = randomblob(300) WHERE id % 10000 = 77;";

/// The first snapshot, and the second after some blocks changed; without: `cp` and sync.
pub fn run(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let taken = |took| figure("copied or stored", "ms", millis(took));
    if *side == Side::Without {
        let folder = TempDir::new_in(place.folder)?;
        let took = copy_and_sync(&large_database(place)?, &folder.path().join("copy.db"))?;
        return Ok(vec![taken(took)]);
    }
    let large = Large::copy(place)?;
    let following = large.follow(side, &["--snapshot-interval", "3s", "--audit-interval", "0s"])?;
    let first = following.wait_for(&[STORED], 1)?;
    let (memory, first_bytes) = (following.memory()?, large.stored()?);
    change(&large.database)?;
    let begun = following.wait_for(&[BEGINS], 2)?;
    let before = large.stored()?;
    let second = following.wait_for(&[STORED], 2)? - begun;
    let second_bytes = large.stored()? - before;
    following.stop()?;
    let ratio = |part: u64, whole: u64| number(part) / number(whole.max(1));
    Ok(vec![
        taken(first),
        figure("memory, greatest", "MB", number(memory) / 1e6),
        figure("second, bytes ÷ first", "", ratio(second_bytes, first_bytes)),
        figure("second, time ÷ first", "", ratio(second, first)),
    ])
}

/// Changes a hundredth of the blocks.
pub fn change(database: &Path) -> Result<()> {
    let connection = Connection::open(database)?;
    connection.execute_batch(&format!("PRAGMA synchronous=OFF; {ONE_PER_CENT}"))?;
    Ok(())
}

pub fn beside_paced(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    beside(place, side, 5000)
}

pub fn beside_flat_out(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    beside(place, side, 0)
}

/// An application while a first snapshot is made, for as long as that takes; without: for as long as
/// such a snapshot may take.
fn beside(place: Place<'_>, side: &Side, rate: u32) -> Result<Vec<Figure>> {
    let large = Large::copy(place)?;
    place.writer.make(&large.database)?;
    let load = |seconds| Load { seconds, rate, synchronous: "NORMAL" };
    let start = |seconds| -> Result<Writing> { place.writer.start(&large.database, load(seconds)) };
    if *side == Side::Without {
        let commits = start(4)?.finish()?;
        let mut figures = commits.distribution();
        figures.extend([commits.per_second(), commits.failed()]);
        return Ok(figures);
    }
    let following = large.follow(side, &["--audit-interval", "0s"])?;
    following.wait_for(&[BEGINS], 1)?;
    let (writing, begun) = (start(30)?, clock::nanos());
    following.wait_for(&[STORED], 1)?;
    let took = clock::nanos() - begun;
    let commits = writing.stop()?;
    ensure!(!commits.all.is_empty(), "nothing was committed beside the snapshot");
    following.stop()?;
    let mut figures = commits.distribution();
    figures.extend([commits.per_second(), commits.failed()]);
    figures.push(figure("snapshot", "ms", millis(took)));
    Ok(figures)
}
