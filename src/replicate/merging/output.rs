//! A merged segment in the making.

use std::io;
use std::path::Path;

use genesis_wal::name::SegmentName;
use genesis_wal::part::Part;
use genesis_wal::reader::Reader;
use genesis_wal::segment::Sequence;
use thiserror::Error;

use crate::object::ObjectError;
use crate::replicate::spool::{OpenSegment, PartFile, Spool};
use crate::store::StoreError;

/// Why nothing was merged.
#[derive(Debug, Error)]
pub enum MergeError {
    /// A segment is missing, damaged, or does not follow the one before.
    #[error("{name} cannot be merged: {reason}")]
    Useless {
        /// The segment.
        name: SegmentName,
        /// What is wrong with it.
        reason: String,
    },
    /// The replica.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The local disk.
    #[error("cannot write the spool")]
    Local(#[from] io::Error),
}

impl From<ObjectError> for MergeError {
    fn from(error: ObjectError) -> Self {
        match (error.useless(), error) {
            (_, ObjectError::Store(error)) => Self::Store(error),
            (Some(genesis_wal::name::ObjectName::Segment(name)), error) => {
                Self::Useless { name, reason: error.to_string() }
            }
            (_, error) => Self::Local(io::Error::other(error)),
        }
    }
}

/// Parts that follow one another, in a file.
#[derive(Debug)]
pub struct Output {
    open: OpenSegment,
    /// All of them so far; `None` before the first.
    sequence: Option<Sequence>,
    /// Where the segment begins that is being appended.
    mark: (u64, Option<Sequence>),
}

impl Output {
    /// Begins with nothing; so many bytes are to come.
    ///
    /// # Errors
    /// When there is no room.
    pub fn begin(spool: &Spool, bytes: u64) -> io::Result<Self> {
        Ok(Self { open: spool.begin_merged(bytes)?, sequence: None, mark: (0, None) })
    }

    /// Begins to append a segment.
    pub fn begin_segment(&mut self) {
        self.mark = (self.open.len(), self.sequence);
    }

    /// Appends a part.
    ///
    /// # Errors
    /// [`MergeError::Useless`] where it does not follow.
    pub fn take(&mut self, bytes: &[u8], name: SegmentName) -> Result<(), MergeError> {
        let useless = |reason: &dyn std::fmt::Display| MergeError::Useless {
            name,
            reason: reason.to_string(),
        };
        let part = Part::decode(&mut Reader::new(bytes)).map_err(|error| useless(&error))?;
        if part.header.stamp.generation != name.generation {
            return Err(useless(&"it is of another generation than its name says"));
        }
        let begins = self.open.len() == self.mark.0;
        if begins && part.header.first != name.first {
            return Err(useless(&"it begins with another transaction than its name says"));
        }
        let sequence = self.sequence.get_or_insert_with(|| Sequence::beginning_with(&part.header));
        sequence.accept(&part).map_err(|error| useless(&error))?;
        Ok(self.open.append(bytes)?)
    }

    /// Ends a segment.
    ///
    /// # Errors
    /// [`MergeError::Useless`] where it does not hold what its name says.
    pub fn end_segment(&self, name: SegmentName) -> Result<(), MergeError> {
        let reached = self.sequence.and_then(|sequence| sequence.finish().ok());
        if reached.is_some_and(|reached| reached.txid == name.last) {
            return Ok(());
        }
        let reason = "it ends with another transaction than its name says".to_owned();
        Err(MergeError::Useless { name, reason })
    }

    /// Appends a whole segment from a local file; false, and nothing is appended, where that cannot be
    /// read or is not the segment.
    ///
    /// # Errors
    /// [`MergeError::Local`] when it cannot be written.
    pub fn copy(&mut self, path: &Path, name: SegmentName) -> Result<bool, MergeError> {
        self.begin_segment();
        match self.copy_parts(path, name) {
            Ok(true) => Ok(true),
            Ok(false) | Err(MergeError::Useless { .. }) => {
                self.open.truncate(self.mark.0);
                self.sequence = self.mark.1;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    fn copy_parts(&mut self, path: &Path, name: SegmentName) -> Result<bool, MergeError> {
        let Ok(mut parts) = PartFile::open(path) else { return Ok(false) };
        loop {
            match parts.next_part() {
                Ok(Some(bytes)) => self.take(&bytes, name)?,
                Ok(None) => return self.end_segment(name).map(|()| true),
                Err(_unreadable) => return Ok(false),
            }
        }
    }

    /// The whole file.
    ///
    /// # Errors
    /// What the file system says.
    pub fn end(self) -> io::Result<OpenSegment> {
        self.open.end()?;
        Ok(self.open)
    }
}
