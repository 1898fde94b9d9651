//! The folder of local state beside a database, and the lock that keeps it to one process.

use std::fs::{File, Metadata, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use thiserror::Error;

use crate::clock;
use crate::durable::{self, Temporary};

/// Why the local state cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// Another process follows this database.
    #[error("{} is already followed by process {holder}", database.display())]
    InUse {
        /// The database.
        database: PathBuf,
        /// What the other process wrote about itself.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot use the state folder {}", path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The folder of local state, ours alone while this lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

/// How often a lock that somebody has is tried for, and the pause between.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);

/// Locks a file. A process that is just being started holds the locks of the one that starts it for a
/// moment, also when that one is gone.
fn lock_patiently(file: &File) -> Result<(), TryLockError> {
    for _ in 1..TRIES {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => clock::rest(PAUSE),
            other => return other,
        }
    }
    file.try_lock()
}

impl StateFolder {
    /// Opens and locks the state of `database`: in `.<name>-genesis` beside it, or in `folder`.
    ///
    /// # Errors
    /// [`StateError::InUse`] while another process has it.
    pub fn open(database: &Path, folder: Option<&Path>) -> Result<Self, StateError> {
        let path = state_folder(database, folder);
        let failed = |source| StateError::Io { path: path.clone(), source };
        durable::create_folders(&path, 0o700).and_then(|()| keep_private(&path)).map_err(failed)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path.join("lock"))
            .map_err(failed)?;
        match lock_patiently(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                lock.read_to_string(&mut holder).map_err(failed)?;
                let (database, holder) = (database.to_owned(), holder.trim().to_owned());
                return Err(StateError::InUse { database, holder });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        lock.set_len(0).map_err(failed)?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
        durable::sweep(&path, Duration::ZERO);
        Ok(Self { path, _lock: lock })
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A random number that tells this folder from every other: from a copy of it, too, which has the
    /// same file with another inode. It is drawn when there is none.
    ///
    /// # Errors
    /// What the file system says.
    pub fn host(&self) -> Result<String, StateError> {
        let path = self.path.join("host");
        let failed = |source| StateError::Io { path: path.clone(), source };
        match read_host(&path).map_err(failed)? {
            Some(host) => Ok(host),
            None => draw_host(&self.path, &path).map_err(failed),
        }
    }

    /// What an unfinished snapshot has left in this folder.
    #[must_use]
    pub fn kept_packs(&self) -> PathBuf {
        self.path.join("packs")
    }

    /// The spool in this folder.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }
}

/// The number in the file, unless it was written into another one.
fn read_host(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    let written = text.trim_end().split_once(' ');
    let here = identity(&file.metadata()?);
    Ok(written.filter(|(_, identity)| *identity == here).map(|(host, _)| host.to_owned()))
}

fn draw_host(folder: &Path, path: &Path) -> io::Result<String> {
    let host = format!("{:016x}{:016x}", durable::random()?, durable::random()?);
    let file = Temporary::create(folder)?;
    let identity = identity(&file.file().metadata()?);
    file.file().write_all(format!("{host} {identity}\n").as_bytes())?;
    file.replace(path)?;
    Ok(host)
}

/// What a copy of a file does not have: its inode, and when that was made, where the file system knows.
pub fn identity(metadata: &Metadata) -> String {
    let born = metadata.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
    format!("{}-{}", metadata.ino(), born.unwrap_or_default().as_nanos())
}

/// Refuses a folder that somebody else could have planted or could write to.
fn keep_private(path: &Path) -> io::Result<()> {
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() || metadata.uid() != geteuid().as_raw() {
        let reason = "it is a link, or belongs to another user";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Where the state of the database with this canonical path lives.
#[must_use]
pub fn state_folder(database: &Path, folder: Option<&Path>) -> PathBuf {
    folder.map_or_else(|| beside(database), Path::to_owned)
}

fn beside(database: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(database.file_name().unwrap_or(database.as_os_str()));
    name.push("-genesis");
    database.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_has_it_and_the_next_is_told_who() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("app.db");
        let state = StateFolder::open(&database, None).unwrap();
        assert_eq!(state.spool(), folder.path().join(".app.db-genesis/spool"));
        let error = StateFolder::open(&database, None).unwrap_err();
        assert!(error.to_string().ends_with(&format!("process {}", std::process::id())));
        drop(state);
        StateFolder::open(&database, None).unwrap();
    }

    #[test]
    fn a_host_is_known_again_and_a_copy_of_its_state_is_another() {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| StateFolder::open(&folder.path().join(name), None).unwrap();
        let first = open("one.db").host().unwrap();
        assert_eq!(open("one.db").host().unwrap(), first);
        let (one, other) = (open("one.db"), open("other.db"));
        let mut copy = std::process::Command::new("cp");
        copy.arg("-p").arg(one.path().join("host")).arg(other.path());
        assert!(copy.status().unwrap().success());
        let second = other.host().unwrap();
        assert_ne!(second, first);
        assert_eq!(other.host().unwrap(), second);
    }

    #[test]
    fn planted_links_and_open_folders_are_not_used_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let (database, victim) = (folder.path().join("app.db"), folder.path().join("victim"));
        std::fs::File::create(&victim).unwrap();
        let state = folder.path().join(".app.db-genesis");
        std::fs::create_dir(&state).unwrap();
        std::fs::set_permissions(&state, Permissions::from_mode(0o777)).unwrap();
        std::os::unix::fs::symlink(&victim, state.join("lock")).unwrap();
        assert!(StateFolder::open(&database, None).is_err());
        assert_eq!(state.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(victim.metadata().unwrap().len(), 0);

        std::fs::remove_file(state.join("lock")).unwrap();
        std::fs::remove_dir(&state).unwrap();
        std::fs::create_dir(folder.path().join("elsewhere")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &state).unwrap();
        assert!(StateFolder::open(&database, None).is_err());
    }
}
