//! The database file alone, read without changing what the page cache holds of it.
//!
//! What is read is asked for twice. The first time takes what is cached and tells which pages are not:
//! those are fetched while the reader does something else, and the second time waits for them. Only they
//! are dropped from the cache then. (Kernels before 6.14 cannot mark what is fetched so that it never
//! stays; there, a page that arrives in the moment between is taken for the application's.)

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::SourceError;
use super::frames::read_at_most;
use crate::uncached::DONTCACHE;

/// Bytes in a page of the page cache, or a whole part of one.
const CACHE_PAGE: u64 = 4096;

/// Reads the file of a followed database from other threads. What it reads is whatever stands there,
/// torn where somebody is writing: the reader proves it by hashes. It shares the one descriptor of the
/// file, and must be gone before the [`Source`](super::Source) is.
#[derive(Debug, Clone)]
pub struct PageFile {
    pub(super) file: Arc<File>,
    path: PathBuf,
    /// How it is asked for what is cached.
    at_once: ReadWriteFlags,
}

/// What was asked for and is still on its way, as ranges of the buffer.
#[derive(Debug, Default)]
pub struct Missing(Vec<Range<usize>>);

impl PageFile {
    /// Reads an open file; `path` is what messages call it.
    pub(super) fn new(file: File, path: PathBuf) -> Self {
        let at_once = ReadWriteFlags::NOWAIT | DONTCACHE;
        let tried = preadv2(&file, &mut [IoSliceMut::new(&mut [0])], 0, at_once);
        let is_unknown = tried == Err(Errno::OPNOTSUPP);
        let at_once = if is_unknown { ReadWriteFlags::NOWAIT } else { at_once };
        Self { file: Arc::new(file), path, at_once }
    }

    /// Reads from `offset` until the buffer is full; what the file does not reach is zeros. What was not
    /// in the page cache does not stay in it, and the application's pages do.
    ///
    /// # Errors
    /// What the system says.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), SourceError> {
        let missing = self.begin(offset, buffer);
        self.finish(offset, buffer, &missing)
    }

    /// Reads what is in the page cache, and has the rest fetched for [`finish`](Self::finish), which is to
    /// come soon.
    #[must_use]
    pub fn begin(&self, offset: u64, buffer: &mut [u8]) -> Missing {
        let (mut missing, len) = (Missing::default(), buffer.len());
        let mut at = 0;
        while let Some(rest) = buffer.get_mut(at..).filter(|rest| !rest.is_empty()) {
            let place = offset + at as u64;
            match preadv2(&*self.file, &mut [IoSliceMut::new(rest)], place, self.at_once) {
                Ok(read) if read > 0 => at += read,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let left = CACHE_PAGE - place % CACHE_PAGE;
                    let next = len.min(at.saturating_add(usize::try_from(left).unwrap_or(len)));
                    missing.add(at..next);
                    at = next;
                }
                // The file ends here, or it cannot be told what is cached: then nothing is.
                Ok(_) | Err(_) => {
                    missing.add(at..len);
                    break;
                }
            }
        }
        for range in &missing.0 {
            self.advise(offset, range, Advice::WillNeed);
        }
        missing
    }

    /// Reads what was missing. It does not stay in the page cache.
    ///
    /// # Errors
    /// What the system says.
    pub fn finish(
        &self,
        offset: u64,
        buffer: &mut [u8],
        missing: &Missing,
    ) -> Result<(), SourceError> {
        for range in &missing.0 {
            let Some(rest) = buffer.get_mut(range.clone()) else { continue };
            let read = read_at_most(&*self.file, rest, offset + range.start as u64);
            self.advise(offset, range, Advice::DontNeed);
            let filled = read.map_err(|source| self.failed(source))?;
            if let Some(beyond) = rest.get_mut(filled..) {
                beyond.fill(0);
            }
        }
        Ok(())
    }

    /// Advice that is not taken costs nothing but time and cache.
    fn advise(&self, offset: u64, range: &Range<usize>, advice: Advice) {
        let len = NonZeroU64::new(range.len() as u64);
        fadvise(&*self.file, offset + range.start as u64, len, advice).ok();
    }

    fn failed(&self, source: io::Error) -> SourceError {
        SourceError::Io { action: "read", path: self.path.clone(), source }
    }
}

impl Missing {
    /// Whether everything was there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what comes behind all that is missing so far.
    fn add(&mut self, range: Range<usize>) {
        match self.0.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => self.0.push(range),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn page_file(len: usize) -> (PageFile, Vec<u8>) {
        let content: Vec<u8> = (0..=250u8).cycle().take(len).collect();
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&content, 0).unwrap();
        file.sync_all().unwrap();
        (PageFile::new(file, "a file".into()), content)
    }

    fn drop_from_cache(file: &PageFile, range: &Range<usize>) {
        file.advise(0, range, Advice::DontNeed);
    }

    #[test]
    fn what_is_read_is_the_file_whatever_is_cached() {
        let (file, content) = page_file(200_000);
        for dropped in [0..0, 0..200_000, 8192..20_480, 65_536..200_000, 196_608..200_000] {
            drop_from_cache(&file, &dropped);
            for (offset, len) in [(0, 200_000), (65_536, 65_536), (131_072, 68_928), (4096, 512)] {
                let mut buffer = vec![0xee; len];
                file.read(offset as u64, &mut buffer).unwrap();
                assert!(buffer == content[offset..offset + len], "{dropped:?} {offset} {len}");
            }
        }
    }

    #[test]
    fn beyond_the_end_of_the_file_are_zeros() {
        let (file, content) = page_file(10_000);
        for dropped in [0..0, 0..10_000] {
            drop_from_cache(&file, &dropped);
            let mut buffer = vec![0xee; 65_536];
            file.read(0, &mut buffer).unwrap();
            assert!(buffer.starts_with(&content) && buffer[10_000..].iter().all(|b| *b == 0));
            file.read(131_072, &mut buffer).unwrap();
            assert!(buffer.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn neighbours_that_are_missing_are_one_range() {
        let mut missing = Missing::default();
        for range in [0..4096, 4096..8192, 12_288..16_384] {
            missing.add(range);
        }
        assert_eq!(missing.0, [0..8192, 12_288..16_384]);
    }
}
