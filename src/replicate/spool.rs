//! The spool: sealed segments on the local disk, waiting for upload. A file lies at the path that the
//! object's name gives, so that names are formatted and parsed in one place.
//!
//! The spool outlives a killed process, not a power loss: nothing here is synced. What is found at a
//! start is proven part by part before it is used.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use genesis_wal::name::{ObjectName, SegmentName};
use genesis_wal::part::{self, Stamp};

use crate::durable::{self, TEMPORARY_PREFIX, Temporary};
use crate::store::FileStore;

/// The folder of sealed segments.
#[derive(Debug, Clone)]
pub struct Spool {
    root: PathBuf,
}

impl Spool {
    /// Opens the spool in `root`, and drops what was not sealed.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(root: PathBuf) -> io::Result<Self> {
        durable::create_folders(&root, 0o700)?;
        for entry in std::fs::read_dir(&root)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes()) {
                std::fs::remove_file(entry.path())?;
            }
        }
        Ok(Self { root })
    }

    /// The sealed segments, in the order of their names.
    ///
    /// # Errors
    /// What the file system says.
    pub fn sealed(&self) -> io::Result<Vec<SegmentName>> {
        let segment = |name| match name {
            ObjectName::Segment(segment) => Some(segment),
            _ => None,
        };
        let names = FileStore::list_folder(&self.root, "")?;
        Ok(names.into_iter().filter_map(|listed| segment(listed.name)).collect())
    }

    /// Where a sealed segment lies.
    #[must_use]
    pub fn path(&self, name: &SegmentName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// Forgets a segment.
    ///
    /// # Errors
    /// What the file system says; a segment that is not there is none.
    pub fn remove(&self, name: &SegmentName) -> io::Result<()> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Puts a segment aside that continues nothing, for somebody to look at; its path then.
    ///
    /// # Errors
    /// What the file system says.
    pub fn set_aside(&self, name: &SegmentName) -> io::Result<PathBuf> {
        let target = self.root.join("orphans").join(name.to_string());
        if let Some(folder) = target.parent() {
            durable::create_folders(folder, 0o700)?;
        }
        durable::rename(&self.path(name), &target)?;
        Ok(target)
    }

    /// Begins a segment.
    ///
    /// # Errors
    /// What the file system says.
    pub fn begin(&self) -> io::Result<OpenSegment> {
        Ok(OpenSegment { file: Temporary::create(&self.root)?, root: self.root.clone(), bytes: 0 })
    }

    /// Puts the stamp of another epoch on a sealed segment, which changes its name.
    ///
    /// # Errors
    /// What the file system says, or that a part is damaged; the segment is left alone then.
    pub fn restamp(&self, name: &SegmentName, stamp: Stamp) -> io::Result<SegmentName> {
        let restamped = SegmentName { epoch: stamp.epoch, generation: stamp.generation, ..*name };
        if restamped == *name {
            return Ok(restamped);
        }
        let mut open = self.begin()?;
        let mut parts = PartFile::open(&self.path(name))?;
        while let Some(mut bytes) = parts.next_part()? {
            part::restamp(&mut bytes, stamp).map_err(io::Error::other)?;
            open.append(&bytes)?;
        }
        open.seal(&restamped).map_err(|(_open, error)| error)?;
        self.remove(name)?;
        Ok(restamped)
    }
}

/// A segment that is being written.
#[derive(Debug)]
pub struct OpenSegment {
    file: Temporary,
    root: PathBuf,
    bytes: u64,
}

impl OpenSegment {
    /// Appends whole parts.
    ///
    /// # Errors
    /// What the file system says. The same parts can be appended again then.
    pub fn append(&mut self, parts: &[u8]) -> io::Result<()> {
        self.file.file().write_all_at(parts, self.bytes)?;
        self.bytes += parts.len() as u64;
        Ok(())
    }

    /// Takes back what was appended after the first `len` bytes.
    pub fn truncate(&mut self, len: u64) {
        self.bytes = len;
    }

    /// Bytes appended so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Gives the segment its name: from here on it waits for upload.
    ///
    /// # Errors
    /// What the file system says, with the segment, as open as before.
    pub fn seal(self, name: &SegmentName) -> Result<(), (Self, io::Error)> {
        let target = self.root.join(name.to_string());
        let folder = target.parent().map_or(Ok(()), |f| durable::create_folders(f, 0o700));
        // Bytes of an append that failed may lie behind the last part.
        let cut = folder.and_then(|()| self.file.file().set_len(self.bytes));
        match cut {
            Ok(()) => {}
            Err(error) => return Err((self, error)),
        }
        let Self { file, root, bytes } = self;
        file.place_unsynced(&target).map_err(|(file, error)| (Self { file, root, bytes }, error))
    }
}

/// The parts of a local object, one at a time.
#[derive(Debug)]
pub struct PartFile {
    file: File,
}

impl PartFile {
    /// Opens a local object.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// The bytes of the next part, as long as its header says; `None` at the end.
    ///
    /// # Errors
    /// What the file system says; [`io::ErrorKind::InvalidData`] for what is no part's header,
    /// [`io::ErrorKind::UnexpectedEof`] for a part that is cut off.
    pub fn next_part(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        (&self.file).take(part::PartHeader::LEN as u64).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let len = part::stored_len(&bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        let rest = len.saturating_sub(bytes.len());
        (&self.file).take(rest as u64).read_to_end(&mut bytes)?;
        if bytes.len() == len { Ok(Some(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}
