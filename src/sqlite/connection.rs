//! Connections to the source: opened with care, refused in words.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use genesis_wal::page::PageSize;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::SourceError;
use super::file_system::check_file_system;

/// How long a connection of ours waits for a lock that somebody holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// Refuses what is no file with content, and warns of a second name; what the file is.
pub(super) fn check_file(path: &Path, set_wal: bool) -> Result<Metadata, SourceError> {
    let metadata = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SourceError::Missing { path: path.to_owned() });
        }
        other => other.map_err(|source| SourceError::Io {
            action: "look at",
            path: path.to_owned(),
            source,
        })?,
    };
    if !metadata.is_file() {
        return Err(SourceError::NotAFile { path: path.to_owned() });
    }
    if metadata.len() == 0 && !set_wal {
        return Err(SourceError::Empty { path: path.to_owned() });
    }
    check_file_system(path)?;
    if metadata.nlink() > 1 {
        tracing::warn!(
            database = %path.display(),
            "the database has a second name; opened by it, SQLite would use another WAL"
        );
    }
    Ok(metadata)
}

/// A connection that never checkpoints by itself, not even when it is the last to close.
pub(super) fn connect(path: &Path) -> Result<Connection, SourceError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(path, flags).map_err(|error| sqlite("open", path, error))?;
    let prepared = connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .and_then(|_| connection.busy_timeout(BUSY_TIMEOUT))
        .and_then(|()| connection.pragma_update(None, "wal_autocheckpoint", 0));
    prepared.map_err(|error| sqlite("prepare a connection to", path, error))?;
    Ok(connection)
}

/// A connection that never waits for a lock.
pub(super) fn connect_impatiently(path: &Path) -> Result<Connection, SourceError> {
    let connection = connect(path)?;
    let prepared = connection.busy_timeout(Duration::ZERO);
    prepared.map_err(|error| sqlite("prepare a connection to", path, error))?;
    Ok(connection)
}

pub(super) fn check_journal_mode(
    connection: &Connection,
    path: &Path,
    set_wal: bool,
) -> Result<(), SourceError> {
    let failed = |error| sqlite("read", path, error);
    let text = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    let mode = connection.pragma_query_value(None, "journal_mode", text).map_err(failed)?;
    let mode = if mode != "wal" && set_wal {
        tracing::info!(database = %path.display(), from = mode, "switching the database to WAL mode");
        connection.pragma_update_and_check(None, "journal_mode", "wal", text).map_err(failed)?
    } else {
        mode
    };
    if mode == "wal" { Ok(()) } else { Err(SourceError::NotWal { path: path.to_owned(), mode }) }
}

/// Begins a read transaction and reads, for only that takes the lock: no more than the header.
pub(super) fn begin(connection: &Connection, path: &Path) -> Result<(), SourceError> {
    let begun = connection.execute_batch("BEGIN; PRAGMA user_version");
    begun.map_err(|error| {
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::debug!(%error, "cannot roll an empty transaction back");
        }
        sqlite("begin to read", path, error)
    })
}

pub(super) fn page_size(connection: &Connection, path: &Path) -> Result<PageSize, SourceError> {
    let bytes = connection.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0));
    let bytes = bytes.map_err(|error| sqlite("read the page size of", path, error))?;
    PageSize::new(bytes).map_err(|_bad| SourceError::NotADatabase { path: path.to_owned() })
}

pub(super) fn sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> SourceError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => SourceError::NotADatabase { path },
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
        ) => SourceError::Locked { path },
        _ => SourceError::Sqlite { action, path, source },
    }
}
