//! A place for a replica in an object store on this machine, and how it is reached through a network.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use genesis_replicate::store::{Body, FileStore, Listed, S3Address, Store};
use genesis_wal::name::ObjectName;
use tokio::runtime::Runtime;
use tokio::task::{JoinSet, spawn_blocking};

use crate::s3::Server;
use crate::wire::Wire;

/// What `aws s3 cp --recursive` does unless it is told otherwise: ten requests at once, of 8 MiB each.
const AT_ONCE: usize = 10;
const RANGE: u64 = 8 << 20;

/// A place that nobody else uses.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Where the server is, without a network between.
    server: String,
    address: S3Address,
}

impl Bucket {
    /// Whether there is a server.
    pub fn is_possible() -> bool {
        Path::new(Server::MINISTACK).is_file() || Server::garage().is_some()
    }

    /// A new place: in a real object store where there is one, else in an emulator.
    pub fn new() -> Result<Self> {
        let server = Server::garage().unwrap_or_else(Server::ministack);
        let address = server.address().parse().map_err(|error: String| anyhow!(error))?;
        Ok(Self { server: server.endpoint.clone(), address })
    }

    /// A network with this round trip before the server.
    pub fn wire(&self, round_trip: Duration) -> Result<Wire> {
        Wire::before(&self.server, round_trip)
    }

    /// Its address through a network, or without one.
    pub fn address(&self, wire: Option<&Wire>) -> String {
        let endpoint = wire.map_or(&self.server, |wire| &wire.endpoint);
        format!("s3://{}/{}?endpoint={endpoint}", self.address.bucket, self.address.prefix)
    }

    /// The name of an object at this path of the server, relative to this place.
    pub fn name<'a>(&self, path: &'a str) -> Option<&'a str> {
        let path = path.strip_prefix('/')?.strip_prefix(&self.address.bucket)?;
        path.strip_prefix('/')?.strip_prefix(&self.address.prefix)
    }

    /// Writes what Litestream is told of a database that goes there through a network.
    pub fn configure_litestream(&self, path: &Path, database: &Path, wire: &Wire) -> Result<()> {
        let [(_, id), (_, secret)] = Server::credentials();
        let S3Address { bucket, prefix, .. } = &self.address;
        let text = format!(
            "dbs:\n  - path: {}\n    replicas:\n      - type: s3\n        bucket: {bucket}\n        \
             path: {}\n        endpoint: {}\n        region: us-east-1\n        \
             force-path-style: true\n        access-key-id: {id}\n        \
             secret-access-key: {secret}\n",
            database.display(),
            prefix.trim_end_matches('/'),
            wire.endpoint,
        );
        File::create(path)?.write_all(text.as_bytes()).context("no configuration")
    }

    /// Stores the objects of a replica that is in a folder.
    pub fn upload(&self, folder: &Path) -> Result<()> {
        let (from, to) = (Arc::new(FileStore::new(folder.into())), self.store(None));
        Runtime::new()?.block_on(async {
            let all = from.list("").await?;
            let path = |name: &ObjectName| Body::File(folder.join(name.to_string()));
            // Nothing is stored before it.
            to.create(&ObjectName::Genesis, path(&ObjectName::Genesis)).await?;
            let tasks = all.into_iter().map(|Listed { name, .. }| {
                let (to, body) = (Arc::clone(&to), path(&name));
                async move { Ok(to.create(&name, body).await?) }
            });
            in_parallel(tasks).await
        })
    }

    /// Downloads the history as fast as a tool does that knows the names: its bytes, on the disk.
    pub fn download(&self, wire: &Wire, folder: &Path) -> Result<u64> {
        Runtime::new()?.block_on(async {
            let all = self.store(None).list("").await?;
            let is_history = |object: &&Listed| {
                let name = object.name;
                matches!(
                    name,
                    ObjectName::Manifest(_) | ObjectName::Pack(_) | ObjectName::Segment(_)
                )
            };
            let (store, mut ranges, mut files) = (self.store(Some(wire)), Vec::new(), Vec::new());
            for (number, object) in all.iter().filter(is_history).enumerate() {
                let file = Arc::new(File::create(folder.join(number.to_string()))?);
                let starts = (0..object.size.div_ceil(RANGE)).map(|n| n * RANGE);
                ranges.extend(starts.map(|start| (object.name, start, Arc::clone(&file))));
                files.push(file);
            }
            let tasks = ranges.into_iter().map(|(name, start, file)| {
                let store = Arc::clone(&store);
                async move {
                    let bytes = store.get_range(&name, start..start + RANGE).await?;
                    Ok(spawn_blocking(move || file.write_all_at(&bytes, start)).await??)
                }
            });
            in_parallel(tasks).await?;
            files.iter().try_for_each(|file| file.sync_all())?;
            Ok(all.iter().filter(is_history).map(|object| object.size).sum())
        })
    }

    fn store(&self, wire: Option<&Wire>) -> Arc<dyn Store> {
        Arc::new(Server::store(&self.address(wire)))
    }
}

/// Does some things, [`AT_ONCE`] at once.
async fn in_parallel<F>(tasks: impl Iterator<Item = F>) -> Result<()>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut under_way = JoinSet::new();
    for task in tasks {
        if under_way.len() == AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            done??;
        }
        under_way.spawn(task);
    }
    while let Some(done) = under_way.join_next().await {
        done??;
    }
    Ok(())
}
