//! The spool: sealed segments on the local disk, waiting for upload. A file lies at the path that the
//! object's name gives, so that names are formatted and parsed in one place.
//!
//! What is shipped is kept below `shipped`, to be merged: the newest, up to a limit. What waits has a
//! limit, too: at that, no segment is begun until half of it is shipped.
//!
//! The spool outlives a killed process, not a power loss: nothing here is synced. What is found at a
//! start is proven part by part before it is used.

mod aside;
mod kept;
mod room;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use genesis_wal::id::Txid;
use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::part::{self, Stamp};

use self::kept::Kept;
pub use self::room::Limits;
use self::room::{Room, Waiting};
use crate::durable::{self, TEMPORARY_PREFIX, Temporary};
use crate::store::FileStore;

/// The folder of sealed segments.
#[derive(Debug, Clone)]
pub struct Spool {
    root: PathBuf,
    limits: Limits,
    books: Arc<Mutex<Books>>,
}

/// What lies in the spool.
#[derive(Debug)]
struct Books {
    waiting: Waiting,
    /// What waits, by first transactions.
    names: BTreeSet<(Txid, SegmentName)>,
    kept: Kept,
    /// What was put aside before this start was cut to what is kept of it.
    is_aside_cut: bool,
}

impl Books {
    /// A segment of so many bytes waits.
    fn comes(&mut self, name: SegmentName, size: u64) {
        self.waiting.comes(size);
        self.names.insert((name.first, name));
    }

    /// It waits no longer.
    fn leaves(&mut self, name: &SegmentName, size: u64) {
        self.waiting.leaves(size);
        self.names.remove(&(name.first, *name));
    }
}

impl Spool {
    /// Opens the spool in `root`, and drops what was not sealed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf, limits: Limits) -> io::Result<Self> {
        durable::create_folders(&root, 0o700)?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let kept = Kept::open(root.join("shipped"))?;
        let mut books = Books {
            waiting: Waiting::default(),
            names: BTreeSet::new(),
            kept,
            is_aside_cut: false,
        };
        for listed in FileStore::list_folder(&root, "")? {
            match listed.name {
                ObjectName::Segment(name) => books.comes(name, listed.size),
                _ => books.waiting.comes(listed.size),
            }
        }
        Ok(Self { root, limits, books: Arc::new(Mutex::new(books)) })
    }

    /// The sealed segments, in the order of their names.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sealed(&self) -> io::Result<Vec<SegmentName>> {
        let segment = |name| match name {
            ObjectName::Segment(segment) => Some(segment),
            _ => None,
        };
        let names = FileStore::list_folder(&self.root, "")?;
        Ok(names.into_iter().filter_map(|listed| segment(listed.name)).collect())
    }

    /// Where a sealed segment lies.
    #[must_use]
    pub fn path(&self, name: &SegmentName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Forgets a segment.
    ///
    /// # Errors
    /// What the file system says; a segment that is not there is none.
    pub fn remove(&self, name: &SegmentName) -> io::Result<()> {
        let size = self.size(name);
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => self.books().leaves(name, size),
        }
        Ok(())
    }

    /// Bytes in a sealed segment; 0 where it is not there.
    #[must_use]
    pub fn size(&self, name: &SegmentName) -> u64 {
        self.path(name).metadata().map_or(0, |metadata| metadata.len())
    }

    /// Puts a segment aside that continues nothing, for somebody to look at; its path then. Before the
    /// first, only so many bytes are kept of what earlier starts have put aside.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self, name: &SegmentName) -> io::Result<PathBuf> {
        let folder = self.root.join("orphans");
        if !std::mem::replace(&mut self.books().is_aside_cut, true) {
            aside::cut(&folder, aside::MOST)?;
        }
        let target = folder.join(name.to_string());
        let size = self.size(name);
        move_file(&self.path(name), &target)?;
        self.books().leaves(name, size);
        Ok(target)
    }

    /// Keeps a segment that is shipped, as long as there is room for it.
    ///
    /// # Errors
    /// What the file system says; the segment is gone then.
    pub fn keep(&self, name: &SegmentName) -> io::Result<()> {
        let (size, target) = (self.size(name), self.books().kept.path(name));
        let moved = move_file(&self.path(name), &target);
        if moved.is_err() {
            std::fs::remove_file(self.path(name))?;
        }
        let change = |books: &mut Books| {
            books.leaves(name, size);
            if moved.is_ok() {
                books.kept.add(*name, size);
            }
        };
        self.change_kept(change);
        moved
    }

    /// Keeps a merged segment that is shipped, instead of those that it was merged from.
    ///
    /// # Errors
    /// What the file system says; it is gone then.
    pub fn keep_merged(
        &self,
        merged: OpenSegment,
        name: &SegmentName,
        inputs: impl IntoIterator<Item = SegmentName>,
    ) -> io::Result<()> {
        for input in inputs {
            self.drop_kept(&input);
        }
        let (size, target) = (merged.len(), self.books().kept.path(name));
        merged.place(&target).map_err(|(_gone, error)| error)?;
        self.change_kept(|books| books.kept.add(*name, size));
        Ok(())
    }

    /// Where a shipped segment is kept, if it is.
    #[must_use]
    pub fn kept(&self, name: &SegmentName) -> Option<PathBuf> {
        self.books().kept.find(name)
    }

    /// Keeps a shipped segment no longer.
    pub fn drop_kept(&self, name: &SegmentName) {
        let file = self.books().kept.take_out(name);
        remove_files(file);
    }

    /// Whether so much waits that nothing more is recorded.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let room = Room::of(&self.root);
        let mut books = self.books();
        let kept = books.kept.bytes();
        books.waiting.is_full(self.limits, room, kept)
    }

    /// The lowest transaction that a sealed segment begins with that waits; `None` when none does, as each
    /// one is stored.
    #[must_use]
    pub fn first_waiting(&self) -> Option<Txid> {
        self.books().names.first().map(|(first, _)| *first)
    }

    /// Begins a segment.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::QuotaExceeded`] when so much waits that nothing more
    /// is recorded.
    pub fn begin(&self) -> io::Result<OpenSegment> {
        if self.is_full() {
            let reason = "the spool is at its limit, as the replica does not take what waits in it";
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, reason));
        }
        Ok(OpenSegment { is_limited: true, ..self.create()? })
    }

    /// The most bytes in a merged segment for which there is room.
    #[must_use]
    pub fn room_for_merged(&self) -> u64 {
        Room::of(&self.root).map_or(u64::MAX, Room::spare)
    }

    /// Begins a merged segment of so many bytes.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::StorageFull`] when too little would be left free.
    pub fn begin_merged(&self, bytes: u64) -> io::Result<OpenSegment> {
        if bytes > self.room_for_merged() {
            let reason = "too little would be left free on the disk";
            return Err(io::Error::new(io::ErrorKind::StorageFull, reason));
        }
        self.create()
    }

    fn create(&self) -> io::Result<OpenSegment> {
        let (file, spool) = (Temporary::create(&self.root)?, self.clone());
        Ok(OpenSegment { file, spool, bytes: 0, is_limited: false })
    }

    /// Changes the books, and keeps no more than there is room for. Nobody waits for the books while the
    /// disk is at work.
    fn change_kept(&self, change: impl FnOnce(&mut Books)) {
        let room = Room::of(&self.root);
        let cut = {
            let mut books = self.books();
            change(&mut books);
            let limit = self.limits.kept(room, books.kept.bytes());
            books.kept.cut(limit)
        };
        remove_files(cut);
    }

    /// Keeps nothing of what is shipped; whether anything was kept.
    fn drop_all_kept(&self) -> bool {
        let cut = self.books().kept.cut(0);
        let had_any = !cut.is_empty();
        remove_files(cut);
        had_any
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether two sealed segments are one, but for their stamps.
    ///
    /// # Errors
    /// What the file system says; as [`restamp`](Self::restamp) where a part is damaged.
    pub fn is_same(&self, one: &SegmentName, other: &SegmentName) -> io::Result<bool> {
        let stamp = Stamp { generation: other.generation, epoch: other.epoch };
        let (mut one, mut other) =
            (PartFile::open(&self.path(one))?, PartFile::open(&self.path(other))?);
        loop {
            match (one.next_part()?, other.next_part()?) {
                (None, None) => return Ok(true),
                (Some(mut part), Some(others)) => {
                    put_stamp(&mut part, stamp)?;
                    if part != others {
                        return Ok(false);
                    }
                }
                _ => return Ok(false),
            }
        }
    }

    /// Puts the stamp of another epoch on a sealed segment, which changes its name. A segment that has
    /// that name already is the same one, of which only the old file could not be removed.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::InvalidData`] or [`io::ErrorKind::UnexpectedEof`] when
    /// a part is damaged. The segment is left alone then.
    pub fn restamp(&self, name: &SegmentName, stamp: Stamp) -> io::Result<SegmentName> {
        let restamped = SegmentName { epoch: stamp.epoch, generation: stamp.generation, ..*name };
        if restamped == *name {
            return Ok(restamped);
        }
        let mut open = self.create()?;
        let mut parts = PartFile::open(&self.path(name))?;
        while let Some(mut bytes) = parts.next_part()? {
            put_stamp(&mut bytes, stamp)?;
            open.append(&bytes)?;
        }
        match open.seal(&restamped) {
            Err((_open, error)) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error);
            }
            _ => {}
        }
        self.remove(name)?;
        Ok(restamped)
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub struct OpenSegment {
    file: Temporary,
    spool: Spool,
    bytes: u64,
    /// It comes to what is there, and leaves some of the disk free.
    is_limited: bool,
}

impl OpenSegment {
    /// Appends whole parts. What is kept of shipped segments gives way where the disk is full.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::StorageFull`] when too little would be left free. The
    /// same parts can be appended again then.
    pub fn append(&mut self, parts: &[u8]) -> io::Result<()> {
        let write = || {
            self.look_for_room(parts.len() as u64)?;
            self.file.file().write_all_at(parts, self.bytes)
        };
        match write() {
            Err(error) if is_want_of_room(&error) && self.spool.drop_all_kept() => write()?,
            other => other?,
        }
        self.bytes += parts.len() as u64;
        Ok(())
    }

    fn look_for_room(&self, more: u64) -> io::Result<()> {
        let Spool { root, limits, .. } = &self.spool;
        if !self.is_limited {
            return Ok(());
        }
        let waiting = self.spool.books().waiting.bytes().saturating_add(self.bytes);
        if limits.has_room_for(Room::of(root), waiting, more) {
            return Ok(());
        }
        let reason = "too little would be left free on the disk";
        Err(io::Error::new(io::ErrorKind::StorageFull, reason))
    }

    /// Takes back what was appended after the first `len` bytes, and what an append that failed has left.
    pub fn truncate(&mut self, len: u64) {
        self.bytes = len;
        if let Err(error) = self.end() {
            tracing::warn!(%error, "cannot shorten a segment in the spool");
        }
    }

    /// Bytes appended so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Where it is until it is sealed.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Leaves nothing in the file but what was appended: bytes of an append that failed may lie behind.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(&self) -> io::Result<()> {
        self.file.file().set_len(self.bytes)
    }

    /// Gives the segment its name: from here on it waits for upload.
    ///
    /// # Errors
    /// What the file system says, with the segment, as open as before.
    pub fn seal(self, name: &SegmentName) -> Result<(), (Self, io::Error)> {
        let (spool, bytes) = (self.spool.clone(), self.bytes);
        self.place(&spool.path(name))?;
        spool.books().comes(*name, bytes);
        Ok(())
    }

    fn place(self, target: &Path) -> Result<(), (Self, io::Error)> {
        let folder = target.parent().map_or(Ok(()), |f| durable::create_folders(f, 0o700));
        match folder.and_then(|()| self.end()) {
            Ok(()) => {}
            Err(error) => return Err((self, error)),
        }
        let Self { file, spool, bytes, is_limited } = self;
        let again = |(file, error)| (Self { file, spool, bytes, is_limited }, error);
        file.place_unsynced(target).map_err(again)
    }
}

/// Removes files of shipped segments.
fn remove_files(files: impl IntoIterator<Item = PathBuf>) {
    for file in files {
        if let Err(error) = std::fs::remove_file(&file) {
            tracing::warn!(file = %file.display(), %error, "cannot remove a shipped segment");
        }
    }
}

/// Moves a file to another folder. What is there already is as good.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        durable::create_folders(folder, 0o700)?;
    }
    match durable::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::fs::remove_file(from),
        other => other,
    }
}

fn put_stamp(part: &mut [u8], stamp: Stamp) -> io::Result<()> {
    let put = part::restamp(part, stamp);
    put.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn is_want_of_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The parts of a local object, one at a time.
#[derive(Debug)]
pub struct PartFile {
    file: File,
}

impl PartFile {
    /// Opens a local object.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// The bytes of the next part, as long as its header says; `None` at the end.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::InvalidData`] for what is no part's header,
    /// [`io::ErrorKind::UnexpectedEof`] for a part that is cut off.
    pub fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        (&self.file).take(part::PartHeader::LEN as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let len = part::stored_len(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let rest = len.saturating_sub(bytes.len());
        (&self.file).take(rest as u64).read_to_end(&mut bytes)?;
        if bytes.len() == len { Ok(Some(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
