//! What can be set: each field is a flag of the command line and, with `_` for `-`, a key of the
//! configuration.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use clap::Args;

use super::values::{duration, size, snapshot_interval, spool_limit, sync_interval};
use crate::cli::place::Place;

/// How one database is followed. Each may also stand at the top of the configuration, for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Settings {
    /// How long a committed transaction may wait for upload; at most 5m. [default: 80ms to a
    /// folder, 1s to an object store]
    #[arg(long, value_name = "DURATION", value_parser = sync_interval)]
    pub sync_interval: Option<Duration>,

    /// The time between two snapshots; none is made of a database that has not changed.
    /// [default: 4h]
    #[arg(long, value_name = "DURATION", value_parser = snapshot_interval)]
    pub snapshot_interval: Option<Duration>,

    /// The time in which the database is read once, at idle priority and 5 MB/s at most, to find pages
    /// that changed on the disk; 0 never reads it. [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub audit_interval: Option<Duration>,

    /// Above this size of the WAL, the application's writers are held for a moment to empty it; 0
    /// never holds them. [default: 16MB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub wal_limit: Option<ByteSize>,

    /// So much may wait on the local disk while the replica fails; then what is committed is shipped as
    /// one record when it is back. [default: 1GiB or a tenth of what is free, whichever is less]
    #[arg(long, value_name = "SIZE", value_parser = spool_limit)]
    pub spool_limit: Option<ByteSize>,

    /// So much of what is shipped stays on the local disk, to be merged without being read from the
    /// replica. [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub spool_keep: Option<ByteSize>,

    /// Switch the database to WAL mode if it is not in it.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub set_wal: Option<bool>,

    /// Where local state lives. [default: .NAME-genesis beside the database]
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,
}

/// How the process behaves. In the configuration these stand at the top alone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ProcessSettings {
    /// How long the end may take, when everything committed is shipped. [default: 30s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub shutdown_timeout: Option<Duration>,
}

impl Settings {
    /// The same, with what `others` say where nothing is said here.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self {
            sync_interval: self.sync_interval.or(others.sync_interval),
            snapshot_interval: self.snapshot_interval.or(others.snapshot_interval),
            audit_interval: self.audit_interval.or(others.audit_interval),
            wal_limit: self.wal_limit.or(others.wal_limit),
            spool_limit: self.spool_limit.or(others.spool_limit),
            spool_keep: self.spool_keep.or(others.spool_keep),
            set_wal: self.set_wal.or(others.set_wal),
            state_dir: self.state_dir.or_else(|| others.state_dir.clone()),
        }
    }

    /// How long a committed transaction may wait for upload, unless another default is the place's.
    #[must_use]
    pub fn sync_interval(&self, replica: &Place) -> Duration {
        self.sync_interval.unwrap_or(replica.sync_interval())
    }

    /// The time between two snapshots.
    #[must_use]
    pub fn snapshot_interval(&self) -> Duration {
        self.snapshot_interval.unwrap_or(Duration::from_hours(4))
    }

    /// The time in which the database is read once; 0 for never.
    #[must_use]
    pub fn audit_interval(&self) -> Duration {
        self.audit_interval.unwrap_or(Duration::from_hours(7 * 24))
    }

    /// The size of the WAL above which writers may be held; 0 for never.
    #[must_use]
    pub fn wal_limit(&self) -> ByteSize {
        self.wal_limit.unwrap_or(ByteSize::mb(16))
    }

    /// How much of what is shipped stays on the local disk.
    #[must_use]
    pub fn spool_keep(&self) -> ByteSize {
        self.spool_keep.unwrap_or(ByteSize::mib(64))
    }

    /// Whether to switch the database to WAL mode.
    #[must_use]
    pub fn set_wal(&self) -> bool {
        self.set_wal.unwrap_or(false)
    }
}

impl ProcessSettings {
    /// The same, with what `others` say where nothing is said here.
    #[must_use]
    pub fn or(self, others: &Self) -> Self {
        Self { shutdown_timeout: self.shutdown_timeout.or(others.shutdown_timeout) }
    }

    /// How long the end may take.
    #[must_use]
    pub fn shutdown_timeout(&self) -> Duration {
        self.shutdown_timeout.unwrap_or(Duration::from_secs(30))
    }
}
