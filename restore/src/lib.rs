//! A replica's objects in, a database out: which objects make a state, how their pages are put
//! together, and the proof that the result is what was recorded.
//!
//! Bytes and values in, bytes and values out. Nothing opens a file or reads a clock; the output is
//! whatever implements [`apply::PageSink`].
//!
//! | module | holds |
//! | --- | --- |
//! | [`target`] | which state is asked for |
//! | [`plan`] | the snapshot and segments that make it |
//! | [`apply`] | transactions onto the snapshot's pages, each page of a batch written once |
//! | [`verify`] | the state hash of a finished file |

#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod apply;
pub mod plan;
pub mod target;
pub mod verify;
