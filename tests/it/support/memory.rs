//! A replica in memory, made object by object, and what goes wrong with it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use genesis_replicate::replica::Replica;
use genesis_replicate::store::{Body, Listed, Store, StoreError, StoreErrorKind};
use genesis_wal::name::ObjectName;

/// What happens before a call is answered: an error instead, or a change of the objects.
type Fault = dyn Fn(Call, &mut Objects) -> Option<StoreErrorKind> + Send + Sync;

pub type Objects = BTreeMap<String, Bytes>;

/// What a store is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    List,
    Read(ObjectName),
}

/// Objects in memory.
#[derive(Clone)]
pub struct MemoryStore {
    objects: Arc<Mutex<Objects>>,
    fault: Arc<Fault>,
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl MemoryStore {
    pub fn new(objects: Objects) -> Self {
        Self::with_fault(objects, |_, _| None)
    }

    /// A store in which something goes wrong.
    pub fn with_fault(
        mut objects: Objects,
        fault: impl Fn(Call, &mut Objects) -> Option<StoreErrorKind> + Send + Sync + 'static,
    ) -> Self {
        let description = Bytes::from_static(br#"{"format": 1, "replica": "test"}"#);
        objects.insert(ObjectName::Genesis.to_string(), description);
        Self { objects: Arc::new(Mutex::new(objects)), fault: Arc::new(fault) }
    }

    pub async fn replica(self) -> Replica {
        Replica::open(Arc::new(self)).await.unwrap()
    }

    fn answer<T>(
        &self,
        call: Call,
        answer: impl FnOnce(&Objects) -> Option<T>,
    ) -> Result<T, StoreError> {
        let mut objects = self.objects.lock().unwrap();
        let failure = (self.fault)(call, &mut objects);
        let answer = match failure {
            None => answer(&objects).ok_or(StoreErrorKind::NotFound),
            Some(kind) => Err(kind),
        };
        let subject = format!("{call:?}");
        answer.map_err(|kind| StoreError { kind, action: "read", subject, source: "fault".into() })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, _: &ObjectName, _: Body) -> Result<(), StoreError> {
        unreachable!("nothing is written here")
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.get_range(name, 0..u64::MAX).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.answer(Call::Read(*name), |objects| {
            let object = objects.get(&name.to_string())?;
            let cut = |at: u64| usize::try_from(at).unwrap().min(object.len());
            Some(object.slice(cut(range.start)..cut(range.end)))
        })
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.answer(Call::List, |objects| {
            let named = objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let listed = |(key, object): (&String, &Bytes)| {
                Some(Listed { name: key.parse().ok()?, size: object.len() as u64 })
            };
            Some(named.filter_map(listed).collect())
        })
    }
}
