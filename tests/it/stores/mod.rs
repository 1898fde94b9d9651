//! What every store promises, tried on each of them.

mod contract;
mod faults;
mod strangers;

use std::path::PathBuf;
use std::sync::Arc;

use genesis_replicate::store::{Claims, FileStore, MemoryStore, Objects, Store};
use tempfile::TempDir;

use crate::support::Server;

/// An empty place of one kind, which goes with the test.
struct Site {
    store: Arc<dyn Store>,
    /// What names are worth there.
    claims: Claims,
    /// For local files.
    scratch: TempDir,
    /// Puts something there that is no object of a replica.
    litter: Box<dyn Fn(&str) + Send + Sync>,
}

impl Site {
    fn folder() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().join("replica");
        let store = Arc::new(FileStore::new(root.clone()));
        let litter = Box::new(move |key: &str| {
            let path = root.join(key);
            std::fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
            std::fs::File::create(path).unwrap();
        });
        Self { store, claims: Claims::Exclusive, scratch, litter }
    }

    fn memory(claims: Claims) -> Self {
        let memory = MemoryStore::new(Objects::new()).with_pages_of(3);
        let memory = match claims {
            Claims::Exclusive => memory,
            Claims::Shared => memory.with_shared_claims(),
        };
        let scratch = tempfile::tempdir().unwrap();
        let store = Arc::new(memory.clone());
        let litter = Box::new(move |key: &str| {
            memory.change(|objects| objects.insert(key.to_owned(), "litter".into()));
        });
        Self { store, claims, scratch, litter }
    }

    fn s3(server: &'static Server) -> Self {
        let address = server.address();
        let store = Arc::new(Server::store(&address));
        let scratch = tempfile::tempdir().unwrap();
        let litter = Box::new(move |name: &str| server.litter(&address, name));
        Self { store, claims: server.claims, scratch, litter }
    }

    /// A local file with these bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        use std::io::Write;
        let path = self.scratch.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(bytes).unwrap();
        path
    }
}

/// The contract as tests of one kind of store.
macro_rules! contract {
    ($kind:ident, $site:expr, $($promise:ident)*) => {
        mod $kind {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $promise() {
                    let site: Option<Site> = $site;
                    if let Some(site) = site {
                        contract::$promise(&site).await;
                    }
                }
            )*
        }
    };
}

macro_rules! contracts {
    ($($kind:ident: $site:expr,)*) => {
        $(contract! {
            $kind, $site,
            what_is_stored_is_read
            large_and_odd_sizes
            a_small_object_is_small
            nothing_is_replaced
            ranges_end_where_the_object_does
            what_is_not_there
            listings_are_whole_and_in_order
            a_listing_goes_on_from_any_key
            one_of_many_creators_wins
            nothing_is_stored_where_no_replica_is
            a_body_that_is_gone
        })*
    };
}

contracts! {
    folder: Some(Site::folder()),
    memory: Some(Site::memory(Claims::Exclusive)),
    memory_with_shared_claims: Some(Site::memory(Claims::Shared)),
    ministack: Some(Site::s3(Server::ministack())),
    garage: Server::garage().map(Site::s3),
}
