//! A folder as a store: each object is a file at its name below the folder.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::name::ObjectName;
use tokio::task::spawn_blocking;

use super::{Body, Claims, Examine, Listed, SMALL_BYTES, Store, StoreError, StoreErrorKind};
use crate::durable::{self, Temporary};
use crate::uncached;

/// A store in a local folder, which is created with the first object.
#[derive(Debug, Clone)]
pub struct FileStore {
    root: PathBuf,
    /// The folders in which nothing that was left is looked for any more.
    swept: Arc<Mutex<BTreeSet<PathBuf>>>,
}

impl FileStore {
    /// A store in `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root, swept: Arc::default() }
    }

    /// What [`Store::list`] yields for the store in `root`, without a runtime.
    ///
    /// # Errors
    /// What the file system says.
    pub fn list_folder(root: &Path, prefix: &str) -> io::Result<Vec<Listed>> {
        list(root, prefix)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        subject: String,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let root = self.root.clone();
        let subject = if subject.is_empty() { root.display().to_string() } else { subject };
        let result = spawn_blocking(move || work(&root)).await;
        result.map_err(io::Error::other).flatten().map_err(|source| StoreError {
            kind: classify(&source),
            action,
            subject,
            retry_after: 0,
            source: source.into(),
        })
    }
}

#[async_trait]
impl Store for FileStore {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        let key = name.to_string();
        let path = PathBuf::from(&key);
        let first = is_first(name);
        let swept = Arc::clone(&self.swept);
        let create = move |root: &Path| {
            if !first && !has_genesis(root) {
                return Ok(Created::Gone);
            }
            let target = root.join(path);
            let folder = target.parent().unwrap_or(root);
            if swept.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned()) {
                durable::sweep(folder, durable::LEFT);
            }
            create(&target, &body)
        };
        let failed = |kind, source| StoreError {
            kind,
            action: "store",
            subject: key.clone(),
            retry_after: 0,
            source,
        };
        let created = self.blocking("store", key.clone(), create).await;
        // A folder that goes while it is written to may come back.
        let passing = |error: StoreError| match error.kind {
            StoreErrorKind::NotFound => StoreError { kind: StoreErrorKind::Passing, ..error },
            _ => error,
        };
        match created.map_err(passing)? {
            Created::Done => Ok(()),
            Created::Taken => {
                let source = io::Error::from(io::ErrorKind::AlreadyExists).into();
                Err(failed(StoreErrorKind::AlreadyExists, source))
            }
            Created::BodyGone(source) => Err(failed(StoreErrorKind::NotFound, source.into())),
            Created::Gone => Err(failed(StoreErrorKind::Permanent, GONE.into())),
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let key = name.to_string();
        let path = PathBuf::from(&key);
        self.blocking("read", key, move |root| read_small(&root.join(path))).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let key = name.to_string();
        let path = PathBuf::from(&key);
        self.blocking("read", key, move |root| read_range(&root.join(path), range)).await
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let key = name.to_string();
        let path = PathBuf::from(&key);
        let first = is_first(name);
        let look =
            move |root: &Path| match root.join(path).metadata() {
                // Of a folder that is gone nobody knows what is in it: it may come back.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if first || has_genesis(root) { Ok(false) } else { Err(io::Error::other(GONE)) }
                }
                other => other.map(|metadata| metadata.is_file()),
            };
        self.blocking("look for", key, look).await
    }

    async fn claims(&self, _witness: &ObjectName) -> Result<Claims, StoreError> {
        Ok(Claims::Exclusive)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let wanted = prefix.to_owned();
        self.blocking("list", prefix.to_owned(), move |root| list(root, &wanted)).await
    }
}

#[async_trait]
impl Examine for FileStore {
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let key = name.to_string();
        let path = PathBuf::from(&key);
        self.blocking("remove", key, move |root| remove(&root.join(path))).await
    }

    async fn refuses_damage(&self, _name: &ObjectName) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }

    async fn takes_parts(&self, _name: &ObjectName) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}

/// Why nothing is stored in a folder, or told of it.
const GONE: &str = "the replica's genesis.json is gone: was its folder wiped or unmounted?";

/// Whether an object may be where no replica is.
fn is_first(name: &ObjectName) -> bool {
    matches!(name, ObjectName::Genesis | ObjectName::Marker(_))
}

fn has_genesis(root: &Path) -> bool {
    root.join(ObjectName::Genesis.to_string()).is_file()
}

fn classify(error: &io::Error) -> StoreErrorKind {
    match error.kind() {
        io::ErrorKind::NotFound => StoreErrorKind::NotFound,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::FileTooLarge
        | io::ErrorKind::InvalidFilename => StoreErrorKind::Permanent,
        _ => StoreErrorKind::Passing,
    }
}

/// What came of storing an object.
enum Created {
    /// It is there.
    Done,
    /// The name holds other bytes.
    Taken,
    /// There is nothing to store: the local file cannot be read.
    BodyGone(io::Error),
    /// The folder is not the one that the replica was made in.
    Gone,
}

fn create(target: &Path, body: &Body) -> io::Result<Created> {
    let folder = target.parent().unwrap_or(Path::new("."));
    durable::create_folders(folder, 0o700)?;
    let temporary = match write(folder, body)? {
        Ok(temporary) => temporary,
        Err(gone) => return Ok(Created::BodyGone(gone)),
    };
    match temporary.place(target) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !holds(target, body)? {
                return Ok(Created::Taken);
            }
            // Whoever placed it may have been killed before it was durable, or its sync has failed: then
            // another sync of the same file proves nothing.
            match write(folder, body)? {
                Ok(again) => again.replace(target).map(|()| Created::Done),
                Err(gone) => Ok(Created::BodyGone(gone)),
            }
        }
        other => other.map(|()| Created::Done),
    }
}

/// The body in a temporary file; the inner error says that there is no such local file.
fn write(folder: &Path, body: &Body) -> io::Result<Result<Temporary, io::Error>> {
    let temporary = Temporary::create(folder)?;
    match body {
        // Packs and manifests: who reads them may be another machine.
        Body::Bytes(bytes) => uncached::append(temporary.file(), bytes)?,
        Body::File(path) => match File::open(path) {
            Ok(mut file) => {
                io::copy(&mut file, &mut temporary.file())?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Err(error)),
            Err(error) => return Err(error),
        },
    }
    Ok(Ok(temporary))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // An empty folder is nobody's object.
    match path.parent().map(std::fs::remove_dir) {
        Some(Err(error)) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Some(removed) => removed,
        None => Ok(()),
    }
}

/// Whether the file at `path` holds exactly the body.
fn holds(path: &Path, body: &Body) -> io::Result<bool> {
    let mut stored = File::open(path)?;
    match body {
        Body::Bytes(bytes) => same_bytes(&mut stored, &mut &bytes[..]),
        Body::File(local) => same_bytes(&mut stored, &mut File::open(local)?),
    }
}

fn same_bytes(one: &mut impl Read, other: &mut impl Read) -> io::Result<bool> {
    const CHUNK: u64 = 64 << 10;
    loop {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        one.take(CHUNK).read_to_end(&mut here)?;
        other.take(CHUNK).read_to_end(&mut there)?;
        if here != there {
            return Ok(false);
        }
        if here.is_empty() {
            return Ok(true);
        }
    }
}

fn read_small(path: &Path) -> io::Result<Bytes> {
    let bytes = read_range(path, 0..SMALL_BYTES + 1)?;
    if bytes.len() as u64 > SMALL_BYTES {
        let reason = format!("it has more than {SMALL_BYTES} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    let end = range.end.min(file.metadata()?.len());
    let wanted = end.saturating_sub(range.start);
    let mut bytes = Vec::with_capacity(usize::try_from(wanted).map_err(io::Error::other)?);
    file.seek(SeekFrom::Start(range.start))?;
    file.take(wanted).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn list(root: &Path, prefix: &str) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    // Prefixes end at a folder, so the walk can begin there.
    let start = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    walk(root, start, &mut found)?;
    found.retain(|(key, _)| key.starts_with(prefix));
    found.sort_unstable();
    let parse = |(key, size): (String, u64)| Some(Listed { name: key.parse().ok()?, size });
    Ok(found.into_iter().filter_map(parse).collect())
}

fn walk(root: &Path, folder: &str, found: &mut Vec<(String, u64)>) -> io::Result<()> {
    let entries = match std::fs::read_dir(root.join(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut entries = entries.collect::<io::Result<Vec<_>>>()?;
    entries.sort_unstable_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let Ok(file_name) = entry.file_name().into_string() else {
            continue;
        };
        let key = if folder.is_empty() { file_name } else { format!("{folder}/{file_name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &key, found)?;
        } else if kind.is_file() {
            match entry.metadata() {
                Ok(metadata) => found.push((key, metadata.len())),
                // A temporary file may go while we look.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use genesis_wal::id::Epoch;
    use genesis_wal::name::ClaimName;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_gone_does_not_tell_that_a_claim_is() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path().join("replica"));
        let claim = ObjectName::from(ClaimName { epoch: Epoch(1), nonce: None });
        let error = store.exists(&claim).await.unwrap_err();
        assert_eq!(error.kind, StoreErrorKind::Passing);
        assert!(crate::describe(&error).contains("genesis.json is gone"), "{error:?}");
        assert!(!store.exists(&ObjectName::Genesis).await.unwrap());

        store.create(&ObjectName::Genesis, Body::Bytes(Bytes::from_static(b"{}"))).await.unwrap();
        assert!(!store.exists(&claim).await.unwrap());
    }
}
