//! A folder seen through a FUSE file system.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mount, which goes when this is dropped.
#[derive(Debug)]
pub struct Fuse {
    at: PathBuf,
}

impl Fuse {
    /// Mounts `folder` a second time, at `at`, which is made. Says so where that cannot be: such a test
    /// proves nothing then.
    pub fn mount(folder: &Path, at: &Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let tried = Command::new("bindfs").args([folder, at]).output();
        let why = match tried {
            Ok(done) if done.status.success() => return Some(Self { at: at.to_owned() }),
            Ok(done) => String::from_utf8_lossy(&done.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("skipped: no FUSE file system can be mounted here: bindfs: {why}");
        None
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.at).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            Command::new("fusermount").args(["-u", "-z"]).arg(&self.at).status().ok();
        }
    }
}
