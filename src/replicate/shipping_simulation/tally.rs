//! What happened how often.

use crate::simulated::tally;

tally! {
    /// Commits.
    commits,
    /// Processes started.
    starts,
    /// Processes that died.
    deaths,
    /// Losses of power.
    power_losses,
    /// Processes that released the replica.
    releases,
    /// Processes that others had passed.
    fenced,
    /// Starts that were refused, as another host had the replica.
    refused,
    /// Starts that found their epoch begun.
    taken,
    /// Starts that were refused, as the database was another.
    others,
    /// Restores.
    restores,
    /// Hosts that were restored.
    restored_hosts,
    /// Merged segments.
    merged,
    /// Segments whose loss was noticed.
    losses,
    /// Lines of history.
    lines,
    /// Records of several commits in one.
    coarse,
    /// Processes that recorded before the replica had answered.
    meanwhile,
    /// Transactions that were recorded then, and shipped.
    adopted,
    /// How often the replica went on with all that a process had recorded then.
    confirmed,
}
