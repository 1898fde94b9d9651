//! The source: `sqlite/source.rs` and `sqlite/guards.rs`.

use genesis_wal::index::WalIndex;

use super::super::world::{CHECKPOINT, UNUSED, WRITE, read_lock};
use super::{EMPTY, Held, INDEX_RETRIES, LOOK_AGAIN, Life, Look, PIN};

impl Life {
    async fn index(&self) -> Option<Look> {
        for _ in 0..INDEX_RETRIES {
            let (first, mut look) = self
                .op(|world| {
                    let (step, published) = (world.step, world.published.len());
                    let recoveries = world.recoveries;
                    (world.copies[0], Look { index: EMPTY, step, published, recoveries })
                })
                .await;
            let second = self.op(|world| world.copies[1]).await;
            let rest = self.op(|world| (world.backfilled, world.marks, world.attempted)).await;
            // What stands behind the header belongs to it only if that is still there.
            let again = self.op(|world| world.copies[0]).await;
            if let Some(header) = first.filter(|_| first == second && first == again) {
                let (backfilled, read_marks, backfill_attempted) = rest;
                look.index = WalIndex { header, backfilled, read_marks, backfill_attempted };
                return Some(look);
            }
        }
        None
    }

    /// The wal-index, as soon as it is whole.
    pub(super) async fn published(&mut self) -> Look {
        loop {
            if let Some(look) = self.index().await {
                return look;
            }
            self.unlock_writes().await;
            let free = if self.spare.is_busy() { &mut self.helper } else { &mut self.spare };
            if free.begin().await.is_ok() {
                free.end().await;
            }
        }
    }

    pub(super) async fn acquire(&mut self) -> Held {
        loop {
            let before = self.index().await;
            let connection = if self.reader.is_busy() { &mut self.spare } else { &mut self.reader };
            if connection.begin().await.is_err() {
                continue;
            }
            let after = self.index().await;
            if let Some(held) = before.zip(after).and_then(|(b, a)| classify(&b.index, &a)) {
                return held;
            }
            let newest = if self.spare.is_busy() { &mut self.spare } else { &mut self.reader };
            newest.end().await;
        }
    }

    pub(super) async fn begin(&mut self) -> bool {
        // Somebody may rebuild the index for longer than a connection waits.
        let refused = self.sim.world().is_refused();
        if refused {
            self.sim.rest(LOOK_AGAIN).await;
            return false;
        }
        let free = if self.reader.is_busy() { &mut self.spare } else { &mut self.reader };
        free.begin().await.is_ok()
    }

    pub(super) async fn end_older(&mut self) {
        self.reader.end().await;
        if self.spare.is_busy() {
            std::mem::swap(&mut self.reader, &mut self.spare);
        }
    }

    pub(super) async fn lock_writes(&mut self) -> bool {
        if !self.op(|world| world.reserve(WRITE)).await {
            return false;
        }
        self.is_write_locked = true;
        let is_whole = self.index().await.is_some();
        if !is_whole {
            self.unlock_writes().await;
        }
        is_whole
    }

    pub(super) async fn unlock_writes(&mut self) {
        if std::mem::take(&mut self.is_write_locked) {
            self.op(|world| world.end_reservation(WRITE)).await;
        }
    }

    pub(super) async fn pin(&mut self) -> bool {
        for (unused, slot) in [true, false].into_iter().flat_map(|u| (1..5).map(move |s| (u, s))) {
            let usable = |look: &Look| {
                let least = if unused { UNUSED } else { look.index.header.max_frame };
                look.index.read_marks[slot] >= least
            };
            if !self.index().await.is_some_and(|look| usable(&look)) {
                continue;
            }
            if !self.op(|world| world.share(PIN, read_lock(slot))).await {
                continue;
            }
            if self.index().await.is_some_and(|look| usable(&look)) {
                self.pinned = Some(slot);
                self.sim.world().tally.pins += 1;
                return true;
            }
            self.op(|world| world.unshare(PIN, read_lock(slot))).await;
        }
        false
    }

    pub(super) async fn unpin(&mut self) {
        if let Some(slot) = self.pinned.take() {
            self.op(|world| world.unshare(PIN, read_lock(slot))).await;
        }
    }

    pub(super) async fn is_waited_for(&self) -> bool {
        self.op(|world| world.is_held_by_another(CHECKPOINT)).await
            && self.op(|world| world.is_held_by_another(WRITE)).await
    }

    pub(super) async fn keep_one_reader(&mut self) {
        self.sim.world().replica.as_of = None;
        self.unlock_writes().await;
        self.op(|world| world.end_reservation(CHECKPOINT)).await;
        if self.spare.is_busy() && self.reader.is_busy() {
            self.end_older().await;
        } else if !self.reader.is_busy() {
            while self.reader.begin().await.is_err() {}
        }
        self.unpin().await;
    }
}

/// What a transaction holds that was begun between two looks.
fn classify(before: &WalIndex, after: &Look) -> Option<Held> {
    let now = &after.index;
    let same_wal = before.header.salts == now.header.salts;
    if before.header == now.header && before.backfilled == before.header.max_frame {
        Some(Held { look: *after, overlay: false })
    } else if same_wal && now.backfilled < before.header.max_frame {
        Some(Held { look: *after, overlay: true })
    } else {
        None
    }
}
