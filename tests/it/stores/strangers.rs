//! Who is not let in, and what is said then.

use std::error::Error;

use genesis_replicate::store::{Body, Keys, S3Store, Store, StoreError, StoreErrorKind};
use genesis_wal::name::ObjectName;

use crate::support::Server;

fn words(error: &StoreError) -> String {
    format!("{error}: {}", error.source().unwrap())
}

/// Every verb is refused for good, in these words.
async fn assert_refused(store: &S3Store, expected: &[&str]) {
    let name = ObjectName::Genesis;
    let errors = [
        store.get(&name).await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.exists(&name).await.unwrap_err(),
        store.create(&name, Body::Bytes("{}".into())).await.unwrap_err(),
    ];
    for error in &errors {
        assert_eq!(error.kind, StoreErrorKind::Permanent, "{}", words(error));
    }
    // The answer to a HEAD has no words.
    for error in &errors[..2] {
        for expected in expected {
            assert!(words(error).contains(expected), "{expected:?} is not in: {}", words(error));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_key() {
    let keys = Keys::new("GKffffffffffffffffffffffff", "f".repeat(64));
    let servers = [Some(Server::ministack()), Server::garage()];
    for server in servers.into_iter().flatten() {
        let store = S3Store::with_keys(server.address().parse().unwrap(), keys.clone());
        assert_refused(&store, &["403", "test/"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret() {
    let Some(server) = Server::garage() else { return };
    let [(_, id), _] = Server::credentials();
    let keys = Keys::new(id, "f".repeat(64));
    let store = S3Store::with_keys(server.address().parse().unwrap(), keys);
    assert_refused(&store, &["403", "credentials must be right and allow s3:"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_not_there() {
    let address = Server::ministack().address().replace("s3://genesis/", "s3://elsewhere/");
    let store = Server::store(&address);
    for error in
        [store.get(&ObjectName::Genesis).await.unwrap_err(), store.list("").await.unwrap_err()]
    {
        assert_eq!(error.kind, StoreErrorKind::Permanent);
        let words = words(&error);
        assert!(words.contains("NoSuchBucket") && words.contains("make the bucket"), "{words}");
    }
}
