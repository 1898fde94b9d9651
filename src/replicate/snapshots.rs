//! The snapshots of one followed database: when one is due, how it goes on, and how it ends.

use std::time::Duration;

use fixedbitset::FixedBitSet;
use genesis_snapshot::consolidate::consolidate;
use genesis_snapshot::manifest::Manifest;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::part::Stamp;
use genesis_wal::time::Micros;
use tokio::sync::oneshot;

use super::capture::{Capture, Known, Packer};
use super::kept::KeptPacks;
use super::restored::RestoredState;
use super::ship::Outbox;
use super::table::PageTable;
use super::watch::Waker;
use crate::sqlite::Source;
use crate::{clock, durable};

/// What the snapshots of this process have in common.
#[derive(Debug)]
pub struct Setup {
    /// The epoch of this process.
    pub epoch: Epoch,
    /// The time between two snapshots.
    pub interval: Duration,
    /// The first transaction id that nothing in the replica is named for.
    pub free: Txid,
    /// Recorded times never go back: none of a new line is before this.
    pub not_before: Micros,
    /// The newest snapshot in the replica.
    pub previous: Option<Box<Manifest>>,
    /// The state of another line with which this one began, or the next begins.
    pub parent: Option<(Generation, Txid)>,
    /// That state, if the database was restored to it and the line is still to begin.
    pub branch: Option<RestoredState>,
    /// Blocks in packs of a snapshot that was interrupted.
    pub resumed: Known,
    /// What the packs of an unfinished snapshot hold.
    pub kept: KeptPacks,
    /// Where objects go.
    pub outbox: Outbox,
    /// Woken when there is something to attend to.
    pub waker: Waker,
}

/// The snapshots of one followed database.
#[derive(Debug)]
pub struct Snapshots {
    pub(super) setup: Setup,
    /// Snapshots begun by this process.
    attempts: u32,
    pub(super) running: Option<Running>,
    /// Told when the snapshot that a line begins with is stored.
    pub(super) awaited: Option<oneshot::Sender<Txid>>,
    next: Duration,
    paused_until: Duration,
}

/// A capture, and what it is for.
#[derive(Debug)]
pub struct Running {
    pub capture: Capture,
    pub goal: Goal,
}

/// What a capture is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// To confirm pages. Whether a sweep is under way.
    Survey { sweeping: bool },
    /// A snapshot of a line, perhaps its first.
    Snapshot(Stamp),
    /// The snapshot only has to be stored.
    Storing,
}

impl Snapshots {
    /// No snapshot yet; the next is due when the newest is older than the interval. It is `time` now.
    #[must_use]
    pub fn new(setup: Setup, time: Micros) -> Self {
        let age = setup.previous.as_ref().map(|newest| {
            let micros = time.0.saturating_sub(newest.time.0);
            Duration::from_micros(micros)
        });
        let left = age.map_or(setup.interval, |age| setup.interval.saturating_sub(age));
        let next = clock::monotonic() + left;
        Self {
            setup,
            attempts: 0,
            running: None,
            awaited: None,
            next,
            paused_until: Duration::ZERO,
        }
    }

    /// Whether the line waits for its first snapshot to be stored.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether a snapshot is due of a line whose last transaction is `last`. One that would hold what
    /// the newest holds is not.
    pub fn is_due(&mut self, generation: Generation, last: Txid) -> bool {
        let now = clock::monotonic();
        // A line that waits for its first snapshot waits for no interval.
        let due = if self.is_awaited() { self.paused_until } else { self.next };
        if self.running.is_some() || now < due {
            return false;
        }
        let newest = self.setup.previous.as_ref();
        if newest.is_some_and(|m| m.stamp.generation == generation && m.txid == last) {
            self.next = now + self.setup.interval;
            return false;
        }
        true
    }

    /// Begins to capture for a snapshot of `line`, or of a line that it begins; the blocks that it
    /// needs. Of a table that is not believed it needs all.
    pub fn begin(
        &mut self,
        source: &Source,
        line: Option<Stamp>,
        table: &PageTable,
        is_believed: bool,
    ) -> std::io::Result<FixedBitSet> {
        let epoch = self.setup.epoch;
        let stamp = match line {
            Some(line) => Stamp { epoch, ..line },
            None => Stamp { generation: generation(epoch, self.attempts)?, epoch },
        };
        let mut known = std::mem::take(&mut self.setup.resumed);
        if let Some(previous) = &self.setup.previous {
            known.add_manifest(previous);
            for block in consolidate(previous) {
                known.forget(block);
            }
        }
        let layout = table.layout();
        let mut missing = FixedBitSet::with_capacity(layout.blocks() as usize);
        for block in 0..layout.blocks() {
            let is_known = is_believed && known.has(layout, block, table.sum_of_block(block));
            missing.set(block as usize, !is_known);
        }
        let Setup { kept, outbox, waker, .. } = &self.setup;
        let packer = Packer::new(stamp, self.attempts, known, kept.clone(), outbox.clone());
        self.attempts += 1;
        let capture = Capture::start(source.page_file(), Some(packer), waker.clone());
        let capture = capture.map_err(std::io::Error::other)?;
        self.running = Some(Running { capture, goal: Goal::Snapshot(stamp) });
        Ok(missing)
    }

    /// Begins to capture only to confirm pages.
    pub fn begin_survey(&mut self, source: &Source) -> std::io::Result<()> {
        let capture = Capture::start(source.page_file(), None, self.setup.waker.clone());
        let capture = capture.map_err(std::io::Error::other)?;
        self.running = Some(Running { capture, goal: Goal::Survey { sweeping: false } });
        Ok(())
    }

    /// Notes that the running snapshot is stored.
    pub fn stored(&mut self, manifest: Box<Manifest>) {
        let (txid, generation) = (manifest.txid, manifest.stamp.generation);
        let bytes = u64::from(manifest.layout.pages) * u64::from(manifest.layout.page_size.get());
        tracing::info!(%generation, txid = txid.0, bytes, "a snapshot is stored");
        if let Some(awaited) = self.awaited.take() {
            // Shipping may have ended; it says why.
            awaited.send(txid).ok();
        }
        if let Some(branch) = self.setup.branch.take() {
            branch.forget();
        }
        self.setup.previous = Some(manifest);
        self.running = None;
        self.next = clock::monotonic() + self.setup.interval;
    }

    /// Gives up what is running; nothing is tried again for a while.
    pub fn give_up(&mut self, pause: Duration) {
        self.running = None;
        self.paused_until = clock::monotonic() + pause;
        self.next = self.paused_until;
    }

    /// Whether nothing is to be tried yet.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        clock::monotonic() < self.paused_until
    }
}

/// A generation of this process. Of several under one epoch a later one is greater.
fn generation(epoch: Epoch, attempt: u32) -> std::io::Result<Generation> {
    let random = (u64::from(attempt) << 32) | (durable::random()? >> 32);
    Ok(Generation { epoch, random })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_generations_under_one_epoch_the_later_is_the_newer() {
        for _ in 0..100 {
            let begun = |attempt| generation(Epoch(7), attempt).unwrap();
            assert!(begun(0) < begun(1) && begun(1) < begun(2));
            assert!(begun(2) < generation(Epoch(8), 0).unwrap());
        }
    }
}
