//! `list`: what a replica holds, and which states can be restored.

mod transactions;

use genesis_snapshot::inventory::{self, Line};
use genesis_wal::time::Millis;
use serde::Serialize;

use super::args::{BackupType, ListArgs};
use super::databases::Configuration;
use super::exit::{Code, Failure};
use super::{cannot_use, patient_store, print, print_json};
use crate::replica::{Replica, ReplicaError};

pub async fn run(args: ListArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let place = configuration.replica(&args.source)?;
    let opened = Replica::open_listed(patient_store(&place)).await;
    let (replica, inventory) = opened.map_err(|error| cannot_use(&place, error))?;
    if args.transactions {
        return transactions::run(&replica, &inventory, &args).await;
    }
    let mut generations = Vec::new();
    for line in inventory.generations() {
        // The oldest line has none.
        let parent = if generations.is_empty() { None } else { parent(&replica, line).await? };
        generations.push(Generation { parent, ..generation(line, &args) });
    }
    if args.json {
        let listing = Listing { generations: &generations };
        print_json(&listing)?;
    } else {
        print(&text(&generations))?;
    }
    Ok(Code::DONE)
}

#[derive(Debug, Serialize)]
struct Listing<'a> {
    generations: &'a [Generation],
}

#[derive(Debug, Serialize)]
struct Generation {
    #[serde(rename = "generation")]
    id: String,
    /// The state of another line that it began with.
    parent: Option<Parent>,
    /// The states that can be restored: from a snapshot to the end of what continues it.
    windows: Vec<Window>,
    snapshots: Vec<Snapshot>,
    segments: Vec<Segment>,
    pack_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Parent {
    generation: String,
    txid: u64,
}

#[derive(Debug, Serialize)]
struct Window {
    first_txid: u64,
    last_txid: u64,
    from: String,
    to: String,
}

#[derive(Debug, Serialize)]
struct Snapshot {
    id: String,
    txid: u64,
    time: String,
    epoch: u32,
}

#[derive(Debug, Serialize)]
struct Segment {
    level: u8,
    first_txid: u64,
    last_txid: u64,
    time: String,
    epoch: u32,
    bytes: u64,
}

/// The state of another line that a line began with, as far as its first snapshot can be read.
async fn parent(replica: &Replica, line: &Line) -> Result<Option<Parent>, Failure> {
    let Some(first) = line.manifests().first() else { return Ok(None) };
    match replica.manifest(first.name).await {
        Ok(manifest) => Ok(manifest
            .parent
            .map(|(generation, txid)| Parent { generation: generation.to_string(), txid: txid.0 })),
        Err(error) if error.useless().is_some() => {
            tracing::warn!(%error, "a snapshot cannot be read");
            Ok(None)
        }
        Err(error) => Err(ReplicaError::from(error).into()),
    }
}

fn generation(line: &Line, args: &ListArgs) -> Generation {
    let is_between = |time: Millis| {
        args.since.is_none_or(|since| since <= time.micros())
            && args.until.is_none_or(|until| time.micros() <= until)
    };
    let (full, incremental) = (args.kind != BackupType::Incremental, args.kind != BackupType::Full);
    let manifests = line.manifests().iter().filter(|m| full && is_between(m.name.time));
    let segments = line.segments().iter().filter(|s| incremental && is_between(s.name.time));

    let window = |w: inventory::Window| Window {
        first_txid: w.first.0,
        last_txid: w.last.0,
        from: time(w.from),
        to: time(w.to),
    };
    let snapshots = manifests.map(|manifest| Snapshot {
        id: manifest.name.backup().to_string(),
        txid: manifest.name.txid.0,
        time: time(manifest.name.time),
        epoch: manifest.name.epoch.0,
    });
    let segments = segments.map(|segment| Segment {
        level: segment.name.level,
        first_txid: segment.name.first.0,
        last_txid: line.last_in(&segment.name).0,
        time: time(segment.name.time),
        epoch: segment.name.epoch.0,
        bytes: segment.size,
    });
    Generation {
        id: line.generation().to_string(),
        parent: None,
        windows: line.windows().into_iter().map(window).collect(),
        snapshots: snapshots.collect(),
        segments: segments.collect(),
        pack_bytes: line.packs().iter().map(|pack| pack.size).sum(),
    }
}

fn time(millis: Millis) -> String {
    millis.micros().to_string()
}

fn text(generations: &[Generation]) -> String {
    if generations.is_empty() {
        return "the replica holds nothing yet\n".to_owned();
    }
    generations.iter().map(describe).collect::<Vec<_>>().join("\n")
}

fn describe(generation: &Generation) -> String {
    let mut lines = vec![format!("generation {}", generation.id)];
    lines.extend(generation.parent.iter().map(|Parent { generation, txid }| {
        format!("  begun with  transaction {txid} of generation {generation}")
    }));
    lines.extend(generation.windows.iter().map(|w| {
        let Window { first_txid, last_txid, from, to } = w;
        format!("  restorable  transactions {first_txid} to {last_txid}, {from} to {to}")
    }));
    lines.extend(generation.snapshots.iter().map(|s| {
        let Snapshot { id, txid, time, .. } = s;
        format!("  snapshot    {id}, of transaction {txid}, {time}")
    }));
    let bytes: u64 = generation.segments.iter().map(|segment| segment.bytes).sum();
    let (count, packs) = (generation.segments.len(), generation.pack_bytes);
    lines
        .push(format!("  stored      {count} segments of {bytes} bytes, packs of {packs} bytes\n"));
    lines.join("\n")
}
