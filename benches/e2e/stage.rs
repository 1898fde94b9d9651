//! A database with an application and what runs beside it, for one run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use genesis_wal::name::ObjectName;
use tempfile::TempDir;

use crate::arrivals::{Arrival, Arrivals, Numbering};
use crate::clock;
use crate::side::{Log, Replicator, Side};
use crate::writer::{Load, Writer, Writing};

/// How long a replicator may take to begin.
const START_PATIENCE: u32 = 10_000;
const POLL: Duration = Duration::from_millis(1);

/// After the first commit, the time in which whoever follows comes to rest.
const SETTLE: Duration = Duration::from_millis(1500);

/// When something arrived after the last commit, the silence after which nothing more is expected,
/// and how long is waited in all. Looked at every [`SETTLE`].
const SILENCE: u64 = 3_000_000_000;
const LONGEST_LAG: u64 = 30_000_000_000;

/// One run's database, application and replicator.
#[derive(Debug)]
pub struct Stage<'a> {
    pub replicator: Option<Replicator>,
    writer: &'a Writer,
    pub database: PathBuf,
    replica: PathBuf,
    numbering: Numbering,
    pub log: Log,
    // Removed last.
    _folder: TempDir,
}

impl<'a> Stage<'a> {
    /// A new database that is followed, and was committed to once.
    pub fn set(writer: &'a Writer, side: &Side, folder: &Path, log: &'static str) -> Result<Self> {
        Self::set_with(writer, side, folder, log, |_| Ok(()))
    }

    /// The same around a database that holds something before anybody replicates it.
    pub fn set_with(
        writer: &'a Writer,
        side: &Side,
        folder: &Path,
        log: &'static str,
        load: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<Self> {
        let folder = TempDir::new_in(folder).context("no folder")?;
        let database = folder.path().join("app.db");
        let replica = folder.path().join("replica");
        let log = Log { path: folder.path().join("log"), level: log };
        writer.make(&database)?;
        load(&database)?;
        std::fs::create_dir(&replica)?;
        let replicator = side.start(&database, &replica, &log)?;
        let numbering = match side {
            Side::Without => Numbering::NextObject,
            _ => await_first(&replica, side)
                .with_context(|| std::fs::read_to_string(&log.path).unwrap_or_default())?,
        };
        writer.commit(&database)?;
        let stage = Self { replicator, writer, database, replica, numbering, log, _folder: folder };
        settle();
        Ok(stage)
    }

    /// Lets the application begin.
    pub fn start(&self, load: Load) -> Result<Writing> {
        self.writer.start(&self.database, load)
    }

    /// Begins to watch the replica; `None` without one.
    pub fn watch(&self) -> Result<Option<Watched>> {
        let arrivals = self.replicator.is_some().then(|| Arrivals::watch(&self.replica));
        let numbering = self.numbering;
        Ok(arrivals.transpose()?.map(|arrivals| Watched { arrivals, numbering }))
    }

    /// Bytes in the replica.
    pub fn stored_bytes(&self) -> Result<u64> {
        let mut names = Vec::new();
        walk(&self.replica, &self.replica, &mut names)?;
        // What was there a moment ago may be gone.
        let sizes = names.iter().filter_map(|name| self.replica.join(name).metadata().ok());
        Ok(sizes.map(|found| found.len()).sum())
    }

    /// Ends whoever replicates; what it logged.
    pub fn strike(mut self) -> Result<String> {
        let Some(replicator) = self.replicator.take() else { return Ok(String::new()) };
        replicator.stop()?;
        Ok(std::fs::read_to_string(&self.log.path)?)
    }
}

/// Lets whoever follows come to rest. What was written until then is not written back later.
pub fn settle() {
    clock::rest(SETTLE);
    rustix::fs::sync();
}

/// A replica that is watched.
#[derive(Debug)]
pub struct Watched {
    arrivals: Arrivals,
    pub numbering: Numbering,
}

impl Watched {
    /// Waits until nothing more is expected after the commit that ended then; what has arrived.
    pub fn finish(self, end: u64) -> Result<Vec<Arrival>> {
        let is_over = |now: u64| {
            let latest = self.arrivals.latest();
            (latest > end && now > latest + SILENCE) || now > end + LONGEST_LAG
        };
        while !is_over(clock::nanos()) {
            clock::rest(SETTLE);
        }
        self.arrivals.finish()
    }
}

/// Waits for a replica's beginning: the transactions that are numbered from there on.
fn await_first(replica: &Path, side: &Side) -> Result<Numbering> {
    for _ in 0..START_PATIENCE {
        let mut names = Vec::new();
        walk(replica, replica, &mut names)?;
        let ours = names.iter().find_map(|name| match name.parse().ok()? {
            // One commit comes before those that are measured.
            ObjectName::Manifest(manifest) => Some(Numbering::After(manifest.txid.0 + 1)),
            _ => None,
        });
        let others = (*side != Side::With && !names.is_empty()).then_some(Numbering::NextObject);
        if let Some(numbering) = ours.or(others) {
            return Ok(numbering);
        }
        clock::rest(POLL);
    }
    bail!("{} does not begin to replicate", side.name())
}

fn walk(root: &Path, folder: &Path, names: &mut Vec<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            walk(root, &entry.path(), names)?;
        } else {
            let path = entry.path();
            names.push(path.strip_prefix(root).unwrap_or(&path).display().to_string());
        }
    }
    Ok(())
}
