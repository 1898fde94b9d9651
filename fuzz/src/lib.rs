//! The bodies of the fuzz targets. Each is a function of bytes that panics when something does not
//! hold, so the committed corpora also run as ordinary tests, without a fuzzer: the `corpora` tests
//! of the crates that are fuzzed include these modules by path.
//!
//! Run one with `cargo +nightly fuzz run wal_scan`. What it finds goes into `corpus/<target>/` as
//! `regression-<what>`.

#![forbid(unsafe_code)]

pub mod name;
pub mod restore;
pub mod snapshot;
pub mod wal;
