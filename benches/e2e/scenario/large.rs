//! A database of 1 GB, of which there is no replica yet, and what follows it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::Place;
use super::restore::{copy_and_sync, greatest_memory, large_database};
use crate::clock;
use crate::side::{Log, Replicator, Side};

/// Nothing takes this long unless it never comes.
const PATIENCE: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(1);

/// A database of its own for one run, and a place for its replica.
#[derive(Debug)]
pub struct Large {
    pub database: PathBuf,
    replica: PathBuf,
    log: Log,
    // Removed last.
    _folder: TempDir,
}

impl Large {
    /// Copies the database that is kept. What was written for it is on the disk.
    pub fn copy(place: Place<'_>) -> Result<Self> {
        let folder = TempDir::new_in(place.folder)?;
        let (database, replica) = (folder.path().join("app.db"), folder.path().join("replica"));
        copy_and_sync(&large_database(place)?, &database)?;
        std::fs::create_dir(&replica)?;
        let log = Log { path: folder.path().join("log"), level: "info" };
        Ok(Self { database, replica, log, _folder: folder })
    }

    /// Follows it, with a log of its own.
    pub fn follow(&self, side: &Side, more: &[&str]) -> Result<Following<'_>> {
        rustix::fs::sync();
        let begun = clock::nanos();
        let started = side.start_with(&self.database, &self.replica, &self.log, more)?;
        let replicator = started.context("nothing follows it")?;
        Ok(Following { of: self, replicator, begun })
    }

    /// Bytes of the replica in objects of its history: of the claims of writers, nothing.
    pub fn stored(&self) -> Result<u64> {
        let mut sum = 0;
        for entry in std::fs::read_dir(&self.replica)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && entry.file_name() != "epochs" {
                sum += bytes_below(&entry.path())?;
            }
        }
        Ok(sum)
    }
}

fn bytes_below(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_folder = entry.file_type()?.is_dir();
        sum += if is_folder { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(sum)
}

/// Who follows it.
#[derive(Debug)]
pub struct Following<'a> {
    of: &'a Large,
    replicator: Replicator,
    begun: u64,
}

impl Following<'_> {
    /// How often something was logged.
    pub fn said(&self, words: &str) -> Result<usize> {
        Ok(std::fs::read_to_string(&self.of.log.path)?.matches(words).count())
    }

    /// Waits until one of `words` was logged `times`; how long after the start that was.
    pub fn wait_for(&self, words: &[&str], times: usize) -> Result<u64> {
        let until = clock::nanos() + u64::try_from(PATIENCE.as_nanos())?;
        while !words.iter().any(|word| self.said(word).is_ok_and(|said| said >= times)) {
            ensure!(clock::nanos() < until, "none of {words:?} within {PATIENCE:?}");
            clock::rest(POLL);
        }
        Ok(clock::nanos() - self.begun)
    }

    /// The most memory that it has had, in bytes.
    pub fn memory(&self) -> Result<u64> {
        greatest_memory(self.replicator.pid()).context("it has ended")
    }

    /// Ends it.
    pub fn stop(self) -> Result<()> {
        self.replicator.stop()
    }
}
