//! What is measured.

mod cpu;
mod detect;
mod durable;
mod flat_out;
mod holds;
mod large;
mod network;
mod operator;
mod paced;
mod restart;
mod restore;
mod snapshot;
mod volume;

use std::path::Path;

use anyhow::Result;

use crate::figure::Figure;
use crate::side::Side;
use crate::writer::Writer;

/// Where a run takes place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    pub writer: &'a Writer,
    pub folder: &'a Path,
}

/// Something to measure.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub file_system: FileSystem,
    pub sides: Sides,
    pub run: fn(Place<'_>, &Side) -> Result<Vec<Figure>>,
}

/// Where its files are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    /// In the folder that was named.
    Disk,
    /// In memory.
    Memory,
    /// In the folder that was named, with the replica in an object store.
    DiskAndStore,
}

/// Who takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    /// Everybody.
    All,
    /// Nobody, and the replicator.
    Ours,
    /// The replicator.
    OnlyWith,
    /// Whoever replicates.
    Replicators,
}

impl Sides {
    pub fn has(self, side: &Side) -> bool {
        match (self, side) {
            (_, Side::With) | (Self::All | Self::Ours, Side::Without) => true,
            (_, other) => matches!(self, Self::All | Self::Replicators) && *other != Side::Without,
        }
    }
}

/// All of them, in order.
pub const SCENARIOS: [Scenario; 23] = [
    Scenario {
        name: "flat-out",
        title: "one writer as fast as it goes, synchronous=NORMAL",
        file_system: FileSystem::Disk,
        sides: Sides::All,
        run: flat_out::run,
    },
    Scenario {
        name: "paced",
        title: "5,000 commits/s, synchronous=NORMAL",
        file_system: FileSystem::Disk,
        sides: Sides::All,
        run: paced::normal,
    },
    Scenario {
        name: "paced-full",
        title: "5,000 commits/s or as many as it can, synchronous=FULL",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: paced::full,
    },
    Scenario {
        name: "paced-tmpfs",
        title: "5,000 commits/s on tmpfs, synchronous=NORMAL",
        file_system: FileSystem::Memory,
        sides: Sides::Ours,
        run: paced::normal,
    },
    Scenario {
        name: "holds",
        title: "write-lock holds at 5,000 commits/s, by its book, and looked at every 0.1 ms",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: holds::run,
    },
    Scenario {
        name: "operator",
        title: "an operator's wal_checkpoint(TRUNCATE), timeout 5 s, under 2,000 commits/s",
        file_system: FileSystem::Disk,
        sides: Sides::All,
        run: operator::run,
    },
    Scenario {
        name: "detection",
        title: "commit to recorded, before any upload, 10 s each",
        file_system: FileSystem::Disk,
        sides: Sides::OnlyWith,
        run: detect::run,
    },
    Scenario {
        name: "durable",
        title: "commit to replica at 300 commits/s",
        file_system: FileSystem::Disk,
        sides: Sides::All,
        run: durable::run,
    },
    Scenario {
        name: "cpu",
        title: "the replicator's processor time, 10 s each",
        file_system: FileSystem::Disk,
        sides: Sides::OnlyWith,
        run: cpu::run,
    },
    Scenario {
        name: "volume-counter",
        title: "a counter in a random row of 200 bytes, one commit a second, then 100,000 at once",
        file_system: FileSystem::Disk,
        sides: Sides::Replicators,
        run: volume::counter,
    },
    Scenario {
        name: "volume-insert",
        title: "300 bytes of random text appended, one commit a second, then 100,000 at once",
        file_system: FileSystem::Disk,
        sides: Sides::Replicators,
        run: volume::insert,
    },
    Scenario {
        name: "volume-blob",
        title: "a random KiB appended, one commit a second, then 100,000 at once",
        file_system: FileSystem::Disk,
        sides: Sides::Replicators,
        run: volume::blob,
    },
    Scenario {
        name: "restore",
        title: "a database of 1 GB from a folder; without: cp and sync",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: restore::database,
    },
    Scenario {
        name: "restore-transactions",
        title: "100,000 small transactions on top of a snapshot",
        file_system: FileSystem::Disk,
        sides: Sides::OnlyWith,
        run: restore::transactions,
    },
    Scenario {
        name: "snapshot",
        title: "snapshots of 1 GB to a folder, the second after 1 % of the blocks changed; without: cp and sync",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: snapshot::run,
    },
    Scenario {
        name: "paced-snapshot",
        title: "5,000 commits/s while a first snapshot of 1 GB is made",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: snapshot::beside_paced,
    },
    Scenario {
        name: "flat-out-snapshot",
        title: "one writer as fast as it goes while a first snapshot of 1 GB is made",
        file_system: FileSystem::Disk,
        sides: Sides::Ours,
        run: snapshot::beside_flat_out,
    },
    Scenario {
        name: "restart",
        title: "restarts beside 1 GB: unchanged, and after 1 % of the blocks changed and the WAL was deleted",
        file_system: FileSystem::Disk,
        sides: Sides::OnlyWith,
        run: restart::run,
    },
    Scenario {
        name: "network-20",
        title: "10 commits/s for 20 s, lone commits, and 20 s of nothing, 20 ms from the store",
        file_system: FileSystem::DiskAndStore,
        sides: Sides::Replicators,
        run: network::behind_20,
    },
    Scenario {
        name: "network-100",
        title: "10 commits/s for 20 s, lone commits, and 20 s of nothing, 100 ms from the store",
        file_system: FileSystem::DiskAndStore,
        sides: Sides::Replicators,
        run: network::behind_100,
    },
    Scenario {
        name: "network-restore-20",
        title: "a database of 1 GB, 20 ms from the store; without: its objects downloaded and synced",
        file_system: FileSystem::DiskAndStore,
        sides: Sides::All,
        run: network::database_20,
    },
    Scenario {
        name: "network-restore-100",
        title: "a database of 1 GB, 100 ms from the store; without: its objects downloaded and synced",
        file_system: FileSystem::DiskAndStore,
        sides: Sides::All,
        run: network::database_100,
    },
    Scenario {
        name: "network-segments-100",
        title: "3,600 segments on top of a snapshot, 100 ms from the store",
        file_system: FileSystem::DiskAndStore,
        sides: Sides::OnlyWith,
        run: network::segments_100,
    },
];
