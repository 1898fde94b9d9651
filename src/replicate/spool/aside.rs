//! What was put aside, which nobody but a human being ever reads. What a start puts aside stays until a later
//! one does so, too; then the oldest goes that is too much.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use genesis_wal::name::{ObjectName, SegmentName};

use crate::store::FileStore;

/// Bytes that are kept of what earlier starts have put aside.
pub const MOST: u64 = 256 << 20;

#[derive(Debug)]
struct Aside {
    /// A file changes its folder, and is not written to: only this time tells when.
    since: (i64, i64),
    name: Option<SegmentName>,
    size: u64,
    path: PathBuf,
}

/// Removes what is too much: the oldest chain first, and of a chain its end, which is of no use without its
/// beginning.
///
/// # Errors
/// What the file system says.
pub fn cut(folder: &Path, most: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for listed in FileStore::list_folder(folder, "")? {
        let path = folder.join(listed.name.to_string());
        let found = path.metadata()?;
        let name = match listed.name {
            ObjectName::Segment(name) => Some(name),
            _ => None,
        };
        let since = (found.ctime(), found.ctime_nsec());
        files.push(Aside { since, name, size: listed.size, path });
    }
    let mut left: u64 = files.iter().map(|file| file.size).sum();
    for Aside { size, path, .. } in in_order_of_removal(files) {
        if left <= most {
            break;
        }
        std::fs::remove_file(&path)?;
        left -= size;
        let path = path.display();
        tracing::warn!(%path, "so much was put aside by earlier starts that this is removed");
    }
    Ok(())
}

fn in_order_of_removal(mut files: Vec<Aside>) -> impl Iterator<Item = Aside> {
    files.sort_unstable_by_key(|file| (file.since, file.name));
    let mut chains: Vec<Vec<Aside>> = Vec::new();
    for file in files {
        let continued = chains.last_mut().filter(|chain| {
            chain.last().is_some_and(|last| continues(last.name.as_ref(), file.name.as_ref()))
        });
        match continued {
            Some(chain) => chain.push(file),
            None => chains.push(vec![file]),
        }
    }
    chains.into_iter().flat_map(|chain| chain.into_iter().rev())
}

fn continues(last: Option<&SegmentName>, next: Option<&SegmentName>) -> bool {
    last.zip(next).is_some_and(|(last, next)| {
        last.generation == next.generation && last.last.next() == Some(next.first)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use genesis_wal::id::{Epoch, Generation, Txid};
    use genesis_wal::name::{ObjectName, SegmentName};
    use genesis_wal::time::Millis;

    use super::super::{Limits, Spool};
    use super::*;
    use crate::durable;

    fn segment(txid: u64) -> SegmentName {
        let (first, time, epoch) = (Txid(txid), Millis(1), Epoch(1));
        let generation = Generation { epoch, random: 7 };
        SegmentName { generation, level: 0, first, last: first, time, epoch, repair: 0 }
    }

    fn put(folder: &Path, txid: u64, size: u64) {
        let path = folder.join(segment(txid).to_string());
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

    fn put_all(folder: &Path, segments: &[(u64, u64)]) {
        for (txid, size) in segments {
            // Times of files are as coarse as the kernel's ticks.
            crate::clock::rest(std::time::Duration::from_millis(15));
            put(folder, *txid, *size);
        }
    }

    #[test]
    fn the_last_to_come_stay() {
        let folder = tempfile::tempdir().unwrap();
        put_all(folder.path(), &[(9, 300), (2, 300), (5, 300)]);
        cut(folder.path(), 900).unwrap();
        assert_eq!(left(folder.path()), [2, 5, 9]);
        cut(folder.path(), 899).unwrap();
        assert_eq!(left(folder.path()), [2, 5]);
        cut(folder.path(), 0).unwrap();
        assert_eq!(left(folder.path()), [0; 0]);
    }

    #[test]
    fn of_a_chain_its_beginning_stays() {
        let folder = tempfile::tempdir().unwrap();
        put_all(folder.path(), &[(1, 300), (2, 300), (3, 300), (7, 300), (8, 300)]);
        cut(folder.path(), 1200).unwrap();
        assert_eq!(left(folder.path()), [1, 2, 7, 8]);
        cut(folder.path(), 500).unwrap();
        assert_eq!(left(folder.path()), [7]);
    }

    #[test]
    fn what_one_start_puts_aside_stays_until_another_does() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits { keep: 0, wait: None };
        let set_aside = |spool: &Spool, txid: u64| {
            let name = segment(txid);
            put(folder.path(), txid, MOST - 1);
            spool.set_aside(&name).unwrap();
        };
        let aside = || left(&folder.path().join("orphans"));
        let spool = Spool::open(folder.path().into(), limits).unwrap();
        for txid in 1..=3 {
            set_aside(&spool, txid);
        }
        assert_eq!(aside(), [1, 2, 3]);
        let spool = Spool::open(folder.path().into(), limits).unwrap();
        assert_eq!(aside(), [1, 2, 3]);
        for txid in 8..=9 {
            set_aside(&spool, txid);
        }
        assert_eq!(aside(), [1, 8, 9]);
    }
}
