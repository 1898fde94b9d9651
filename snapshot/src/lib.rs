//! Full images of a database that cost only what changed, and what a replica holds: the formats of
//! packs and manifests, and the inventory of a replica's objects.
//!
//! Bytes and values in, bytes and values out. Nothing opens a file, reads a clock or allocates by a
//! length that it has not bounded first.
//!
//! | module | holds |
//! | --- | --- |
//! | [`block`] | 64 KiB of consecutive pages: the unit that a snapshot stores |
//! | [`pack`] | objects of compressed blocks, with their page hashes |
//! | [`manifest`] | the list of a snapshot's blocks, wherever they lie |
//! | [`inventory`] | object names in, restorable lines of history out |
//! | [`merge`] | which segments are merged, and which are covered by merged ones |

#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod block;
pub mod consolidate;
pub mod inventory;
pub mod manifest;
pub mod merge;
pub mod pack;
