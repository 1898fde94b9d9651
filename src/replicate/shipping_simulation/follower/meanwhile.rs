//! Recording before the replica has answered, as `follow::meanwhile` does: into the spool, under the epoch
//! of before, from where the host's table and segments say that its line ends.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use genesis_wal::id::Epoch;
use genesis_wal::page::StateHash;
use genesis_wal::part::{Part, Stamp};
use genesis_wal::position::WalPosition;
use genesis_wal::reader::Reader;
use genesis_wal::segment::{TransactionHeader, fragments};

use super::super::notary::{APART, NOBODY, Place};
use super::snapshot::Snapshots;
use super::{Hand, Tail, page_size};
use crate::clock;
use crate::replica::Tip;
use crate::replicate::attempts::Attempts;
use crate::replicate::engine::Engine;
use crate::replicate::establish::Origin;
use crate::replicate::follow::{FollowError, Follower, Word};
use crate::replicate::followed::was_followed;
use crate::replicate::record::{GapEnd, Recorder};
use crate::replicate::restored::RestoredState;
use crate::replicate::segments::Segments;
use crate::replicate::ship::{Outbox, ShippingEnded};
use crate::replicate::table::{Keeper, PageTable, at_local_end};
use crate::replicate::times::Times;

/// Where what was recorded meanwhile ends.
pub struct Left {
    epoch: Epoch,
    place: Place,
    state: StateHash,
    /// After how many commits that is, and which place in the WAL, where that has the last of them.
    at: Option<(usize, WalPosition)>,
}

/// No snapshot is begun before an answer.
const NEVER: Duration = Duration::from_hours(24 * 365);

impl Hand {
    /// The number under which what it records meanwhile is in the books.
    pub(super) fn apart(&self) -> usize {
        self.process + APART
    }

    /// Learns what the replica and the spool hold together. What was recorded meanwhile is among that, unless
    /// somebody else has written since, or the spool has lost something.
    pub(super) fn hears_of(&self, origin: &Origin) {
        let end = origin.tip.map(|tip| ((tip.generation, tip.reached.txid), tip.reached.state));
        for name in &origin.unshipped {
            // A snapshot that overtook what comes before it may have left a hole.
            let is_next = Some(name.first) > origin.stored;
            let process = if is_next { self.process } else { NOBODY };
            let segment = std::fs::read(self.follower.spool.path(name)).unwrap();
            let mut reader = Reader::new(&segment);
            while !reader.rest().is_empty() {
                for fragment in fragments(&Part::decode(&mut reader).unwrap()) {
                    let TransactionHeader { txid, state, time, .. } = fragment.unwrap().header;
                    self.notary().adopted(process, (name.generation, txid), (state, time));
                }
            }
        }
        let Some(Left { epoch, place, state, at }) = &self.left else { return };
        let is_there = end == Some((*place, *state));
        let is_line = origin.tip.is_some_and(|tip| tip.generation == place.0);
        if is_line && self.keeps_all && epoch.next() == Some(origin.epoch) {
            assert!(is_there, "{place:?} was recorded meanwhile, and the replica ends at {end:?}");
        }
        if is_there {
            self.notary().confirmed += 1;
            // Another host may have made a snapshot of the same state, and tells its own place.
            let tip = origin.tip.and_then(|tip| tip.reached.position);
            if let Some((at, position)) = at.filter(|(_, position)| tip == Some(*position)) {
                assert_eq!(self.database().place(&position), Some(at), "the WAL was held");
            }
        }
    }

    /// Records what is committed until a word comes, or until told to stop.
    pub(super) async fn record_meanwhile(self) -> Result<(Self, Option<Word>), FollowError> {
        let Some(known) = self.known_end() else { return Ok((self, None)) };
        // Nothing is shipped of what is queued.
        let (outbox, _queued) = Outbox::new();
        let mut tail = self.go_on(known, outbox);
        tail.hand.notary().meanwhile += 1;
        let bell = Arc::clone(&tail.hand.database().bell);
        let heard = loop {
            match tail.hand.follower.words.try_recv() {
                Ok(word) => break Ok(Some(word)),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => break Err(ShippingEnded),
            }
            if tail.recorder.gap_end() == Some(GapEnd::Record) {
                tail.close_gap()?;
            }
            let seen = tail.look(tail.hand.follower.alarm.stopping());
            if tail.act(&seen, &bell).await? {
                break Ok(None);
            }
        };
        tail.read()?;
        let mut is_sealed = true;
        while is_sealed && tail.recorder.waiting() > 0 {
            is_sealed = tail.recorder.seal().is_ok_and(|sealed| sealed.is_some());
        }
        let Tail { mut hand, recorder, keeper, at, .. } = tail;
        hand.left = None;
        if is_sealed {
            keeper.finish(recorder.table(), recorder.as_of());
            hand.left = recorder.line().filter(|_| !recorder.is_behind()).map(|line| {
                let Stamp { generation, epoch } = line.stamp();
                let is_there = hand.database().has_in_wal(at);
                let position = hand.database().position(at).filter(|_| is_there);
                let at = position.map(|position| (at, position));
                Left { epoch, place: (generation, line.last()), state: line.state(), at }
            });
        }
        // The WAL is held anew.
        hand.database().held = Some(usize::MAX);
        Ok((hand, heard?))
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
