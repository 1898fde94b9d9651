//! The snapshots of a simulated follower: one object after another, each when the one before is stored.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use bytes::Bytes;
use genesis_snapshot::consolidate::consolidate;
use genesis_snapshot::manifest::{Manifest, PackRef};
use genesis_snapshot::pack::PackWriter;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ManifestName, ObjectName, PackName};
use genesis_wal::part::{self, Stamp};
use genesis_wal::time::Micros;
use tokio::sync::oneshot;

use super::super::database::{Still, layout, page_size};
use super::Tail;
use crate::replica::Tip;
use crate::replicate::capture::Known;
use crate::replicate::establish::Origin;
use crate::replicate::follow::FollowError;
use crate::replicate::record::{GapEnd, RecordError, State};
use crate::replicate::restored::RestoredState;
use crate::replicate::segments::Segments;
use crate::replicate::ship::ShippingEnded;
use crate::{clock, durable};

/// The snapshots of a process.
pub struct Snapshots {
    pub epoch: Epoch,
    pub free: Txid,
    pub not_before: Micros,
    pub previous: Option<Box<Manifest>>,
    pub parent: Option<(Generation, Txid)>,
    pub branch: Option<RestoredState>,
    pub resumed: Known,
    pub attempts: u32,
    pub taking: Option<Taking>,
    /// Told when the snapshot that a line begins with is stored.
    pub awaited: Option<oneshot::Sender<Txid>>,
    pub next: Duration,
}

impl Snapshots {
    /// The snapshots of a process that goes on from an origin.
    pub fn begin(origin: Origin, interval: Duration) -> Self {
        Self {
            epoch: origin.epoch,
            free: origin.free,
            not_before: origin.last_time,
            previous: origin.previous,
            parent: origin.parent,
            branch: origin.branch,
            resumed: origin.resumed,
            attempts: 0,
            taking: None,
            awaited: None,
            next: clock::monotonic() + interval,
        }
    }

    /// None, for so long, of a process that goes on from where its host's line ends.
    pub fn never(epoch: Epoch, tip: &Tip, long: Duration) -> Self {
        Self {
            epoch,
            free: tip.reached.txid,
            not_before: tip.reached.time,
            previous: None,
            parent: None,
            branch: None,
            resumed: Known::default(),
            attempts: 0,
            taking: None,
            awaited: None,
            next: clock::monotonic() + long,
        }
    }
}

/// A snapshot under way.
pub struct Taking {
    objects: VecDeque<Object>,
    in_flight: Option<(Receiver<()>, Option<Footer>)>,
    manifest: Box<Manifest>,
}

type Footer = (PackName, Bytes);

struct Object {
    name: ObjectName,
    bytes: Bytes,
    footer: Option<Footer>,
}

impl Tail {
    /// Learns what is stored, and hands over what comes next.
    pub(super) fn take_reports(&mut self) -> Result<(), FollowError> {
        let Some(taking) = &mut self.snapshots.taking else { return Ok(()) };
        if let Some((stored, footer)) = &taking.in_flight {
            match stored.try_recv() {
                Ok(()) => {}
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(ShippingEnded.into()),
            }
            if let Some((name, footer)) = footer {
                self.hand.follower.kept.keep(name, footer);
            }
            taking.in_flight = None;
        }
        if let Some(Object { name, bytes, footer }) = taking.objects.pop_front() {
            let stored = self.hand.follower.outbox.object(name, bytes)?;
            taking.in_flight = Some((stored, footer));
            return Ok(());
        }
        self.hand.follower.kept.forget_all();
        let Some(Taking { manifest, .. }) = self.snapshots.taking.take() else { return Ok(()) };
        if let Some(awaited) = self.snapshots.awaited.take() {
            awaited.send(manifest.txid).ok();
        }
        if let Some(branch) = self.snapshots.branch.take() {
            branch.forget();
        }
        self.snapshots.previous = Some(manifest);
        self.snapshots.next = clock::monotonic() + self.hand.follower.snapshot_interval;
        Ok(())
    }

    /// Takes a snapshot that is due.
    pub(super) fn snapshot(&mut self) -> Result<(), FollowError> {
        if self.snapshots.taking.is_some() {
            return Ok(());
        }
        if self.recorder.gap_end() == Some(GapEnd::Snapshot) {
            if self.recorder.line().is_some() {
                self.leave_line()?;
            }
        } else if !self.is_due() {
            return Ok(());
        }
        let epoch = self.snapshots.epoch;
        let stamp = match self.recorder.line() {
            Some(line) => Stamp { epoch, ..line.stamp() },
            None => Stamp { generation: self.generation()?, epoch },
        };
        self.confirm_all();
        self.seal()?;
        let (txid, time) = self.number_snapshot(stamp)?;
        self.assemble(stamp, txid, time);
        Ok(())
    }

    fn is_due(&mut self) -> bool {
        let Some(line) = self.recorder.line() else { return false };
        if clock::monotonic() < self.snapshots.next {
            return false;
        }
        let held = (line.stamp().generation, line.last());
        let newest = self.snapshots.previous.as_ref();
        if newest.is_some_and(|manifest| (manifest.stamp.generation, manifest.txid) == held) {
            self.snapshots.next = clock::monotonic() + self.hand.follower.snapshot_interval;
            return false;
        }
        true
    }

    fn generation(&self) -> Result<Generation, RecordError> {
        let random = durable::random().map_err(RecordError::Local)?;
        let random = (u64::from(self.snapshots.attempts) << 32) | (random >> 32);
        Ok(Generation { epoch: self.snapshots.epoch, random })
    }

    fn leave_line(&mut self) -> Result<(), RecordError> {
        self.seal()?;
        let Some(line) = self.recorder.line() else { return Ok(()) };
        let (after, time) = (line.last().next().unwrap(), line.last_time());
        let snapshots = &mut self.snapshots;
        snapshots.free = snapshots.free.max(after);
        snapshots.not_before = snapshots.not_before.max(time);
        (snapshots.parent, snapshots.awaited) = (None, None);
        self.recorder.leave_line();
        Ok(())
    }

    fn number_snapshot(&mut self, stamp: Stamp) -> Result<(Txid, Micros), FollowError> {
        if let Some(line) = self.recorder.line() {
            return Ok((line.last(), line.last_time()));
        }
        let now = self.times.now();
        let time = now.max(self.snapshots.not_before).ceil_millis().micros();
        let (txid, state) = (self.snapshots.free, self.recorder.table().state());
        let spool = self.hand.follower.spool.clone();
        let line = Segments::new(spool, stamp, page_size(), (txid, time, state));
        self.recorder.begin_line(line);
        self.snapshots.awaited = Some(self.hand.follower.outbox.snapshot()?);
        self.tell(&self.hand.database());
        Ok((txid, time))
    }

    /// Puts the objects of a snapshot together: each block that is not stored yet in a pack of its own.
    fn assemble(&mut self, stamp: Stamp, txid: Txid, time: Micros) {
        let attempt = self.snapshots.attempts;
        self.snapshots.attempts += 1;
        let mut known = std::mem::take(&mut self.snapshots.resumed);
        if let Some(previous) = &self.snapshots.previous {
            known.add_manifest(previous);
            for block in consolidate(previous) {
                known.forget(block);
            }
        }
        let database = Arc::clone(&self.hand.database);
        let database = database.lock().unwrap();
        let pages = database.state(self.at);
        let layout = layout(pages);
        let Stamp { generation, epoch } = stamp;
        let (mut objects, mut part) = (VecDeque::new(), 0);
        for block in 0..layout.blocks() {
            if known.has(layout, block, self.recorder.table().sum_of_block(block)) {
                continue;
            }
            let mut raw = vec![0; layout.bytes(block)];
            Still(pages).read(layout.first_page(block).unwrap(), &mut raw).unwrap();
            let mut writer = PackWriter::new(layout, stamp);
            writer.push(block, &raw).unwrap();
            let name = PackName { generation, epoch, attempt, part, repair: 0 };
            part += 1;
            let (bytes, entries) = writer.finish().unwrap();
            known.add(PackRef { name, size: bytes.len() as u64 }, layout, &entries);
            let footer = bytes.len() - part::trailing_len(&bytes).unwrap();
            let footer = Some((name, Bytes::copy_from_slice(&bytes[footer..])));
            objects.push_back(Object { name: name.into(), bytes: bytes.into(), footer });
        }
        let (packs, blocks) = known.assemble(layout).unwrap();
        let (position, state) = (database.position(self.at), self.recorder.table().state());
        let parent = self.snapshots.parent;
        let manifest =
            Manifest { layout, stamp, txid, position, time, state, parent, packs, blocks };
        let time = time.ceil_millis();
        let name = ManifestName { generation, txid, time, epoch, attempt, repair: 0 };
        let mut bytes = Vec::new();
        manifest.encode(&mut bytes).unwrap();
        objects.push_back(Object { name: name.into(), bytes: bytes.into(), footer: None });
        let manifest = Box::new(manifest);
        self.snapshots.taking = Some(Taking { objects, in_flight: None, manifest });
    }
}
