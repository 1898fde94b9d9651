//! Ours: what `follow.rs`, `tail.rs`, `establish.rs` and `source.rs` do, step by step, around the real
//! engine, ratchet, cursor and scanner. Each has a module here of its name.

mod beside;
mod establish;
mod follow;
mod source;
mod tail;

use std::time::Duration;

use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::position::WalPosition;

use super::Sim;
use super::sqlite::Connection;
use super::world::{OURS, Owner, Tip, World, page_size, pages};
use crate::replicate::cursor::{Cursor, Doubt};
use crate::replicate::engine::Engine;
use crate::replicate::ratchet::Ratchet;

/// So many frames of the engine's are one of ours: its thresholds are made for larger transactions.
const SCALE: u32 = 250;

/// So many frames may be copied under the write lock.
const FEW: u32 = 4;

/// How often an index of two minds is read again before it is recovered.
const INDEX_RETRIES: usize = 4;

/// As in the driver.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
const OF_TWO_MINDS: Duration = Duration::from_millis(500);

/// The descriptor that pins.
const PIN: Owner = Owner { process: OURS, connection: 9 };

/// A look at the wal-index, and what the oracle knew at that moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    index: WalIndex,
    step: u64,
    published: usize,
    recoveries: u64,
}

/// What a transaction holds.
struct Held {
    look: Look,
    overlay: bool,
}

/// One life of the process.
pub struct Life {
    sim: Sim,
    reader: Connection,
    spare: Connection,
    helper: Connection,
    is_write_locked: bool,
    pinned: Option<usize>,
    cursor: Cursor,
    engine: Engine,
    ratchet: Ratchet,
    settled: Option<IndexHeader>,
    of_two_minds: Option<Duration>,
    /// Recoveries when the cursor took its count of commits.
    counted_at: u64,
    /// Recoveries when everything was last read.
    settled_at: u64,
    /// The place is of an earlier life: the WAL behind it may be restarted before it is read.
    absent: bool,
    /// The frames of the last scan, as they were proven.
    window: Vec<(u32, u64)>,
    /// Commits that were recorded and are not sealed, and the place behind them.
    unsealed: u64,
    last: Option<WalPosition>,
    /// How often everything was read.
    settles: u64,
    /// Commits that the last captured WAL holds after the captured state.
    commits_after: u32,
}

/// Lives until it is killed.
pub async fn live(sim: Sim, wal_limit: Option<u64>) {
    let connection = |number| Connection::new(&sim, OURS, number);
    let look = Look { index: EMPTY, step: 0, published: 0, recoveries: 0 };
    let mut life = Life {
        reader: connection(0),
        spare: connection(1),
        helper: connection(2),
        is_write_locked: false,
        pinned: None,
        cursor: Cursor::at(page_size(), &look.index.header, None, pages()),
        engine: Engine::new(Duration::from_millis(3), wal_limit),
        ratchet: Ratchet::with_few(FEW),
        settled: None,
        of_two_minds: None,
        counted_at: 0,
        settled_at: 0,
        absent: false,
        window: Vec::new(),
        unsealed: 0,
        last: None,
        settles: 0,
        commits_after: 0,
        sim,
    };
    let held = life.acquire().await;
    let tip = life.sim.world().replica.tip;
    let resumed = match tip {
        Some(tip) => life.resume(&held, tip).await,
        None => false,
    };
    if !resumed {
        life.begin_generation(&held).await;
    }
    loop {
        let doubt = life.follow(wal_limit).await;
        life.doubted(doubt);
        life.seal();
        life.keep_one_reader().await;
        let held = life.acquire().await;
        life.end_older().await;
        life.begin_generation(&held).await;
    }
}

const EMPTY: WalIndex = WalIndex {
    header: IndexHeader {
        change: 0,
        page_size: None,
        max_frame: 0,
        pages: 0,
        frame_checksum: genesis_wal::checksum::Checksum(0, 0),
        salts: genesis_wal::header::Salts([0; 8]),
    },
    backfilled: 0,
    read_marks: [0; 5],
    backfill_attempted: 0,
};

impl Life {
    async fn op<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.sim.op(act).await
    }

    fn seal(&mut self) {
        self.unsealed = 0;
        let replica = &mut self.sim.world().replica;
        replica.tip = Some(Tip { commits: replica.commits, position: self.last });
    }

    /// A doubt is only right where its reason was injected.
    fn doubted(&self, doubt: Doubt) {
        let mut world = self.sim.world();
        world.note(PIN, || format!("doubts: {doubt}"));
        let recovered = world.recoveries != self.counted_at;
        // A recovery counts commits anew. One that finds an empty WAL gives it salts of zero: two lives of
        // such a WAL have one identity, and only the chain of checksums tells them apart.
        let reason = matches!(doubt, Doubt::LostCommits { .. } | Doubt::Scan(_));
        assert!(self.absent || (recovered && reason), "doubts without a reason: {doubt}");
        world.tally.doubts += 1;
        let belated = !self.absent && world.recoveries == self.settled_at;
        world.tally.belated_doubts += u64::from(belated);
    }
}
