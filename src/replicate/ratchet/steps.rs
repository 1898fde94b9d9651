//! What a ratchet asks of its driver, and what it is told.

use std::time::Duration;

use genesis_wal::index::WalIndex;

/// A step for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Begin a read transaction on the free connection.
    Begin,
    /// Read the wal-index and copy everything that is committed by it.
    Copy,
    /// End the older of two read transactions, or the only one where something else holds the WAL.
    End,
    /// Rest, then try to reserve the checkpoint: other processes make none until ours has ended.
    Reserve(Duration),
    /// Give the reservation up.
    Release,
    /// Rest, then checkpoint passively, on the free connection.
    Checkpoint(Duration),
    /// Make the database file and the WAL durable, so that the next checkpoint finds little to sync.
    Sync,
    /// Rest, then try to take the write lock.
    Write(Duration),
    /// Give the write lock back.
    Rollback,
    /// Try to pin a free read slot.
    Pin,
    /// Give the pin up.
    Unpin,
    /// Rest, then look at the wal-index and at the locks.
    Look(Duration),
    /// The procedure is over.
    Finished,
}

/// What came of a step.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// The moment, on a clock that never goes back.
    pub now: Duration,
    /// Whether the step did what it says; not, when somebody else was in the way.
    pub done: bool,
    /// The wal-index: for [`Step::Begin`] as it was just before, for [`Step::Copy`] the one that was
    /// copied to, else as it is after the step.
    pub index: WalIndex,
    /// Whether another process holds both the checkpoint and the write lock.
    pub waited_for: bool,
}

/// Which procedure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Procedure {
    /// Move the mark and checkpoint, without blocking anybody.
    Drain,
    /// The same, and finish it under the write lock.
    Force,
    /// Let a checkpointer through that has waited since then.
    Respond {
        /// When it was first seen.
        since: Duration,
    },
}
