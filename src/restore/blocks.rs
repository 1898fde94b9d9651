//! Writes the blocks of a snapshot: ranges of packs, each fetched, unpacked, proven and written on its
//! own, several at once and in any order.

use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use genesis_snapshot::block::BlockLayout;
use genesis_snapshot::inventory::Inventory;
use genesis_snapshot::manifest::{Manifest, ManifestBlock, PackRef};
use genesis_snapshot::pack::unpack_block;
use genesis_wal::name::PackName;
use tokio::task::{JoinSet, spawn_blocking};

use super::output::{Output, Pages};
use super::{Progress, RestoreError};
use crate::object::ObjectError;
use crate::store::Store;

/// Bytes fetched at once.
const FETCH: u64 = 4 << 20;

/// Runs under way for each thread, and in all at most: while some are unpacked and written, others are on
/// their way, or nothing comes for a round trip. At most 128 MiB.
const AHEAD: usize = 2;
const MOST_AHEAD: usize = 32;

/// Bytes between two blocks that are fetched along: the ends of parts stand there.
const SKIP: u64 = 4096;

/// Adjacent blocks that are written at once.
const WRITE_BLOCKS: usize = 8;

/// Consecutive blocks that lie one after another in one pack.
#[derive(Debug)]
struct Run {
    /// The pack's place in the manifest.
    pack: usize,
    bytes: Range<u64>,
    blocks: Range<usize>,
}

/// Why a run was not written.
enum Failed {
    Object(ObjectError),
    Write(io::Error),
}

/// The blocks of a snapshot.
#[derive(Debug, Clone)]
pub struct Blocks {
    store: Arc<dyn Store>,
    manifest: Arc<Manifest>,
    /// The copies of each pack, in the order in which they are tried.
    copies: Arc<[Vec<PackName>]>,
}

impl Blocks {
    /// The blocks of the snapshot, in whichever copies of its packs there are.
    #[must_use]
    pub fn new(store: &Arc<dyn Store>, inventory: &Inventory, manifest: &Arc<Manifest>) -> Self {
        let copies = |pack: &PackRef| {
            let copies: Vec<_> = inventory.copies(pack.name).map(|copy| copy.name).collect();
            if copies.is_empty() { vec![pack.name] } else { copies }
        };
        Self {
            store: Arc::clone(store),
            manifest: Arc::clone(manifest),
            copies: manifest.packs.iter().map(copies).collect(),
        }
    }

    /// Writes them, with [`AHEAD`] times `parallelism` runs under way at once.
    ///
    /// # Errors
    /// [`RestoreError`] naming the pack that cannot be used.
    pub async fn write(
        self,
        output: &Output,
        parallelism: NonZeroUsize,
        progress: &mut impl FnMut(Progress),
    ) -> Result<(), RestoreError> {
        let layout = self.manifest.layout;
        let total = u64::from(layout.pages) * u64::from(layout.page_size.get());
        let mut runs = runs(&self.manifest).into_iter();
        let at_once = parallelism.get().saturating_mul(AHEAD).min(MOST_AHEAD);
        let (mut under_way, mut written) = (JoinSet::new(), 0);
        loop {
            for run in runs.by_ref().take(at_once - under_way.len()) {
                under_way.spawn(self.clone().restore(run, output.pages()));
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

    /// Writes a run from the first copy of its pack that holds it. Returns the bytes written.
    async fn restore(self, run: Run, output: Arc<Pages>) -> Result<u64, Failed> {
        let run = Arc::new(run);
        let mut first_error = None;
        for copy in self.copies.get(run.pack).into_iter().flatten() {
            match self.restore_from(*copy, &run, &output).await {
                Err(Failed::Object(error)) if error.useless().is_some() => {
                    tracing::warn!(%error, "trying another copy, if there is one");
                    first_error.get_or_insert(error);
                }
                other => return other,
            }
        }
        // A pack that has no copy is none of the manifest's, which its decoder refuses.
        first_error.map_or(Ok(0), |error| Err(Failed::Object(error)))
    }

    async fn restore_from(
        &self,
        copy: PackName,
        run: &Arc<Run>,
        output: &Arc<Pages>,
    ) -> Result<u64, Failed> {
        let fetched = self.store.get_range(&copy.into(), run.bytes.clone()).await;
        let bytes = fetched.map_err(|error| Failed::Object(ObjectError::unread(copy, error)))?;
        let (manifest, run) = (Arc::clone(&self.manifest), Arc::clone(run));
        let output = Arc::clone(output);
        let written = spawn_blocking(move || write_run(&manifest, copy, &run, &bytes, &output));
        written.await.map_err(|died| Failed::Write(died.into())).flatten()
    }
}

/// Unpacks and writes a run. Returns the bytes written.
fn write_run(
    manifest: &Manifest,
    copy: PackName,
    run: &Run,
    bytes: &[u8],
    output: &Pages,
) -> Result<u64, Failed> {
    let (mut raw, mut written) = (Vec::new(), 0);
    // Blocks stand in the manifest in the order of the database.
    for blocks in manifest.blocks.get(run.blocks.clone()).unwrap_or_default().chunks(WRITE_BLOCKS) {
        let offset = blocks.first().map_or(0, |first| manifest.layout.offset_of(first.entry.block));
        let unpacked = unpack(manifest.layout, run, bytes, blocks, &mut raw);
        unpacked.map_err(|reason| Failed::Object(ObjectError::damaged(copy, reason)))?;
        output.write_at(offset, &raw).map_err(Failed::Write)?;
        written += raw.len() as u64;
    }
    Ok(written)
}

/// Unpacks adjacent blocks of a run into `raw`, which holds them and nothing else then; or says what is
/// wrong with them.
fn unpack(
    layout: BlockLayout,
    run: &Run,
    bytes: &[u8],
    blocks: &[ManifestBlock],
    raw: &mut Vec<u8>,
) -> Result<(), String> {
    raw.resize(blocks.iter().map(|block| layout.bytes(block.entry.block)).sum(), 0);
    let mut rest = raw.as_mut_slice();
    for ManifestBlock { entry, .. } in blocks {
        let start = usize::try_from(entry.offset - run.bytes.start).unwrap_or(usize::MAX);
        let stored = bytes.get(start..).and_then(|rest| rest.get(..entry.stored_len as usize));
        let stored = stored.ok_or("it is cut off")?;
        let (block, after) = rest.split_at_mut(layout.bytes(entry.block).min(rest.len()));
        unpack_block(entry, layout, stored, block).map_err(|error| crate::describe(&error))?;
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
            let pack = usize::try_from(first.pack).unwrap_or(usize::MAX);
            runs.push(Run { pack, bytes: start..end, blocks: index..index + blocks.len() });
            index += blocks.len();
        }
    }
    runs
}
