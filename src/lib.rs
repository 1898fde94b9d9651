//! Follows an SQLite database's write-ahead log from beside the application, ships every committed
//! transaction to a replica, and restores the database as it was after any of them.

mod blocking;
pub mod check;
pub mod cli;
pub mod clock;
mod config;
pub mod durable;
pub mod exec;
mod heap;
pub mod object;
pub mod replica;
pub mod replicate;
pub mod restore;
pub mod shutdown;
#[cfg(test)]
mod simulated;
pub mod sqlite;
pub mod store;
pub mod telemetry;
mod uncached;

/// An error with all its causes, on one line.
pub(crate) fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
