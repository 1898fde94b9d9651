//! The database file alone, for readers beside the one that follows it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use rustix::io::{ReadWriteFlags, preadv2};

use super::SourceError;
use super::frames::read_at_most;

/// Reads the file of a followed database from other threads. What it reads is whatever stands there,
/// torn where somebody is writing: the reader proves it by hashes. It shares the one descriptor of the
/// file, and must be gone before the [`Source`](super::Source) is.
#[derive(Debug, Clone)]
pub struct PageFile {
    pub(super) file: Arc<File>,
    pub(super) path: PathBuf,
}

impl PageFile {
    /// Reads from `offset` until the buffer is full; what the file does not reach is zeros. Bytes that
    /// were not in the page cache before are not left in it, so that the application's stay.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let cached = self.read_cached(offset, buffer);
        let read = match cached {
            filled if filled == buffer.len() => Ok(filled),
            filled => self.read_rest(offset, buffer, filled),
        };
        let filled = read.map_err(|source| SourceError::Io {
            action: "read",
            path: self.path.clone(),
            source,
        })?;
        if let Some(missing) = buffer.get_mut(filled..) {
            missing.fill(0);
        }
        Ok(())
    }

    /// Reads what is in the page cache, from the start; the bytes read.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let into = &mut [IoSliceMut::new(buffer)];
        // File systems that cannot tell are read like files that are not cached.
        preadv2(&*self.file, into, offset, ReadWriteFlags::NOWAIT).unwrap_or(0)
    }

    fn read_rest(&self, offset: u64, buffer: &mut [u8], cached: usize) -> io::Result<usize> {
        let start = offset + cached as u64;
        let rest = buffer.get_mut(cached..).unwrap_or_default();
        let filled = read_at_most(&*self.file, rest, start)?;
        if let Some(read) = NonZeroU64::new(filled as u64) {
            // Advice that is not taken costs nothing but cache.
            fadvise(&*self.file, start, Some(read), Advice::DontNeed).ok();
        }
        Ok(cached + filled)
    }
}
