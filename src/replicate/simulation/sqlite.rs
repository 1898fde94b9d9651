//! A connection of SQLite 3.54.1, as far as its `wal.c` touches locks, wal-index and files. Every
//! `op` is one atomic operation; between two of them anybody else may run, or the process may die.

use std::ops::Range;
use std::time::Duration;

use genesis_wal::checksum::Checksum;
use genesis_wal::frame::FrameHeader;
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::index::IndexHeader;

use super::Sim;
use super::world::{
    CHECKPOINT, ORDER, Owner, PAGES, READ_MARKS, RECOVER, State, UNUSED, WRITE, World, page_of,
    page_size, read_lock,
};

/// How often `walTryBeginRead` is tried.
const PROTOCOL_LIMIT: u32 = 100;

/// The pause of SQLite's busy handler after so many tries.
pub fn busy_pause(tries: usize) -> Duration {
    const MILLIS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];
    Duration::from_millis(MILLIS[tries.min(MILLIS.len() - 1)])
}

/// Somebody else is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// What one try at a read transaction came to.
enum Try {
    Done,
    Retry,
    Busy,
}

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

/// A connection.
#[derive(Debug)]
pub struct Connection {
    sim: Sim,
    owner: Owner,
    /// `Wal.hdr`.
    header: IndexHeader,
    /// `Wal.readLock`.
    slot: Option<usize>,
    /// `Wal.minFrame`.
    min_frame: u32,
    writing: bool,
    checkpointing: bool,
    /// `Wal.nCkpt`.
    sequence: u32,
    /// The frames that the running transaction has spilled, by page.
    spilled: [u32; PAGES],
    /// `Wal.iReCksum`.
    resum_from: u32,
    written: Vec<(usize, u64)>,
}

impl Connection {
    /// A new connection.
    pub fn new(sim: &Sim, process: usize, connection: u8) -> Self {
        let header = IndexHeader {
            change: 0,
            page_size: None,
            max_frame: 0,
            pages: 0,
            frame_checksum: Checksum::default(),
            salts: Salts::default(),
        };
        Self {
            sim: sim.clone(),
            owner: Owner { process, connection },
            header,
            slot: None,
            min_frame: 0,
            writing: false,
            checkpointing: false,
            sequence: 0,
            spilled: [0; PAGES],
            resum_from: 0,
            written: Vec::new(),
        }
    }

    /// Whether it is in a transaction.
    pub fn is_busy(&self) -> bool {
        self.slot.is_some()
    }

    /// The last committed frame that it sees.
    pub fn max_frame(&self) -> u32 {
        self.header.max_frame
    }

    async fn op<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.sim.op(act).await
    }

    async fn share(&self, byte: usize) -> bool {
        self.op(|world| world.share(self.owner, byte)).await
    }

    async fn unshare(&self, byte: usize) {
        self.op(|world| world.unshare(self.owner, byte)).await;
    }

    async fn exclude(&self, bytes: Range<usize>) -> bool {
        self.op(|world| world.exclude(self.owner, bytes)).await
    }

    async fn unexclude(&self, bytes: Range<usize>) {
        self.op(|world| world.unexclude(self.owner, bytes)).await;
    }

    /// `walIndexTryHdr`.
    async fn try_header(&mut self) -> bool {
        let first = self.op(|world| world.copies[0]).await;
        let second = self.op(|world| world.copies[1]).await;
        let Some(header) = first.filter(|_| first == second) else { return false };
        self.header = header;
        true
    }

    /// `walIndexReadHdr`.
    async fn read_header(&mut self) -> Result<(), Busy> {
        if self.try_header().await {
            return Ok(());
        }
        let locked = self.writing;
        if !locked && !self.exclude(WRITE..WRITE + 1).await {
            return Err(Busy);
        }
        let read = if self.try_header().await { Ok(()) } else { self.recover().await };
        if !locked {
            self.unexclude(WRITE..WRITE + 1).await;
        }
        read
    }

    /// `walIndexRecover`.
    async fn recover(&mut self) -> Result<(), Busy> {
        let first = if self.checkpointing { RECOVER } else { CHECKPOINT };
        if !self.exclude(first..read_lock(0)).await {
            return Err(Busy);
        }
        let (header, wal, found) = self.op(|world| world.recovered()).await;
        self.header = header;
        self.sequence = wal.map_or(self.sequence, |wal| wal.checkpoint_sequence);
        self.write_header(|world, owner| world.publish_recovered(owner, &found)).await;
        self.op(|world| world.backfilled = 0).await;
        self.op(|world| {
            world.attempted = header.max_frame;
            world.marks[0] = 0;
        })
        .await;
        for slot in 1..5 {
            let byte = read_lock(slot);
            if self.exclude(byte..byte + 1).await {
                let mark =
                    if slot == 1 && header.max_frame > 0 { header.max_frame } else { UNUSED };
                self.op(|world| world.marks[slot] = mark).await;
                self.unexclude(byte..byte + 1).await;
            }
        }
        self.unexclude(first..read_lock(0)).await;
        Ok(())
    }

    /// `walIndexWriteHdr`; `published` happens together with the first copy.
    async fn write_header(&mut self, published: impl FnOnce(&mut World, Owner)) {
        let (owner, header) = (self.owner, self.header);
        self.op(|world| world.write_second_copy(owner, header)).await;
        self.sim.imperil().await;
        self.op(|world| {
            world.write_first_copy(owner, header);
            published(world, owner);
        })
        .await;
    }

    /// `sqlite3WalBeginReadTransaction`.
    pub async fn begin(&mut self) -> Result<(), Busy> {
        self.try_until_done(false).await
    }

    async fn try_until_done(&mut self, use_wal: bool) -> Result<(), Busy> {
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

    /// `sqlite3WalBeginWriteTransaction`.
    pub async fn begin_write(&mut self) -> Result<(), Busy> {
        if !self.exclude(WRITE..WRITE + 1).await {
            return Err(Busy);
        }
        self.writing = true;
        self.spilled = [0; PAGES];
        self.written.clear();
        if self.op(|world| world.copies[0]).await == Some(self.header) {
            return Ok(());
        }
        self.end_write().await;
        Err(Busy)
    }

    /// `sqlite3WalEndWriteTransaction`.
    pub async fn end_write(&mut self) {
        if self.writing {
            self.writing = false;
            self.resum_from = 0;
            self.unexclude(WRITE..WRITE + 1).await;
        }
    }

    /// `sqlite3WalUndo`.
    pub async fn undo(&mut self) {
        self.header = self.op(|world| world.copies[0]).await.expect("an index under the lock");
    }

    /// `walRestartLog`.
    async fn restart_log(&mut self) {
        if self.slot != Some(0) {
            return;
        }
        if self.op(|world| world.backfilled).await > 0 && self.exclude(READ_MARKS).await {
            let salt = self.sim.world().random.bits();
            self.restart_header(salt).await;
            self.unexclude(READ_MARKS).await;
        }
        let owner = self.owner;
        self.slot = None;
        self.op(|world| {
            world.snapshots.retain(|(holder, _)| *holder != owner);
            world.unshare(owner, read_lock(0));
        })
        .await;
        self.try_until_done(true).await.expect("a writer finds a mark");
    }

    /// `walRestartHdr`.
    async fn restart_header(&mut self, salt: u64) {
        self.sequence += 1;
        self.header.max_frame = 0;
        let [a, b, c, d, ..] = self.header.salts.0;
        let first = u32::from_be_bytes([a, b, c, d]).wrapping_add(1).to_be_bytes();
        self.header.salts.0[..4].copy_from_slice(&first);
        self.header.salts.0[4..].copy_from_slice(&salt.to_be_bytes()[..4]);
        self.write_header(World::restart).await;
        self.op(|world| {
            world.backfilled = 0;
            world.spared = None;
        })
        .await;
        self.op(|world| {
            world.attempted = 0;
            world.marks = [0, 0, UNUSED, UNUSED, UNUSED];
        })
        .await;
    }

    /// `walFrames`: writes pages, the last of them as a commit if that is one.
    pub async fn write(&mut self, id: u64, pages: &[(usize, u64)], commit: bool) {
        let live = self.op(|world| world.copies[0]).await.expect("an index under the lock");
        let first = if live == self.header { 0 } else { live.max_frame + 1 };
        self.restart_log().await;
        if self.header.max_frame == 0 {
            self.start_wal().await;
        }
        let mut frame = self.header.max_frame;
        for (at, &(page, stamp)) in pages.iter().enumerate() {
            let is_last = at + 1 == pages.len();
            self.written.retain(|(written, _)| *written != page);
            self.written.push((page, stamp));
            let spilled = self.spilled[page];
            if first > 0 && (!is_last || !commit) && spilled >= first {
                let from = self.resum_from;
                self.resum_from = if from == 0 { spilled } else { from.min(spilled) };
                self.op(|world| world.write_frame(spilled, None, Some(stamp))).await;
                continue;
            }
            frame += 1;
            let ends = if is_last && commit { super::world::pages() } else { 0 };
            self.append(frame, page, stamp, ends).await;
            self.spilled[page] = frame;
        }
        if commit && self.resum_from > 0 {
            self.resum(frame).await;
        }
        self.header.max_frame = frame;
        if commit {
            self.sim.imperil().await;
            self.header.change = self.header.change.wrapping_add(1);
            self.header.pages = super::world::pages();
            let images = std::mem::take(&mut self.written);
            self.write_header(|world, _| world.publish(id, &images)).await;
        }
    }

    /// Writes the header of the WAL file.
    async fn start_wal(&mut self) {
        if self.sequence == 0 {
            self.header.salts = Salts(self.sim.world().random.bits().to_be_bytes());
        }
        let header = WalHeader::new(ORDER, page_size(), self.sequence, self.header.salts);
        self.header.frame_checksum = header.checksum;
        self.op(|world| world.write_wal_header(&header)).await;
    }

    /// `walWriteOneFrame`; without sums, once they have to be taken anew at the end.
    async fn append(&mut self, frame: u32, page: usize, stamp: u64, ends: u32) {
        let number = u32::try_from(page).unwrap() + 1;
        let blank = FrameHeader {
            page: number,
            commit: ends,
            salts: Salts::default(),
            checksum: Checksum::default(),
        };
        let header = if self.resum_from == 0 { self.sum(blank, stamp) } else { blank };
        self.op(|world| world.write_frame(frame, Some(header), Some(stamp))).await;
    }

    fn sum(&mut self, header: FrameHeader, stamp: u64) -> FrameHeader {
        let header = FrameHeader { salts: self.header.salts, ..header };
        let checksum = header.chained(ORDER, self.header.frame_checksum, &page_of(stamp));
        self.header.frame_checksum = checksum;
        FrameHeader { checksum, ..header }
    }

    /// `walRewriteChecksums`.
    async fn resum(&mut self, last: u32) {
        let from = std::mem::take(&mut self.resum_from);
        let before = self.op(|world| match from {
            1 => world.wal_header().expect("a header").checksum,
            _ => world.frame(from - 1).expect("a frame").0.checksum,
        });
        self.header.frame_checksum = before.await;
        for frame in from..=last {
            let (header, stamp) = self.op(|world| world.frame(frame)).await.expect("a frame");
            let header = self.sum(header, stamp);
            self.op(|world| world.write_frame(frame, Some(header), None)).await;
        }
    }

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
