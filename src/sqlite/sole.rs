//! One follower for each database in this process: the locks of a process are one, whoever takes them,
//! and one of two followers would give up what the other stands on.

use std::collections::BTreeSet;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

type File = (u64, u64);

static FOLLOWED: Mutex<BTreeSet<File>> = Mutex::new(BTreeSet::new());

/// The right to follow a file, by device and inode; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Sole(File);

impl Sole {
    /// The right to follow this file; `None` while somebody in this process has it.
    pub(super) fn claim(file: &Metadata) -> Option<Self> {
        let file = (file.dev(), file.ino());
        let is_first = followed().insert(file);
        // Not made where it is not given: its end would end the other's.
        is_first.then(|| Self(file))
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        followed().remove(&self.0);
    }
}

fn followed() -> MutexGuard<'static, BTreeSet<File>> {
    FOLLOWED.lock().unwrap_or_else(PoisonError::into_inner)
}
