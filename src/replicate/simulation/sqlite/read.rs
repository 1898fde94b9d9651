//! Read transactions.

use std::time::Duration;

use super::{Busy, Connection};
use crate::replicate::simulation::world::{PAGES, RECOVER, State, read_lock};

/// How often `walTryBeginRead` is tried.
const PROTOCOL_LIMIT: u32 = 100;

/// What one try at a read transaction came to.
enum Try {
    Done,
    Retry,
    Busy,
}

impl Connection {
    /// `sqlite3WalBeginReadTransaction`.
    pub async fn begin(&mut self) -> Result<(), Busy> {
        self.try_until_done(false).await
    }

    pub(super) async fn try_until_done(&mut self, use_wal: bool) -> Result<(), Busy> {
        for count in 1.. {
            assert!(count <= PROTOCOL_LIMIT, "locking protocol");
            if count > 5 {
                let pause = if count >= 10 { (count - 9) * (count - 9) * 39 } else { 1 };
                self.sim.rest(Duration::from_micros(u64::from(pause))).await;
            }
            match self.try_begin(use_wal).await {
                Try::Done => break,
                Try::Retry => {}
                Try::Busy => return Err(Busy),
            }
        }
        Ok(())
    }

    /// `walTryBeginRead`.
    async fn try_begin(&mut self, use_wal: bool) -> Try {
        if !use_wal && self.read_header().await.is_err() {
            if self.share(RECOVER).await {
                self.unshare(RECOVER).await;
                return Try::Retry;
            }
            return Try::Busy;
        }
        if !use_wal && self.op(|world| world.backfilled).await == self.header.max_frame {
            let shared = self.share(read_lock(0)).await;
            if shared && self.op(|world| world.copies[0]).await != Some(self.header) {
                self.unshare(read_lock(0)).await;
                return Try::Retry;
            }
            if shared {
                self.hold(0);
                return Try::Done;
            }
        }
        let Some((slot, mark)) = self.pick_slot().await else { return Try::Retry };
        if !self.share(read_lock(slot)).await {
            return Try::Retry;
        }
        self.min_frame = self.op(|world| world.backfilled).await + 1;
        let moved = self.op(|world| world.marks[slot]).await != mark;
        if moved || self.op(|world| world.copies[0]).await != Some(self.header) {
            self.unshare(read_lock(slot)).await;
            return Try::Retry;
        }
        self.hold(slot);
        Try::Done
    }

    fn hold(&mut self, slot: usize) {
        self.slot = Some(slot);
        let last = if slot == 0 { 0 } else { self.header.max_frame };
        self.sim.world().snapshots.push((self.owner, last));
    }

    /// The mark nearest below the end, or a slot that is set to the end.
    async fn pick_slot(&mut self) -> Option<(usize, u32)> {
        let max_frame = self.header.max_frame;
        let mut best = None;
        for slot in 1..5 {
            let mark = self.op(|world| world.marks[slot]).await;
            if best.is_none_or(|(_, highest)| highest <= mark) && mark <= max_frame {
                best = Some((slot, mark));
            }
        }
        if best.is_some_and(|(_, mark)| mark == max_frame) {
            return best;
        }
        for slot in 1..5 {
            let byte = read_lock(slot);
            if self.exclude(byte..byte + 1).await {
                self.op(|world| world.marks[slot] = max_frame).await;
                self.unexclude(byte..byte + 1).await;
                return Some((slot, max_frame));
            }
        }
        best
    }

    /// `sqlite3WalEndReadTransaction`.
    pub async fn end(&mut self) {
        self.end_write().await;
        if let Some(slot) = self.slot.take() {
            let owner = self.owner;
            self.op(|world| {
                world.snapshots.retain(|(holder, _)| *holder != owner);
                world.unshare(owner, read_lock(slot));
            })
            .await;
        }
    }

    /// Reads the database as this transaction sees it.
    pub async fn read(&self) -> State {
        let mut state = [0; PAGES];
        for (page, stamp) in state.iter_mut().enumerate() {
            let last = if self.slot == Some(0) { 0 } else { self.header.max_frame };
            let frames = self.min_frame.max(1)..last + 1;
            *stamp = self
                .op(|world| {
                    let frame = world.last_frame_of(page, frames);
                    frame.map_or(world.database[page], |frame| world.frame(frame).unwrap().1)
                })
                .await;
        }
        state
    }
}
