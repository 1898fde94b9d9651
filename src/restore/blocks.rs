//! Writes the blocks of a snapshot: ranges of packs, fetched ahead, unpacked and written in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use genesis_restore::apply::PageSink;
use genesis_snapshot::manifest::{Manifest, ManifestBlock};
use genesis_snapshot::pack::{PackError, unpack_block};
use genesis_wal::name::PackName;
use tokio::task::JoinHandle;

use super::{Output, Progress, RestoreError};
use crate::object::ObjectError;
use crate::store::{Store, StoreError};

/// Bytes fetched at once.
const FETCH: u64 = 4 << 20;

/// Fetches under way at once.
const FETCHES: usize = 4;

/// Bytes between two blocks that are fetched along: the ends of parts stand there.
const SKIP: u64 = 4096;

/// Consecutive blocks that lie one after another in one pack.
#[derive(Debug)]
struct Run<'a> {
    pack: PackName,
    bytes: Range<u64>,
    blocks: &'a [ManifestBlock],
}

/// Writes every block of the snapshot.
///
/// # Errors
/// [`RestoreError`] naming the pack that cannot be used.
pub async fn write(
    store: &Arc<dyn Store>,
    manifest: &Manifest,
    output: &mut Output,
    progress: &mut impl FnMut(Progress),
) -> Result<(), RestoreError> {
    let total = u64::from(manifest.layout.pages) * u64::from(manifest.layout.page_size.get());
    let mut runs = runs(manifest).into_iter();
    let mut ahead: VecDeque<(Run<'_>, JoinHandle<Result<Bytes, StoreError>>)> = VecDeque::new();
    let mut written = 0;
    loop {
        for run in runs.by_ref().take(FETCHES - ahead.len()) {
            let (store, name, bytes) = (Arc::clone(store), run.pack.into(), run.bytes.clone());
            let fetch = tokio::spawn(async move { store.get_range(&name, bytes).await });
            ahead.push_back((run, fetch));
        }
        let Some((run, fetch)) = ahead.pop_front() else {
            return Ok(());
        };
        let died = |error| ObjectError::damaged(run.pack, format!("fetching it failed: {error}"));
        let bytes = fetch.await.map_err(died)?.map_err(ObjectError::from)?;
        written += write_run(manifest, &run, &bytes, output)?;
        progress(Progress::Snapshot(written, total));
    }
}

fn write_run(
    manifest: &Manifest,
    run: &Run<'_>,
    bytes: &[u8],
    output: &mut Output,
) -> Result<u64, RestoreError> {
    let damaged = |error: PackError| ObjectError::damaged(run.pack, crate::describe(&error));
    let (mut raw, mut written) = (Vec::new(), 0);
    for ManifestBlock { entry, .. } in run.blocks {
        let start = usize::try_from(entry.offset - run.bytes.start).unwrap_or(usize::MAX);
        let stored = bytes.get(start..).and_then(|rest| rest.get(..entry.stored_len as usize));
        let stored = stored.ok_or_else(|| ObjectError::damaged(run.pack, "it is cut off"))?;
        unpack_block(entry, manifest.layout, stored, &mut raw).map_err(damaged)?;
        let wrote = output.write_at(manifest.layout.offset_of(entry.block), &raw);
        wrote.map_err(|error| output.failed(error))?;
        written += raw.len() as u64;
    }
    Ok(written)
}

/// Cuts the blocks into runs of at most [`FETCH`] bytes, or one block.
fn runs(manifest: &Manifest) -> Vec<Run<'_>> {
    let continues = |one: &ManifestBlock, next: &ManifestBlock| {
        let between = one.entry.end().and_then(|end| next.entry.offset.checked_sub(end));
        one.pack == next.pack && between.is_some_and(|bytes| bytes <= SKIP)
    };
    let mut runs = Vec::new();
    for chunk in manifest.blocks.chunk_by(continues) {
        let mut rest = chunk;
        while let Some(first) = rest.first() {
            let start = first.entry.offset;
            let within =
                |block: &ManifestBlock| block.entry.end().is_some_and(|end| end - start <= FETCH);
            let (blocks, after) = rest.split_at(rest.partition_point(within).max(1));
            rest = after;
            let end = blocks.last().and_then(|block| block.entry.end()).unwrap_or(start);
            if let Some(pack) = manifest.packs.get(first.pack as usize) {
                runs.push(Run { pack: pack.name, bytes: start..end, blocks });
            }
        }
    }
    runs
}
