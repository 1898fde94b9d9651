//! The page table as of the tip of the replica: rolled forward from the one on disk, or rebuilt from the
//! page hashes that the replica holds.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use genesis_snapshot::inventory::{Cuts, Inventory};
use genesis_snapshot::manifest::Manifest;
use genesis_snapshot::pack::PackFooter;
use genesis_wal::id::Txid;
use genesis_wal::name::{PackName, SegmentName};
use genesis_wal::page::{PageHash, PageNumber};
use genesis_wal::part::{self, Part, TRAILER_LEN};
use genesis_wal::reader::Reader;
use genesis_wal::segment::fragments;

use super::{AsOf, Checkpoint, PageTable};
use crate::blocking::blocking;
use crate::durable;
use crate::object::{ObjectError, PartStream};
use crate::replica::{Replica, ReplicaError, Tip};
use crate::replicate::spool::{PartFile, Spool};
use crate::store::Store;

/// Where the hashes come from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// The replica, and what it holds.
    pub replica: &'a Replica,
    /// Its objects.
    pub inventory: &'a Inventory,
    /// The segments that wait in the spool, and which of them lead to the tip.
    pub spool: &'a Spool,
    /// Their names, in order.
    pub unshipped: &'a [SegmentName],
    /// The folder of local state.
    pub folder: PathBuf,
}

/// The table as of `tip`; `None` where nothing that is there leads to it, which is logged.
///
/// # Errors
/// When the store or the local disk fails.
pub async fn at_tip(sources: &Sources<'_>, tip: &Tip) -> Result<Option<PageTable>, ReplicaError> {
    let Some(line) = sources.inventory.generation(tip.generation) else { return Ok(None) };
    let folder = sources.folder.clone();
    let read = blocking(move || Checkpoint::read(&folder.join(super::FILE_NAME), &folder)).await;
    match read.map_err(|died| ReplicaError::Local(died.into()))? {
        Ok(Some((table, as_of))) if fits(&table, as_of, tip) => {
            match rolled(sources, tip, table, as_of.txid).await {
                Ok(Some(table)) => return Ok(Some(table)),
                Err(ReplicaError::Object(error)) if error.useless().is_some() => {
                    tracing::error!(%error, "the page table on disk does not lead to the tip");
                }
                Ok(None) => {
                    let txid = as_of.txid.0;
                    tracing::info!(txid, "the page table on disk does not lead to the tip");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Some(_)) => tracing::info!("the page table on disk is of another history"),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(reason = %error, "the page table on disk cannot be used");
        }
    }
    let newest = line.manifests().iter().rfind(|manifest| manifest.name.txid <= tip.reached.txid);
    let Some(newest) = newest else { return Ok(None) };
    let built = async {
        let manifest = sources.replica.manifest(newest.name).await?;
        let table = of_manifest(sources, &manifest).await?;
        rolled(sources, tip, table, manifest.txid).await
    };
    match built.await {
        Err(ReplicaError::Object(error)) if error.useless().is_some() => {
            tracing::error!(%error, "the page table cannot be rebuilt from the replica");
            Ok(None)
        }
        other => other,
    }
}

fn fits(table: &PageTable, as_of: AsOf, tip: &Tip) -> bool {
    as_of.generation == tip.generation
        && as_of.txid <= tip.reached.txid
        && table.page_size() == tip.page_size
}

/// The table of a snapshot, from the hashes at the end of its packs.
async fn of_manifest(
    sources: &Sources<'_>,
    manifest: &Manifest,
) -> Result<PageTable, ReplicaError> {
    let file = durable::nameless(&sources.folder).map_err(ReplicaError::Local)?;
    let mut table = PageTable::new(manifest.layout.page_size, file);
    table.resize(manifest.layout.pages).map_err(ReplicaError::Local)?;
    for (number, pack) in (0u32..).zip(&manifest.packs) {
        let footer = footer(sources, pack.name, pack.size).await?;
        for (entry, hashes) in footer.blocks() {
            let listed = manifest.blocks.get(entry.block as usize);
            let place = listed.map(|listed| (listed.pack, listed.entry.offset));
            if place != Some((number, entry.offset)) {
                continue;
            }
            for ((page, _), hash) in manifest.layout.pages_of(entry.block).zip(hashes) {
                table.set(page, *hash);
            }
        }
    }
    Ok(table)
}

/// The footer of a pack, which stands at its end.
async fn footer(
    sources: &Sources<'_>,
    name: PackName,
    size: u64,
) -> Result<PackFooter, ObjectError> {
    let listed = sources.inventory.pack(name);
    let (name, size) = listed.map_or((name, size), |pack| (pack.name, pack.size));
    let damaged = |reason: &dyn std::fmt::Display| ObjectError::damaged(name, reason);
    let store = sources.replica.store();
    let read = async |len: u64| {
        let read = store.get_range(&name.into(), size.saturating_sub(len)..size).await;
        read.map_err(|error| ObjectError::unread(name, error))
    };
    let tail = read(TRAILER_LEN as u64).await?;
    let len = part::trailing_len(&tail).map_err(|error| damaged(&error))? as u64;
    let bytes = read(len).await?;
    PackFooter::decode(&bytes).map_err(|error| damaged(&error))
}

/// Takes a table on from `from` to the tip; `None` where the segments do not lead there. Where one is
/// damaged, others that hold the same are gone by: copies, or what it was merged from.
async fn rolled(
    sources: &Sources<'_>,
    tip: &Tip,
    table: PageTable,
    from: Txid,
) -> Result<Option<PageTable>, ReplicaError> {
    let cuts = sources.inventory.cuts();
    let mut roll = Roll::new(table, from, cuts);
    let mut inventory = Cow::Borrowed(sources.inventory);
    let mut ahead = chain(&inventory, tip, from);
    while let Some(segment) = ahead.pop_front() {
        match roll.segment(sources.replica.store(), segment).await {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(ReplicaError::Object(error)) if let Some(useless) = error.useless() => {
                tracing::error!(%error, "a segment cannot be used; looking for others");
                inventory.to_mut().forget(useless);
                ahead = chain(&inventory, tip, roll.reached);
            }
            Err(error) => return Err(error),
        }
    }
    for name in sources.unshipped.iter().filter(|name| name.last > from) {
        let mut file = PartFile::open(&sources.spool.path(name)).map_err(ReplicaError::Local)?;
        while let Some(bytes) = file.next_part().map_err(ReplicaError::Local)? {
            let Ok(part) = Part::decode(&mut Reader::new(&bytes)) else { return Ok(None) };
            if !roll.take(&part).map_err(ReplicaError::Local)? {
                return Ok(None);
            }
        }
    }
    let Roll { table, reached, .. } = roll;
    let leads_there = reached == tip.reached.txid && table.state() == tip.reached.state;
    Ok(leads_there.then_some(table))
}

/// The segments that lead on.
fn chain(inventory: &Inventory, tip: &Tip, from: Txid) -> VecDeque<SegmentName> {
    let line = inventory.generation(tip.generation);
    let segments = line.map(|line| line.chain(from).segments).unwrap_or_default();
    segments.into_iter().map(|segment| segment.name).collect()
}

/// A table on its way through segments.
pub(super) struct Roll<'a> {
    table: PageTable,
    reached: Txid,
    /// The pages of a transaction that is not over yet.
    images: Vec<(PageNumber, PageHash)>,
    cuts: &'a Cuts,
}

impl<'a> Roll<'a> {
    /// The table as of transaction `reached`.
    pub(super) fn new(table: PageTable, reached: Txid, cuts: &'a Cuts) -> Self {
        Self { table, reached, images: Vec::new(), cuts }
    }

    /// The table, and the transaction as of which it is.
    pub(super) fn into_table(self) -> (PageTable, Txid) {
        (self.table, self.reached)
    }

    /// The next part begins a segment.
    pub(super) fn begin_segment(&mut self) {
        self.images.clear();
    }

    /// Takes a segment; false when it does not go on from here.
    async fn segment(
        &mut self,
        store: &Arc<dyn Store>,
        name: SegmentName,
    ) -> Result<bool, ReplicaError> {
        self.begin_segment();
        let mut stream = PartStream::new(Arc::clone(store), name.into());
        while let Some(part) = stream.next().await? {
            if !self.take(&part.part()).map_err(ReplicaError::Local)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes a part; false when it does not go on from here. What is not history is left out.
    pub(super) fn take(&mut self, part: &Part<'_>) -> std::io::Result<bool> {
        let last = self.cuts.last_of(part.header.stamp.epoch);
        for fragment in fragments(part) {
            let Ok(fragment) = fragment else { return Ok(false) };
            if fragment.header.txid > last {
                return Ok(true);
            }
            if fragment.header.txid <= self.reached {
                continue;
            }
            if self.reached.next() != Some(fragment.header.txid) {
                return Ok(false);
            }
            self.images.extend(fragment.pages.iter().map(|page| (page.number, page.hash)));
            if !fragment.is_last() {
                continue;
            }
            match self.table.advance(&self.images, fragment.header.pages) {
                Ok(state) if state == fragment.header.state => {}
                Ok(_) | Err(super::AdvanceError::Missing(_)) => return Ok(false),
                Err(super::AdvanceError::NoRoom(error)) => return Err(error),
            }
            self.images.clear();
            self.reached = fragment.header.txid;
        }
        Ok(true)
    }
}
