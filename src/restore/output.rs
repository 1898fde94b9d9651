//! The database that is being put together.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use genesis_restore::apply::PageSink;
use genesis_restore::verify::StateVerifier;
use genesis_wal::page::{PageHash, PageNumber, PageSize};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};

use super::RestoreError;
use crate::durable::{self, Temporary};
use crate::replicate::PageTable;
use crate::sqlite::{self, Check};

/// Bytes read back at once: what stays in a processor's cache until it is hashed.
const CHUNK: usize = 256 << 10;

/// Bytes that are read back by one thread before it takes the next.
const STRETCH: u64 = 32 << 20;

/// Bytes written before they are sent to the disk, while more are being written.
const SYNC_STEP: u64 = 32 << 20;

/// A file under a temporary name, in the folder that it will stay in.
#[derive(Debug)]
pub struct Output {
    file: Temporary,
    target: PathBuf,
    remove_stale: bool,
    pages: Arc<Pages>,
    syncs: JoinHandle<io::Result<()>>,
}

/// The file's content, which several threads write.
#[derive(Debug)]
pub struct Pages {
    file: File,
    /// A file system lets one at a time write to a file: who waits here sleeps.
    turn: Mutex<Unsynced>,
    /// Whether everything is written: what is given up is not synced.
    complete: Arc<AtomicBool>,
}

#[derive(Debug)]
struct Unsynced {
    bytes: u64,
    /// Tells that there is enough to sync; gone when everything is written.
    due: Option<SyncSender<()>>,
}

impl Output {
    /// Begins a file that will be `target`. Files beside it that SQLite would take for the WAL of the
    /// restored database are removed at the end, if that is wanted.
    ///
    /// # Errors
    /// [`RestoreError::Output`] when something is there already, or such files are and must stay.
    pub fn prepare(target: &Path, remove_stale: bool) -> Result<Self, RestoreError> {
        let folder = check_place(target, remove_stale)?;
        Self::create(folder, target, remove_stale)
            .map_err(|source| RestoreError::Write { path: target.to_owned(), source })
    }

    fn create(folder: &Path, target: &Path, remove_stale: bool) -> io::Result<Self> {
        let left = if sqlite::may_be_shared(folder) { durable::LEFT } else { Duration::ZERO };
        durable::sweep(folder, left);
        let file = Temporary::create(folder)?;
        let (due, told) = sync_channel(1);
        let (synced, complete) = (file.file().try_clone()?, Arc::new(AtomicBool::new(false)));
        let is_complete = Arc::clone(&complete);
        let syncs = spawn_blocking(move || sync_when_told(&synced, &told, &is_complete));
        let turn = Mutex::new(Unsynced { bytes: 0, due: Some(due) });
        let pages = Arc::new(Pages { file: file.file().try_clone()?, turn, complete });
        Ok(Self { file, target: target.to_owned(), remove_stale, pages, syncs })
    }

    /// Where to write to, from any thread.
    #[must_use]
    pub fn pages(&self) -> Arc<Pages> {
        Arc::clone(&self.pages)
    }

    /// Takes the room for `len` bytes, where the file system can.
    ///
    /// # Errors
    /// [`RestoreError::Write`] when there is not enough.
    pub fn reserve(&self, len: u64) -> Result<(), RestoreError> {
        match fallocate(self.file.file(), FallocateFlags::empty(), 0, len.max(1)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(error) => Err(self.failed(error.into())),
        }
    }

    /// Reads the file back, on as many threads, and hashes it as a database of `pages` pages: the hash
    /// of each of them.
    ///
    /// # Errors
    /// [`RestoreError`] when it cannot be read or has another length.
    pub async fn hashes(
        &self,
        page_size: PageSize,
        pages: u32,
        threads: NonZeroUsize,
    ) -> Result<PageTable, RestoreError> {
        let page_len = u64::from(page_size.get());
        let (wanted, found) = (u64::from(pages) * page_len, self.len()?);
        if found != wanted {
            let reason = format!("the file has {found} bytes instead of {wanted}");
            return Err(RestoreError::Broken(reason));
        }
        let step = u32::try_from(STRETCH / page_len).unwrap_or(1);
        let mut stretches = (0..pages).step_by(step as usize);
        let mut reading = JoinSet::new();
        let file = durable::nameless(self.folder()).map_err(|error| self.failed(error))?;
        let mut table = PageTable::new(page_size, file);
        table.resize(pages).map_err(|error| self.failed(error))?;
        loop {
            for skipped in stretches.by_ref().take(threads.get() - reading.len()) {
                let (file, count) = (self.pages(), step.min(pages - skipped));
                reading
                    .spawn_blocking(move || Ok((skipped, file.hashes(page_size, skipped, count)?)));
            }
            let Some(read) = reading.join_next().await else {
                return Ok(table);
            };
            let read = read.map_err(|died| self.failed(died.into()))?;
            let (skipped, hashes) = read.map_err(|error: io::Error| self.failed(error))?;
            let numbers = (skipped..).filter_map(|before| PageNumber::new(before.checked_add(1)?));
            for (page, hash) in numbers.zip(hashes) {
                table.set(page, hash);
            }
        }
    }

    /// The file as it is now.
    #[must_use]
    pub fn file(&self) -> &File {
        self.file.file()
    }

    fn folder(&self) -> &Path {
        self.file.path().parent().unwrap_or(Path::new("."))
    }

    fn len(&self) -> Result<u64, RestoreError> {
        Ok(self.file.file().metadata().map_err(|error| self.failed(error))?.len())
    }

    /// Begins to sync what is written, all of it; see [`Self::place`].
    pub fn sync(&self) {
        self.pages.end();
    }

    /// Lets SQLite check the file.
    ///
    /// # Errors
    /// [`RestoreError::Unsound`] when it finds something.
    pub async fn check(&self, check: Check) -> Result<(), RestoreError> {
        let path = self.file.path().to_owned();
        let checked = spawn_blocking(move || sqlite::check(&path, check)).await;
        match checked.map_err(|died| self.failed(died.into()))? {
            Ok(found) if found.is_empty() => Ok(()),
            Ok(found) => Err(RestoreError::Unsound(found.join("; "))),
            Err(error) => Err(RestoreError::Unsound(crate::describe(&error))),
        }
    }

    /// Gives the file its name, durably.
    ///
    /// # Errors
    /// [`RestoreError`], also when something has come to have that name.
    pub async fn place(self) -> Result<(), RestoreError> {
        self.pages.end();
        let Self { file, target, remove_stale, syncs, .. } = self;
        let failed = |path: &Path, source| RestoreError::Write { path: path.to_owned(), source };
        let synced = syncs.await.map_err(io::Error::from).flatten();
        synced.map_err(|error| failed(&target, error))?;
        check_free(&target, remove_stale)?;
        // Any that are there are to be removed.
        for stale in stale(&target) {
            std::fs::remove_file(&stale).map_err(|error| failed(&stale, error))?;
        }
        file.place(&target).map_err(|error| failed(&target, error))
    }

    /// A failure to write.
    #[must_use]
    pub fn failed(&self, source: io::Error) -> RestoreError {
        RestoreError::Write { path: self.target.clone(), source }
    }
}

/// Refuses a place where no database can be made, or where something is: else the folder that it will
/// be in.
///
/// # Errors
/// [`RestoreError::Output`].
pub fn check_place(target: &Path, remove_stale: bool) -> Result<&Path, RestoreError> {
    let refuse = |path: &Path, reason| Err(RestoreError::Output { path: path.to_owned(), reason });
    let typed = target.as_os_str().as_encoded_bytes();
    let names_a_file =
        target.file_name().is_some() && !typed.ends_with(b"/") && !typed.ends_with(b"/.");
    if !names_a_file {
        return refuse(target, "it is no name of a file");
    }
    check_free(target, remove_stale)?;
    let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if folder.is_dir() { Ok(folder) } else { refuse(folder, "this folder does not exist") }
}

/// Refuses to write where something is.
fn check_free(target: &Path, remove_stale: bool) -> Result<(), RestoreError> {
    let refuse = |path: PathBuf, reason| Err(RestoreError::Output { path, reason });
    if target.symlink_metadata().is_ok() {
        return refuse(target.to_owned(), "something is there already; move it away first");
    }
    match stale(target).next() {
        Some(stale) if !remove_stale => {
            let reason = "SQLite would take this file for a part of the restored database; \
                          move it away first (restore --force removes it)";
            refuse(stale, reason)
        }
        _ => Ok(()),
    }
}

/// The files beside a database that belong to one that was there before.
fn stale(target: &Path) -> impl Iterator<Item = PathBuf> {
    let beside = ["-wal", "-shm", "-journal"].map(|suffix| {
        let mut beside = target.as_os_str().to_owned();
        beside.push(suffix);
        PathBuf::from(beside)
    });
    beside.into_iter().filter(|beside| beside.symlink_metadata().is_ok())
}

impl Pages {
    /// Writes bytes to their place.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut unsynced = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.write_all_at(bytes, offset)?;
        unsynced.bytes += bytes.len() as u64;
        if unsynced.bytes >= SYNC_STEP
            && let Some(due) = &unsynced.due
            // A sync that is still to begin takes these bytes along.
            && due.try_send(()).is_ok()
        {
            unsynced.bytes = 0;
        }
        Ok(())
    }

    /// Says that nothing more is written.
    fn end(&self) {
        self.complete.store(true, Ordering::Release);
        self.turn.lock().unwrap_or_else(PoisonError::into_inner).due = None;
    }

    /// The hashes of `pages` pages after the first `skipped`.
    fn hashes(&self, page_size: PageSize, skipped: u32, pages: u32) -> io::Result<Vec<PageHash>> {
        let mut hashes = Vec::with_capacity(pages as usize);
        let mut verifier = StateVerifier::of_stretch(page_size, skipped, pages);
        let mut offset = u64::from(skipped) * u64::from(page_size.get());
        let mut left = pages as usize * page_size.bytes();
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            let read = left.min(CHUNK);
            let (bytes, _) = chunk.split_at_mut(read);
            self.file.read_exact_at(bytes, offset)?;
            verifier.feed_each(bytes, |hash| hashes.push(hash)).map_err(io::Error::other)?;
            offset += read as u64;
            left -= read;
        }
        verifier.finish().map_err(io::Error::other)?;
        Ok(hashes)
    }
}

/// Syncs a file each time it is told to, and once more when it is complete.
fn sync_when_told(file: &File, due: &Receiver<()>, complete: &AtomicBool) -> io::Result<()> {
    while due.recv().is_ok() {
        file.sync_data()?;
    }
    if complete.load(Ordering::Acquire) { file.sync_all() } else { Ok(()) }
}

impl PageSink for Output {
    type Error = io::Error;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.file().read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.pages.write_at(offset, bytes)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.file().set_len(len)
    }
}
