//! An object store that speaks S3. This is the only module that knows AWS.
//!
//! | module | holds |
//! | --- | --- |
//! | `address` | what an address means |
//! | `keys` | credentials that are given, and told to nobody |
//! | `connect` | the client: credentials, region, what is never done |
//! | `listing` | the names of objects, page by page |
//! | `date` | what its clock says |
//! | `requests` | what is asked for, how often, and how long it may take |
//! | `upload` | storing, whole or in parts |
//! | `failure` | what a failed request means |
//!
//! Bodies are sent with a checksum in a header, computed before: many stores refuse one that follows
//! the body. Requests are never tried again here: that is for [`Retrying`](super::retry::Retrying).
//! Ranges come without a checksum: the objects carry their own.

mod address;
mod connect;
mod date;
mod failure;
mod keys;
mod listing;
mod requests;
mod upload;

use std::error::Error;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{Builder, ResponseChecksumValidation};
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::{Bytes, BytesMut};
use genesis_wal::name::ObjectName;
use genesis_wal::time::Micros;
use tokio::sync::{Mutex, OnceCell, Semaphore};
use tokio::time::timeout;

pub use self::address::S3Address;
pub(crate) use self::address::decoded;
use self::connect::connect;
use self::date::Dates;
use self::failure::{Failure, Meaning};
pub use self::keys::{CREDENTIAL_VARIABLES, Keys};
use self::requests::{ANSWER, Requests, Verb, deadline};
use self::upload::{Condition, Content, PARTS_AT_ONCE};
use super::{Body, Claims, Examine, Listed, Page, SMALL_BYTES, Store, StoreError, StoreErrorKind};
use crate::clock;

/// Bytes compared at once.
const CHUNK: u64 = 8 << 20;

/// A store in a bucket. It connects with its first request. How many there were it tells once an hour in
/// which there were any, and when it goes.
#[derive(Debug)]
pub struct S3Store {
    address: S3Address,
    keys: Option<Keys>,
    client: Mutex<Option<Client>>,
    conditions: OnceCell<Conditions>,
    requests: Requests,
    dates: Dates,
    /// One for each part that may be on its way.
    parts: Semaphore,
}

/// What the service makes of a condition on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    /// It keeps to it.
    Honoured,
    /// It stores regardless.
    Ignored,
    /// It does not store at all.
    Refused,
}

impl Conditions {
    fn as_asked(self) -> Condition {
        if self == Self::Refused { Condition::None } else { Condition::NameIsFree }
    }
}

impl S3Store {
    /// A store at this address, with the credentials that the environment, a profile or the machine
    /// gives. Nothing is asked of it yet.
    #[must_use]
    pub fn new(address: S3Address) -> Self {
        let (client, conditions) = (Mutex::default(), OnceCell::new());
        let (requests, dates) = (Requests::new(clock::monotonic()), Dates::default());
        let parts = Semaphore::new(PARTS_AT_ONCE);
        Self { address, keys: None, client, conditions, requests, dates, parts }
    }

    /// A store at this address, with these keys.
    #[must_use]
    pub fn with_keys(address: S3Address, keys: Keys) -> Self {
        let mut store = Self::new(address);
        store.keys = Some(keys);
        store
    }

    /// The client; credentials are looked for again after they were refused.
    async fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok(client.clone());
        }
        let connected = connect(&self.address, self.keys.as_ref(), self.dates.clone()).await?;
        Ok(client.insert(connected).clone())
    }

    /// Makes one request, within a deadline.
    async fn ask<T, E, F>(
        &self,
        verb: Verb,
        within: Duration,
        request: impl FnOnce(Client) -> F + Send,
    ) -> Result<T, Failure>
    where
        E: ProvideErrorMetadata + Error + 'static,
        F: Future<Output = Result<T, SdkError<E, HttpResponse>>> + Send,
    {
        let request = request(self.client().await?);
        if let Some((requests, minutes)) = self.requests.count(verb, clock::monotonic()) {
            tracing::info!(%requests, minutes, "asked of {}", self.address.place());
        }
        let answer = timeout(within, request).await.map_err(|_elapsed| silent(within))?;
        let answer = answer.map_err(|error| Failure::of(&error, verb));
        if answer.as_ref().is_err_and(Failure::is_of_credentials) {
            self.client.lock().await.take();
        }
        answer
    }

    async fn read(&self, key: &str) -> Result<Bytes, Failure> {
        let asked = self.ask(Verb::Get, ANSWER, |client| {
            client.get_object().bucket(&self.address.bucket).key(key).send()
        });
        let answer = asked.await?;
        collect(answer.content_length, answer.body, SMALL_BYTES).await
    }

    /// A range, cut off at the object's end.
    async fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Failure> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let asked = self.ask(Verb::Get, ANSWER, |client| {
            let last = range.end - 1;
            let unchecked = Builder::default()
                .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
            client
                .get_object()
                .bucket(&self.address.bucket)
                .key(key)
                .range(format!("bytes={}-{last}", range.start))
                .customize()
                .config_override(unchecked)
                .send()
        });
        let answer = match asked.await {
            Err(failure) if failure.meaning == Meaning::BehindTheEnd => return Ok(Bytes::new()),
            other => other?,
        };
        let wanted = range.start..range.end;
        let found = answer.content_range.as_deref().and_then(content_range);
        let Some(found) = found.filter(|found| is_answer_to(found, &wanted)) else {
            let found = answer.content_range.unwrap_or_else(|| "the whole object".to_owned());
            let reason = format!("asked for the bytes {wanted:?}, the store gives {found}");
            return Err(Failure::found(Meaning::Permanent, reason));
        };
        let len = found.bytes.end - found.bytes.start;
        collect(i64::try_from(len).ok(), answer.body, len).await
    }

    /// The size of an object; `None` where there is none.
    async fn size(&self, key: &str) -> Result<Option<u64>, Failure> {
        let asked = self.ask(Verb::Head, ANSWER, |client| {
            client.head_object().bucket(&self.address.bucket).key(key).send()
        });
        match asked.await {
            Ok(head) => Ok(Some(head.content_length.map_or(0, i64::cast_unsigned))),
            Err(failure) if failure.meaning == Meaning::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Stores an object, unless the name holds one already. Where that is the same one all is well: it
    /// may be ours, stored by a request whose answer was lost.
    async fn store(
        &self,
        key: &str,
        content: &Content,
        conditions: Option<Conditions>,
    ) -> Result<Stored, Failure> {
        // A look costs less than the parts.
        let is_honoured = conditions == Some(Conditions::Honoured);
        let must_look = !is_honoured || content.len() > upload::PART;
        if must_look && let Some(size) = self.size(key).await? {
            return self.compare(key, size, content).await;
        }
        let asked = conditions.map_or(Condition::NameIsFree, Conditions::as_asked);
        let mut put = self.put(key, content, asked).await;
        // Of a place where nothing is yet it is not known what it understands.
        if conditions.is_none() && put.as_ref().is_err_and(|f| f.meaning == Meaning::NoConditions) {
            put = self.put(key, content, Condition::None).await;
        }
        match put {
            Ok(()) => Ok(Stored::Ours),
            Err(taken) if taken.meaning == Meaning::Taken => match self.size(key).await? {
                Some(size) => self.compare(key, size, content).await,
                // Somebody was at it, and has not finished.
                None => Err(taken),
            },
            Err(other) => Err(other),
        }
    }

    /// Whether an object of this size is the same as what is to be stored.
    async fn compare(&self, key: &str, size: u64, content: &Content) -> Result<Stored, Failure> {
        if size != content.len() {
            return Ok(Stored::Others);
        }
        for range in content.parts(CHUNK) {
            let ours = content.range(range.clone()).await?;
            let theirs = self.read_range(key, range.clone()).await?;
            if theirs == ours {
                continue;
            }
            // A range has no checksum: only what comes twice is there.
            if self.read_range(key, range).await? != theirs {
                let reason = "the object there is read differently each time";
                return Err(Failure::found(Meaning::Passing, reason));
            }
            return Ok(Stored::Others);
        }
        Ok(Stored::Ours)
    }

    /// What the service makes of conditions. A witness is stored once more, as it is.
    async fn conditions(&self, witness: &ObjectName) -> Result<Conditions, Failure> {
        let probe = || async {
            let key = self.address.key(&witness.to_string());
            let bytes = self.read(&key).await?;
            // What is not honoured replaces the witness: nothing that was damaged on the way.
            if self.read(&key).await? != bytes {
                let reason = "what is there is read differently each time";
                return Err(Failure::found(Meaning::Passing, reason));
            }
            let content = Content::Bytes(bytes);
            match self.put(&key, &content, Condition::NameIsFree).await {
                Ok(()) => Ok(Conditions::Ignored),
                Err(failure) => match failure.meaning {
                    Meaning::Taken => Ok(Conditions::Honoured),
                    Meaning::NoConditions => Ok(Conditions::Refused),
                    _ => Err(failure),
                },
            }
        };
        self.conditions.get_or_try_init(probe).await.copied()
    }

    fn failed(&self, verb: Verb, action: &'static str, name: &str, failure: Failure) -> StoreError {
        let (kind, retry_after) = (failure.kind(verb), failure.retry_after);
        let failed = self.refused(kind, name, failure.into());
        StoreError { action, retry_after, ..failed }
    }

    fn refused(
        &self,
        kind: StoreErrorKind,
        name: &str,
        source: Box<dyn Error + Send + Sync>,
    ) -> StoreError {
        let subject = match name {
            "" => self.address.place(),
            name => format!("{name} in {}", self.address.place()),
        };
        StoreError { kind, action: "store", subject, retry_after: 0, source }
    }
}

impl Drop for S3Store {
    fn drop(&mut self) {
        let requests = self.requests.all();
        if requests.is_any() {
            tracing::info!(%requests, since = "the start", "asked of {}", self.address.place());
        }
    }
}

#[async_trait]
impl Store for S3Store {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        let key = name.to_string();
        let failed = |failure| match self.failed(Verb::Put, "store", &key, failure) {
            // To whoever stores something, what is not found is the body.
            error if error.kind == StoreErrorKind::NotFound => {
                StoreError { kind: StoreErrorKind::Permanent, ..error }
            }
            error => error,
        };
        let content = Content::of(body).await;
        let content =
            content.map_err(|gone| self.refused(StoreErrorKind::NotFound, &key, gone.into()))?;
        let conditions = match name {
            ObjectName::Genesis | ObjectName::Marker(_) => None,
            _ => match self.conditions(&ObjectName::Genesis).await {
                Err(failure) if failure.meaning == Meaning::NotFound => {
                    let reason = "the replica's genesis.json is gone: was its bucket emptied?";
                    return Err(self.refused(StoreErrorKind::Permanent, &key, reason.into()));
                }
                other => Some(other.map_err(failed)?),
            },
        };
        match self.store(&self.address.key(&key), &content, conditions).await.map_err(failed)? {
            Stored::Ours => Ok(()),
            Stored::Others => {
                let reason = "the name holds other bytes".into();
                Err(self.refused(StoreErrorKind::AlreadyExists, &key, reason))
            }
        }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let key = name.to_string();
        let read = self.read(&self.address.key(&key)).await;
        read.map_err(|failure| self.failed(Verb::Get, "read", &key, failure))
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        let key = name.to_string();
        let read = self.read_range(&self.address.key(&key), range).await;
        read.map_err(|failure| self.failed(Verb::Get, "read", &key, failure))
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        let key = name.to_string();
        let size = self.size(&self.address.key(&key)).await;
        let size = size.map_err(|failure| self.failed(Verb::Head, "look for", &key, failure));
        size.map(|size| size.is_some())
    }

    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError> {
        let conditions = self.conditions(witness).await;
        let failed = |failure| self.failed(Verb::Put, "try", &witness.to_string(), failure);
        let conditions = conditions.map_err(failed)?;
        Ok(match conditions {
            Conditions::Honoured => Claims::Exclusive,
            Conditions::Ignored | Conditions::Refused => Claims::Shared,
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let listed = self.list_all(prefix).await;
        listed.map_err(|failure| self.failed(Verb::List, "list", prefix, failure))
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Page, StoreError> {
        let listed = self.list_page(prefix, after).await;
        listed.map_err(|failure| self.failed(Verb::List, "list", prefix, failure))
    }

    fn booted_at(&self) -> Option<Micros> {
        self.dates.booted_at()
    }
}

#[async_trait]
impl Examine for S3Store {
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        let (name, bucket) = (name.to_string(), &self.address.bucket);
        let removed = self.ask(Verb::Delete, ANSWER, |client| {
            client.delete_object().bucket(bucket).key(self.address.key(&name)).send()
        });
        match removed.await {
            Err(failure) if failure.meaning != Meaning::NotFound => {
                Err(self.failed(Verb::Delete, "remove", &name, failure))
            }
            _ => Ok(()),
        }
    }

    async fn refuses_damage(&self, name: &ObjectName) -> Result<Option<bool>, StoreError> {
        let name = name.to_string();
        match self.put_damaged(&self.address.key(&name)).await {
            Ok(()) => Ok(Some(false)),
            // There is nothing to keep off but the damage.
            Err(failure) if failure.is_refusal() => Ok(Some(true)),
            Err(failure) => Err(self.failed(Verb::Put, "store", &name, failure)),
        }
    }

    async fn takes_parts(&self, name: &ObjectName) -> Result<Option<bool>, StoreError> {
        let name = name.to_string();
        let tried = self.try_parts(&self.address.key(&name)).await;
        tried.map(Some).map_err(|failure| self.failed(Verb::Put, "store in parts", &name, failure))
    }
}

/// Whose bytes a name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    /// Those that were to be stored.
    Ours,
    /// Others.
    Others,
}

/// A range of an object's bytes, as an answer tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    bytes: Range<u64>,
    of: u64,
}

/// Reads `bytes 10-19/1000`.
fn content_range(text: &str) -> Option<Found> {
    let (range, of) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some(Found { bytes: first.parse().ok()?..end, of: of.parse().ok()? })
}

fn is_answer_to(found: &Found, wanted: &Range<u64>) -> bool {
    found.bytes.start == wanted.start && found.bytes.end == wanted.end.min(found.of)
}

/// A body of this length, if it has no more than `most` bytes and comes without a long silence.
async fn collect(len: Option<i64>, mut body: ByteStream, most: u64) -> Result<Bytes, Failure> {
    let len = len.and_then(|len| usize::try_from(len).ok());
    let within = deadline(len.unwrap_or(usize::MAX >> 1) as u64);
    let mut bytes = BytesMut::with_capacity(len.unwrap_or(0).min(LARGEST_GUESS));
    let read = async {
        loop {
            let next = timeout(ANSWER, body.try_next()).await.map_err(|_elapsed| silent(ANSWER))?;
            let next = next.map_err(|error| lost(&crate::describe(&error)))?;
            let Some(chunk) = next else { return Ok(()) };
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > most {
                let reason = format!("it has more than {most} bytes");
                return Err(Failure::found(Meaning::Permanent, reason));
            }
        }
    };
    timeout(within, read).await.map_err(|_elapsed| silent(within))??;
    match len {
        Some(len) if len != bytes.len() => Err(lost("it ends too early")),
        _ => Ok(bytes.freeze()),
    }
}

/// Memory that is taken on the word of an answer.
const LARGEST_GUESS: usize = 64 << 20;

fn silent(within: Duration) -> Failure {
    let reason = format!("there was no answer within {} s", within.as_secs());
    Failure::found(Meaning::Unanswered, reason)
}

fn lost(reason: &str) -> Failure {
    Failure::found(Meaning::Unanswered, format!("the answer is lost: {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_held_against_the_question() {
        let found = |text| content_range(text).unwrap();
        assert_eq!(found("bytes 10-19/1000"), Found { bytes: 10..20, of: 1000 });
        assert!(is_answer_to(&found("bytes 10-19/1000"), &(10..20)));
        assert!(is_answer_to(&found("bytes 10-19/20"), &(10..4000)));
        assert!(!is_answer_to(&found("bytes 10-18/1000"), &(10..20)));
        assert!(!is_answer_to(&found("bytes 0-9/1000"), &(10..20)));
        assert!(!is_answer_to(&found("bytes 10-20/1000"), &(10..20)));
        for text in ["", "bytes 1-2", "bytes */10", "bytes 1-18446744073709551615/2", "1-2/3"] {
            assert_eq!(content_range(text), None, "{text}");
        }
    }
}
