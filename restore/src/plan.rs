//! Which objects make a state: one snapshot, and the segments that continue it.
//!
//! Transaction ids are never used twice within a replica, and a time belongs to the line of history
//! that was the current one then. So both lead to one generation: the newest that had begun by then.
//! The snapshot is always the newest that is not after the target, so that what is missing before
//! it does not matter.

mod backup;
mod error;
mod instead;

pub use backup::backup;
pub use error::PlanError;
pub use instead::{Restorable, last_before, plan_instead};

use std::fmt;

use genesis_snapshot::inventory::{Chain, Cuts, Gap, Inventory, Line, Listed};
use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, SegmentName};
use genesis_wal::time::{Micros, Millis};

use crate::target::Target;

/// What is fetched for a restore, and in which order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was asked for.
    pub target: Target,
    /// The line of history that holds it.
    pub generation: Generation,
    /// The snapshot to begin with.
    pub manifest: ManifestName,
    /// The segments that continue it, in order. Transactions that the state before a segment has
    /// already, and those after the target, are left out when they are applied.
    pub segments: Vec<SegmentName>,
    /// The last transaction in these objects.
    pub reaches: Txid,
    /// Bytes in the segments.
    pub segment_bytes: u64,
    /// How much of what each writer left is history: what is not is left out, too.
    pub cuts: Cuts,
    /// What is missing after the last of them, if the state is taken for the latest because that may
    /// never have been durable.
    pub missing: Option<Gap>,
}

/// Chooses the objects that make a state, in the line that was current or in the generation that is
/// named.
///
/// # Errors
/// [`PlanError`] says what is missing, and what can be restored instead.
pub fn plan(
    inventory: &Inventory,
    target: Target,
    generation: Option<Generation>,
) -> Result<Plan, PlanError> {
    let lines = candidates(inventory, generation)?;
    let line = current_line(&lines, target)?;
    let known = known(inventory, line, generation);
    let found = match target {
        Target::Latest => latest(line, known),
        Target::Txid(txid) => at_txid(line, txid, known),
        Target::Time(time) => at_time(line, time, known),
    };
    let (manifest, chain) = found?;
    Ok(Plan {
        target,
        generation: line.generation(),
        manifest: manifest.name,
        segments: chain.segments.iter().map(|s| s.name).collect(),
        reaches: chain.reached,
        segment_bytes: chain.segments.iter().map(|s| s.size).sum(),
        cuts: inventory.cuts().clone(),
        missing: None,
    })
}

/// The snapshot that a plan begins with. Names of snapshots are enough to tell.
///
/// # Errors
/// [`PlanError`], as [`plan`].
pub fn beginning(
    inventory: &Inventory,
    target: Target,
    generation: Option<Generation>,
) -> Result<ManifestName, PlanError> {
    let lines = candidates(inventory, generation)?;
    Ok(snapshot(current_line(&lines, target)?, target)?.name)
}

/// The generations that can be restored, oldest first: those with a snapshot.
fn candidates(
    inventory: &Inventory,
    generation: Option<Generation>,
) -> Result<Vec<&Line>, PlanError> {
    let has_snapshot = |line: &&Line| !line.manifests().is_empty();
    let Some(generation) = generation else {
        return Ok(inventory.generations().filter(has_snapshot).collect());
    };
    let line = inventory.generation(generation).ok_or(PlanError::UnknownGeneration(generation))?;
    if has_snapshot(&line) { Ok(vec![line]) } else { Err(PlanError::NoSnapshot(generation)) }
}

/// The newest line that had begun by the target.
fn current_line<'a>(lines: &[&'a Line], target: Target) -> Result<&'a Line, PlanError> {
    let had_begun = |line: &&&Line| {
        let first = line.manifests().first();
        first.is_some_and(|first| is_by(&first.name, target))
    };
    let oldest = lines.first().ok_or(PlanError::NothingToRestore)?;
    lines.iter().rev().find(had_begun).copied().ok_or_else(|| PlanError::BeforeFirst {
        target,
        generation: oldest.generation(),
        windows: oldest.windows(),
    })
}

/// Up to which transaction everything is known to have been there, where a line is the newest, and so has to
/// reach it. Who names a line of which there is a later one, even without a snapshot, takes what it has.
fn known(inventory: &Inventory, line: &Line, named: Option<Generation>) -> Option<Txid> {
    let newest = match named {
        Some(_) => inventory.generations().next_back(),
        None => inventory.latest_generation(),
    };
    let is_newest = newest.is_some_and(|newest| newest.generation() == line.generation());
    inventory.cuts().known().filter(|_| is_newest)
}

/// Whether a snapshot is not after the target.
fn is_by(manifest: &ManifestName, target: Target) -> bool {
    match target {
        Target::Latest => true,
        Target::Txid(txid) => manifest.txid <= txid,
        Target::Time(time) => manifest.time.micros() <= time,
    }
}

type Found = Result<(Listed<ManifestName>, Chain), PlanError>;

/// The newest snapshot that is not after the target.
fn snapshot(line: &Line, target: Target) -> Result<Listed<ManifestName>, PlanError> {
    let newest = line.manifests().iter().rfind(|m| is_by(&m.name, target));
    newest.copied().ok_or(PlanError::NoSnapshot(line.generation()))
}

fn latest(line: &Line, known: Option<Txid>) -> Found {
    let manifest = snapshot(line, Target::Latest)?;
    let chain = line.chain(manifest.name.txid);
    match chain.gap.or_else(|| lost(&chain, known)) {
        Some(gap) => Err(gap_error(line, Target::Latest, gap)),
        None => Ok((manifest, chain)),
    }
}

fn at_txid(line: &Line, txid: Txid, known: Option<Txid>) -> Found {
    let target = Target::Txid(txid);
    let manifest = snapshot(line, target)?;
    let mut chain = line.chain(manifest.name.txid);
    if chain.reached < txid {
        let is_after_all = line.max_txid().max(known) < Some(txid);
        return Err(match gap_after(line, &chain, known) {
            Some(gap) if !is_after_all => gap_error(line, target, gap),
            _ => PlanError::AfterLast {
                target,
                generation: line.generation(),
                windows: line.windows(),
            },
        });
    }
    // The first segment that holds the target is the last one needed.
    let before = |s: &Listed<SegmentName>| line.last_in(&s.name) < txid;
    let needed = match txid {
        txid if txid == manifest.name.txid => 0,
        _ => chain.segments.partition_point(before) + 1,
    };
    cut(line, &mut chain, manifest.name.txid, needed);
    Ok((manifest, chain))
}

fn at_time(line: &Line, time: Micros, known: Option<Txid>) -> Found {
    let target = Target::Time(time);
    let manifest = snapshot(line, target)?;
    let mut chain = line.chain(manifest.name.txid);
    let passes = |s: &Listed<SegmentName>| {
        line.time_of(&s.name).is_some_and(|name| is_surely_after(name, time))
    };
    if let Some(last) = chain.segments.iter().position(passes) {
        cut(line, &mut chain, manifest.name.txid, last + 1);
        return Ok((manifest, chain));
    }
    // Nothing that is reached is surely after the target, so what is missing may be before it.
    match gap_after(line, &chain, known) {
        Some(gap) if !begins_after(line, gap, time) => Err(gap_error(line, target, gap)),
        _ => Ok((manifest, chain)),
    }
}

/// Whether what is named for `name` was committed after `time`: names are rounded up to the
/// millisecond.
fn is_surely_after(name: Millis, time: Micros) -> bool {
    name.0.checked_sub(1).is_some_and(|ms| Millis(ms).micros() >= time)
}

/// What is missing after a chain, before the next segment or snapshot, or at the end.
fn gap_after(line: &Line, chain: &Chain, known: Option<Txid>) -> Option<Gap> {
    let after = chain.reached;
    let segment = chain.gap.map(|gap| gap.next);
    let snapshot = first_snapshot_after(line, after).map(|m| m.txid);
    let next = segment.into_iter().chain(snapshot).min();
    next.map(|next| Gap { after, next }).or_else(|| lost(chain, known))
}

/// What is missing after a chain that ends before what is known to have been there.
fn lost(chain: &Chain, known: Option<Txid>) -> Option<Gap> {
    let known = known.filter(|known| *known > chain.reached)?;
    Some(Gap { after: chain.reached, next: known.next().unwrap_or(known) })
}

/// Whether a gap is none, as the very next transaction is a snapshot's, and is after `time`.
fn begins_after(line: &Line, gap: Gap, time: Micros) -> bool {
    let next = first_snapshot_after(line, gap.after);
    gap.after.next() == Some(gap.next)
        && next.is_some_and(|m| m.txid == gap.next && is_surely_after(m.time, time))
}

fn first_snapshot_after(line: &Line, txid: Txid) -> Option<ManifestName> {
    let mut names = line.manifests().iter().map(|m| m.name);
    names.find(|m| m.txid > txid)
}

fn gap_error(line: &Line, target: Target, gap: Gap) -> PlanError {
    PlanError::Gap { target, generation: line.generation(), gap }
}

/// Leaves the first `needed` segments of a chain that begins after `from`.
fn cut(line: &Line, chain: &mut Chain, from: Txid, needed: usize) {
    chain.segments.truncate(needed);
    chain.reached = chain.segments.last().map_or(from, |s| line.last_in(&s.name));
}

impl fmt::Display for Restorable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, txid, time } = self;
        write!(f, "transaction {} ({}) of generation {generation}", txid.0, time.micros())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "restore {} from generation {}", self.target, self.generation)?;
        writeln!(f, "  snapshot of transaction {}", self.manifest.txid.0)?;
        writeln!(f, "    {}", self.manifest)?;
        let (count, bytes) = (self.segments.len(), self.segment_bytes);
        write!(f, "  segments: {count}, of {bytes} bytes, to transaction {}", self.reaches.0)?;
        for segment in &self.segments {
            write!(f, "\n    {segment}")?;
        }
        if let Some(Gap { after, next }) = self.missing {
            write!(f, "\n  missing: what is between {} and {}", after.0, next.0)?;
        }
        Ok(())
    }
}
