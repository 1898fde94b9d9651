//! A replica in memory, made object by object, and what goes wrong with it.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use genesis_replicate::replica::Replica;
use genesis_replicate::store::{
    Body, Claims, Listed, MemoryStore, Objects, Page, Store, StoreError, StoreErrorKind,
};
use genesis_wal::name::ObjectName;

/// What happens before a call is answered: an error instead, or a change of the objects.
type Fault = dyn Fn(Call, &mut Objects) -> Option<StoreErrorKind> + Send + Sync;

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    List,
    Read(ObjectName),
}

/// A store in memory that holds a replica, and in which something may go wrong.
#[derive(Clone)]
pub struct FaultyStore {
    memory: MemoryStore,
    fault: Arc<Fault>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

impl FaultyStore {
    /// A store in which nothing goes wrong, and few names are listed at once.
    pub fn new(objects: Objects) -> Self {
        Self::with_fault(objects, |_, _| None).with_pages_of(3)
    }

    /// The same store, of which so many names are listed at once.
    pub fn with_pages_of(self, page: usize) -> Self {
        Self { memory: self.memory.with_pages_of(page), ..self }
    }

    /// A store in which something goes wrong.
    pub fn with_fault(
        mut objects: Objects,
        fault: impl Fn(Call, &mut Objects) -> Option<StoreErrorKind> + Send + Sync + 'static,
    ) -> Self {
        let description = Bytes::from_static(br#"{"format": 1, "replica": "test"}"#);
        objects.insert(ObjectName::Genesis.to_string(), description);
        Self { memory: MemoryStore::new(objects), fault: Arc::new(fault) }
    }

    pub async fn replica(self) -> Replica {
        Replica::open(Arc::new(self)).await.unwrap()
    }

    fn strike(&self, call: Call) -> Result<(), StoreError> {
        let failure = |kind| StoreError {
            kind,
            action: "read",
            subject: format!("{call:?}"),
            retry_after: 0,
            source: "fault".into(),
        };
        self.memory
            .change(|objects| (self.fault)(call, objects))
            .map_or(Ok(()), |kind| Err(failure(kind)))
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        self.memory.create(name, body).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.strike(Call::Read(*name))?;
        self.memory.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.strike(Call::Read(*name))?;
        self.memory.get_range(name, range).await
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.strike(Call::Read(*name))?;
        self.memory.exists(name).await
    }

    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError> {
        self.memory.claims(witness).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let (mut listed, mut after) = (Vec::new(), String::new());
        loop {
            let page = self.list_after(prefix, &after).await?;
            listed.extend(page.objects);
            match page.next {
                Some(next) => after = next,
                None => return Ok(listed),
            }
        }
    }

    async fn list_after(&self, prefix: &str, after: &str) -> Result<Page, StoreError> {
        self.strike(Call::List)?;
        self.memory.list_after(prefix, after).await
    }
}
