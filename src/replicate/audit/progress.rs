//! How far the audit has come, kept in the folder of local state.
//!
//! The file is one line: `first` or `later`, whether the database was read to its end before, a space,
//! and the next block, as ten digits. It is a hint: one that cannot be read is as good as none, and
//! costs a second look.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Bytes in the file: it is overwritten in place.
const LEN: usize = 17;

/// How far the audit has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether the database was never read to its end since its first snapshot.
    pub is_first: bool,
    /// The next block.
    pub next: u32,
}

impl Progress {
    /// Nothing was read yet.
    pub const BEGINNING: Self = Self { is_first: true, next: 0 };

    /// What is kept at `path`; the beginning where that is nothing.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let mut text = String::new();
        let read =
            File::open(path).and_then(|file| file.take(LEN as u64).read_to_string(&mut text));
        read.ok().and_then(|_| Self::decode(&text)).unwrap_or(Self::BEGINNING)
    }

    /// Keeps it at `path`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(self, path: &Path) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path)?;
        file.write_all_at(self.encode().as_bytes(), 0)
    }

    fn encode(self) -> String {
        let pass = if self.is_first { "first" } else { "later" };
        format!("{pass} {:010}\n", self.next)
    }

    fn decode(text: &str) -> Option<Self> {
        let (pass, next) = text.strip_suffix('\n')?.split_once(' ')?;
        let is_first = match pass {
            "first" => true,
            "later" => false,
            _ => return None,
        };
        Some(Self { is_first, next: next.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_anything_else_is_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        assert_eq!(Progress::read(&path), Progress::BEGINNING);
        for (is_first, next) in [(true, 7), (false, u32::MAX), (false, 0)] {
            let progress = Progress { is_first, next };
            progress.write(&path).unwrap();
            assert_eq!(path.metadata().unwrap().len(), LEN as u64);
            assert_eq!(Progress::read(&path), progress);
        }
        for damaged in ["", "first", "later 12", "later 0000000x12\n", "third 0000000012\n"] {
            assert_eq!(Progress::decode(damaged), None, "{damaged:?}");
        }
    }
}
