//! A connection of SQLite 3.54.1, as far as its `wal.c` touches locks, wal-index and files. Every
//! `op` is one atomic operation; between two of them anybody else may run, or the process may die.

mod checkpoint;
mod read;
mod write;

use std::ops::Range;
use std::time::Duration;

use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::index::IndexHeader;

pub use self::checkpoint::Mode;
use super::Sim;
use super::world::{CHECKPOINT, Owner, PAGES, RECOVER, UNUSED, WRITE, World, read_lock};

/// The pause of SQLite's busy handler after so many tries.
pub fn busy_pause(tries: usize) -> Duration {
    const MILLIS: [u64; 12] = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];
    Duration::from_millis(MILLIS[tries.min(MILLIS.len() - 1)])
}

/// Somebody else is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

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
}
