//! Shipped segments that are kept, to be merged without being read from the replica.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ObjectName, SegmentName};

use super::{Spool, move_file};
use crate::store::FileStore;

/// The folder of kept segments.
#[derive(Debug)]
pub struct Kept {
    root: PathBuf,
    /// Bytes in each, the oldest first.
    sizes: BTreeMap<Age, u64>,
    bytes: u64,
}

type Age = (Generation, Txid, SegmentName);

impl Kept {
    /// Opens the folder, which need not be there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        let listed = FileStore::list_folder(&root, "")?;
        let mut kept = Self { root, sizes: BTreeMap::new(), bytes: 0 };
        for file in listed {
            if let ObjectName::Segment(name) = file.name {
                kept.add(name, file.size);
            }
        }
        Ok(kept)
    }

    /// Where a segment is kept.
    pub fn path(&self, name: &SegmentName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Where a segment is kept, if it is.
    pub fn find(&self, name: &SegmentName) -> Option<PathBuf> {
        self.sizes.contains_key(&age(name)).then(|| self.path(name))
    }

    /// Bytes in all of them.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes a segment that lies in its place.
    pub fn add(&mut self, name: SegmentName, size: u64) {
        let before = self.sizes.insert(age(&name), size).unwrap_or(0);
        self.bytes = (self.bytes + size).saturating_sub(before);
    }

    /// Takes a segment out; where its file is, which is to be removed.
    #[must_use]
    pub fn take_out(&mut self, name: &SegmentName) -> Option<PathBuf> {
        let size = self.sizes.remove(&age(name))?;
        self.bytes = self.bytes.saturating_sub(size);
        Some(self.path(name))
    }

    /// Takes the oldest out until at most `limit` bytes are left; where their files are, which are to be
    /// removed.
    #[must_use]
    pub fn cut(&mut self, limit: u64) -> Vec<PathBuf> {
        let mut cut = Vec::new();
        while self.bytes > limit
            && let Some((&(_, _, name), _)) = self.sizes.first_key_value()
        {
            cut.extend(self.take_out(&name));
        }
        cut
    }
}

impl Spool {
    /// The segments of a generation that are kept and end after a transaction, in the order of their first
    /// ones.
    #[must_use]
    pub fn kept_above(&self, generation: Generation, txid: Txid) -> Vec<SegmentName> {
        let books = self.books();
        let names = books.kept.sizes.keys().map(|(_, _, name)| *name);
        let mut above: Vec<_> =
            names.filter(|name| name.generation == generation && name.last > txid).collect();
        above.sort_unstable_by_key(|name| (name.first, *name));
        above
    }

    /// Lets a segment that is kept wait for upload.
    ///
    /// # Errors
    /// What the file system says; it is kept then.
    pub fn ship_again(&self, name: &SegmentName) -> io::Result<()> {
        let Some(from) = self.kept(name) else { return Ok(()) };
        move_file(&from, &self.path(name))?;
        let size = self.size(name);
        let mut books = self.books();
        // The file is in its new place.
        let _moved = books.kept.take_out(name);
        books.comes(*name, size);
        Ok(())
    }
}

fn age(name: &SegmentName) -> Age {
    (name.generation, name.last, *name)
}
