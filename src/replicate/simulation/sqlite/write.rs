//! Write transactions.

use genesis_wal::checksum::Checksum;
use genesis_wal::frame::FrameHeader;
use genesis_wal::header::{Salts, WalHeader};

use super::{Busy, Connection};
use crate::replicate::simulation::world::{
    self, ORDER, PAGES, READ_MARKS, UNUSED, WRITE, World, page_of, page_size, read_lock,
};

impl Connection {
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
    pub(super) async fn restart_header(&mut self, salt: u64) {
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
            let ends = if is_last && commit { world::pages() } else { 0 };
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
            self.header.pages = world::pages();
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
}
