//! Why a state can't be restored, and what can be instead.

use std::fmt;

use genesis_snapshot::inventory::{Gap, Window};
use genesis_wal::id::{BackupId, Generation};
use thiserror::Error;

use crate::target::Target;

/// Why no plan leads to the target.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PlanError {
    /// No generation has a snapshot.
    #[error(
        "the replica holds no snapshot, so there is nothing to restore; \
         check the replica's address, and whether its first snapshot was ever finished"
    )]
    NothingToRestore,
    /// The replica holds nothing of the generation that was named.
    #[error("the replica holds nothing of generation {0}; list the replica to see what it holds")]
    UnknownGeneration(Generation),
    /// The generation that was named has no snapshot.
    #[error("generation {0} has no snapshot, so nothing of it can be restored; choose another one")]
    NoSnapshot(Generation),
    /// No snapshot has this id.
    #[error(
        "the replica holds no snapshot with the id {0}; \
         list the replica to see those that it holds, each with its id"
    )]
    UnknownBackup(BackupId),
    /// The target is before everything that is kept.
    #[error(
        "{target} is before the first state that is kept; \
         in generation {generation} there are {}",
        Windows(windows)
    )]
    BeforeFirst {
        /// What was asked for.
        target: Target,
        /// The oldest generation that was looked at.
        generation: Generation,
        /// What can be restored of it.
        windows: Vec<Window>,
    },
    /// The target is after everything that is kept.
    #[error(
        "{target} is after the last state that is kept; \
         in generation {generation} there are {}",
        Windows(windows)
    )]
    AfterLast {
        /// What was asked for.
        target: Target,
        /// The generation that would hold it.
        generation: Generation,
        /// What can be restored of it.
        windows: Vec<Window>,
    },
    /// Transactions between the snapshot and the target are missing.
    #[error(
        "{target} can't be restored: in generation {generation} nothing holds the transactions \
         between {} and {}; the last one before the gap can be restored: transaction {}",
        gap.after.0, gap.next.0, gap.after.0
    )]
    Gap {
        /// What was asked for.
        target: Target,
        /// The generation that would hold it.
        generation: Generation,
        /// What is missing.
        gap: Gap,
    },
}

/// Names what can be restored.
struct Windows<'a>(&'a [Window]);

impl fmt::Display for Windows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, window) in self.0.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", and " };
            write!(
                f,
                "{separator}transactions {} to {} ({} to {})",
                window.first.0,
                window.last.0,
                window.from.micros(),
                window.to.micros()
            )?;
        }
        Ok(())
    }
}
