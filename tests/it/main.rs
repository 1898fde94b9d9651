//! What a user relies on, tried on the built program beside real applications: the bundled SQLite in
//! the test's process, and the system's `sqlite3` shell and Python's `sqlite3` module as processes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says why on standard error"
)]

mod support;

mod after_restore;
mod applications;
mod audit;
mod buckets;
mod checkpoints;
mod checks;
mod clocks;
mod config;
mod crashes;
mod damage;
mod deltas;
mod descriptors;
mod epochs;
mod exec;
mod faults;
mod format;
mod ghosts;
mod history;
mod idle;
mod kill;
mod large;
mod leaks;
mod leftovers;
mod listing;
mod locks;
mod long_history;
mod losses;
mod merging;
mod network;
mod options;
mod pages;
mod places;
mod power_loss;
mod priorities;
mod random_history;
mod refusals;
mod restarts;
mod routes;
mod savepoints;
mod secrets;
mod shutdown;
mod slow_disk;
mod snapshots;
mod spool;
mod stores;
mod storm;
mod sweep;
mod unanswered;
mod underfoot;
mod vanished;
mod versions;
mod writers;
