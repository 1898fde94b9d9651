//! A database that is being followed: a connection with a read transaction, and the raw files.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use genesis_wal::header::WalHeader;
use genesis_wal::index::{IndexError, WalIndex};
use genesis_wal::page::{PageNumber, PageSize};
use rusqlite::Connection;
use rustix::fs::{Advice, fadvise};

use super::connection::{
    begin, check_file, check_journal_mode, connect, connect_impatiently, page_size, sqlite,
};
use super::frames::read_at_most;
use super::sole::Sole;
use super::{PageFile, SourceError};

/// How often the wal-index is read again while a writer is between its two copies.
const INDEX_RETRIES: u32 = 1000;

/// A followed database. While it lives, its read transaction keeps every frame after the mark in
/// the WAL.
///
/// The connections stand before the files: fields are dropped in order, and the files must be closed
/// after the last connection.
#[derive(Debug)]
pub struct Source {
    pub(super) reader: Connection,
    pub(super) spare: Option<Connection>,
    pub(super) helper: Option<Connection>,
    /// The read mark whose slot is pinned.
    pub(super) pinned: Option<u8>,
    /// The write lock is ours, as a lock of the process.
    pub(super) is_write_locked: bool,
    /// Opened to be locked; nothing is ever written to it.
    pub(super) shm: File,
    database: PageFile,
    wal: Arc<File>,
    pub(super) path: PathBuf,
    page_size: PageSize,
    /// Given up last.
    _sole: Sole,
}

/// What is known of the moment at which the read transaction began.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// The wal-index just after that moment. The state at its `max_frame` can be read for as long as
    /// the transaction is held: nothing after it reaches the database file.
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
        let file = check_file(path, set_wal)?;
        let twice = || SourceError::FollowedTwice { path: path.to_owned() };
        let sole = Sole::claim(&file).ok_or_else(twice)?;
        let reader = connect(path)?;
        check_journal_mode(&reader, path, set_wal)?;
        begin(&reader, path)?;
        let page_size = page_size(&reader, path)?;
        let open = |suffix| open_beside(path, suffix, false);
        // A lock that excludes others needs a descriptor that could write.
        let shm = open_beside(path, "-shm", true)?;
        let (database, wal) = (open("")?, open("-wal")?);
        // What is read ahead of a reader that leaves nothing in the page cache would stay there. (Advice
        // that is not taken costs nothing but cache.)
        fadvise(&database, 0, None, Advice::Random).ok();
        let path = path.to_owned();
        let (database, wal) = (PageFile::new(database, path.clone()), Arc::new(wal));
        let source = Self {
            reader,
            spare: None,
            helper: None,
            pinned: None,
            is_write_locked: false,
            shm,
            database,
            wal,
            path,
            page_size,
            _sole: sole,
        };
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

    /// Whether the path still leads to the database that is followed.
    ///
    /// # Errors
    /// [`SourceError::Gone`] when it does not.
    pub fn check_in_place(&self) -> Result<(), SourceError> {
        let gone = |what| Err(SourceError::Gone { path: self.path.clone(), what });
        let ours = self.database().metadata().map_err(|source| self.io("look at", source))?;
        match self.path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => gone("deleted or renamed"),
            Err(source) => Err(self.io("look at", source)),
            Ok(there) if (there.dev(), there.ino()) != (ours.dev(), ours.ino()) => gone("replaced"),
            Ok(_) => Ok(()),
        }
    }

    /// When the database file was last written to.
    ///
    /// # Errors
    /// What the system says.
    pub fn written(&self) -> Result<SystemTime, SourceError> {
        let written = self.database().metadata().and_then(|metadata| metadata.modified());
        written.map_err(|source| self.io("look at", source))
    }

    /// Reads one page of the database file; what it does not reach is zeros.
    ///
    /// # Errors
    /// What the system says.
    pub fn read_page(&self, page: PageNumber, buffer: &mut [u8]) -> Result<(), SourceError> {
        let read = read_at_most(self.database(), buffer, self.page_size.offset_of(page));
        let filled = read.map_err(|source| self.io("read", source))?;
        if let Some(missing) = buffer.get_mut(filled..) {
            missing.fill(0);
        }
        Ok(())
    }

    /// The database file, for other threads.
    #[must_use]
    pub fn page_file(&self) -> PageFile {
        self.database.clone()
    }

    /// The open database file.
    pub(super) fn database(&self) -> &File {
        &self.database.file
    }

    /// The open WAL file.
    pub(super) fn wal(&self) -> &File {
        &self.wal
    }

    /// The same, for other threads.
    pub(super) fn shared_wal(&self) -> Arc<File> {
        Arc::clone(&self.wal)
    }

    /// The wal-index as it stands; `None` while it cannot be read, which passes.
    ///
    /// # Errors
    /// When the file cannot be read or is of an unknown version.
    pub fn index(&self) -> Result<Option<WalIndex>, SourceError> {
        let mut bytes = [0; WalIndex::LEN];
        for _ in 0..INDEX_RETRIES {
            let read = self.shm.read_exact_at(&mut bytes, 0);
            read.map_err(|source| self.io("read the wal-index of", source))?;
            match WalIndex::decode(&bytes) {
                Ok(index) if self.index_still_begins(&bytes)? => return Ok(Some(index)),
                Err(source @ IndexError::UnknownVersion(_)) => {
                    return Err(SourceError::Index { path: self.path.clone(), source });
                }
                Ok(_) | Err(_) => std::hint::spin_loop(),
            }
        }
        Ok(None)
    }

    /// Whether the wal-index header is what was read before. What follows it in the file is not summed
    /// and is written after it: only between two equal headers does it belong to them. Else a WAL that
    /// is being restarted would look like one of which nothing was backfilled.
    fn index_still_begins(&self, bytes: &[u8]) -> Result<bool, SourceError> {
        let mut header = [0; WalIndex::HEADER_LEN];
        let read = self.shm.read_exact_at(&mut header, 0);
        read.map_err(|source| self.io("read the wal-index of", source))?;
        Ok(bytes.starts_with(&header))
    }

    /// The page that the wal-index names for a frame, where it is published; 0 where it names none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn indexed_page(&self, frame: u32) -> Result<u32, SourceError> {
        let mut bytes = [0; 4];
        let read = read_at_most(&self.shm, &mut bytes, WalIndex::page_number_offset(frame));
        read.map_err(|source| self.io("read the wal-index of", source))?;
        Ok(u32::from_ne_bytes(bytes))
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
        let metadata = self.database().metadata();
        let len = metadata.map_err(|source| self.io("look at", source))?.len();
        Ok(u32::try_from(len.div_ceil(u64::from(self.page_size.get()))).unwrap_or(u32::MAX))
    }

    /// Lets SQLite rebuild a wal-index that a killed writer left unreadable. No read transaction that
    /// is held is touched: in the middle of a leap both readers hold one, and a third connection does it.
    ///
    /// Our write lock is given back: recovery takes it, and ends it for the whole process. So it does with
    /// the reservation of the checkpoint.
    ///
    /// # Errors
    /// When another connection cannot be opened or read.
    pub fn recover_index(&mut self) -> Result<(), SourceError> {
        self.unlock_writes()?;
        if self.spare.as_ref().is_none_or(Connection::is_autocommit) {
            let spare = self.take_spare()?;
            let recovered = begin(&spare, &self.path).and_then(|()| self.end(&spare));
            self.spare = Some(spare);
            return recovered;
        }
        let helper = self.take_helper()?;
        let recovered = begin(&helper, &self.path).and_then(|()| self.end(&helper));
        self.helper = Some(helper);
        recovered
    }

    pub(super) fn take_spare(&mut self) -> Result<Connection, SourceError> {
        self.spare.take().map_or_else(|| self.connect_again(connect), Ok)
    }

    fn take_helper(&mut self) -> Result<Connection, SourceError> {
        self.helper.take().map_or_else(|| self.connect_again(connect_impatiently), Ok)
    }

    /// Another connection to the database that is followed, and to no file that has come to its place:
    /// it would checkpoint the old WAL into that.
    fn connect_again(
        &self,
        connect: impl Fn(&Path) -> Result<Connection, SourceError>,
    ) -> Result<Connection, SourceError> {
        self.check_in_place()?;
        let connection = connect(&self.path)?;
        self.check_in_place()?;
        Ok(connection)
    }

    pub(super) fn end(&self, connection: &Connection) -> Result<(), SourceError> {
        let ended = connection.execute_batch("COMMIT");
        ended.map_err(|error| sqlite("end a read of", &self.path, error))
    }

    pub(super) fn io(&self, action: &'static str, source: io::Error) -> SourceError {
        SourceError::Io { action, path: self.path.clone(), source }
    }
}

fn open_beside(path: &Path, suffix: &str, write: bool) -> Result<File, SourceError> {
    let path = beside(path, suffix);
    let file = File::options().read(true).write(write).open(&path);
    file.map_err(|source| SourceError::Io { action: "open", path, source })
}

/// The path of a file that SQLite keeps beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
