//! When commits were detected: the replicator's log and the writer's notes, put together.

use anyhow::{Context, Result, ensure};

use crate::log::{lines_that_say, number_in};
use crate::writer::Commits;

/// Up to which commit the replicator has recorded, and when.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// The wal-index's commit counter.
    change: u32,
    /// On the writer's clock.
    at: u64,
}

impl Recorded {
    /// All that a log tells, in order.
    pub fn all(log: &str) -> Vec<Self> {
        let all = lines_that_say(log, "recorded").into_iter().map(|fields| Self {
            change: u32::try_from(number_in(&fields, "change")).unwrap_or_default(),
            at: number_in(&fields, "at_nanos"),
        });
        all.collect()
    }
}

/// For every commit how many nanoseconds after its end it had been recorded. The writer must be the only
/// one that commits.
pub fn delays(commits: &Commits, recorded: &[Recorded]) -> Result<Vec<u64>> {
    let begun = commits.all.first().context("nothing was committed")?.begun;
    let (before, after) = recorded.split_at(recorded.partition_point(|one| one.at < begun));
    let base = before.last().context("nothing was recorded before")?.change;
    let mut after = after.iter().map(|one| (one.change.wrapping_sub(base), one.at)).peekable();
    let mut delays = Vec::with_capacity(commits.all.len());
    for (number, commit) in (1..).zip(&commits.all) {
        while after.next_if(|(recorded, _)| *recorded < number).is_some() {}
        let (_, at) = after.peek().with_context(|| format!("commit {number} was not recorded"))?;
        delays.push(at.saturating_sub(commit.ended));
        ensure!(*at >= commit.begun, "commit {number} was recorded before it began");
    }
    Ok(delays)
}
