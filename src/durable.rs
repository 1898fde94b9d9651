//! The only code that renames files and makes them durable.
//!
//! A file appears under its name complete and synced, or not at all: it is written beside its place
//! under a temporary name, synced, renamed without replacing anything, and its folder is synced.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::clock;

/// Begins the names of files that are still being written. No object name begins like this.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// What was not written to for so long, and is open nowhere on this machine, is nobody's: others may
/// write to a folder that is shared, and have locks of their own.
pub const LEFT: Duration = Duration::from_hours(24);

/// A file under a temporary name, removed unless it is [placed](Self::place). It is locked as long as it
/// is open, which tells it from what a process that was killed has left.
#[derive(Debug)]
pub struct Temporary {
    file: File,
    path: PathBuf,
    placed: bool,
}

impl Temporary {
    /// Creates a file in `folder` that only its owner can read.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(folder: &Path) -> io::Result<Self> {
        loop {
            let path = folder.join(format!("{TEMPORARY_PREFIX}{:016x}", random()?));
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)?;
            // Where nothing can be locked nothing is swept; a sweep may have been faster.
            let is_swept = match file.try_lock() {
                Ok(()) => file.metadata()?.nlink() == 0,
                Err(TryLockError::WouldBlock) => true,
                Err(TryLockError::Error(_)) => false,
            };
            if !is_swept {
                return Ok(Self { file, path, placed: false });
            }
        }
    }

    /// The open file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where it is until it has its name.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Syncs the file, gives it its name, and syncs the folder.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when something has that name; it is left alone.
    pub fn place(self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        self.place_unsynced(target).map_err(|(_removed, error)| error)?;
        sync_parent(target)
    }

    /// Syncs the file, puts it in the place of whatever has that name, and syncs the folder.
    ///
    /// # Errors
    /// What the file system says; what was there before is untouched then.
    #[allow(clippy::disallowed_methods, reason = "this module owns renames")]
    pub fn replace(mut self, target: &Path) -> io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.path, target)?;
        self.placed = true;
        sync_parent(target)
    }

    /// Gives the file its name without syncing anything: for files that a power loss may take.
    ///
    /// # Errors
    /// As [`Self::place`], with the file, as it was.
    pub fn place_unsynced(mut self, target: &Path) -> Result<(), (Self, io::Error)> {
        if let Err(error) = rename_without_replacing(&self.path, target) {
            return Err((self, error));
        }
        self.placed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file");
        }
    }
}

/// A file in `folder` that has no name and is gone when it is closed.
///
/// # Errors
/// What the file system says.
pub fn nameless(folder: &Path) -> io::Result<File> {
    Temporary::create(folder)?.file.try_clone()
}

/// Removes the temporary files of this user in `folder` that no process has open any more, and that were
/// not written to for as long as `age`.
pub fn sweep(folder: &Path, age: Duration) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if is_temporary(&entry.file_name())
            && let Err(error) = remove_if_left(&path, age)
        {
            tracing::debug!(path = %path.display(), %error, "cannot remove a temporary file");
        }
    }
}

fn is_temporary(name: &std::ffi::OsStr) -> bool {
    let random = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX));
    let is_digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    random.is_some_and(|random| random.len() == 16 && random.chars().all(is_digit))
}

fn remove_if_left(path: &Path, age: Duration) -> io::Result<()> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let written = Duration::from_secs(metadata.mtime().unsigned_abs());
    let is_old = written + age <= Duration::from_micros(clock::wall().0);
    let is_ours = metadata.is_file() && metadata.uid() == geteuid().as_raw();
    if is_ours && is_old && file.try_lock().is_ok() {
        std::fs::remove_file(path)?;
        tracing::info!(path = %path.display(), "removed what a process that was killed has left");
    }
    Ok(())
}

/// Creates a folder and its missing parents with the given mode, each made durable in its parent.
///
/// # Errors
/// What the file system says; a folder that exists is none.
pub fn create_folders(path: &Path, mode: u32) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        create_folders(parent, mode)?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Err(_) if !path.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
        _ => sync_parent(path),
    }
}

/// Creates a folder and its missing parents with the given mode, without syncing anything: for what a
/// power loss may take.
///
/// # Errors
/// What the file system says; a folder that exists is none.
pub fn create_folders_unsynced(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)
}

/// Renames a file without replacing anything and without syncing anything.
///
/// # Errors
/// What the file system says.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    rename_without_replacing(from, to)
}

/// Syncs the folder that holds `path`.
///
/// # Errors
/// What the file system says.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// File systems without `RENAME_NOREPLACE` get a hard link, which does not replace either.
fn rename_without_replacing(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => Ok(other?),
    }
}

/// Has the system begin to write a range of a file to the disk, and does not wait until that is done; but it
/// waits for a disk that has no room for more requests. See `sync_file_range(2)`.
///
/// # Errors
/// What the file system says; [`io::ErrorKind::Unsupported`] where it has no such call. What the disk says
/// later is left to the next sync, whoever makes it.
#[expect(unsafe_code, reason = "the system call has no safe form in the crates that are used")]
pub fn begin_writeback(file: &File, range: Range<u64>) -> io::Result<()> {
    let offset = |at| i64::try_from(at).map_err(io::Error::other);
    let (from, len) = (offset(range.start)?, offset(range.end.saturating_sub(range.start))?);
    // To a length of 0 belongs the rest of the file.
    if len == 0 {
        return Ok(());
    }
    // SAFETY: it takes numbers, of which one is a descriptor that is open as long as `file` is borrowed.
    match unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, libc::SYNC_FILE_RANGE_WRITE) }
    {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ESPIPE) => {
                Err(io::ErrorKind::Unsupported.into())
            }
            error => Err(error),
        },
    }
}

/// A random number from the kernel.
///
/// # Errors
/// When the kernel has none to give.
pub fn random() -> io::Result<u64> {
    #[cfg(test)]
    if let Some(random) = crate::simulated::random() {
        return Ok(random);
    }
    Ok(getrandom::u64()?)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn what_has_no_disk_cannot_be_sent_there() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        begin_writeback(&file, 0..1 << 20).unwrap();
        begin_writeback(&file, 7..7).unwrap();
        let (pipe, _writer) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
        let refused = begin_writeback(&pipe, 0..1).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    }

    #[test]
    fn a_file_appears_whole_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        for content in ["first", "second"] {
            let temporary = Temporary::create(folder.path()).unwrap();
            temporary.file().write_all(content.as_bytes()).unwrap();
            let placed = temporary.place(&target);
            let expected = (content == "second").then_some(io::ErrorKind::AlreadyExists);
            assert_eq!(placed.err().map(|e| e.kind()), expected);
        }
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "first");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_left_is_swept_and_what_is_written_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let kept = [".tmp-0123456789abcdeg", ".tmp-0123", "tmp-0123456789abcdef"];
        for name in kept.iter().chain(&[".tmp-0123456789abcdef"]) {
            File::create(at(name)).unwrap();
        }
        std::os::unix::fs::symlink(at(kept[0]), at(".tmp-aaaaaaaaaaaaaaaa")).unwrap();
        let open = Temporary::create(folder.path()).unwrap();
        let count = || std::fs::read_dir(folder.path()).unwrap().count();
        sweep(folder.path(), Duration::from_hours(1));
        assert_eq!(count(), 6);
        sweep(folder.path(), Duration::ZERO);
        assert!(!at(".tmp-0123456789abcdef").exists() && open.path().exists());
        assert_eq!(count(), 5);
        drop(open);
        assert_eq!(count(), 4);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (target, victim) = (folder.path().join("target"), folder.path().join("victim"));
        std::os::unix::fs::symlink(&victim, &target).unwrap();
        let temporary = Temporary::create(folder.path()).unwrap();
        let error = temporary.place(&target).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert!(!victim.exists());
    }

    #[test]
    fn missing_parents_are_created_with_the_mode() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folders(&deep, 0o700).unwrap();
        create_folders(&deep, 0o700).unwrap();
        assert_eq!(deep.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::File::create(folder.path().join("file")).unwrap();
        let error = create_folders(&folder.path().join("file"), 0o700).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }
}
