//! What goes on beside the tail: comparing pages, closing gaps, making snapshots.

use std::fmt;
use std::time::Duration;

use genesis_snapshot::block::hash_block;
use genesis_wal::id::Txid;
use genesis_wal::part::Stamp;
use genesis_wal::time::Micros;

use super::capture::{CaptureError, Report, Snapshot};
use super::cursor::Doubt;
use super::passes::{Choice, LastBecause, Passes};
use super::record::{GapEnd, RecordError};
use super::scan::Overlay;
use super::segments::Segments;
use super::snapshots::{Goal, Running};
use super::tail::Tail;
use crate::sqlite::{Source, StateReader};
use crate::{clock, durable};

/// Reports that are taken at one look.
const REPORTS: usize = 64;

/// A database of so many blocks, 16 MiB, is compared at one look.
const FEW_BLOCKS: u32 = 256;

/// The pause after a snapshot that failed.
const SNAPSHOT_PAUSE: Duration = Duration::from_secs(5);

/// The pause after something failed beside reading.
const ATTENTION_PAUSE: Duration = Duration::from_secs(5);

impl Tail {
    /// Does what there is to do beside reading: a little at each look. The recorded state, and what
    /// was absorbed since, are those of the place in the WAL up to which everything was read.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn attend(&mut self, source: &Source) -> Result<(), RecordError> {
        if self.next_attention > clock::monotonic() {
            return Ok(());
        }
        self.take_reports()?;
        if self.settles() == 0 {
            return Ok(());
        }
        match self.recorder.gap_end() {
            Some(GapEnd::Open) => self.survey(source),
            Some(GapEnd::Record) => self.close_gap(source),
            Some(GapEnd::Snapshot) | None => self.snapshot(source),
        }?;
        self.audit(source)
    }

    /// Leaves it for a while, after something failed that may pass: the WAL is read on.
    pub fn postpone(&mut self, error: &RecordError) {
        let error = crate::describe(error);
        tracing::error!(%error, "cannot compare or capture pages; trying again");
        self.next_attention = clock::monotonic() + ATTENTION_PAUSE;
    }

    /// Does at once what rests after a failure, once: somebody waits for the end.
    pub fn hurry(&mut self) {
        if !std::mem::replace(&mut self.is_hurried, true) {
            self.closing.hurry();
            self.next_attention = Duration::ZERO;
        }
    }

    fn take_reports(&mut self) -> Result<(), RecordError> {
        for _ in 0..REPORTS {
            let Some(running) = &mut self.tools.snapshots.running else { return Ok(()) };
            match running.capture.report() {
                None => return Ok(()),
                Some(Report::Blocks(blocks)) => {
                    for (block, hashes) in blocks {
                        self.recorder.captured(block, &hashes);
                    }
                }
                Some(Report::SweepOver) => match (&mut running.goal, self.recorder.passes()) {
                    (Goal::Survey { sweeping }, _) => *sweeping = false,
                    (_, Some(passes)) => passes.pass_over(),
                    (_, None) => {}
                },
                Some(Report::Stored(manifest)) => {
                    if self.tools.snapshots.is_awaited() {
                        self.tools.audit.begin_anew();
                    }
                    self.tools.snapshots.stored(manifest);
                }
                Some(Report::Failed(CaptureError::Shipping(ended))) => return Err(ended.into()),
                Some(Report::Failed(error)) => {
                    tracing::error!(%error, "the snapshot failed; another is tried later");
                    self.recorder.follow_passes(None);
                    self.tools.snapshots.give_up(SNAPSHOT_PAUSE);
                }
            }
        }
        Ok(())
    }

    /// Has the file read where pages are unconfirmed; a small one at once.
    fn survey(&mut self, source: &Source) -> Result<(), RecordError> {
        let layout = self.recorder.table().layout();
        if self.tools.snapshots.running.is_none() && layout.blocks() <= FEW_BLOCKS {
            let Some(mut state) = self.state(source)? else { return Ok(()) };
            for block in self.recorder.unconfirmed().ones() {
                let block = u32::try_from(block).unwrap_or(u32::MAX);
                let Some(first) = layout.first_page(block) else { continue };
                let mut raw = vec![0; layout.bytes(block)];
                state.read(first, &mut raw)?;
                self.recorder.captured(block, &hash_block(layout, block, &raw).0);
            }
            return self.close_gap(source);
        }
        if self.tools.snapshots.running.is_none() && !self.tools.snapshots.is_paused() {
            self.tools.snapshots.begin_survey(source)?;
        }
        if let Some(Running { capture, goal: Goal::Survey { sweeping } }) =
            &mut self.tools.snapshots.running
            && !std::mem::replace(sweeping, true)
        {
            capture.sweep(self.recorder.table().layout(), self.recorder.unconfirmed());
        }
        Ok(())
    }

    /// Records what differs.
    fn close_gap(&mut self, source: &Source) -> Result<(), RecordError> {
        if self.recorder.gap_end() != Some(GapEnd::Record) || !self.closing.is_due() {
            return Ok(());
        }
        if self.tools.spool.is_full() {
            self.tell_of_gap(&"the spool is at its limit");
            self.closing.pause();
            return Ok(());
        }
        let Some(mut state) = self.state(source)? else { return Ok(()) };
        let (position, time) = (self.position(), self.tools.times.now());
        let closed = match self.recorder.close_gap(&mut state, position, time) {
            Err(RecordError::Local(error)) => {
                self.tell_of_gap(&error);
                self.closing.pause_longer();
                return Ok(());
            }
            other => other?,
        };
        self.closing.is_over();
        self.is_gap_told = false;
        if self
            .tools
            .snapshots
            .running
            .as_ref()
            .is_some_and(|r| matches!(r.goal, Goal::Survey { .. }))
        {
            self.tools.snapshots.running = None;
        }
        let Some(closed) = closed else { return Ok(()) };
        let (pages, kind) = (closed.pages, closed.kind);
        if pages == 0 {
            tracing::info!("every page is as it was recorded");
        } else {
            tracing::warn!(pages, ?kind, "recorded in one what was not seen commit by commit");
        }
        Ok(())
    }

    /// Says, once of a gap, that it has to wait for room.
    fn tell_of_gap(&mut self, reason: &dyn fmt::Display) {
        if !std::mem::replace(&mut self.is_gap_told, true) {
            tracing::error!(
                %reason,
                "NOT PROTECTED: what was not seen commit by commit cannot be recorded before there is \
                 room for it in the spool"
            );
        }
    }

    /// Drives the snapshot that is running, or begins one that is due: at once, as nothing else may come
    /// for long that calls for another look.
    fn snapshot(&mut self, source: &Source) -> Result<(), RecordError> {
        let running = self.tools.snapshots.running.as_ref().map(|running| running.goal);
        if let None | Some(Goal::Survey { .. }) = running {
            self.tools.snapshots.running = None;
            self.begin_snapshot(source)?;
        }
        match self.tools.snapshots.running.as_ref().map(|running| running.goal) {
            Some(Goal::Snapshot(stamp)) => self.drive_snapshot(source, stamp),
            _ => Ok(()),
        }
    }

    fn begin_snapshot(&mut self, source: &Source) -> Result<(), RecordError> {
        let gap_end = self.recorder.gap_end();
        let line = match (gap_end, self.recorder.line()) {
            (None, Some(line)) => {
                let (stamp, last) = (line.stamp(), line.last());
                if !self.tools.snapshots.is_due(stamp.generation, last) {
                    return Ok(());
                }
                Some(stamp)
            }
            _ if self.tools.snapshots.is_paused() => return Ok(()),
            (_, Some(_)) => {
                tracing::error!(
                    "fewer than half of the pages are as they were recorded: another line begins"
                );
                self.leave_line()?;
                None
            }
            (_, None) => None,
        };
        let is_believed = self.recorder.is_believed();
        let table = self.recorder.table();
        let missing = self.tools.snapshots.begin(source, line, table, is_believed)?;
        let layout = self.recorder.table().layout();
        let blocks = missing.count_ones(..);
        tracing::info!(blocks, of = layout.blocks(), "a snapshot begins");
        self.recorder.follow_passes(Some(Passes::new(layout, missing)));
        Ok(())
    }

    /// What follows is recorded on another line.
    fn leave_line(&mut self) -> Result<(), RecordError> {
        self.seal()?;
        let Some(line) = self.recorder.line() else { return Ok(()) };
        let (after, time) = (line.last().next(), line.last_time());
        let after = after.ok_or(RecordError::TxidsExhausted)?;
        let setup = &mut self.tools.snapshots.setup;
        setup.free = setup.free.max(after);
        setup.not_before = setup.not_before.max(time);
        setup.parent = None;
        self.tools.snapshots.awaited = None;
        self.recorder.leave_line();
        Ok(())
    }

    fn drive_snapshot(&mut self, source: &Source, stamp: Stamp) -> Result<(), RecordError> {
        let Some(passes) = self.recorder.passes() else { return Ok(()) };
        match passes.next() {
            Choice::Wait => Ok(()),
            Choice::Sweep(blocks) => {
                let layout = passes.layout();
                if let Some(running) = &self.tools.snapshots.running {
                    running.capture.sweep(layout, blocks);
                }
                Ok(())
            }
            Choice::Last(because) => self.finish_snapshot(source, stamp, because),
        }
    }

    /// Captures what is missing as of now, under the lock, which fixes the transaction.
    fn finish_snapshot(
        &mut self,
        source: &Source,
        stamp: Stamp,
        because: LastBecause,
    ) -> Result<(), RecordError> {
        // No segment spans a snapshot: one that is stored sooner overtakes whole segments.
        self.seal_or_keep()?;
        if self.recorder.waiting() > 0 {
            tracing::error!(
                "the snapshot failed, as what was recorded before it cannot be sealed; another is \
                 tried later"
            );
            self.recorder.follow_passes(None);
            self.tools.snapshots.give_up(SNAPSHOT_PAUSE);
            return Ok(());
        }
        let Some(mut state) = self.state(source)? else { return Ok(()) };
        let layout = self.recorder.table().layout();
        let missing: Vec<u32> = self.recorder.passes().iter().flat_map(|p| p.missing()).collect();
        if because == LastBecause::NoProgress {
            tracing::warn!(
                blocks = missing.len(),
                "commits come in faster than a snapshot can follow: the rest of it is read while \
                 the WAL is held"
            );
        }
        let Some(running) = &mut self.tools.snapshots.running else { return Ok(()) };
        let file = durable::nameless(&self.tools.folder)?;
        let mut last = running.capture.finish(layout, file)?;
        running.goal = Goal::Storing;
        for block in missing {
            let Some(first) = layout.first_page(block) else { continue };
            let mut raw = vec![0; layout.bytes(block)];
            state.read(first, &mut raw)?;
            self.recorder.captured(block, &hash_block(layout, block, &raw).0);
            if self.recorder.passes().is_some_and(|passes| passes.is_missing(block)) {
                return Err(RecordError::Doubt(Doubt::Misread(first)));
            }
            last.block(block, &raw)?;
        }
        self.recorder.follow_passes(None);
        let (txid, time) = self.number_snapshot(stamp)?;
        let (position, state) = (self.position(), self.recorder.table().state());
        let parent = self.tools.snapshots.setup.parent;
        last.complete(Snapshot { layout, txid, time, position, state, parent });
        Ok(())
    }

    /// The transaction and time of a snapshot as of now. One of a new line begins it.
    fn number_snapshot(&mut self, stamp: Stamp) -> Result<(Txid, Micros), RecordError> {
        if let Some(line) = self.recorder.line() {
            return Ok((line.last(), line.last_time()));
        }
        let now = self.tools.times.now();
        let setup = &self.tools.snapshots.setup;
        // Names tell milliseconds, rounded up: a line that begins with a full one is found by it.
        let time = now.max(setup.not_before).ceil_millis().micros();
        let txid = setup.free;
        let (page_size, state) = (self.recorder.table().page_size(), self.recorder.table().state());
        let line = Segments::new(self.tools.spool.clone(), stamp, page_size, (txid, time, state));
        self.recorder.begin_line(line);
        self.tools.snapshots.awaited = Some(self.tools.outbox.snapshot()?);
        let (generation, pages) = (stamp.generation, self.recorder.table().pages());
        tracing::info!(%generation, txid = txid.0, pages, "a new generation begins");
        Ok((txid, time))
    }

    /// The state up to which everything was read; `None` while the WAL is not to be had as it was
    /// read, which passes. What is read of it is to be proven by the page table, where that is believed.
    fn state<'a>(&self, source: &'a Source) -> Result<Option<StateReader<'a>>, RecordError> {
        let Some(settled) = self.settled() else { return Ok(None) };
        let pages = self.recorder.table().pages();
        let overlay = if settled.max_frame == 0 || self.is_alone() {
            Overlay::default()
        } else {
            match Overlay::read(source, &settled, settled.max_frame)? {
                Ok(overlay) => overlay,
                Err(end) => {
                    tracing::debug!(%end, "the WAL is being restarted; looking again");
                    return Ok(None);
                }
            }
        };
        Ok(Some(StateReader::new(source, overlay.into_images(pages), pages)))
    }
}
