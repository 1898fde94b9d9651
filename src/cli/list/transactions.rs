//! `list --transactions`: every transaction that can be restored, as its segment tells of it.

use std::fmt::Write;
use std::sync::Arc;

use genesis_snapshot::inventory::{Cuts, Inventory, Line};
use genesis_wal::id::Txid;
use genesis_wal::name::{ManifestName, SegmentName};
use genesis_wal::page::PageSize;
use genesis_wal::segment::{Fragment, TransactionHeader, TransactionKind, fragments};
use genesis_wal::time::{Micros, Millis};
use serde::Serialize;

use crate::cli::args::ListArgs;
use crate::cli::exit::{Code, Failure};
use crate::cli::{print, print_json};
use crate::object::{ObjectError, PartStream};
use crate::replica::{Replica, ReplicaError};

/// Rows that are printed at once.
const ROWS: usize = 1000;

pub async fn run(
    replica: &Replica,
    inventory: &Inventory,
    args: &ListArgs,
) -> Result<Code, Failure> {
    let mut generations = Vec::new();
    for line in inventory.generations() {
        let mut rows = Rows { args, found: Vec::new(), last: None, cuts: inventory.cuts() };
        if !args.json {
            print(&format!("generation {}\n{}\n", line.generation(), heading()))?;
        }
        rows.read(replica, line).await?;
        if args.json {
            let generation = line.generation().to_string();
            generations.push(Generation { generation, transactions: rows.found });
        } else {
            rows.print()?;
        }
    }
    if args.json {
        print_json(&Listing { generations })?;
    }
    Ok(Code::DONE)
}

#[derive(Debug, Serialize)]
struct Listing {
    generations: Vec<Generation>,
}

#[derive(Debug, Serialize)]
struct Generation {
    generation: String,
    transactions: Vec<Row>,
}

/// A state that can be restored.
#[derive(Debug, Serialize)]
struct Row {
    txid: u64,
    time: String,
    /// The earliest time at which it can have been committed, where nobody looked then.
    since: Option<String>,
    /// `snapshot` where no segment tells of the transaction.
    kind: &'static str,
    /// Commits in it, if that is known.
    commits: Option<u32>,
    /// Pages changed.
    pages: u32,
    /// Bytes that their images take in the replica.
    bytes: u64,
    /// Bytes in the database after it.
    database_bytes: u64,
}

/// The rows of one line of history.
struct Rows<'a> {
    args: &'a ListArgs,
    found: Vec<Row>,
    last: Option<Txid>,
    cuts: &'a Cuts,
}

impl Rows<'_> {
    async fn read(&mut self, replica: &Replica, line: &Line) -> Result<(), Failure> {
        for manifest in line.manifests() {
            if self.last.is_some_and(|last| manifest.name.txid <= last) {
                continue;
            }
            if self.is_after(earliest(manifest.name.time)) {
                return Ok(());
            }
            self.last = Some(manifest.name.txid);
            if self.wants(manifest.name.time.micros()) {
                let row = snapshot(replica, manifest.name).await.map_err(ReplicaError::from)?;
                self.add(row)?;
            }
            for segment in line.chain(manifest.name.txid).segments {
                // A name's time is rounded up.
                let is_before = |since: Micros| segment.name.time.micros() < since;
                let time = line.time_of(&segment.name);
                if self.args.since.is_none_or(|since| !is_before(since)) {
                    self.read_segment(replica, segment.name).await?;
                }
                self.last = Some(line.last_in(&segment.name));
                if time.is_some_and(|time| self.is_after(earliest(time))) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    async fn read_segment(&mut self, replica: &Replica, name: SegmentName) -> Result<(), Failure> {
        let unreadable = |error: ObjectError| Failure::from(ReplicaError::from(error));
        let mut parts = PartStream::new(Arc::clone(replica.store()), name.into());
        // Of the images of a transaction that is still coming.
        let mut bytes = 0;
        while let Some(owned) = parts.next().await.map_err(unreadable)? {
            let part = owned.part();
            let last = self.cuts.last_of(part.header.stamp.epoch);
            for fragment in fragments(&part) {
                let fragment =
                    fragment.map_err(|error| unreadable(ObjectError::damaged(name, error)))?;
                if fragment.header.txid > last {
                    break;
                }
                bytes += images(&fragment);
                if !fragment.is_last() {
                    continue;
                }
                let header = &fragment.header;
                if self.last < Some(header.txid) && self.wants(header.time) {
                    self.add(transaction(header, part.header.page_size, bytes))?;
                }
                bytes = 0;
            }
        }
        Ok(())
    }

    fn wants(&self, time: Micros) -> bool {
        self.args.since.is_none_or(|since| since <= time) && !self.is_after(time)
    }

    /// Whether nothing from here on is wanted: times never go back in a line.
    fn is_after(&self, time: Micros) -> bool {
        self.args.until.is_some_and(|until| until < time)
    }

    fn add(&mut self, row: Row) -> Result<(), Failure> {
        self.found.push(row);
        if !self.args.json && self.found.len() >= ROWS {
            self.print()?;
        }
        Ok(())
    }

    fn print(&mut self) -> Result<(), Failure> {
        let mut text = String::new();
        for row in self.found.drain(..) {
            let Row { txid, time, since, kind, pages, bytes, database_bytes, .. } = row;
            let late = since.map(|since| format!("  committed since {since}"));
            let late = late.unwrap_or_default();
            let line = format!(
                "{txid:>12}  {time:27}  {kind:8}  {pages:>8}  {bytes:>10}  {database_bytes:>14}{late}"
            );
            // Writing to a string does not fail.
            writeln!(text, "{line}").unwrap_or_default();
        }
        print(&text)
    }
}

/// The earliest time that is rounded up to the one in a name.
fn earliest(name: Millis) -> Micros {
    Micros(name.micros().0.saturating_sub(999))
}

fn heading() -> String {
    let [txid, time, kind, pages, bytes, size] =
        ["transaction", "committed", "kind", "pages", "bytes", "database bytes"];
    format!("{txid:>12}  {time:27}  {kind:8}  {pages:>8}  {bytes:>10}  {size:>14}")
}

async fn snapshot(replica: &Replica, name: ManifestName) -> Result<Row, ObjectError> {
    let manifest = replica.manifest(name).await?;
    let stored = manifest.blocks.iter().map(|block| u64::from(block.entry.stored_len));
    let layout = manifest.layout;
    Ok(Row {
        txid: name.txid.0,
        time: manifest.time.to_string(),
        since: None,
        kind: "snapshot",
        commits: None,
        pages: layout.pages,
        bytes: stored.sum(),
        database_bytes: u64::from(layout.pages) * u64::from(layout.page_size.get()),
    })
}

fn transaction(header: &TransactionHeader, page_size: PageSize, bytes: u64) -> Row {
    let (kind, commits) = match header.kind {
        TransactionKind::Commit => ("commit", Some(1)),
        TransactionKind::Rebase => ("rebase", None),
        TransactionKind::Coarse => ("coarse", Some(header.commits)),
    };
    Row {
        txid: header.txid.0,
        time: header.time.to_string(),
        since: header.late.then(|| header.since.to_string()),
        kind,
        commits,
        pages: header.records,
        bytes,
        database_bytes: u64::from(header.pages) * u64::from(page_size.get()),
    }
}

fn images(fragment: &Fragment<'_>) -> u64 {
    fragment.pages.iter().map(|page| page.stored_len() as u64).sum()
}
