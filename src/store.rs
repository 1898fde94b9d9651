//! Where a replica's objects live: one small trait, and one implementation for each kind of place.
//!
//! Objects are written once and never changed. A store knows names and bytes, and nothing of SQLite.

mod file;
mod memory;
pub mod retry;
mod s3;

use std::error::Error as StdError;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::name::ObjectName;
use genesis_wal::time::Micros;
use thiserror::Error;

pub use file::FileStore;
pub use memory::{MemoryStore, Objects};
pub(crate) use s3::decoded;
pub use s3::{CREDENTIAL_VARIABLES, Keys, S3Address, S3Store};

/// The most bytes of an object that is read as a whole.
pub const SMALL_BYTES: u64 = 1 << 20;

/// A place for a replica's objects.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Stores an object under a name that holds none. When it returns, the object outlives a power
    /// loss. Storing the same bytes again is no error, so that a retry after a lost answer succeeds.
    ///
    /// # Errors
    /// [`StoreErrorKind::AlreadyExists`] when the name holds other bytes; they are left alone. Where
    /// [claims](Self::claims) are shared, bytes that another stores at the same moment may be lost.
    /// [`StoreErrorKind::NotFound`] when the body is a file that cannot be read. Into a place that holds
    /// no `genesis.json` nothing else but markers is stored where that can be known without a request.
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError>;

    /// A whole object, of those that are small by their kind.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] when the name holds none; [`StoreErrorKind::Permanent`] when it has
    /// more than [`SMALL_BYTES`], of which no more are fetched.
    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError>;

    /// A range of an object's bytes, cut off at its end: fewer bytes than were asked for are the last.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] when the name holds none.
    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Whether the name holds an object: one small request.
    ///
    /// # Errors
    /// When the place cannot be asked; never because there is none. A folder without a replica cannot be
    /// asked for what a replica holds: it may be unmounted, and come back.
    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError>;

    /// Whether a name can be claimed by creating it. A store that has to be tried is tried with
    /// `witness`, an object that is there: to create it once more must fail. The answer is kept.
    ///
    /// # Errors
    /// [`StoreErrorKind::NotFound`] when the witness is not there and is needed.
    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError>;

    /// All objects whose names begin with `prefix`, in the order of their names. Keys that name no
    /// object of a replica are left out. An empty or missing place holds no objects. They are also looked
    /// at in that order: where one is found that was stored after another with a greater name, that one is
    /// found, too.
    ///
    /// # Errors
    /// When the place cannot be read; never because it is empty.
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError>;

    /// The first of these objects: as many as one request tells of those behind the key `after`.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    async fn list_after(&self, prefix: &str, after: &str) -> Result<Page, StoreError> {
        let mut objects = self.list(prefix).await?;
        objects.retain(|object| object.name.to_string().as_str() > after);
        Ok(Page { objects, next: None })
    }

    /// When this machine was started, by the place's own clock: what that said last, less
    /// [`clock::since_boot`](crate::clock::since_boot) then. `None` where it has none, or has said
    /// nothing yet.
    fn booted_at(&self) -> Option<Micros> {
        None
    }
}

/// What is needed to find out what a place can do, and not to follow or restore a database.
#[async_trait]
pub trait Examine: Store {
    /// Removes an object. One that is not there is no failure.
    ///
    /// # Errors
    /// When it cannot be removed.
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError>;

    /// Stores bytes that are not those of which the checksum is sent, under a name that holds none, and
    /// says whether that is refused, as it should be; `None` where no checksum is sent.
    ///
    /// # Errors
    /// When that cannot be told.
    async fn refuses_damage(&self, name: &ObjectName) -> Result<Option<bool>, StoreError>;

    /// Begins to store an object in parts, gives that up, and says whether it could be given up; `None`
    /// where nothing is stored in parts.
    ///
    /// # Errors
    /// When no part can be stored.
    async fn takes_parts(&self, name: &ObjectName) -> Result<Option<bool>, StoreError>;
}

/// The bytes of an object to store.
#[derive(Debug, Clone)]
pub enum Body {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A local file, which is streamed.
    File(PathBuf),
}

/// An object that a listing found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The object's name.
    pub name: ObjectName,
    /// Its size in bytes.
    pub size: u64,
}

/// A part of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The objects, in the order of their names. There may be none on a page, and more behind it.
    pub objects: Vec<Listed>,
    /// The key behind which the listing goes on; `None` where it ends.
    pub next: Option<String>,
}

/// What it is worth to have created a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claims {
    /// Of several that create one name with different bytes, one is told that it did.
    Exclusive,
    /// Of several that do so at the same moment, more than one may be told so, and the bytes of one are
    /// kept: a claim's name must tell it from others, and who won is seen in a listing.
    Shared,
}

/// What a caller may want to know of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorKind {
    /// There is no such object.
    NotFound,
    /// The name holds other bytes.
    AlreadyExists,
    /// It will fail again until somebody changes something: permissions, a wrong place.
    Permanent,
    /// It may pass: try again.
    Passing,
    /// As passing, but it may have been done: the answer was lost. To try again settles it.
    PerhapsDone,
}

impl StoreErrorKind {
    /// Whether to try again is of use.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Passing | Self::PerhapsDone)
    }
}

/// A failure of a store.
#[derive(Debug, Error)]
#[error("cannot {action} {subject}")]
pub struct StoreError {
    /// What the failure means.
    pub kind: StoreErrorKind,
    /// What was tried: a verb.
    pub action: &'static str,
    /// On what: an object name or a place.
    pub subject: String,
    /// Seconds for which the place wants to be left alone.
    pub retry_after: u32,
    /// What the place said.
    pub source: Box<dyn StdError + Send + Sync>,
}
