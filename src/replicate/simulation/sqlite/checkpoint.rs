//! Checkpoints.

use std::ops::Range;
use std::time::Duration;

use super::{Busy, Connection, busy_pause};
use crate::replicate::simulation::world::{
    CHECKPOINT, PAGES, READ_MARKS, UNUSED, WRITE, read_lock,
};

/// How a checkpoint deals with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Passive,
    Full,
    Restart,
    Truncate,
}

/// A busy handler: how long it goes on waiting.
struct Patience {
    tries: usize,
    left: Duration,
}

impl Connection {
    /// `walBusyLock`.
    async fn exclude_patiently(
        &self,
        bytes: Range<usize>,
        patience: &mut Option<Patience>,
    ) -> bool {
        loop {
            if self.exclude(bytes.clone()).await {
                return true;
            }
            let Some(waiting) = patience else { return false };
            let pause = busy_pause(waiting.tries).min(waiting.left);
            if pause.is_zero() {
                return false;
            }
            waiting.tries += 1;
            waiting.left -= pause;
            self.sim.rest(pause).await;
        }
    }

    /// `sqlite3WalCheckpoint`.
    pub async fn checkpoint(&mut self, mode: Mode, patience: Duration) -> Result<(), Busy> {
        if !self.exclude(CHECKPOINT..CHECKPOINT + 1).await {
            return Err(Busy);
        }
        self.checkpointing = true;
        let blocks = mode > Mode::Passive && !patience.is_zero();
        let mut patience = blocks.then_some(Patience { tries: 0, left: patience });
        let mut run_as = mode;
        if mode > Mode::Passive {
            self.writing = self.exclude_patiently(WRITE..WRITE + 1, &mut patience).await;
            if !self.writing {
                (run_as, patience) = (Mode::Passive, None);
            }
        }
        let mut done = self.read_header().await;
        if done.is_ok() {
            done = self.checkpoint_locked(run_as, patience).await;
        }
        self.end_write().await;
        self.checkpointing = false;
        self.unexclude(CHECKPOINT..CHECKPOINT + 1).await;
        if run_as == mode { done } else { Err(Busy) }
    }

    /// `walCheckpoint`.
    async fn checkpoint_locked(
        &mut self,
        mode: Mode,
        mut patience: Option<Patience>,
    ) -> Result<(), Busy> {
        if self.op(|world| world.backfilled).await < self.header.max_frame {
            let safe = self.safe_frame(&mut patience).await;
            let backfilled = self.op(|world| world.backfilled).await;
            if backfilled < safe
                && self.exclude_patiently(read_lock(0)..read_lock(1), &mut patience).await
            {
                self.backfill(safe).await;
                self.unexclude(read_lock(0)..read_lock(1)).await;
            }
        }
        if mode == Mode::Passive {
            return Ok(());
        }
        if self.op(|world| world.backfilled).await < self.header.max_frame {
            return Err(Busy);
        }
        if mode >= Mode::Restart {
            let salt = self.sim.world().random.bits();
            if !self.exclude_patiently(READ_MARKS, &mut patience).await {
                return Err(Busy);
            }
            if mode == Mode::Truncate {
                self.restart_header(salt).await;
                self.op(|world| world.wal.clear()).await;
            }
            self.unexclude(READ_MARKS).await;
        }
        Ok(())
    }

    /// The last frame that no reader stands in the way of.
    async fn safe_frame(&mut self, patience: &mut Option<Patience>) -> u32 {
        let mut safe = self.header.max_frame;
        for slot in 1..5 {
            let mark = self.op(|world| world.marks[slot]).await;
            if safe <= mark {
                continue;
            }
            let byte = read_lock(slot);
            if self.exclude_patiently(byte..byte + 1, patience).await {
                let mark = if slot == 1 { safe } else { UNUSED };
                self.op(|world| world.marks[slot] = mark).await;
                self.unexclude(byte..byte + 1).await;
            } else {
                safe = mark;
                *patience = None;
            }
        }
        safe
    }

    async fn backfill(&mut self, safe: u32) {
        let (from, live) = self.op(|world| (world.backfilled, world.copies[0])).await;
        if live.is_none_or(|live| live.salts != self.header.salts) {
            return;
        }
        self.op(|world| world.attempted = safe).await;
        let (owner, frames) = (self.owner, from + 1..self.header.max_frame + 1);
        for page in 0..PAGES {
            let frame = self.sim.world().last_frame_of(page, frames.clone());
            if let Some(frame) = frame.filter(|frame| *frame <= safe) {
                self.op(|world| world.backfill(owner, page, frame)).await;
            }
        }
        self.op(|world| {
            world.backfilled = safe;
            world.note(owner, || format!("backfilled up to {safe}"));
        })
        .await;
    }
}
