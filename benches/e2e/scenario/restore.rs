//! How long a restore takes. What is restored is made once and kept, below the folder of the files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rusqlite::Connection;
use tempfile::TempDir;

use super::Place;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::process::succeed;
use crate::side::{Log, Side};
use crate::statistics::{millis, number};

/// How long the replica may take to hold everything.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(20);

/// Rows of 540 bytes: some words, a number that an index is on, and some bytes that no two rows share.
const LARGE: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, number, words TEXT, bytes BLOB);
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 1910000)
    INSERT INTO t(number, words, bytes)
        SELECT abs(random() % 100000),
               replace(printf('%.9c', 'x'), 'x', printf('item %d of many, ', random() % 5000)),
               randomblob(300) FROM c;
    CREATE INDEX by_number ON t(number);";

const SMALL: &str = "
    CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT);
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 10000)
    INSERT INTO t(a) SELECT hex(randomblob(50)) FROM c;";

const TRANSACTIONS: u32 = 100_000;

/// A database of 1 GB that is kept with its replica: its path.
pub fn large_database(place: Place<'_>) -> Result<PathBuf> {
    Ok(large(place)?.database)
}

pub fn large(place: Place<'_>) -> Result<Kept> {
    Kept::get(place.folder, "restored-database", |kept| {
        kept.make(LARGE)?;
        kept.replicate(&[], |_| Ok(()))
    })
}

/// Copies a file, and syncs the copy: how long that took.
pub fn copy_and_sync(from: &Path, to: &Path) -> Result<u64> {
    let begun = clock::nanos();
    succeed(Command::new("cp").arg(from).arg(to))?;
    File::open(to)?.sync_all()?;
    Ok(clock::nanos() - begun)
}

/// A database of 1 GB: copied and synced, or restored.
pub fn database(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    let kept = large(place)?;
    let folder = TempDir::new_in(place.folder)?;
    let copy = folder.path().join("copy.db");
    let (took, memory) = match side {
        Side::Without => (copy_and_sync(&kept.database, &copy)?, None),
        _ => kept.restore(&copy).map(|(took, memory)| (took, Some(memory)))?,
    };
    ensure!(copy.metadata()?.len() == kept.database.metadata()?.len(), "another database");
    let memory = memory.map(|bytes| figure("memory, greatest", "MB", number(bytes) / 1e6));
    Ok([figure("copied or restored", "ms", millis(took))].into_iter().chain(memory).collect())
}

/// Many small transactions on top of a snapshot.
pub fn transactions(place: Place<'_>, _side: &Side) -> Result<Vec<Figure>> {
    let kept = Kept::get(place.folder, "restored-transactions", |kept| {
        kept.make(SMALL)?;
        kept.replicate(&[], |connection| {
            let mut update =
                connection.prepare("UPDATE t SET a = hex(randomblob(50)) WHERE id = ?1")?;
            for n in 0..TRANSACTIONS {
                ensure!(update.execute([n * 7919 % 10_000 + 1])? == 1, "no such row");
            }
            Ok(())
        })
    })?;
    let folder = TempDir::new_in(place.folder)?;
    let (took, memory) = kept.restore(&folder.path().join("restored.db"))?;
    Ok(vec![
        figure("restored", "ms", millis(took)),
        figure("memory, greatest", "MB", number(memory) / 1e6),
    ])
}

/// A database and its replica.
#[derive(Debug)]
pub struct Kept {
    folder: PathBuf,
    pub database: PathBuf,
    pub replica: PathBuf,
}

impl Kept {
    /// What was made before, or is made now.
    pub fn get(folder: &Path, name: &str, make: impl FnOnce(&Self) -> Result<()>) -> Result<Self> {
        let folder = folder.join(name);
        let (database, replica) = (folder.join("app.db"), folder.join("replica"));
        let kept = Self { folder, database, replica };
        let mark = kept.folder.join("made");
        if !mark.exists() {
            if kept.folder.exists() {
                std::fs::remove_dir_all(&kept.folder)?;
            }
            std::fs::create_dir(&kept.folder)?;
            make(&kept).context("cannot make what is to be restored")?;
            File::create(&mark)?;
            rustix::fs::sync();
        }
        Ok(kept)
    }

    /// Makes the database.
    pub fn make(&self, sql: &str) -> Result<()> {
        let connection = Connection::open(&self.database)?;
        connection.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;")?;
        connection.execute_batch(sql)?;
        connection.execute_batch("PRAGMA journal_mode=WAL;")?;
        Ok(())
    }

    /// Replicates the database, and what is committed to it then; `more` are options.
    pub fn replicate(
        &self,
        more: &[&str],
        commit: impl FnOnce(&Connection) -> Result<()>,
    ) -> Result<()> {
        let log = Log { path: self.folder.join("log"), level: "info" };
        let replicator = Side::With.start_with(&self.database, &self.replica, &log, more)?;
        let until = clock::nanos() + u64::try_from(PATIENCE.as_nanos())?;
        while !std::fs::read_to_string(&log.path)?.contains("a new generation begins") {
            ensure!(clock::nanos() < until, "no snapshot within {PATIENCE:?}");
            clock::rest(POLL);
        }
        let connection = Connection::open(&self.database)?;
        connection.execute_batch("PRAGMA synchronous=NORMAL;")?;
        commit(&connection)?;
        replicator.context("nothing is replicated")?.stop()
    }

    /// Restores it: how long that took, and how many bytes of memory.
    fn restore(&self, output: &Path) -> Result<(u64, u64)> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_genesis-replicate"));
        command.arg("restore").arg(&self.replica).arg("--output").arg(output);
        timed(&mut command)
    }
}

/// Runs a restore: how long it took, and how many bytes of memory.
pub fn timed(command: &mut Command) -> Result<(u64, u64)> {
    let begun = clock::nanos();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut memory = 0;
    while child.try_wait()?.is_none() {
        memory = greatest_memory(child.id()).unwrap_or(memory);
        clock::rest(Duration::from_millis(1));
    }
    let took = clock::nanos() - begun;
    let ended = child.wait_with_output()?;
    if !ended.status.success() {
        bail!("the restore failed: {}", String::from_utf8_lossy(&ended.stderr));
    }
    Ok((took, memory))
}

/// The most memory that a process has had so far, in bytes.
pub fn greatest_memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}
