//! What was put aside, which nobody but a human being ever reads: the last of it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store::FileStore;

/// Bytes that are kept.
pub const MOST: u64 = 256 << 20;

/// Removes what was put aside first, until at most `most` bytes are left beside the last to come.
///
/// # Errors
/// What the file system says.
pub fn keep_newest(folder: &Path, most: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for listed in FileStore::list_folder(folder, "")? {
        let path = folder.join(listed.name.to_string());
        let found = path.metadata()?;
        // A file changes its folder, and is not written to: only this time tells when.
        files.push(((found.ctime(), found.ctime_nsec()), listed.size, path));
    }
    files.sort_unstable();
    files.pop();
    let mut left = most;
    for (_, size, path) in files.into_iter().rev() {
        if let Some(less) = left.checked_sub(size) {
            left = less;
        } else {
            std::fs::remove_file(&path)?;
            let path = path.display();
            tracing::warn!(%path, "so much was put aside since that this is removed");
            left = 0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use genesis_wal::id::{Epoch, Generation, Txid};
    use genesis_wal::name::{ObjectName, SegmentName};
    use genesis_wal::time::Millis;

    use super::*;
    use crate::durable;

    fn put(folder: &Path, txid: u64, size: u64) {
        let (first, time, epoch) = (Txid(txid), Millis(1), Epoch(1));
        let generation = Generation { epoch, random: 7 };
        let name = SegmentName { generation, level: 0, first, last: first, time, epoch, repair: 0 };
        let path = folder.join(name.to_string());
        durable::create_folders(path.parent().unwrap(), 0o700).unwrap();
        File::create(&path).unwrap().set_len(size).unwrap();
    }

    fn left(folder: &Path) -> Vec<u64> {
        let listed = FileStore::list_folder(folder, "").unwrap();
        let txid = |name| match name {
            ObjectName::Segment(name) => name.first.0,
            other => panic!("{other}"),
        };
        listed.into_iter().map(|listed| txid(listed.name)).collect()
    }

    #[test]
    fn the_last_to_come_stay() {
        let folder = tempfile::tempdir().unwrap();
        for (txid, size) in [(9, 400), (2, 300), (5, 300)] {
            // Times of files are as coarse as the kernel's ticks.
            crate::clock::rest(std::time::Duration::from_millis(15));
            put(folder.path(), txid, size);
        }
        keep_newest(folder.path(), 700).unwrap();
        assert_eq!(left(folder.path()), [2, 5, 9]);
        keep_newest(folder.path(), 699).unwrap();
        assert_eq!(left(folder.path()), [2, 5]);
        keep_newest(folder.path(), 0).unwrap();
        assert_eq!(left(folder.path()), [5]);
    }
}
