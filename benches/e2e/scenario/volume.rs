//! What it takes to ship small changes: bytes in the replica, and processor time.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rusqlite::{Connection, params};

use super::Place;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::machine::cpu_time;
use crate::side::Side;
use crate::stage::Stage;
use crate::statistics::number;

/// First commits that are shipped each alone, then commits as fast as they go: Litestream packs what it
/// ships at once together, and so what it takes for a commit depends on how many come in a second.
const ALONE: u32 = 30;
const TOGETHER: u32 = 100_000;

/// The rest before that, in which a first snapshot is stored.
const REST: Duration = Duration::from_secs(5);

/// Rows to change: about 115 pages, which are changed 870 times each.
const ROWS: i64 = 2000;

pub fn counter(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, Change::Counter)
}

pub fn insert(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, Change::Insert)
}

pub fn blob(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, Change::Blob)
}

/// What a transaction does.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Counts in a row of 200 bytes.
    Counter,
    /// Appends 300 bytes of text.
    Insert,
    /// Appends a KiB of noise.
    Blob,
}

fn run(place: Place<'_>, side: &Side, change: Change) -> Result<Vec<Figure>> {
    let load = |database: &Path| Application::begin(database)?.load();
    let stage = Stage::set_with(place.writer, side, place.folder, "info", load)?;
    let pid = stage.replicator.as_ref().context("nothing is replicated")?.pid();
    let wal = wal_bytes(&stage.database.with_extension("alone"), change)?;
    let mut application = Application::begin(&stage.database)?;
    clock::rest(REST);
    let begun = stage.stored_bytes()?;
    application.commit(change, ALONE, Some(Duration::from_secs(1)))?;
    shipped(&stage)?;
    let (alone, before) = (stage.stored_bytes()?, cpu_time(pid)?);
    application.commit(change, TOGETHER, None)?;
    shipped(&stage)?;
    let (together, took) = (stage.stored_bytes()?, cpu_time(pid)?.saturating_sub(before));
    stage.strike()?;
    let bytes = |bytes: u64| number(usize::try_from(bytes).unwrap_or_default());
    let each = |from: u64, to: u64, commits| bytes(to.saturating_sub(from)) / f64::from(commits);
    let took = took.as_secs_f64() * 1000.0 / (bytes(wal) / 1e6);
    Ok(vec![
        figure("shipped for a lone commit", "bytes", each(begun, alone, ALONE)),
        figure("shipped for a commit of many", "bytes", each(alone, together, TOGETHER)),
        figure("processor for a MB of WAL", "ms", took),
    ])
}

/// Waits until what is committed now is in the replica.
fn shipped(stage: &Stage<'_>) -> Result<()> {
    let watched = stage.watch()?.context("nothing is replicated")?;
    watched.finish(clock::nanos()).map(drop)
}

/// What the same commits write to a WAL that nobody checkpoints.
fn wal_bytes(database: &Path, change: Change) -> Result<u64> {
    let mut application = Application::begin(database)?;
    application.load()?;
    application.connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    application.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    application.commit(change, TOGETHER, None)?;
    Ok(database.with_extension("alone-wal").metadata()?.len())
}

/// An application in this process, which is not what is measured.
struct Application {
    connection: Connection,
    random: u64,
}

impl Application {
    fn begin(database: &Path) -> Result<Self> {
        let connection = Connection::open(database)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")?;
        Ok(Self { connection, random: 0x9E37_79B9_7F4A_7C15 })
    }

    /// Makes the rows: the tables of an application that has been there for long.
    fn load(&mut self) -> Result<()> {
        let texts: Vec<String> = (0..ROWS).map(|_| self.text(200)).collect();
        let rows = self.connection.transaction()?;
        rows.execute_batch(
            "CREATE TABLE counted(id INTEGER PRIMARY KEY, n INTEGER, text TEXT);
             CREATE TABLE appended(id INTEGER PRIMARY KEY, v);",
        )?;
        for text in texts {
            rows.execute("INSERT INTO counted(n, text) VALUES(1000000, ?1)", [&text])?;
            rows.execute("INSERT INTO appended(v) VALUES(?1)", [&text])?;
        }
        rows.commit()?;
        Ok(())
    }

    fn commit(&mut self, change: Change, times: u32, pause: Option<Duration>) -> Result<()> {
        for _ in 0..times {
            self.transact(change)?;
            pause.into_iter().for_each(clock::rest);
        }
        Ok(())
    }

    fn transact(&mut self, change: Change) -> Result<()> {
        let insert = "INSERT INTO appended(v) VALUES(?1)";
        match change {
            Change::Counter => {
                let row = i64::from(self.next()) % ROWS + 1;
                let update = "UPDATE counted SET n = n + 1 WHERE id = ?1";
                self.connection.prepare_cached(update)?.execute([row])?;
            }
            Change::Insert => {
                let text = self.text(300);
                self.connection.prepare_cached(insert)?.execute([text])?;
            }
            Change::Blob => {
                let blob: Vec<u8> = (0..256).flat_map(|_| self.next().to_le_bytes()).collect();
                self.connection.prepare_cached(insert)?.execute(params![blob])?;
            }
        }
        Ok(())
    }

    /// Letters and digits.
    fn text(&mut self, len: usize) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..len).map(|_| char::from(LETTERS[self.next() as usize % 64])).collect()
    }

    /// The upper half of an xorshift.
    fn next(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}
