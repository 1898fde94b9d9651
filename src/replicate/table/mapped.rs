//! Hashes in a mapped file: the kernel may write them back and forget them, so that they weigh nothing
//! on the heap however large the database is. Where the disk has no room for them they are in memory:
//! whoever reads the WAL must go on.

use std::fs::File;
use std::io;

use genesis_wal::page::PageHash;
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, fallocate};

/// Bytes of a hash.
const ENTRY_LEN: usize = size_of::<u64>();

/// The file has room for at least so many entries: one block of most file systems.
const SMALLEST: usize = 512;

/// The file doubles up to so many entries, and then grows by at least so many.
const GROWTH: usize = 1 << 16;

/// A vector of hashes in a file of its own, which nobody else opens.
#[derive(Debug)]
pub struct MappedHashes {
    file: File,
    map: Option<MmapMut>,
    /// The map is of the file.
    is_in_file: bool,
    len: usize,
}

impl MappedHashes {
    /// An empty vector in `file`, which must be private to this process: without a name, or in a
    /// folder of ours.
    #[must_use]
    pub fn new(file: File) -> Self {
        Self { file, map: None, is_in_file: true, len: 0 }
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `len` entries in all. Their place on the disk is allocated, as a write into a
    /// mapped hole of a full disk would end this process. On one that is full they go into memory.
    ///
    /// # Errors
    /// What the system says where memory has no room either; nothing has changed then.
    pub fn reserve(&mut self, len: usize) -> io::Result<()> {
        let capacity = self.map.as_ref().map_or(0, |map| map.len() / ENTRY_LEN);
        if len <= capacity {
            return Ok(());
        }
        let entries = if len <= GROWTH {
            len.next_power_of_two().max(SMALLEST)
        } else {
            len.max(capacity + GROWTH).next_multiple_of(GROWTH)
        };
        let bytes = entries * ENTRY_LEN;
        let allocated = fallocate(&self.file, FallocateFlags::empty(), 0, bytes as u64);
        let mapped = allocated.map_err(Into::into).and_then(|()| map(&self.file, bytes));
        let is_in_file = mapped.is_ok();
        let mut longer = mapped.or_else(|error| in_memory(bytes, &error))?;
        // A longer map of the same file holds what the shorter one does.
        if let Some(shorter) = self.map.as_ref().filter(|_| !(is_in_file && self.is_in_file))
            && let Some(room) = longer.get_mut(..shorter.len())
        {
            room.copy_from_slice(shorter);
        }
        (self.map, self.is_in_file) = (Some(longer), is_in_file);
        Ok(())
    }

    /// Appends an entry, for which room was [reserved](Self::reserve).
    pub fn push(&mut self, hash: PageHash) {
        self.len += 1;
        self.set(self.len - 1, hash);
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<PageHash> {
        let bytes = self.map.as_ref()?.get(place(index)).filter(|_| index < self.len)?;
        Some(PageHash(u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// Overwrites an entry.
    pub fn set(&mut self, index: usize, hash: PageHash) {
        let room = self.map.as_mut().and_then(|map| map.get_mut(place(index)));
        debug_assert!(index < self.len && room.is_some(), "room was reserved for entry {index}");
        if let Some(room) = room {
            room.copy_from_slice(&hash.0.to_le_bytes());
        }
    }

    /// Drops the entries from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The entries as bytes, little-endian.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.map.as_ref().and_then(|map| map.get(..self.len * ENTRY_LEN)).unwrap_or_default()
    }
}

fn place(index: usize) -> std::ops::Range<usize> {
    index * ENTRY_LEN..(index + 1) * ENTRY_LEN
}

fn in_memory(bytes: usize, reason: &io::Error) -> io::Result<MmapMut> {
    let map = MmapMut::map_anon(bytes)?;
    tracing::warn!(%reason, bytes, "the disk has no room for the page table: it is kept in memory");
    Ok(map)
}

#[expect(unsafe_code, reason = "mapping a file is unsafe, as others could truncate it")]
fn map(file: &File, bytes: usize) -> io::Result<MmapMut> {
    // SAFETY: the file is this process's alone, and never gets shorter; all of its blocks are allocated up to
    // `bytes`. Only this vector reads or writes it. That of a running replication is in a folder that nobody
    // else may enter; the one that `restore` makes beside its output may be in a folder that is open to others:
    // it has no name there, or one that only its owner may open. (Where a disk copies what is written anew, or
    // has promised more room than it has, a write may still find none: then the process ends with SIGBUS.)
    unsafe { memmap2::MmapOptions::new().len(bytes).map_mut(file) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_outlive_growth_and_shrinking() {
        let mut hashes = MappedHashes::new(tempfile::tempfile().unwrap());
        let many = GROWTH * 2 + 3;
        for n in 0..many {
            hashes.reserve(n + 1).unwrap();
            hashes.push(PageHash(n as u64 * 3));
        }
        assert_eq!(hashes.len(), many);
        assert!((0..many).all(|n| hashes.get(n) == Some(PageHash(n as u64 * 3))));
        hashes.truncate(5);
        assert_eq!((hashes.get(4), hashes.get(5)), (Some(PageHash(12)), None));
        hashes.set(4, PageHash(7));
        assert_eq!(&hashes.as_bytes()[32..], 7u64.to_le_bytes());
    }

    #[test]
    fn entries_move_into_memory_where_the_disk_has_no_room_and_back() {
        let full = || File::options().read(true).write(true).open("/dev/full").unwrap();
        let mut hashes = MappedHashes::new(tempfile::tempfile().unwrap());
        let mut grow = |file: Option<File>| {
            let room = file.map(|file| std::mem::replace(&mut hashes.file, file));
            let first = hashes.len();
            hashes.reserve(first + GROWTH).unwrap();
            (first..first + GROWTH).for_each(|n| hashes.push(PageHash(n as u64 * 3)));
            assert!((0..hashes.len()).all(|n| hashes.get(n) == Some(PageHash(n as u64 * 3))));
            (room, hashes.is_in_file)
        };
        assert!(grow(None).1);
        let (room, is_in_file) = grow(Some(full()));
        assert!(!is_in_file && !grow(None).1);
        assert!(grow(room).1 && grow(None).1);
    }

    #[test]
    fn no_room_at_all_is_an_error_and_changes_nothing() {
        let mut hashes = MappedHashes::new(tempfile::tempfile().unwrap());
        hashes.reserve(1).unwrap();
        hashes.push(PageHash(9));
        assert!(hashes.reserve(1 << 50).is_err());
        assert_eq!(hashes.get(0), Some(PageHash(9)));
    }
}
