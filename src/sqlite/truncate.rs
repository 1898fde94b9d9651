//! Emptying a WAL by hand.

use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;

use super::{SourceError, connection};
use crate::clock;

/// How long it waits for readers at a time: no writer goes on while it does.
const TRY: Duration = Duration::from_millis(50);

/// The pause before it is tried again: after a reader was in the way, and after it met another checkpoint,
/// for which SQLite never waits.
const READER_PAUSE: Duration = Duration::from_secs(1);
const MEETING_PAUSE: Duration = Duration::from_millis(2);

/// Empties the WAL of a database, which need not be followed: as SQLite's own `wal_checkpoint(TRUNCATE)`
/// does, but for as long as `patience` lasts, also past other checkpoints, and without holding writers all
/// the while. Whether it was emptied.
///
/// # Errors
/// When there is no such database in WAL mode, or SQLite fails.
pub fn truncate_wal(path: &Path, patience: Duration) -> Result<bool, SourceError> {
    connection::check_file(path, false)?;
    let connection = connection::connect(path)?;
    connection::check_journal_mode(&connection, path, false)?;
    let failed = |error| connection::sqlite("checkpoint", path, error);
    let deadline = clock::monotonic() + patience;
    loop {
        let left = deadline.saturating_sub(clock::monotonic());
        // What can be done without holding anybody, first.
        checkpoint(&connection, "PASSIVE").map_err(failed)?;
        connection.busy_timeout(TRY.min(left)).map_err(failed)?;
        let pause = match checkpoint(&connection, "TRUNCATE").map_err(failed)? {
            Outcome::Done => return Ok(true),
            Outcome::InTheWay => READER_PAUSE,
            Outcome::Met => MEETING_PAUSE,
        };
        if left.is_zero() {
            return Ok(false);
        }
        clock::rest(pause.min(left));
    }
}

/// How a checkpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Done,
    /// Somebody reads or writes.
    InTheWay,
    /// Another checkpoint is running.
    Met,
}

fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<Outcome> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let ended = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i32>(0)?, row.get::<_, i32>(1)?));
    Ok(match connection.query_row(&sql, [], ended)? {
        (0, _) => Outcome::Done,
        // It did not come to look at the WAL.
        (_, -1) => Outcome::Met,
        _ => Outcome::InTheWay,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    fn database(path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        let create = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x);";
        connection.execute_batch(create).unwrap();
        connection
    }

    #[test]
    fn writers_go_on_while_a_long_reader_keeps_the_wal() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        let writer = database(&path);
        writer.busy_timeout(Duration::from_secs(20)).unwrap();
        let reader = Connection::open(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT * FROM t").unwrap();
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        let has_ended = AtomicBool::new(false);
        let longest = thread::scope(|scope| {
            scope.spawn(|| {
                let emptied = truncate_wal(&path, Duration::from_secs(3));
                has_ended.store(true, Ordering::Relaxed);
                assert!(!emptied.unwrap());
            });
            let mut longest = Duration::ZERO;
            while !has_ended.load(Ordering::Relaxed) {
                let begun = clock::monotonic();
                writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
                longest = longest.max(clock::monotonic().saturating_sub(begun));
                clock::rest(Duration::from_millis(1));
            }
            longest
        });
        assert!(longest < Duration::from_secs(1), "a writer was held for {longest:?}");
        reader.execute_batch("COMMIT").unwrap();
        assert!(truncate_wal(&path, Duration::from_secs(3)).unwrap());
    }
}
