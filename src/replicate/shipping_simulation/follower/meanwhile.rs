//! Recording before the replica has answered, as `follow::meanwhile` does: into the spool, under the epoch
//! of before, from where the host's table and segments say that its line ends.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use genesis_wal::id::Epoch;
use genesis_wal::part::Stamp;

use super::snapshot::Snapshots;
use super::{Hand, Tail, page_size};
use crate::clock;
use crate::replica::Tip;
use crate::replicate::attempts::Attempts;
use crate::replicate::engine::Engine;
use crate::replicate::follow::{FollowError, Follower, Word};
use crate::replicate::followed::was_followed;
use crate::replicate::record::{GapEnd, Recorder};
use crate::replicate::restored::RestoredState;
use crate::replicate::segments::Segments;
use crate::replicate::ship::{Outbox, ShippingEnded};
use crate::replicate::table::{Keeper, PageTable, at_local_end};
use crate::replicate::times::Times;

/// In the books, what a process records meanwhile is of another process, until the replica has adopted it.
const APART: usize = 1 << 32;

/// No snapshot is begun before an answer.
const NEVER: Duration = Duration::from_hours(24 * 365);

impl Hand {
    /// The number under which what it records meanwhile is in the books.
    pub(super) fn apart(&self) -> usize {
        self.process + APART
    }

    /// Records what is committed until a word comes, or until told to stop.
    pub(super) async fn record_meanwhile(self) -> Result<(Self, Option<Word>), FollowError> {
        let Some(known) = self.known_end() else { return Ok((self, None)) };
        // Nothing is shipped of what is queued.
        let (outbox, _queued) = Outbox::new();
        let mut tail = self.go_on(known, outbox);
        tail.hand.notary().meanwhile += 1;
        let bell = Arc::clone(&tail.hand.database().bell);
        let word = loop {
            match tail.hand.follower.words.try_recv() {
                Ok(word) => break Some(word),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Err(ShippingEnded.into()),
            }
            if tail.recorder.gap_end() == Some(GapEnd::Record) {
                tail.close_gap()?;
            }
            let seen = tail.look(tail.hand.follower.alarm.stopping());
            if tail.act(&seen, &bell).await? {
                break None;
            }
        };
        tail.read()?;
        let mut is_sealed = true;
        while is_sealed && tail.recorder.waiting() > 0 {
            is_sealed = tail.recorder.seal().is_ok_and(|sealed| sealed.is_some());
        }
        let Tail { hand, recorder, keeper, .. } = tail;
        if is_sealed {
            keeper.finish(recorder.table(), recorder.as_of());
        }
        // The WAL is held anew.
        hand.database().held = Some(usize::MAX);
        Ok((hand, word))
    }

    /// Where what this host has recorded ends, and after how many commits that is; `None` where it is not
    /// known, or the WAL does not go on from it.
    fn known_end(&self) -> Option<(Tip, PageTable, Epoch, usize)> {
        let Follower { folder, spool, path, allowed, .. } = &self.follower;
        let is_asked_for_another = allowed.takeover || allowed.new_generation;
        if is_asked_for_another
            || !was_followed(folder, path)
            || RestoredState::read(folder, path).is_some()
        {
            return None;
        }
        let (tip, table, epoch) = at_local_end(spool, folder).ok()??;
        let at = self.database().place(&tip.reached.position?)?;
        Some((tip, table, epoch, at))
    }

    fn go_on(self, known: (Tip, PageTable, Epoch, usize), outbox: Outbox) -> Tail {
        let Follower { folder, spool, store, .. } = &self.follower;
        let (tip, table, epoch, at) = known;
        let stamp = Stamp { generation: tip.generation, epoch };
        let end = (tip.reached.txid, tip.reached.time, tip.reached.state);
        let line = Segments::new(spool.clone(), stamp, page_size(), end);
        let keeper = Keeper::new(folder.clone());
        let times = Times::begin(folder, tip.reached.time, Arc::clone(store));
        self.database().held = Some(at);
        Tail {
            recorder: Recorder::continuing(table, line),
            engine: Engine::new(self.follower.sync_interval, None),
            keeper,
            times,
            snapshots: Snapshots::never(epoch, &tip, NEVER),
            at,
            absent_since: Some(tip.reached.time),
            settles: 1,
            last_read: clock::monotonic(),
            closing: Attempts::default(),
            told: Cell::new(tip.reached.time),
            outbox,
            process: self.apart(),
            hand: self,
        }
    }
}
