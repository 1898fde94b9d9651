//! SQLite's own check of a database that nobody uses.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::SourceError;
use super::connection::sqlite;

/// How thoroughly SQLite checks a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// All but what indexes hold.
    Quick,
    /// Everything.
    Full,
}

/// What SQLite finds wrong with a database; nothing when it is sound. Only the database file is read, and
/// nothing is left beside it: nobody may use it meanwhile.
///
/// # Errors
/// When SQLite cannot read it at all.
pub fn check(path: &Path, check: Check) -> Result<Vec<String>, SourceError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
        | OpenFlags::SQLITE_OPEN_URI
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let pragma = match check {
        Check::Quick => "PRAGMA quick_check(5)",
        Check::Full => "PRAGMA integrity_check(5)",
    };
    let found = Connection::open_with_flags(immutable(path), flags).and_then(|connection| {
        let mut statement = connection.prepare(pragma)?;
        let found = statement.query_map([], |row| row.get::<_, String>(0))?;
        found.collect::<Result<Vec<_>, _>>()
    });
    let mut found = found.map_err(|error| sqlite("check", path, error))?;
    found.retain(|line| line != "ok");
    Ok(found)
}

/// The URI of a file that nobody changes: neither locks nor a WAL are looked for.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            // Writing to a string does not fail.
            byte => write!(uri, "%{byte:02x}").unwrap_or_default(),
        }
    }
    uri.push_str("?immutable=1");
    uri
}
