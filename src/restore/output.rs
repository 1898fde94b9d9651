//! The database that is being put together.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use genesis_restore::apply::PageSink;
use genesis_restore::verify::StateVerifier;
use genesis_wal::page::{PageSize, StateHash};

use super::RestoreError;
use crate::durable::Temporary;

/// Bytes read back at once.
const CHUNK: u64 = 1 << 20;

/// A file under a temporary name, in the folder that it will stay in.
#[derive(Debug)]
pub struct Output {
    file: Temporary,
    target: PathBuf,
}

impl Output {
    /// Begins a file that will be `target`.
    ///
    /// # Errors
    /// [`RestoreError::Output`] when something is there already, or beside it files that SQLite would
    /// take for the WAL of the restored database.
    pub fn prepare(target: &Path) -> Result<Self, RestoreError> {
        let refuse = |path: PathBuf, reason| Err(RestoreError::Output { path, reason });
        if target.symlink_metadata().is_ok() {
            return refuse(target.to_owned(), "something is there already; move it away first");
        }
        for suffix in ["-wal", "-shm", "-journal"] {
            let mut beside = target.as_os_str().to_owned();
            beside.push(suffix);
            let beside = PathBuf::from(beside);
            if beside.symlink_metadata().is_ok() {
                let reason = "SQLite would take this file for a part of the restored database; \
                              move it away first";
                return refuse(beside, reason);
            }
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return refuse(folder.to_owned(), "this folder does not exist");
        }
        let file = Temporary::create(folder)
            .map_err(|source| RestoreError::Write { path: target.to_owned(), source })?;
        Ok(Self { file, target: target.to_owned() })
    }

    /// Reads the file back and hashes it as a database of `pages` pages.
    ///
    /// # Errors
    /// [`RestoreError`] when it cannot be read or has another length.
    pub fn state(&self, page_size: PageSize, pages: u32) -> Result<StateHash, RestoreError> {
        let broken = |error| RestoreError::Broken(crate::describe(&error));
        let mut verifier = StateVerifier::new(page_size, pages);
        let len = self.file.file().metadata().map_err(|error| self.failed(error))?.len();
        let (mut offset, mut chunk) = (0, Vec::new());
        while offset < len {
            let wanted = CHUNK.min(len - offset);
            chunk.resize(usize::try_from(wanted).unwrap_or(0), 0);
            let read = self.file.file().read_exact_at(&mut chunk, offset);
            read.map_err(|error| self.failed(error))?;
            verifier.feed(&chunk).map_err(broken)?;
            offset += wanted;
        }
        verifier.finish().map_err(broken)
    }

    /// Gives the file its name, durably.
    ///
    /// # Errors
    /// [`RestoreError::Write`], also when something has come to have that name.
    pub fn place(self) -> Result<(), RestoreError> {
        let Self { file, target } = self;
        file.place(&target).map_err(|source| RestoreError::Write { path: target, source })
    }

    /// A failure to write.
    #[must_use]
    pub fn failed(&self, source: io::Error) -> RestoreError {
        RestoreError::Write { path: self.target.clone(), source }
    }
}

impl PageSink for Output {
    type Error = io::Error;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.file().read_exact_at(buffer, offset)
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.file().write_all_at(bytes, offset)
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.file().set_len(len)
    }
}
