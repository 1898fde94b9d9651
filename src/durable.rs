//! The only code that renames files and makes them durable.
//!
//! A file appears under its name complete and synced, or not at all: it is written beside its place
//! under a temporary name, synced, renamed without replacing anything, and its folder is synced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// Begins the names of files that are still being written. No object name begins like this.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// A file under a temporary name, removed unless it is [placed](Self::place).
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
        let path = folder.join(format!("{TEMPORARY_PREFIX}{:016x}", random()?));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        Ok(Self { file, path, placed: false })
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
