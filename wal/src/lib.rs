//! What SQLite writes and what this project writes about it: the write-ahead log and its index,
//! read totally, and the object formats of a replica.
//!
//! Everything here is bytes and values in, bytes and values out. Nothing opens a file, reads a
//! clock or allocates by a length that it has not bounded first.
//!
//! | module | holds |
//! | --- | --- |
//! | [`reader`] | the total byte reader that every decoder is written with |
//! | [`page`] | page numbers and sizes, page hashes, the state hash |
//! | [`checksum`] | SQLite's cumulative checksum in both byte orders |
//! | [`header`], [`frame`] | the WAL's header and frame headers |
//! | [`index`] | the wal-index header: how much of the WAL is committed |
//! | [`scan`] | frames in, committed transactions out, and why it stopped |
//! | [`position`] | a place in one WAL, provable later |
//! | [`id`], [`time`] | transaction ids, epochs, generations, commit times |
//! | [`part`] | the envelope of every object |
//! | [`segment`] | transactions as page images |
//! | [`name`] | object names, formatted and parsed |

#![deny(clippy::indexing_slicing)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod frame;
pub mod header;
pub mod id;
pub mod index;
pub mod name;
pub mod page;
pub mod part;
pub mod position;
pub mod reader;
pub mod scan;
pub mod segment;
pub mod time;
