//! Objects of a store, read part by part with bounded memory.

use std::fmt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use genesis_wal::name::ObjectName;
use genesis_wal::part::{self, Part, PartError, PartHeader};
use genesis_wal::reader::Reader;
use thiserror::Error;

use crate::store::{Store, StoreError, StoreErrorKind};

/// Bytes fetched at once, or one part where it is longer.
const FETCH: u64 = 4 << 20;

/// Why an object could not be read.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// The store does not give it.
    #[error(transparent)]
    Store(StoreError),
    /// There is no such object, though something says that there is.
    #[error("{name} is missing")]
    Missing {
        /// The object.
        name: ObjectName,
        /// What the store said.
        source: StoreError,
    },
    /// Its bytes are not those that were written.
    #[error("{name} is damaged: {reason}")]
    Damaged {
        /// The object.
        name: ObjectName,
        /// What is wrong.
        reason: String,
    },
}

impl ObjectError {
    /// What a failure to read an object means.
    pub fn unread(name: impl Into<ObjectName>, error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotFound => Self::Missing { name: name.into(), source: error },
            _ => Self::Store(error),
        }
    }

    /// The object that is of no use, if it is the object's fault and not the store's.
    #[must_use]
    pub fn useless(&self) -> Option<ObjectName> {
        match self {
            Self::Store(_) => None,
            Self::Missing { name, .. } | Self::Damaged { name, .. } => Some(*name),
        }
    }

    /// An object whose bytes are wrong.
    pub fn damaged(name: impl Into<ObjectName>, reason: impl fmt::Display) -> Self {
        Self::Damaged { name: name.into(), reason: reason.to_string() }
    }
}

/// A part that is proven by its CRC, with its own bytes.
#[derive(Debug, Clone)]
pub struct OwnedPart {
    header: PartHeader,
    payload: Bytes,
    bytes: Bytes,
}

impl OwnedPart {
    /// The part.
    #[must_use]
    pub fn part(&self) -> Part<'_> {
        Part { header: self.header, payload: &self.payload }
    }

    /// All of its bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads an object's parts, in order.
#[derive(Debug)]
pub struct PartStream {
    store: Arc<dyn Store>,
    name: ObjectName,
    offset: u64,
    /// Whether nothing comes after `offset`.
    ended: bool,
    buffer: BytesMut,
}

impl PartStream {
    /// A stream from the start of an object.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, name: ObjectName) -> Self {
        Self { store, name, offset: 0, ended: false, buffer: BytesMut::new() }
    }

    /// The next part; `None` at the end of the object.
    ///
    /// # Errors
    /// [`ObjectError`], also when the object ends within a part.
    pub async fn next(&mut self) -> Result<Option<OwnedPart>, ObjectError> {
        if !self.fill(PartHeader::LEN).await? && self.buffer.is_empty() {
            return Ok(None);
        }
        let len = part::stored_len(&self.buffer).map_err(|error| self.damaged(error))?;
        self.fill(len).await?;
        let bytes = self.buffer.split_to(len.min(self.buffer.len())).freeze();
        let part = Part::decode(&mut Reader::new(&bytes)).map_err(|error| self.damaged(error))?;
        let (header, payload) = (part.header, bytes.slice_ref(part.payload));
        Ok(Some(OwnedPart { header, payload, bytes }))
    }

    /// The name of the object.
    #[must_use]
    pub fn name(&self) -> ObjectName {
        self.name
    }

    /// Fetches until `wanted` bytes are there; false when the object ends before.
    async fn fill(&mut self, wanted: usize) -> Result<bool, ObjectError> {
        while self.buffer.len() < wanted {
            if self.ended {
                return Ok(false);
            }
            let missing = (wanted - self.buffer.len()) as u64;
            let end = self.offset.saturating_add(missing.max(FETCH));
            let fetched = self.store.get_range(&self.name, self.offset..end).await;
            let fetched = fetched.map_err(|error| ObjectError::unread(self.name, error))?;
            self.offset += fetched.len() as u64;
            // Less than was asked for is all that there is: most objects cost one request.
            self.ended = self.offset < end;
            self.take(fetched);
        }
        Ok(true)
    }

    /// Adds bytes to those that wait, without a copy where none do.
    fn take(&mut self, fetched: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = fetched.into();
        } else {
            self.buffer.extend_from_slice(&fetched);
        }
    }

    fn damaged(&self, error: PartError) -> ObjectError {
        ObjectError::damaged(self.name, error)
    }
}
