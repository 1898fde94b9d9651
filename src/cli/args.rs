//! What was typed.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use genesis_wal::id::{BackupId, Generation};
use genesis_wal::time::Micros;
use tracing::level_filters::LevelFilter;

use super::place::Place;
use crate::config::values::duration;
use crate::config::{ProcessSettings, Settings};
use crate::telemetry::LogFormat;

/// Ships every committed transaction of an SQLite database to a replica, and restores any of them.
#[derive(Debug, Parser)]
#[command(name = "genesis-replicate", version = version(), max_term_width = 100)]
pub struct Args {
    /// The configuration. [default: `GENESIS_REPLICATE_CONFIG` of the environment, else
    /// genesis-replicate.toml here, else /etc/genesis-replicate.toml]
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How much is logged to standard error.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value = "info"
    )]
    pub log_level: LogLevel,

    /// How log lines are written.
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_enum,
        default_value = "text"
    )]
    pub log_format: LogFormat,

    #[command(subcommand)]
    pub command: Command,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum LogLevel {
    /// What ends the protection of the database.
    Error,
    /// Also what may come to that.
    Warn,
    /// Also how the protection begins and ends.
    Info,
    /// Also every segment.
    Debug,
    /// Also every look that found commits.
    Trace,
}

impl From<LogLevel> for LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run an application, ship what it commits, and end with its exit code.
    #[command(
        after_help = "Examples:\n  genesis-replicate exec --db app.db --replica /backup/app -- ./app --port 8080\n  genesis-replicate exec --config app.toml -- ./app"
    )]
    Exec(ExecArgs),

    /// Ship what is committed to a database, until told to stop.
    #[command(
        after_help = "Examples:\n  genesis-replicate replicate --db app.db --replica /backup/app\n  genesis-replicate replicate --config /etc/genesis-replicate.toml"
    )]
    Replicate(ReplicateArgs),

    /// Restore a database as it was after any transaction.
    #[command(
        after_help = "Examples:\n  genesis-replicate restore /backup/app --output restored.db\n  genesis-replicate restore /backup/app --output before.db --timestamp 2026-11-23T12:00:00Z"
    )]
    Restore(RestoreArgs),

    /// Empty the WAL of a database, beside its application and beside `replicate` or `exec`.
    #[command(after_help = "Example:\n  genesis-replicate checkpoint --truncate --db app.db")]
    Checkpoint(CheckpointArgs),

    /// Show what a replica holds and which states can be restored.
    #[command(
        after_help = "Examples:\n  genesis-replicate list /backup/app\n  genesis-replicate list /backup/app --transactions --since 2026-11-23T11:00:00Z"
    )]
    List(ListArgs),

    /// Find out what a replica's place can do, and say in words what is missing.
    #[command(
        after_help = "Example:\n  genesis-replicate check 's3://backups/app?region=eu-central-1'"
    )]
    Check(CheckArgs),

    /// Look at the configuration.
    #[command(subcommand)]
    Config(ConfigCommand),
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Find what is wrong with the configuration and its paths, and say what is followed and where to.
    Check(ConfigArgs),

    /// Print the configuration with all defaults, as a configuration.
    Show(ConfigArgs),
}

#[derive(Debug, ClapArgs)]
pub struct ConfigArgs {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What is followed, and how.
#[derive(Debug, ClapArgs)]
pub struct ReplicateArgs {
    /// The database. It need not exist yet. Without --replica, one of the configuration; without
    /// this, all of them.
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,

    /// Where its replica is: a folder, as a path or as `file:///path`, or in an object store, as
    /// `s3://bucket/prefix`.
    #[arg(long, value_name = "URL", requires = "db")]
    pub replica: Option<Place>,

    #[command(flatten)]
    pub settings: Settings,

    /// Take the replica over from the host that has it: that one stops writing to it.
    #[arg(long)]
    pub takeover: bool,

    /// If the database is another one than the replica's, begin a new line of history with it.
    #[arg(long)]
    pub new_generation: bool,

    #[command(flatten)]
    pub process: ProcessSettings,
}

#[derive(Debug, ClapArgs)]
pub struct ExecArgs {
    #[command(flatten)]
    pub replicate: ReplicateArgs,

    /// Restore a database that does not exist before the application starts. Where its replica holds
    /// nothing, the application starts without; where it cannot be asked or is damaged, it does not.
    #[arg(long)]
    pub restore_if_missing: bool,

    /// Start the application, without a database, also where the replica cannot be asked.
    #[arg(long, requires = "restore_if_missing")]
    pub allow_empty_on_error: bool,

    /// Let the application inherit the credentials of the object store.
    #[arg(long)]
    pub pass_credentials: bool,

    /// The application and its arguments.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

#[derive(Debug, ClapArgs)]
pub struct CheckArgs {
    #[command(flatten)]
    pub source: Source,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// A replica that is read.
#[derive(Debug, ClapArgs)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// The replica: a folder, as a path or as `file:///path`, or in an object store, as
    /// `s3://bucket/prefix`.
    #[arg(value_name = "URL")]
    pub url: Option<Place>,

    /// The replica of this database of the configuration: its path, or its name where only one has it.
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag as it is typed")]
pub struct RestoreArgs {
    #[command(flatten)]
    pub source: Source,

    /// Where the database goes. Nothing may be there.
    #[arg(long, value_name = "FILE")]
    pub output: PathBuf,

    /// Where local state goes, from which replication goes on. [default: what the configuration says of
    /// the database at the output, else .NAME-genesis beside it]
    #[arg(long, value_name = "FOLDER")]
    pub state_dir: Option<PathBuf>,

    /// Restore the state after this transaction.
    #[arg(long, value_name = "N", conflicts_with = "timestamp")]
    pub txid: Option<u64>,

    /// Restore the last state that was committed at or before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub timestamp: Option<Micros>,

    /// Restore the snapshot with this id, as `list` shows it.
    #[arg(long, value_name = "ID", conflicts_with_all = ["txid", "timestamp"])]
    pub backup: Option<BackupId>,

    /// Restore from this line of history instead of the one that was current.
    #[arg(long, value_name = "GENERATION")]
    pub generation: Option<Generation>,

    /// Fail if the state is of an earlier transaction than this.
    #[arg(long, value_name = "N")]
    pub min_txid: Option<u64>,

    /// Remove the WAL and journals of a database that was at the output. The database itself is never
    /// replaced.
    #[arg(long)]
    pub force: bool,

    /// What to do when the output is there already, instead of failing.
    #[arg(long, value_name = "DO")]
    pub if_exists: Option<Otherwise>,

    /// What to do when the replica holds nothing yet, instead of failing.
    #[arg(long, value_name = "DO")]
    pub if_no_replica: Option<Otherwise>,

    /// Do not read the result back to compare it with the recorded state. What is written is proven.
    #[arg(long)]
    pub no_verify: bool,

    /// What SQLite is to check in the result: that it is what was recorded does not prove that it was
    /// sound then.
    #[arg(long, value_name = "CHECK", value_enum, default_value = "none")]
    pub integrity_check: IntegrityCheck,

    /// Segments fetched at once, and threads that verify: at most 32. Of a snapshot, twice as many ranges
    /// are fetched at once, up to 32.
    #[arg(long, value_name = "N", value_parser = parallelism, default_value_t = PARALLELISM)]
    pub parallelism: NonZeroUsize,

    /// Only say what would be fetched.
    #[arg(long)]
    pub dry_run: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// What to do instead of failing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Otherwise {
    /// Restore nothing, and succeed.
    Skip,
}

/// What SQLite checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IntegrityCheck {
    /// Nothing.
    None,
    /// All but what indexes hold.
    Quick,
    /// Everything.
    Full,
}

#[derive(Debug, ClapArgs)]
pub struct CheckpointArgs {
    /// Cut the WAL file off at nothing.
    #[arg(long, required = true)]
    pub truncate: bool,

    /// The database, or the name of one of the configuration. [default: those of the configuration]
    #[arg(long, value_name = "FILE")]
    pub db: Option<PathBuf>,

    /// How long others may stand in the way.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    pub timeout: Duration,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, ClapArgs)]
pub struct ListArgs {
    #[command(flatten)]
    pub source: Source,

    /// Which objects to show: snapshots are full backups, segments incremental ones.
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "all")]
    pub kind: BackupType,

    /// Leave out what was committed before this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub since: Option<Micros>,

    /// Leave out what was committed after this time (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub until: Option<Micros>,

    /// Show every transaction: when it was committed, the pages it changed, the bytes they take, and
    /// the size of the database after it.
    #[arg(long, conflicts_with = "kind")]
    pub transactions: bool,

    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Kinds of backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BackupType {
    /// Snapshots.
    Full,
    /// Segments.
    Incremental,
    /// Both.
    All,
}

fn version() -> String {
    format!("{} (SQLite {})", env!("CARGO_PKG_VERSION"), crate::sqlite::version())
}

/// Ranges of objects fetched at once, unless something else is said.
pub const PARALLELISM: NonZeroUsize = NonZeroUsize::MIN.saturating_add(7);

/// More would only take memory: each takes some megabytes.
const MAX_PARALLELISM: usize = 32;

fn parallelism(text: &str) -> Result<NonZeroUsize, String> {
    let number = text.parse::<NonZeroUsize>().ok().filter(|n| n.get() <= MAX_PARALLELISM);
    number.ok_or_else(|| format!("from 1 to {MAX_PARALLELISM}"))
}

fn timestamp(text: &str) -> Result<Micros, String> {
    let parsed = text.parse::<jiff::Timestamp>();
    let parsed = parsed.map_err(|_syntax| "a time is written like 2026-11-23T12:00:00Z")?;
    let micros = u64::try_from(parsed.as_microsecond());
    micros.map(Micros).map_err(|_negative| "nothing was recorded before 1970".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn numbers_and_times_are_read_as_people_write_them() {
        assert_eq!(parallelism("32"), Ok(NonZeroUsize::new(32).unwrap()));
        assert!(parallelism("0").is_err() && parallelism("33").is_err());
        assert_eq!(timestamp("1970-01-01T00:00:01.5Z"), Ok(Micros(1_500_000)));
        assert_eq!(timestamp("1970-01-01T02:00:00+02:00"), Ok(Micros(0)));
        assert!(timestamp("yesterday").is_err() && timestamp("1960-01-01T00:00:00Z").is_err());
    }
}
