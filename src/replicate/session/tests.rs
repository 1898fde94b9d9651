//! How a session ends.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::id::Epoch;
use genesis_wal::name::{ClaimName, ObjectName};

use super::super::ship::ShippingEnded;
use super::*;
use crate::store::{Body, Claims, Listed, MemoryStore, Objects, StoreError};

#[tokio::test]
async fn shipping_that_fails_is_told_when_the_follower_has_ended() {
    let (waker, alarm) = alarm().unwrap();
    let (sender, following) = oneshot::channel();
    let has_ended = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&has_ended);
    std::thread::spawn(move || {
        while !alarm.stopping() {
            alarm.wait(Duration::from_secs(1));
        }
        // As long as a look takes.
        alarm.wait(Duration::from_millis(50));
        ended.store(true, Ordering::Release);
        sender.send(Ok(None)).ok();
    });
    let shipping = tokio::spawn(async { Err(ShipError::Fenced(Epoch(1))) });
    let asking = tokio::spawn(async { Ok(()) });
    let (held, durable) = (Arc::default(), watch::channel(None).1);
    let parts = Parts { following, asking, shipping, held, durable, waker };
    let end = parts.end().await;
    assert!(matches!(end, Err(SessionError::Ship(ShipError::Fenced(Epoch(1))))), "{end:?}");
    assert!(has_ended.load(Ordering::Acquire), "it follows on without its local state");
}

/// A store in which another writer claims the epoch after that of each base that is stored.
#[derive(Debug)]
struct Passing(MemoryStore);

#[async_trait]
impl Store for Passing {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        if let ObjectName::Base(epoch) = name {
            let next = ClaimName { epoch: epoch.next().unwrap(), nonce: None };
            self.0.create(&next.into(), Body::Bytes("claim".into())).await?;
        }
        self.0.create(name, body).await
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        self.0.get(name).await
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(name, range).await
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        self.0.exists(name).await
    }

    async fn claims(&self, witness: &ObjectName) -> Result<Claims, StoreError> {
        self.0.claims(witness).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        self.0.list(prefix).await
    }
}

/// Follows a database in which nothing is committed, until told to stop.
fn idle(follower: Follower) -> Following {
    let (sender, following) = oneshot::channel();
    std::thread::spawn(move || {
        follower.stage.send_replace(Stage::Followed);
        while !follower.alarm.stopping() {
            follower.alarm.wait(Duration::from_millis(50));
        }
        sender.send(Err(ShippingEnded.into())).ok();
    });
    following
}

#[tokio::test]
async fn a_start_that_is_passed_ends_though_nothing_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options {
        database: folder.path().join("app.db"),
        store: Arc::new(Passing(MemoryStore::new(Objects::default()))),
        sync_interval: Duration::from_millis(50),
        snapshot_interval: Duration::from_hours(1),
        audit_interval: None,
        wal_limit: None,
        spool: Limits { keep: 0, wait: None },
        set_wal: false,
        allowed: Allowed::default(),
        state_folder: None,
        persistence: Persistence::Always,
    };
    let mut session = Session::start_with(options, |f| Ok(idle(f))).await.unwrap();
    let durable = session.durable();
    let ended = tokio::time::timeout(Duration::from_secs(20), session.ended()).await;
    let ended = ended.expect("it goes on");
    assert!(matches!(ended, SessionError::Ship(ShipError::Fenced(Epoch(1)))), "{ended:?}");
    assert_eq!(*durable.borrow(), None);
}
