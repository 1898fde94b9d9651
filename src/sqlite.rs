//! The source database: the only user of SQLite, and the only code that opens the database's files.
//!
//! Closing *any* descriptor of the database or of its `-shm` drops every lock that SQLite holds on
//! that file for the whole process. So those two are opened once, by [`Source`], and closed only
//! after the last connection. The `-wal` carries no locks and may be opened freely.

mod check;
mod connection;
mod file_system;
mod frames;
mod guards;
mod locks;
mod pages;
mod sole;
mod source;
mod state;
mod truncate;
mod writeback;

use std::path::PathBuf;

use rusqlite::ErrorCode;
use thiserror::Error;

pub use check::{Check, check};
pub use file_system::may_be_shared;
pub use frames::{FrameBuffers, FrameReader};
pub use guards::Guards;
pub use pages::{Missing, PageFile};
pub use source::{Held, Source};
pub use state::StateReader;
pub use truncate::truncate_wal;
pub use writeback::Writeback;

/// The oldest SQLite that may checkpoint for us, as its version number: older ones can lose commits
/// when a WAL is reset while they checkpoint.
pub const MINIMUM_SQLITE: i32 = 3_054_001;

const _: () = assert!(
    rusqlite::ffi::SQLITE_VERSION_NUMBER >= MINIMUM_SQLITE,
    "the bundled SQLite is older than 3.54.1"
);

/// The version of the SQLite in use, such as `3.54.1`.
#[must_use]
pub fn version() -> &'static str {
    rusqlite::version()
}

/// Whether the SQLite in use is at least the one that was asked for when this was built.
#[must_use]
pub fn is_recent() -> bool {
    rusqlite::version_number() >= MINIMUM_SQLITE
}

/// Why a database cannot be followed.
#[derive(Debug, Error)]
pub enum SourceError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The database.
        path: PathBuf,
    },
    /// The file has no content yet.
    #[error("{} is empty", path.display())]
    Empty {
        /// The database.
        path: PathBuf,
    },
    /// The path leads to something that is no regular file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// The file's content is not SQLite's.
    #[error("{} is not an SQLite database, or it is encrypted", path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// The database keeps a rollback journal.
    #[error("{} is not in WAL mode: its journal mode is {mode}", path.display())]
    NotWal {
        /// The database.
        path: PathBuf,
        /// Its journal mode.
        mode: String,
    },
    /// Somebody keeps everybody else out.
    #[error(
        "{} is locked by another process, perhaps with PRAGMA locking_mode=EXCLUSIVE",
        path.display()
    )]
    Locked {
        /// The database.
        path: PathBuf,
    },
    /// Another part of this program follows the same file, by this or by another name.
    #[error("{} is followed twice by this process, perhaps by another name", path.display())]
    FollowedTwice {
        /// The database.
        path: PathBuf,
    },
    /// The file system is shared over a network, or may be: locks and shared memory do not hold there.
    #[error("{} is on {kind}, where SQLite's WAL mode does not work reliably", path.display())]
    NetworkFileSystem {
        /// The database.
        path: PathBuf,
        /// The file system, by its common name.
        kind: &'static str,
    },
    /// The file that was followed is no longer the one that the path leads to.
    #[error("{} was {what} while it was followed", path.display())]
    Gone {
        /// The database.
        path: PathBuf,
        /// What became of it.
        what: &'static str,
    },
    /// The wal-index is of a kind that this program does not know.
    #[error("the wal-index of {} cannot be read", path.display())]
    Index {
        /// The database.
        path: PathBuf,
        /// What is wrong with it.
        source: genesis_wal::index::IndexError,
    },
    /// SQLite refuses.
    #[error("SQLite cannot {action} {}", path.display())]
    Sqlite {
        /// What was tried.
        action: &'static str,
        /// The database.
        path: PathBuf,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// The operating system refuses.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
}

impl SourceError {
    /// Whether it may pass by itself, or when somebody mends what is outside the database.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Locked { .. } => true,
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    // What a disk fails to read, SQLite takes for malformed.
                    ErrorCode::DatabaseCorrupt
                        | ErrorCode::SystemIoFailure
                        | ErrorCode::CannotOpen
                        | ErrorCode::DiskFull
                        | ErrorCode::OutOfMemory
                        | ErrorCode::ReadOnly
                        | ErrorCode::PermissionDenied
                )
            ),
            _ => false,
        }
    }

    /// Whether the database may yet become one that can be followed, without anybody's help: it does
    /// not exist, or nothing was written into it.
    #[must_use]
    pub fn is_not_yet(&self) -> bool {
        matches!(self, Self::Missing { .. } | Self::Empty { .. })
    }
}
