//! The bodies of the fuzz targets. Each is a function of bytes that panics when something does not
//! hold, so the committed corpora also run as ordinary tests, without a fuzzer: the `corpora` tests
//! of the crates that are fuzzed include these modules by path. Of the program itself, which is no pure
//! crate, the modules that read what others wrote are included here by path, and nothing else is built.
//!
//! Run one with `cargo +nightly fuzz run wal_scan`. What it finds goes into `corpus/<target>/` as
//! `regression-<what>`.

#![forbid(unsafe_code)]

pub mod apply;
#[path = "../../src/replica/listing.rs"]
pub mod listing;
pub mod name;
#[path = "../../src/replica/records.rs"]
pub mod records;
pub mod replica;
pub mod restore;
#[path = "../../src/replica/sealed.rs"]
pub mod sealed;
pub mod snapshot;
pub mod wal;
