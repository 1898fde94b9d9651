//! How long a restore takes through a network, and what it asks for.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;
use tempfile::TempDir;

use super::super::Place;
use super::super::restore::{Kept, copy_and_sync, large, timed};
use crate::bucket::Bucket;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::s3::Server;
use crate::side::{AUTHORITIES, Destination, Log, Side};
use crate::statistics::{millis, number};
use crate::wire::{Request, Wire, by_verb};

/// Segments that are in the replica, and how often one is made: as many as an hour has seconds.
const SEGMENTS: u32 = 3600;
const PACE: Duration = Duration::from_millis(12);

/// Litestream's upload is over when nothing was stored for so long, and takes no longer than this.
const SILENCE: u64 = 5_000_000_000;
const PATIENCE: u64 = 120_000_000_000;
const POLL: Duration = Duration::from_millis(100);

const ROUND_TRIP_20: Duration = Duration::from_millis(20);
const ROUND_TRIP_100: Duration = Duration::from_millis(100);

pub fn database_20(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    database(place, side, ROUND_TRIP_20)
}

pub fn database_100(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    database(place, side, ROUND_TRIP_100)
}

/// A database of 1 GB: what a restore downloads is downloaded, or the database is restored.
fn database(place: Place<'_>, side: &Side, round_trip: Duration) -> Result<Vec<Figure>> {
    let kept = large(place)?;
    let bucket = match side {
        Side::Litestream { .. } => stored("large", side, || replicated(&kept, place, side))?,
        _ => stored("large", &Side::With, || uploaded(&kept))?,
    };
    let folder = TempDir::new_in(place.folder)?;
    let wire = bucket.wire(round_trip)?;
    if *side == Side::Without {
        let begun = clock::nanos();
        let bytes = bucket.download(&wire, folder.path())?;
        let took = clock::nanos() - begun;
        return Ok(vec![
            figure("downloaded or restored", "ms", millis(took)),
            figure("bytes in the store", "MB", number(bytes) / 1e6),
        ]);
    }
    restored(&kept, side, (&bucket, &wire), &folder.path().join("restored.db"))
}

/// As many segments as an hour has seconds, on top of a snapshot.
pub fn segments_100(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let kept = Kept::get(place.folder, "restored-segments", |kept| {
        kept.make("CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT);")?;
        kept.replicate(&["--sync-interval", "1ms"], |connection| {
            let mut insert = connection.prepare("INSERT INTO t(a) VALUES(hex(randomblob(50)))")?;
            for _ in 0..SEGMENTS {
                insert.execute([])?;
                clock::rest(PACE);
            }
            Ok(())
        })
    })?;
    let bucket = stored("segments", side, || uploaded(&kept))?;
    let folder = TempDir::new_in(place.folder)?;
    let wire = bucket.wire(ROUND_TRIP_100)?;
    restored(&kept, side, (&bucket, &wire), &folder.path().join("restored.db"))
}

/// What was stored by this process under a name, for one side, or is stored now.
fn stored(name: &str, side: &Side, store: impl FnOnce() -> Result<Bucket>) -> Result<Bucket> {
    static STORED: Mutex<Option<HashMap<String, Bucket>>> = Mutex::new(None);
    let mut stored = STORED.lock().unwrap_or_else(PoisonError::into_inner);
    let stored = stored.get_or_insert_default();
    let name = format!("{name} {}", side.name());
    if let Some(bucket) = stored.get(&name) {
        return Ok(bucket.clone());
    }
    let bucket = store().context("cannot store what is to be restored")?;
    stored.insert(name, bucket.clone());
    Ok(bucket)
}

fn uploaded(kept: &Kept) -> Result<Bucket> {
    let bucket = Bucket::new()?;
    bucket.upload(&kept.replica)?;
    Ok(bucket)
}

/// Lets Litestream store a copy of a database.
fn replicated(kept: &Kept, place: Place<'_>, side: &Side) -> Result<Bucket> {
    let folder = TempDir::new_in(place.folder)?;
    let database = folder.path().join("app.db");
    copy_and_sync(&kept.database, &database)?;
    let bucket = Bucket::new()?;
    let wire = bucket.wire(Duration::ZERO)?;
    let log = Log { path: folder.path().join("log"), level: "info" };
    let replicator = side.start_to(&database, Destination::Bucket(&bucket, &wire), &log, &[])?;
    // It may wait for a first commit.
    Connection::open(&database)?.execute_batch("CREATE TABLE one_more(a)")?;
    let latest = || {
        let requests = wire.requests();
        let is_pending = requests.iter().any(|r| r.verb == "PUT" && r.answer.is_none());
        let done = requests.iter().filter(|r| r.verb != "GET").filter_map(Request::done).max();
        done.filter(|_| !is_pending)
    };
    let until = clock::nanos() + PATIENCE;
    while latest().is_none_or(|done| clock::nanos() < done + SILENCE) {
        ensure!(clock::nanos() < until, "{} does not store the database", side.name());
        clock::rest(POLL);
    }
    replicator.context("nothing is replicated")?.stop()?;
    Ok(bucket)
}

fn restored(
    kept: &Kept,
    side: &Side,
    (bucket, wire): (&Bucket, &Wire),
    output: &Path,
) -> Result<Vec<Figure>> {
    let mut command = restoring(kept, side, (bucket, wire), output)?;
    let (took, memory) = timed(command.envs(Server::credentials()))?;
    let (whole, found) = (kept.database.metadata()?.len(), output.metadata()?.len());
    ensure!(found >= whole, "{found} bytes of {whole} were restored");
    let requests = wire.requests();
    let asked = by_verb(&requests);
    let of = |verb| number(asked.get(verb).copied().unwrap_or_default());
    Ok(vec![
        figure("downloaded or restored", "ms", millis(took)),
        figure("memory, greatest", "MB", number(memory) / 1e6),
        figure("requests", "", number(requests.len())),
        figure("GET", "", of("GET")),
        figure("LIST", "", of("LIST")),
    ])
}

/// The command that restores to `output`.
fn restoring(
    kept: &Kept,
    side: &Side,
    (bucket, wire): (&Bucket, &Wire),
    output: &Path,
) -> Result<Command> {
    if let Side::Litestream { program, .. } = side {
        let config = output.with_extension("yml");
        bucket.configure_litestream(&config, &kept.database, wire)?;
        let mut command = Command::new(program);
        command.arg("restore").arg("-config").arg(config).arg("-o").arg(output);
        command.arg(&kept.database).env_remove(AUTHORITIES);
        Ok(command)
    } else {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genesis-replicate"));
        command.arg("restore").arg(bucket.address(Some(wire))).arg("--output").arg(output);
        Ok(command)
    }
}
