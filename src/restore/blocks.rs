//! Writes the blocks of a snapshot: ranges of packs, each fetched, unpacked, proven and written on its
//! own, several at once and in any order.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::manifest::{Manifest, ManifestBlock};
use genesis_snapshot::pack::{PackError, unpack_block};
use genesis_wal::name::PackName;
use tokio::task::{JoinSet, spawn_blocking};

use super::output::{Output, Pages};
use super::{Progress, RestoreError};
use crate::object::ObjectError;
use crate::store::Store;

/// Bytes fetched at once.
const FETCH: u64 = 4 << 20;

/// Bytes between two blocks that are fetched along: the ends of parts stand there.
const SKIP: u64 = 4096;

/// Adjacent blocks that are written at once.
const WRITE_BLOCKS: usize = 8;

/// Consecutive blocks that lie one after another in one pack.
#[derive(Debug)]
struct Run {
    pack: PackName,
    bytes: Range<u64>,
    blocks: Range<usize>,
}

/// Why a run was not written.
enum Failed {
    Object(ObjectError),
    Write(io::Error),
}

/// Writes every block of the snapshot, with at most `parallelism` runs under way at once.
///
/// # Errors
/// [`RestoreError`] naming the pack that cannot be used.
pub async fn write(
    store: &Arc<dyn Store>,
    manifest: &Arc<Manifest>,
    output: &Output,
    parallelism: NonZeroUsize,
    progress: &mut impl FnMut(Progress),
) -> Result<(), RestoreError> {
    let total = u64::from(manifest.layout.pages) * u64::from(manifest.layout.page_size.get());
    let mut runs = runs(manifest).into_iter();
    let (mut under_way, mut written) = (JoinSet::new(), 0);
    loop {
        for run in runs.by_ref().take(parallelism.get() - under_way.len()) {
            let (store, manifest) = (Arc::clone(store), Arc::clone(manifest));
            under_way.spawn(restore_run(store, manifest, run, output.pages()));
        }
        let Some(ended) = under_way.join_next().await else {
            return Ok(());
        };
        let ended = ended.map_err(|died| output.failed(died.into()))?;
        written += ended.map_err(|failed| match failed {
            Failed::Object(error) => error.into(),
            Failed::Write(error) => output.failed(error),
        })?;
        progress(Progress::Snapshot(written, total));
    }
}

/// Fetches and writes a run. Returns the bytes written.
async fn restore_run(
    store: Arc<dyn Store>,
    manifest: Arc<Manifest>,
    run: Run,
    output: Arc<Pages>,
) -> Result<u64, Failed> {
    let fetched = store.get_range(&run.pack.into(), run.bytes.clone()).await;
    let bytes = fetched.map_err(|error| Failed::Object(error.into()))?;
    let written = spawn_blocking(move || write_run(&manifest, &run, &bytes, &output)).await;
    written.map_err(|died| Failed::Write(died.into())).flatten()
}

/// Unpacks and writes a run. Returns the bytes written.
fn write_run(manifest: &Manifest, run: &Run, bytes: &[u8], output: &Pages) -> Result<u64, Failed> {
    let (mut raw, mut written) = (Vec::new(), 0);
    // Blocks stand in the manifest in the order of the database.
    for blocks in manifest.blocks.get(run.blocks.clone()).unwrap_or_default().chunks(WRITE_BLOCKS) {
        let offset = blocks.first().map_or(0, |first| manifest.layout.offset_of(first.entry.block));
        unpack(manifest.layout, run, bytes, blocks, &mut raw).map_err(Failed::Object)?;
        output.write_at(offset, &raw).map_err(Failed::Write)?;
        written += raw.len() as u64;
    }
    Ok(written)
}

/// Unpacks adjacent blocks of a run into `raw`, which holds them and nothing else then.
fn unpack(
    layout: BlockLayout,
    run: &Run,
    bytes: &[u8],
    blocks: &[ManifestBlock],
    raw: &mut Vec<u8>,
) -> Result<(), ObjectError> {
    let damaged = |error: PackError| ObjectError::damaged(run.pack, crate::describe(&error));
    raw.resize(blocks.iter().map(|block| layout.bytes(block.entry.block)).sum(), 0);
    let mut rest = raw.as_mut_slice();
    for ManifestBlock { entry, .. } in blocks {
        let start = usize::try_from(entry.offset - run.bytes.start).unwrap_or(usize::MAX);
        let stored = bytes.get(start..).and_then(|rest| rest.get(..entry.stored_len as usize));
        let stored = stored.ok_or_else(|| ObjectError::damaged(run.pack, "it is cut off"))?;
        let (block, after) = rest.split_at_mut(layout.bytes(entry.block).min(rest.len()));
        unpack_block(entry, layout, stored, block).map_err(damaged)?;
        rest = after;
    }
    Ok(())
}

/// Cuts the blocks into runs of at most [`FETCH`] bytes, or one block.
fn runs(manifest: &Manifest) -> Vec<Run> {
    let continues = |one: &ManifestBlock, next: &ManifestBlock| {
        let between = one.entry.end().and_then(|end| next.entry.offset.checked_sub(end));
        one.pack == next.pack && between.is_some_and(|bytes| bytes <= SKIP)
    };
    let (mut runs, mut index) = (Vec::new(), 0);
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
                let blocks = index..index + blocks.len();
                runs.push(Run { pack: pack.name, bytes: start..end, blocks });
            }
            index += blocks.len();
        }
    }
    runs
}
