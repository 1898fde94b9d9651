//! What happened how often.

use crate::simulated::tally;

tally! {
    /// Steps taken.
    steps,
    /// Commits published.
    commits,
    /// Restarts of the WAL.
    restarts,
    /// Recoveries of the wal-index in place.
    recoveries,
    /// Commits that were published by a recovery.
    ghosts,
    /// Processes of the application that died.
    crashes,
    /// Lives of ours that ended early.
    deaths,
    /// Lives that went on from the recorded place.
    resumed,
    /// Generations begun.
    generations,
    /// Drains.
    drains,
    /// Forces that took the write lock.
    forces,
    /// Those of them that parked the read lock.
    emptied,
    /// Forces that gave the write lock back, as too much had come in before it.
    gave_way,
    /// Moves that ended with everything backfilled and the lock not parked.
    stranded,
    /// Reads beside a checkpoint or a sync of ours.
    read_beside,
    /// Answers to a checkpointer that waits.
    answers,
    /// Pins.
    pins,
    /// Doubts, each with a reason that was injected.
    doubts,
    /// Doubts for no other reason than a recovery that had been seen before.
    belated_doubts,
    /// Locks that came to rest on a mark at the end, and not on mark 0: the WAL is restarted later
    /// than it could be.
    beside,
    /// Blocking checkpoints that came through under steady writers.
    served,
    /// Those that were left waiting.
    starved,
    /// How long those that came through had waited, in microseconds.
    served_micros,
}
