//! One generation: its snapshots, its segments, and how far they reach.

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;

use genesis_wal::id::{Generation, Txid};
use genesis_wal::name::{ManifestName, PackName, SegmentName};
use genesis_wal::time::Millis;

use super::Cuts;

/// An object of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Listed<N> {
    /// Its name.
    pub name: N,
    /// Its size in bytes.
    pub size: u64,
}

/// What a replica holds of one generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    generation: Generation,
    cuts: Arc<Cuts>,
    pub(super) manifests: Vec<Listed<ManifestName>>,
    pub(super) packs: Vec<Listed<PackName>>,
    /// Ascending by first transaction.
    pub(super) segments: Vec<Listed<SegmentName>>,
    /// Beside each segment: where the best one stands among it and those before it, by
    /// [`Line::preference`].
    best: Vec<u32>,
}

/// Segments that continue a state, one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// The segments, in order. Each holds the transaction after the last of the one before it; it
    /// may begin with transactions that are known already.
    pub segments: Vec<Listed<SegmentName>>,
    /// The last transaction that is reached.
    pub reached: Txid,
    /// What is missing after it, if anything comes later.
    pub gap: Option<Gap>,
}

/// Transactions that no segment holds, where a later one is there, or one of them is known to have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gap {
    /// The last transaction before the gap.
    pub after: Txid,
    /// The first transaction after it.
    pub next: Txid,
}

/// Consecutive transactions, each of which can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// The first transaction: a snapshot's.
    pub first: Txid,
    /// The last transaction.
    pub last: Txid,
    /// From when on the first was the current state, rounded up.
    pub from: Millis,
    /// When the last was committed, rounded up.
    pub to: Millis,
}

impl Line {
    pub(super) fn new(generation: Generation, cuts: Arc<Cuts>) -> Self {
        Self {
            generation,
            cuts,
            manifests: Vec::new(),
            packs: Vec::new(),
            segments: Vec::new(),
            best: Vec::new(),
        }
    }

    /// Brings what was listed in order.
    pub(super) fn sort(&mut self) {
        let order = |m: &Listed<ManifestName>| {
            let ManifestName { txid, epoch, attempt, time, repair, .. } = m.name;
            (txid, epoch, attempt, time, repair)
        };
        self.manifests.sort_by_key(order);
        self.packs.sort_by_key(|p| p.name);
        self.segments.sort_by_key(|s| (s.name.first, s.name));
        let mut best: Option<(u32, SegmentName)> = None;
        self.best = Vec::with_capacity(self.segments.len());
        for (at, segment) in (0u32..).zip(&self.segments) {
            let better = best.filter(|b| self.preference(b.1) > self.preference(segment.name));
            self.best.push(best.insert(better.unwrap_or((at, segment.name))).0);
        }
    }

    /// The generation.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Its snapshots, ascending by transaction; of one transaction, by epoch, attempt and repair.
    #[must_use]
    pub fn manifests(&self) -> &[Listed<ManifestName>] {
        &self.manifests
    }

    /// The packs that were written for it, ascending by name.
    #[must_use]
    pub fn packs(&self) -> &[Listed<PackName>] {
        &self.packs
    }

    /// Its segments, ascending by first transaction. Of one that a writer left after another had taken
    /// over, the transactions [that are history](Self::last_in) count.
    #[must_use]
    pub fn segments(&self) -> &[Listed<SegmentName>] {
        &self.segments
    }

    /// The last transaction of one of its segments that is history.
    #[must_use]
    pub fn last_in(&self, segment: &SegmentName) -> Txid {
        self.cuts.last_in(segment)
    }

    /// When the last transaction of a segment that is history was committed, rounded up; `None` where
    /// its name tells the time of a later one.
    #[must_use]
    pub fn time_of(&self, segment: &SegmentName) -> Option<Millis> {
        self.cuts.is_whole(segment).then_some(segment.time)
    }

    /// The highest transaction id of its history.
    #[must_use]
    pub fn max_txid(&self) -> Option<Txid> {
        let manifest = self.manifests.last().map(|m| m.name.txid);
        manifest.max(self.best_of(self.segments.len()).map(|s| self.last_in(&s.name)))
    }

    /// The latest time that an object is named for.
    #[must_use]
    pub fn last_time(&self) -> Option<Millis> {
        let manifest = self.manifests.iter().map(|m| m.name.time).max();
        manifest.max(self.segments.iter().map(|s| s.name.time).max())
    }

    /// The segments that continue the state after `from`, as few as possible: of those that hold the
    /// next transaction always the one that reaches farthest; of equals the one of the highest
    /// level, then of the highest epoch; of copies the one with the highest repair number.
    #[must_use]
    pub fn chain(&self, from: Txid) -> Chain {
        let mut chain = Chain { segments: Vec::new(), reached: from, gap: None };
        while let Some(next) = chain.reached.next() {
            let after = self.segments.partition_point(|s| s.name.first <= next);
            let best = self.best_of(after);
            if let Some(&segment) = best.filter(|s| self.last_in(&s.name) >= next) {
                chain.reached = self.last_in(&segment.name);
                chain.segments.push(segment);
            } else {
                let later = self.segments.get(after).map(|s| s.name.first);
                chain.gap = later.map(|next| Gap { after: chain.reached, next });
                break;
            }
        }
        chain
    }

    /// The transactions that none of its segments holds, ascending, of which what continues the state
    /// after `from` may hold some: what holds the next one may begin before it.
    #[must_use]
    pub fn not_held(&self, from: Txid) -> Vec<RangeInclusive<Txid>> {
        let (mut holes, mut held) = (Vec::new(), Txid(0));
        for Listed { name, .. } in &self.segments {
            if held < before(name.first) {
                holes.extend(held.next().map(|next| next..=before(name.first)));
            }
            held = held.max(self.last_in(name));
        }
        holes.extend(held.next().map(|next| next..=Txid(u64::MAX)));
        holes.retain(|hole| *hole.end() > from);
        holes
    }

    /// Whether it has this very segment.
    #[must_use]
    pub fn lists(&self, segment: &SegmentName) -> bool {
        let place = (segment.first, *segment);
        self.segments.binary_search_by_key(&place, |s| (s.name.first, s.name)).is_ok()
    }

    /// Whether one of its segments holds all that another one is named for.
    #[must_use]
    pub fn holds(&self, segment: &SegmentName) -> bool {
        let after = self.segments.partition_point(|s| s.name.first <= segment.first);
        self.best_of(after).is_some_and(|best| self.last_in(&best.name) >= segment.last)
    }

    /// The transactions that can be restored, ascending.
    #[must_use]
    pub fn windows(&self) -> Vec<Window> {
        let mut windows: Vec<Window> = Vec::new();
        for Listed { name, .. } in &self.manifests {
            let last = windows.last().map(|window| window.last);
            if last.is_some_and(|last| name.txid <= last) {
                continue;
            }
            let window = self.window_from(name);
            match windows.last_mut() {
                Some(before) if before.last.next() == Some(name.txid) => {
                    before.last = window.last;
                    before.to = window.to;
                }
                _ => windows.push(window),
            }
        }
        windows
    }

    fn window_from(&self, manifest: &ManifestName) -> Window {
        let chain = self.chain(manifest.txid);
        let to = chain.segments.iter().rev().find_map(|segment| self.time_of(&segment.name));
        Window {
            first: manifest.txid,
            last: chain.reached,
            from: manifest.time,
            to: to.unwrap_or(manifest.time),
        }
    }

    /// The best of the first so many segments.
    fn best_of(&self, first: usize) -> Option<&Listed<SegmentName>> {
        let at = self.best.get(first.checked_sub(1)?)?;
        self.segments.get(*at as usize)
    }

    /// Which of two segments that hold the same transaction is taken: the greater. First transaction
    /// and time only make the choice the same for every order of a listing; names that agree in them
    /// too are those of copies.
    fn preference(&self, name: SegmentName) -> impl Ord + use<> {
        let last = self.last_in(&name);
        (last, name.level, name.epoch, name.first, Reverse(name.time), name.repair)
    }
}

fn before(txid: Txid) -> Txid {
    Txid(txid.0.saturating_sub(1))
}
