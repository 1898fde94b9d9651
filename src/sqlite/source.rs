//! A database that is being followed: a connection with a read transaction, and the raw files.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use genesis_wal::header::WalHeader;
use genesis_wal::index::{IndexError, WalIndex};
use genesis_wal::page::PageSize;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::SourceError;
use super::locks::{self, LockByte};
use crate::clock;

/// How long a connection of ours waits for a lock that somebody holds for a moment.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How often the wal-index is read again while a writer is between its two copies.
const INDEX_RETRIES: u32 = 1000;

/// How often a read transaction is begun again until it is clear where its mark stands.
const ACQUIRE_RETRIES: u32 = 10_000;

/// How often everything is tried to be backfilled, and the pause between.
const BACKFILL_RETRIES: u32 = 500;
const BACKFILL_PAUSE: Duration = Duration::from_millis(10);

/// A followed database. While it lives, its read transaction keeps every frame after the mark in
/// the WAL.
///
/// The connections stand before the files: fields are dropped in order, and the files must be closed
/// after the last connection.
#[derive(Debug)]
pub struct Source {
    reader: Connection,
    spare: Option<Connection>,
    writer: Option<Connection>,
    /// The read mark whose slot is pinned.
    pinned: Option<u8>,
    index: File,
    database: File,
    wal: File,
    path: PathBuf,
    page_size: PageSize,
}

/// What is known of the moment at which the read transaction began.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The wal-index just after that moment. The state at its `max_frame` can be read for as long as the
    /// transaction is held: nothing after it reaches the database file.
    pub index: WalIndex,
    /// Whether frames up to `max_frame` must be laid over the database file. If not, the file alone
    /// is the state, and the WAL may be restarted at any time.
    pub overlay: bool,
}

impl Source {
    /// Opens the database at `path`, which must be canonical, and begins to hold its WAL.
    ///
    /// With `set_wal`, a database that keeps a rollback journal is switched to WAL mode first.
    ///
    /// # Errors
    /// [`SourceError`] says why it cannot be followed.
    pub fn open(path: &Path, set_wal: bool) -> Result<(Self, Held), SourceError> {
        check_file(path, set_wal)?;
        let reader = connect(path)?;
        check_journal_mode(&reader, path, set_wal)?;
        begin(&reader, path)?;
        let page_size = page_size(&reader, path)?;
        let open = |suffix| open_beside(path, suffix);
        let (index, database, wal) = (open("-shm")?, open("")?, open("-wal")?);
        let path = path.to_owned();
        let (spare, writer, pinned) = (None, None, None);
        let source = Self { reader, spare, writer, pinned, index, database, wal, path, page_size };
        source.end(&source.reader)?;
        let held = source.acquire(&source.reader)?;
        Ok((source, held))
    }

    /// Whether the file at `path` is a database in WAL mode, by its header alone: no lock is taken.
    /// Only for a database that no connection of ours is open on.
    #[must_use]
    pub fn is_wal(path: &Path) -> bool {
        let mut header = [0; 20];
        let read = File::open(path).and_then(|file| file.read_exact_at(&mut header, 0));
        read.is_ok() && header.starts_with(b"SQLite format 3\0") && header.ends_with(&[2, 2])
    }

    /// Bytes in a page of the database.
    #[must_use]
    pub fn page_size(&self) -> PageSize {
        self.page_size
    }

    /// The database's canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the WAL.
    #[must_use]
    pub fn wal_path(&self) -> PathBuf {
        beside(&self.path, "-wal")
    }

    /// The open database file.
    pub(super) fn database(&self) -> &File {
        &self.database
    }

    /// The open WAL file.
    pub(super) fn wal(&self) -> &File {
        &self.wal
    }

    /// The wal-index as it stands; `None` while it cannot be read, which passes.
    ///
    /// # Errors
    /// When the file cannot be read or is of an unknown version.
    pub fn index(&self) -> Result<Option<WalIndex>, SourceError> {
        let mut bytes = [0; WalIndex::LEN];
        for _ in 0..INDEX_RETRIES {
            let read = self.index.read_exact_at(&mut bytes, 0);
            read.map_err(|source| self.io("read the wal-index of", source))?;
            match WalIndex::decode(&bytes) {
                Ok(index) => return Ok(Some(index)),
                Err(source @ IndexError::UnknownVersion(_)) => {
                    return Err(SourceError::Index { path: self.path.clone(), source });
                }
                Err(_) => std::hint::spin_loop(),
            }
        }
        Ok(None)
    }

    /// The header of the WAL; `None` while the file holds no whole one.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn wal_header(&self) -> Result<Option<WalHeader>, SourceError> {
        let mut bytes = [0; WalHeader::LEN];
        match self.wal.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(WalHeader::decode(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(source) => Err(self.io("read the WAL of", source)),
        }
    }

    /// Pages in the database as of `index`.
    ///
    /// # Errors
    /// When the size of the database file is needed and cannot be had.
    pub fn pages(&self, index: &WalIndex) -> Result<u32, SourceError> {
        if index.header.max_frame > 0 && index.header.pages > 0 {
            return Ok(index.header.pages);
        }
        let metadata = self.database.metadata();
        let len = metadata.map_err(|source| self.io("look at", source))?.len();
        Ok(u32::try_from(len.div_ceil(u64::from(self.page_size.get()))).unwrap_or(u32::MAX))
    }

    /// Lets SQLite rebuild a wal-index that a killed writer left unreadable. The held transaction is
    /// not touched.
    ///
    /// # Errors
    /// When a second connection cannot be opened or read.
    pub fn recover_index(&mut self) -> Result<(), SourceError> {
        let spare = self.take_spare()?;
        let recovered = begin(&spare, &self.path).and_then(|()| self.end(&spare));
        self.spare = Some(spare);
        recovered
    }

    /// Begins a second read transaction, on the other connection, at a moment at which it is clear
    /// what protects it. The first is still held: it may be given up with [`Self::end_older`] once
    /// everything up to `held.index` has been read.
    ///
    /// # Errors
    /// When no transaction can be begun; the first is held on.
    pub fn leap(&mut self) -> Result<Held, SourceError> {
        let spare = self.take_spare()?;
        let held = self.acquire(&spare);
        self.spare = Some(spare);
        held
    }

    /// Begins a read transaction: the only one, or the newer of two. False when somebody else is in
    /// the way.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin(&mut self) -> Result<bool, SourceError> {
        if self.reader.is_autocommit() {
            return passed(begin(&self.reader, &self.path));
        }
        let spare = self.take_spare()?;
        let begun = begin(&spare, &self.path);
        self.spare = Some(spare);
        passed(begun)
    }

    /// Ends the older of two read transactions, or the only one.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn end_older(&mut self) -> Result<(), SourceError> {
        self.end(&self.reader)?;
        if let Some(newer) = self.spare.as_mut().filter(|spare| !spare.is_autocommit()) {
            std::mem::swap(&mut self.reader, newer);
        }
        Ok(())
    }

    /// Copies into the database what no reader stands in the way of. False when another checkpoint
    /// is running.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn checkpoint(&mut self) -> Result<bool, SourceError> {
        let spare = self.take_spare()?;
        let busy =
            spare.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i32>(0));
        let path = &self.path;
        let done =
            passed(busy.map_err(|error| sqlite("checkpoint", path, error)).and_then(|busy| {
                if busy == 0 { Ok(()) } else { Err(SourceError::Locked { path: path.clone() }) }
            }));
        self.spare = Some(spare);
        done
    }

    /// Backfills the whole WAL, under the write lock, and holds the file alone.
    ///
    /// # Errors
    /// When SQLite fails, or others stand in the way for too long.
    pub fn backfill_all(&mut self) -> Result<Held, SourceError> {
        for _ in 0..BACKFILL_RETRIES {
            let locked = self.lock_writes()?;
            self.leap()?;
            self.end_older()?;
            self.checkpoint()?;
            let held = self.leap()?;
            self.end_older()?;
            if locked {
                self.unlock_writes()?;
            }
            if !held.overlay {
                return Ok(held);
            }
            clock::rest(BACKFILL_PAUSE);
        }
        Err(SourceError::Locked { path: self.path.clone() })
    }

    /// Takes the write lock, without waiting. False when somebody else has it.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn lock_writes(&mut self) -> Result<bool, SourceError> {
        let writer = self.writer.take().map_or_else(|| connect_impatiently(&self.path), Ok)?;
        let begun = writer.execute_batch("BEGIN IMMEDIATE");
        self.writer = Some(writer);
        passed(begun.map_err(|error| sqlite("lock", &self.path, error)))
    }

    /// Gives the write lock back; nothing was written under it.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn unlock_writes(&self) -> Result<(), SourceError> {
        let held = self.writer.as_ref().filter(|writer| !writer.is_autocommit());
        let ended = held.map_or(Ok(()), |writer| writer.execute_batch("ROLLBACK"));
        ended.map_err(|error| sqlite("unlock", &self.path, error))
    }

    /// Makes the database file durable.
    ///
    /// # Errors
    /// What the system says.
    pub fn sync(&self) -> Result<(), SourceError> {
        self.database.sync_data().map_err(|source| self.io("sync", source))
    }

    /// Pins the WAL: shares a read slot that no reader limits the backfill by. Nobody restarts the
    /// WAL while it is pinned. False when no slot is free.
    ///
    /// # Errors
    /// What the system says.
    pub fn pin(&mut self) -> Result<bool, SourceError> {
        for mark in (1..=4).rev() {
            let byte = LockByte::read_mark(mark);
            let usable = |index: &WalIndex| {
                let limit = index.read_marks.get(usize::from(mark)).copied();
                limit.is_some_and(|limit| limit == u32::MAX || limit >= index.header.max_frame)
            };
            if !self.index()?.is_some_and(|index| usable(&index)) {
                continue;
            }
            if !locks::try_share(&self.index, byte).map_err(|e| self.io("pin", e))? {
                continue;
            }
            // The mark may have moved before the lock was ours; now it cannot.
            if self.index()?.is_some_and(|index| usable(&index)) {
                self.pinned = Some(mark);
                return Ok(true);
            }
            locks::release(&self.index, byte).map_err(|error| self.io("unpin", error))?;
        }
        Ok(false)
    }

    /// Gives the pin up.
    ///
    /// # Errors
    /// What the system says.
    pub fn unpin(&mut self) -> Result<(), SourceError> {
        let Some(mark) = self.pinned.take() else { return Ok(()) };
        let released = locks::release(&self.index, LockByte::read_mark(mark));
        released.map_err(|error| self.io("unpin", error))
    }

    /// Whether another process holds both the checkpoint and the write lock: a checkpointer that
    /// waits for readers does, and so does a process whose threads write and checkpoint at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_waited_for(&self) -> Result<bool, SourceError> {
        let held = |byte| locks::is_held_by_another(&self.index, byte);
        let both =
            held(LockByte::CHECKPOINT).and_then(|held_one| Ok(held_one && held(LockByte::WRITE)?));
        both.map_err(|error| self.io("look at the locks of", error))
    }

    /// Gives up every lock but one read transaction: for a beginning anew, when nothing that was
    /// guarded is believed any more.
    ///
    /// # Errors
    /// When SQLite or the system fails.
    pub fn keep_one_reader(&mut self) -> Result<(), SourceError> {
        self.unlock_writes()?;
        let newer = self.spare.as_ref().is_some_and(|spare| !spare.is_autocommit());
        if newer && !self.reader.is_autocommit() {
            self.end_older()?;
        } else if self.reader.is_autocommit() {
            begin(&self.reader, &self.path)?;
        }
        self.unpin()
    }

    fn take_spare(&mut self) -> Result<Connection, SourceError> {
        self.spare.take().map_or_else(|| connect(&self.path), Ok)
    }

    /// Begins a read transaction at a moment at which it is clear what protects it.
    fn acquire(&self, connection: &Connection) -> Result<Held, SourceError> {
        for _ in 0..ACQUIRE_RETRIES {
            let before = self.index()?;
            begin(connection, &self.path)?;
            let held =
                before.zip(self.index()?).and_then(|(before, after)| classify(&before, &after));
            match held {
                Some(held) => return Ok(held),
                None => self.end(connection)?,
            }
        }
        Err(SourceError::Locked { path: self.path.clone() })
    }

    fn end(&self, connection: &Connection) -> Result<(), SourceError> {
        let ended = connection.execute_batch("COMMIT");
        ended.map_err(|error| sqlite("end a read of", &self.path, error))
    }

    fn io(&self, action: &'static str, source: io::Error) -> SourceError {
        SourceError::Io { action, path: self.path.clone(), source }
    }
}

/// Decides what a transaction begun between two looks at the wal-index holds.
///
/// Unchanged and fully backfilled: SQLite gave it read mark 0, and the file alone is the state. A
/// backlog that stood all the while, in one and the same WAL: it sits on a mark of its own, somewhere
/// between the two ends, and nothing after the second end can reach the file. Anything else could be
/// either.
fn classify(before: &WalIndex, after: &WalIndex) -> Option<Held> {
    let same_wal = before.header.salts == after.header.salts;
    if before.header == after.header && before.backfilled == before.header.max_frame {
        Some(Held { index: *after, overlay: false })
    } else if same_wal && after.backfilled < before.header.max_frame {
        Some(Held { index: *after, overlay: true })
    } else {
        None
    }
}

fn check_file(path: &Path, set_wal: bool) -> Result<(), SourceError> {
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
    if metadata.nlink() > 1 {
        tracing::warn!(
            database = %path.display(),
            "the database has a second name; opened by it, SQLite would use another WAL"
        );
    }
    Ok(())
}

/// A connection that never checkpoints by itself, not even when it is the last to close.
fn connect(path: &Path) -> Result<Connection, SourceError> {
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
fn connect_impatiently(path: &Path) -> Result<Connection, SourceError> {
    let connection = connect(path)?;
    let prepared = connection.busy_timeout(Duration::ZERO);
    prepared.map_err(|error| sqlite("prepare a connection to", path, error))?;
    Ok(connection)
}

/// That somebody else is in the way is an answer.
fn passed(result: Result<(), SourceError>) -> Result<bool, SourceError> {
    match result {
        Ok(()) => Ok(true),
        Err(SourceError::Locked { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn check_journal_mode(
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

/// Begins a read transaction and reads, for only that takes the lock.
fn begin(connection: &Connection, path: &Path) -> Result<(), SourceError> {
    let begun = connection.execute_batch("BEGIN; SELECT rootpage FROM sqlite_schema LIMIT 1");
    begun.map_err(|error| {
        if !connection.is_autocommit()
            && let Err(error) = connection.execute_batch("ROLLBACK")
        {
            tracing::debug!(%error, "cannot roll an empty transaction back");
        }
        sqlite("begin to read", path, error)
    })
}

fn page_size(connection: &Connection, path: &Path) -> Result<PageSize, SourceError> {
    let bytes = connection.pragma_query_value(None, "page_size", |row| row.get::<_, u32>(0));
    let bytes = bytes.map_err(|error| sqlite("read the page size of", path, error))?;
    PageSize::new(bytes).map_err(|_bad| SourceError::NotADatabase { path: path.to_owned() })
}

fn open_beside(path: &Path, suffix: &str) -> Result<File, SourceError> {
    let path = beside(path, suffix);
    File::open(&path).map_err(|source| SourceError::Io { action: "open", path, source })
}

/// The path of a file that SQLite keeps beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn sqlite(action: &'static str, path: &Path, source: rusqlite::Error) -> SourceError {
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

#[cfg(test)]
mod tests {
    use genesis_wal::checksum::Checksum;
    use genesis_wal::header::Salts;
    use genesis_wal::index::IndexHeader;

    use super::*;

    fn index(salt: u8, max_frame: u32, backfilled: u32) -> WalIndex {
        let header = IndexHeader {
            change: max_frame,
            page_size: None,
            max_frame,
            pages: 1,
            frame_checksum: Checksum(max_frame, 0),
            salts: Salts([salt; 8]),
        };
        WalIndex { header, backfilled, read_marks: [0; 5], backfill_attempted: backfilled }
    }

    #[test]
    fn only_a_clear_moment_is_classified() {
        let held = |before, after| classify(&before, &after).map(|h| (h.overlay, h.index));
        // Nothing moved and all is backfilled: the file alone.
        assert_eq!(held(index(1, 9, 9), index(1, 9, 9)), Some((false, index(1, 9, 9))));
        assert_eq!(held(index(1, 0, 0), index(1, 0, 0)), Some((false, index(1, 0, 0))));
        // A backlog all the while: a mark, wherever commits have gone on to.
        assert_eq!(held(index(1, 9, 3), index(1, 12, 4)), Some((true, index(1, 12, 4))));
        // The backlog was checkpointed meanwhile, a commit came in, or the WAL was restarted.
        assert_eq!(held(index(1, 9, 3), index(1, 9, 9)), None);
        assert_eq!(held(index(1, 9, 9), index(1, 12, 9)), None);
        assert_eq!(held(index(1, 9, 3), index(2, 1, 0)), None);
    }
}
