//! What an object store's client makes of single faults.

use std::sync::Arc;
use std::time::Duration;

use genesis_replicate::clock;
use genesis_replicate::store::retry::{Persistence, Retrying};
use genesis_replicate::store::{Body, Claims, Store, StoreErrorKind};
use genesis_wal::name::ObjectName;

use super::contract::{MIB, noise, segment};
use crate::support::{Fault, Proxy, Request, Server};

/// A replica in an object store, behind a proxy.
struct Scene {
    server: &'static Server,
    proxy: Proxy,
    /// Past the proxy.
    address: String,
    store: Arc<dyn Store>,
}

impl Scene {
    async fn before(server: &'static Server) -> Self {
        let proxy = tokio::task::block_in_place(|| Proxy::before(server));
        let address = server.address();
        let store: Arc<dyn Store> = Arc::new(Server::store(&proxy.address(&address)));
        store.create(&ObjectName::Genesis, Body::Bytes("{}".into())).await.unwrap();
        assert_eq!(store.claims(&ObjectName::Genesis).await.unwrap(), server.claims);
        Self { server, proxy, address, store }
    }

    fn retrying(&self) -> Retrying {
        Retrying::new(Arc::clone(&self.store), Persistence::UnlessPermanent)
    }

    /// One fault befalls the first request that is meant.
    fn once(&self, fault: Fault, meant: impl Fn(&Request) -> bool + Send + 'static) {
        let mut struck = false;
        self.proxy.disturb(move |request| {
            let strikes = !struck && meant(request);
            struck |= strikes;
            if strikes { fault } else { Fault::None }
        });
    }
}

fn servers() -> impl Iterator<Item = &'static Server> {
    [Some(Server::ministack()), Server::garage()].into_iter().flatten()
}

/// Which request is meant.
type Meant = fn(&Request) -> bool;

fn is_part(request: &Request) -> bool {
    request.path.contains("partNumber")
}

fn is_completion(request: &Request) -> bool {
    request.method == "POST" && request.path.contains("uploadId")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_the_write() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let is_put: Meant = |request| request.method == "PUT";
        let meant = [(1000, is_put), (17 * MIB, is_part), (17 * MIB, is_completion)];
        for (n, (len, meant)) in (1..).zip(meant) {
            let bytes = noise(len, n);
            scene.once(Fault::Lost, meant);
            let alone =
                scene.store.create(&segment(n), Body::Bytes(bytes.clone())).await.unwrap_err();
            assert_eq!(alone.kind, StoreErrorKind::PerhapsDone, "{alone:?}");
            scene.retrying().create(&segment(n), Body::Bytes(bytes.clone())).await.unwrap();
            let stored = scene.store.get_range(&segment(n), 0..len as u64 + 1).await.unwrap();
            assert!(stored == bytes);
            let other = Body::Bytes(noise(len, 99));
            let refused = scene.retrying().create(&segment(n), other).await.unwrap_err();
            assert_eq!(refused.kind, StoreErrorKind::AlreadyExists);
        }
    }
}

/// Several, so that a round trip each does not add up; and not all, as each is in memory.
#[tokio::test(flavor = "multi_thread")]
async fn parts_go_up_a_few_at_once() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let bytes = noise(100 * MIB, 1);
        let path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path.as_file(), &bytes).unwrap();
        // On a busy machine a part can take longer to be read than one takes that is on its way.
        scene.proxy.disturb(|request| if is_part(request) { Fault::Late } else { Fault::None });
        scene.store.create(&segment(1), Body::File(path.path().to_owned())).await.unwrap();
        assert_eq!(scene.proxy.requests().iter().filter(|request| is_part(request)).count(), 7);
        let at_once = scene.proxy.most_under_way();
        assert!((2..=4).contains(&at_once), "{at_once} at once");
        let stored = scene.store.get_range(&segment(1), 0..bytes.len() as u64 + 1).await.unwrap();
        assert!(stored == bytes);
    }
}

/// Parts that belong to nothing cost money for ever.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_is_given_up() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let meant: [(usize, Meant); 3] = [(17, is_part), (100, is_part), (17, is_completion)];
        for (len, meant) in meant {
            scene.once(Fault::Status(503, None), meant);
            let failed = scene.store.create(&segment(1), Body::Bytes(noise(len * MIB, 1))).await;
            assert!(failed.unwrap_err().kind.is_passing());
            assert!(!scene.store.exists(&segment(1)).await.unwrap());
            assert_eq!(scene.server.unfinished_uploads(&scene.address), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_has_its_checksum_in_the_head() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let path = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut path.as_file(), &noise(17 * MIB, 1)).unwrap();
        scene.store.create(&segment(1), Body::Bytes(noise(1000, 1))).await.unwrap();
        scene.store.create(&segment(2), Body::File(path.path().to_owned())).await.unwrap();
        let requests = scene.proxy.requests();
        let puts: Vec<_> = requests.iter().filter(|request| request.method == "PUT").collect();
        assert!(puts.len() >= 4, "{puts:?}");
        for put in puts {
            assert!(put.header("x-amz-checksum-crc32").is_some(), "{put:?}");
            assert!(put.header("x-amz-trailer").is_none(), "{put:?}");
            let encoding = put.header("content-encoding").unwrap_or_default();
            assert!(!encoding.contains("aws-chunked"), "{put:?}");
            assert!(is_part(put) || put.header("if-none-match") == Some("*"), "{put:?}");
        }
    }
}

/// There is one layer that tries again, and this is not it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_asked_once_and_again_after_the_time_it_wants() {
    let scene = Scene::before(Server::ministack()).await;
    for status in [429, 500, 503] {
        let before = scene.proxy.requests().len();
        scene.proxy.disturb(move |_| Fault::Status(status, Some(2)));
        let failed = scene.store.get(&segment(1)).await.unwrap_err();
        assert_eq!((failed.kind, failed.retry_after), (StoreErrorKind::Passing, 2), "{failed:?}");
        assert_eq!(scene.proxy.requests().len() - before, 1);
    }
    scene.once(Fault::Status(503, Some(2)), |_| true);
    let begun = clock::monotonic();
    scene.retrying().exists(&segment(1)).await.unwrap();
    assert!(clock::monotonic() >= begun + Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_cut_off_or_damaged() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let bytes = noise(100_000, 1);
        scene.store.create(&segment(1), Body::Bytes(bytes.clone())).await.unwrap();
        for fault in [Fault::Truncated, Fault::Reset, Fault::Lost, Fault::Corrupted(4_000)] {
            scene.once(fault, |request| request.method == "GET");
            let failed = scene.store.get(&segment(1)).await;
            assert_eq!(failed.unwrap_err().kind, StoreErrorKind::Passing, "{fault:?}");
            scene.once(fault, |request| request.method == "GET");
            assert!(scene.retrying().get(&segment(1)).await.unwrap() == bytes, "{fault:?}");
        }
        scene.once(Fault::Truncated, |request| request.method == "GET");
        let range = scene.retrying().get_range(&segment(1), 10..90_000).await.unwrap();
        assert!(range == bytes.slice(10..90_000));
        scene.once(Fault::Truncated, |request| request.path.contains("list-type"));
        assert_eq!(scene.retrying().list("").await.unwrap().len(), 2);
    }
}

/// A damaged answer is not taken for bytes of somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_is_damaged_on_the_way() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let bytes = noise(1000, 1);
        scene.store.create(&segment(1), Body::Bytes(bytes.clone())).await.unwrap();
        scene.once(Fault::Corrupted(4_000), |request| request.method == "GET");
        scene.retrying().create(&segment(1), Body::Bytes(bytes.clone())).await.unwrap();
    }
}

/// What is stored once more to try a store must not be what was damaged on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_is_read_wrongly() {
    for server in servers() {
        let scene = Scene::before(server).await;
        let bytes = noise(1000, 1);
        scene.store.create(&segment(1), Body::Bytes(bytes.clone())).await.unwrap();
        let store: Arc<dyn Store> = Arc::new(Server::store(&scene.proxy.address(&scene.address)));
        scene.once(Fault::Corrupted(4_000), |request| request.method == "GET");
        let retrying = Retrying::new(store, Persistence::UnlessPermanent);
        assert_eq!(retrying.claims(&segment(1)).await.unwrap(), server.claims);
        assert!(scene.store.get(&segment(1)).await.unwrap() == bytes);
    }
}

/// Some stores do not take a request with a condition at all.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_conditions() {
    let server = Server::ministack();
    let proxy = tokio::task::block_in_place(|| Proxy::before(server));
    proxy.disturb(|request| match request.header("if-none-match") {
        Some(_) => Fault::Status(501, None),
        None => Fault::None,
    });
    let store = Server::store(&proxy.address(&server.address()));
    store.create(&ObjectName::Genesis, Body::Bytes("{}".into())).await.unwrap();
    assert_eq!(store.claims(&ObjectName::Genesis).await.unwrap(), Claims::Shared);
    for len in [10, 17 * MIB] {
        let name = segment(len as u64);
        for _ in 0..2 {
            store.create(&name, Body::Bytes(noise(len, 1))).await.unwrap();
        }
        let refused = store.create(&name, Body::Bytes(noise(len, 2))).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::AlreadyExists);
    }
}

/// A request that is swallowed ends by itself.
#[tokio::test(flavor = "multi_thread")]
async fn silence_has_an_end() {
    let scene = Scene::before(Server::ministack()).await;
    scene.proxy.disturb(|_| Fault::Silence);
    let begun = clock::monotonic();
    let (name, body) = (segment(1), Body::Bytes(noise(1000, 1)));
    let (read, listed, stored) =
        tokio::join!(scene.store.get(&name), scene.store.list(""), scene.store.create(&name, body));
    assert_eq!(read.unwrap_err().kind, StoreErrorKind::Passing);
    assert_eq!(listed.unwrap_err().kind, StoreErrorKind::Passing);
    assert_eq!(stored.unwrap_err().kind, StoreErrorKind::PerhapsDone);
    assert!(clock::monotonic() < begun + Duration::from_secs(25));
}
