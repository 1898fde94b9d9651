//! A store in memory, for tests and simulations.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::name::ObjectName;

use super::{Body, Claims, Examine, Listed, Page, SMALL_BYTES, Store, StoreError, StoreErrorKind};

/// Objects by their keys.
pub type Objects = BTreeMap<String, Bytes>;

/// A store in memory. Its clones are the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    claims: Claims,
    /// Keys that are listed at once.
    page: usize,
}

impl MemoryStore {
    /// A store with these objects.
    #[must_use]
    pub fn new(objects: Objects) -> Self {
        let objects = Arc::new(Mutex::new(objects));
        Self { objects, claims: Claims::Exclusive, page: usize::MAX }
    }

    /// The same store, in which of several that create one name at once the last one wins: a model of
    /// object stores without conditional writes.
    #[must_use]
    pub fn with_shared_claims(self) -> Self {
        Self { claims: Claims::Shared, ..self }
    }

    /// The same store, of which so many keys are listed at once.
    #[must_use]
    pub fn with_pages_of(self, page: usize) -> Self {
        Self { page, ..self }
    }

    /// Does anything to the objects.
    pub fn change<T>(&self, change: impl FnOnce(&mut Objects) -> T) -> T {
        change(&mut self.objects.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn look_up<T>(
        &self,
        name: &ObjectName,
        answer: impl FnOnce(&Bytes) -> T,
    ) -> Result<T, StoreError> {
        let key = name.to_string();
        let answer = self.change(|objects| objects.get(&key).map(answer));
        answer.ok_or_else(|| failure(StoreErrorKind::NotFound, "read", key))
    }
}

fn failure(kind: StoreErrorKind, action: &'static str, subject: String) -> StoreError {
    let source = format!("{kind:?}").into();
    StoreError { kind, action, subject, retry_after: 0, source }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        let key = name.to_string();
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::File(path) => tokio::fs::read(path)
                .await
                .map(Bytes::from)
                .map_err(|_unread| failure(StoreErrorKind::NotFound, "store", key.clone()))?,
        };
        let genesis = ObjectName::Genesis.to_string();
        let is_part = !matches!(name, ObjectName::Genesis | ObjectName::Marker(_));
        if is_part && !self.change(|objects| objects.contains_key(&genesis)) {
            return Err(failure(StoreErrorKind::Permanent, "store", key));
        }
        let is_free = !self.change(|objects| objects.contains_key(&key));
        if self.claims == Claims::Shared && is_free {
            // Others may look, too, before anything is stored.
            tokio::task::yield_now().await;
            self.change(|objects| objects.insert(key, bytes));
            return Ok(());
        }
        let stored =
            self.change(|objects| objects.entry(key.clone()).or_insert(bytes.clone()) == &bytes);
        if stored { Ok(()) } else { Err(failure(StoreErrorKind::AlreadyExists, "store", key)) }
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        let found = self.look_up(name, Bytes::clone)?;
        if found.len() as u64 > SMALL_BYTES {
            return Err(failure(StoreErrorKind::Permanent, "read", name.to_string()));
        }
        Ok(found)
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.look_up(name, |object| {
            let cut = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(object.len());
            object.slice(cut(range.start)..cut(range.end).max(cut(range.start)))
        })
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        Ok(self.change(|objects| objects.contains_key(&name.to_string())))
    }

    async fn claims(&self, _witness: &ObjectName) -> Result<Claims, StoreError> {
        Ok(self.claims)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        Ok(self.change(|objects| {
            let named = objects.iter().filter(|(key, _)| key.starts_with(prefix));
            named.filter_map(listed).collect()
        }))
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Page, StoreError> {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        Ok(self.change(|objects| {
            let behind = objects.range::<str, _>((start, Bound::Unbounded));
            let mut named = behind.take_while(|(key, _)| key.starts_with(prefix));
            let page: Vec<_> = named.by_ref().take(self.page).collect();
            let next = named.next().and(page.last()).map(|(key, _)| (*key).clone());
            Page { objects: page.into_iter().filter_map(listed).collect(), next }
        }))
    }
}

fn listed((key, object): (&String, &Bytes)) -> Option<Listed> {
    Some(Listed { name: key.parse().ok()?, size: object.len() as u64 })
}

#[async_trait]
impl Examine for MemoryStore {
    async fn remove(&self, name: &ObjectName) -> Result<(), StoreError> {
        self.change(|objects| objects.remove(&name.to_string()));
        Ok(())
    }

    async fn takes_parts(&self, _name: &ObjectName) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }

    async fn refuses_damage(&self, _name: &ObjectName) -> Result<Option<bool>, StoreError> {
        Ok(None)
    }
}
