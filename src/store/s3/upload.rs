//! Storing an object: whole, or in parts, on condition that its name is free.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use aws_smithy_types::base64;
use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::S3Store;
use super::failure::{Failure, Meaning};
use super::requests::{Verb, deadline};
use crate::store::Body;

/// More than this is stored in parts of this size.
pub const PART: u64 = 16 << 20;

/// More parts than this no store takes.
const MAX_PARTS: u64 = 10_000;

/// So many parts are in memory and on their way at once, whatever is stored at once: 64 MiB.
pub const PARTS_AT_ONCE: usize = 4;

/// To put parts together takes a store some time.
const COMPLETION: u64 = 16 << 20;

/// The bytes to store.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Bytes),
    /// In a file of this size.
    File(Arc<File>, u64),
}

impl Content {
    /// What a body holds.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub async fn of(body: Body) -> io::Result<Self> {
        match body {
            Body::Bytes(bytes) => Ok(Self::Bytes(bytes)),
            Body::File(path) => {
                let open = move || {
                    let file = File::open(path)?;
                    let len = file.metadata()?.len();
                    Ok(Self::File(Arc::new(file), len))
                };
                spawn_blocking(open).await.map_err(io::Error::other)?
            }
        }
    }

    /// How many bytes there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::File(_, len) => *len,
        }
    }

    /// Some of the bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn range(&self, range: Range<u64>) -> Result<Bytes, Failure> {
        let failed = |error: io::Error| {
            Failure::found(Meaning::Permanent, format!("cannot read what is to be stored: {error}"))
        };
        let at = |offset| usize::try_from(offset).map_err(io::Error::other);
        match self {
            Self::Bytes(bytes) => {
                let (start, end) =
                    (at(range.start).map_err(failed)?, at(range.end).map_err(failed)?);
                Ok(bytes.slice(start..end))
            }
            Self::File(file, _) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut bytes = vec![0; at(range.end - range.start)?];
                    file.read_exact_at(&mut bytes, range.start)?;
                    Ok(Bytes::from(bytes))
                };
                let read = spawn_blocking(read).await;
                read.map_err(io::Error::other).flatten().map_err(failed)
            }
        }
    }

    /// The ranges of its parts, each of `size` bytes but for the last.
    pub fn parts(&self, size: u64) -> impl Iterator<Item = Range<u64>> + use<> {
        let len = self.len();
        (0..len.div_ceil(size)).map(move |n| n * size..len.min((n + 1) * size))
    }
}

/// How a store is asked not to replace anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// With `If-None-Match`.
    NameIsFree,
    /// Not at all: it does not understand that.
    None,
}

impl Condition {
    fn header(self) -> Option<String> {
        (self == Self::NameIsFree).then(|| "*".to_owned())
    }
}

/// An object whose parts are being stored.
struct Upload<'a> {
    key: &'a str,
    id: &'a str,
    content: &'a Content,
    progress: Mutex<Progress>,
}

/// How far an upload has come.
struct Progress {
    waiting: Box<dyn Iterator<Item = (i32, Range<u64>)> + Send>,
    /// The parts that are stored, or the first failure.
    stored: Result<Vec<CompletedPart>, Failure>,
}

impl Upload<'_> {
    /// The next part to store; `None` after the last, and after a failure.
    async fn next(&self) -> Option<(i32, Range<u64>)> {
        let mut progress = self.progress.lock().await;
        if progress.stored.is_ok() { progress.waiting.next() } else { None }
    }

    async fn take(&self, part: Result<CompletedPart, Failure>) {
        let stored = &mut self.progress.lock().await.stored;
        match (stored, part) {
            (Ok(parts), Ok(part)) => parts.push(part),
            (stored @ Ok(_), Err(failure)) => *stored = Err(failure),
            (Err(_), _) => {}
        }
    }
}

impl S3Store {
    /// Stores an object.
    ///
    /// # Errors
    /// [`Meaning::Taken`] when its name is not free, as far as the store looks.
    pub(super) async fn put(
        &self,
        key: &str,
        content: &Content,
        condition: Condition,
    ) -> Result<(), Failure> {
        if content.len() > PART {
            return self.put_in_parts(key, content, condition).await;
        }
        let bytes = content.range(0..content.len()).await?;
        let (checksum, within) = (checksum(&bytes), deadline(content.len()));
        let put = self.ask(Verb::Put, within, |client| {
            client
                .put_object()
                .bucket(&self.address.bucket)
                .key(key)
                .set_if_none_match(condition.header())
                .checksum_crc32(checksum)
                .body(bytes.into())
                .send()
        });
        put.await.map(|_stored| ())
    }

    /// Stores a byte with the checksum of another, which a store that checks refuses.
    pub(super) async fn put_damaged(&self, key: &str) -> Result<(), Failure> {
        let put = self.ask(Verb::Put, deadline(0), |client| {
            client
                .put_object()
                .bucket(&self.address.bucket)
                .key(key)
                .checksum_crc32(checksum(b"a"))
                .body(Bytes::from_static(b"b").into())
                .send()
        });
        put.await.map(|_stored| ())
    }

    async fn put_in_parts(
        &self,
        key: &str,
        content: &Content,
        condition: Condition,
    ) -> Result<(), Failure> {
        let id = self.begin_parts(key).await?;
        let stored = match self.put_parts(key, &id, content).await {
            Ok(parts) => self.complete(key, &id, parts, condition).await,
            Err(failure) => Err(failure),
        };
        // What cannot be given up now a lifecycle rule of the bucket must.
        if stored.is_err()
            && let Err(failure) = self.abort(key, &id).await
        {
            tracing::debug!(key, %failure, "cannot give up an upload");
        }
        stored
    }

    /// Stores a part of an object, and gives the object up: whether that could be done.
    pub(super) async fn try_parts(&self, key: &str) -> Result<bool, Failure> {
        let id = self.begin_parts(key).await?;
        let put = self.put_parts(key, &id, &Content::Bytes(Bytes::from_static(b"a"))).await;
        let given_up = self.abort(key, &id).await;
        put.map(|_parts| given_up.is_ok())
    }

    async fn begin_parts(&self, key: &str) -> Result<String, Failure> {
        let begun = self.ask(Verb::Post, deadline(0), |client| {
            client
                .create_multipart_upload()
                .bucket(&self.address.bucket)
                .key(key)
                .checksum_algorithm(ChecksumAlgorithm::Crc32)
                .send()
        });
        let id = begun.await?.upload_id;
        id.ok_or_else(|| Failure::found(Meaning::Passing, "the upload got no id"))
    }

    /// Stores all parts, several at once. After a failure no other is begun, and those under way are
    /// waited for: a part that arrives when its upload was given up stays, and costs.
    async fn put_parts(
        &self,
        key: &str,
        id: &str,
        content: &Content,
    ) -> Result<Vec<CompletedPart>, Failure> {
        let size = PART.max(content.len().div_ceil(MAX_PARTS));
        let waiting = (1..).zip(content.parts(size));
        let progress = Progress { waiting: Box::new(waiting), stored: Ok(Vec::new()) };
        let upload = Upload { key, id, content, progress: Mutex::new(progress) };
        let lane = || Box::pin(self.put_waiting(&upload));
        // As many as PARTS_AT_ONCE.
        tokio::join!(lane(), lane(), lane(), lane());
        let mut parts = upload.progress.into_inner().stored?;
        parts.sort_unstable_by_key(|part| part.part_number);
        Ok(parts)
    }

    /// Stores one part after another, until none waits or one has failed.
    async fn put_waiting(&self, upload: &Upload<'_>) {
        loop {
            // Closed it never is.
            let _in_memory = self.parts.acquire().await.ok();
            let Some((number, range)) = upload.next().await else { return };
            let stored = self.put_part(upload, number, range).await;
            upload.take(stored).await;
        }
    }

    async fn put_part(
        &self,
        upload: &Upload<'_>,
        number: i32,
        range: Range<u64>,
    ) -> Result<CompletedPart, Failure> {
        let bytes = upload.content.range(range).await?;
        let within = deadline(bytes.len() as u64);
        let checksum = checksum(&bytes);
        let put = self.ask(Verb::Put, within, |client| {
            client
                .upload_part()
                .bucket(&self.address.bucket)
                .key(upload.key)
                .upload_id(upload.id)
                .part_number(number)
                .checksum_crc32(&checksum)
                .body(bytes.into())
                .send()
        });
        let tag = put.await?.e_tag;
        let part = CompletedPart::builder().part_number(number).set_e_tag(tag);
        Ok(part.checksum_crc32(checksum).build())
    }

    async fn complete(
        &self,
        key: &str,
        id: &str,
        parts: Vec<CompletedPart>,
        condition: Condition,
    ) -> Result<(), Failure> {
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        let completed = self.ask(Verb::Post, deadline(COMPLETION), |client| {
            client
                .complete_multipart_upload()
                .bucket(&self.address.bucket)
                .key(key)
                .upload_id(id)
                .set_if_none_match(condition.header())
                .multipart_upload(parts)
                .send()
        });
        completed.await.map(|_stored| ())
    }

    /// Gives up an upload, so that its parts cost nothing.
    async fn abort(&self, key: &str, id: &str) -> Result<(), Failure> {
        let aborted = self.ask(Verb::Post, deadline(0), |client| {
            client
                .abort_multipart_upload()
                .bucket(&self.address.bucket)
                .key(key)
                .upload_id(id)
                .send()
        });
        aborted.await.map(|_gone| ())
    }
}

fn checksum(bytes: &[u8]) -> String {
    base64::encode(crc32fast::hash(bytes).to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_cover_everything_once() {
        let content = Content::Bytes(Bytes::from_static(&[0; 10]));
        let ends =
            |size| content.parts(size).map(|part| (part.start, part.end)).collect::<Vec<_>>();
        assert_eq!(ends(4), [(0, 4), (4, 8), (8, 10)]);
        assert_eq!(ends(5), [(0, 5), (5, 10)]);
        assert_eq!(ends(100), [(0, 10)]);
    }

    #[test]
    fn a_checksum_is_the_one_of_the_standard() {
        // The check value of CRC-32/ISO-HDLC.
        assert_eq!(checksum(b"123456789"), base64::encode(0xcbf4_3926_u32.to_be_bytes()));
    }
}
