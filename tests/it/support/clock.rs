//! A wall clock that a test sets for one process: Debian's libfaketime. All other clocks are the
//! machine's.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The clock, which can be set while the process runs.
#[derive(Debug)]
pub struct WallClock {
    file: File,
    path: PathBuf,
    library: PathBuf,
}

impl WallClock {
    /// A clock that goes right. What it is set to is in a file in `folder`.
    pub fn new(folder: &Path) -> Self {
        let path = folder.join("clock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path).unwrap();
        let clock = Self { file, path, library: library() };
        clock.set(0);
        clock
    }

    /// Sets it to so many seconds from the right time.
    pub fn set(&self, seconds: i64) {
        // Always as long: it may be read at any time.
        let sign = if seconds < 0 { '-' } else { '+' };
        let text = format!("{sign}{:012}\n", seconds.unsigned_abs());
        self.file.write_all_at(text.as_bytes(), 0).unwrap();
    }

    /// Gives it to a process.
    pub fn give<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.path)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    }
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    libraries.find(|path| path.exists()).expect("Debian's package faketime is installed")
}
