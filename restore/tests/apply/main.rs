//! Applying transactions, against a model that writes each of them in order.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "../model/mod.rs"]
mod model;

mod examples;
mod properties;
mod refusals;

use std::convert::Infallible;
use std::io;

use genesis_restore::apply::{Applier, ApplyError, Base, Flow, PageSink, Restored};
use genesis_restore::target::Target;
use genesis_restore::verify::StateVerifier;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::page::{PageHash, PageSize, StateHash};
use genesis_wal::part::{self, Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{PageRecord, SegmentEncoder, SegmentError, fragments};
use genesis_wal::time::Micros;
use model::{Change, FIRST, History, PAGE, Sink, number, page_size, parts, stamp, state_of};
use proptest::prelude::*;

type Error = ApplyError<Infallible>;

fn change(pages: u32, changed: &[u32], time: u64) -> Change {
    Change { pages, changed: changed.to_vec(), time }
}

/// Applies segments to the snapshot of a history.
fn restore(
    history: &History,
    segments: &[Vec<u8>],
    target: Target,
    batch_bytes: usize,
) -> Result<(Restored, Sink), Error> {
    restore_from(history, FIRST, segments, target, batch_bytes)
}

/// Applies segments to a snapshot of a transaction.
fn restore_from(
    history: &History,
    snapshot: u64,
    segments: &[Vec<u8>],
    target: Target,
    batch_bytes: usize,
) -> Result<(Restored, Sink), Error> {
    restore_onto(
        history.sink_at(snapshot),
        history.base_at(snapshot),
        segments,
        target,
        batch_bytes,
    )
}

/// Applies segments to whatever is in a file.
fn restore_onto(
    mut sink: Sink,
    base: Base,
    segments: &[Vec<u8>],
    target: Target,
    batch_bytes: usize,
) -> Result<(Restored, Sink), Error> {
    let last = |segment: &Vec<u8>| parts(segment).last().map(|part| part.header.last);
    let reaches = segments.iter().filter_map(last).max().unwrap_or(base.txid);
    let mut applier = Applier::new(base, target, reaches).with_batch_bytes(batch_bytes);
    for part in segments.iter().flat_map(|segment| parts(segment)) {
        if applier.push(&part, &mut sink)? == Flow::Reached {
            break;
        }
    }
    Ok((applier.finish(&mut sink)?, sink))
}

/// Applies one segment of the whole history.
fn restore_all(history: &History, target: Target) -> Result<(Restored, Sink), Error> {
    let segment = history.segment(FIRST + 1, history.last(), usize::MAX);
    restore(history, &[segment], target, usize::MAX)
}

fn check(history: &History, txid: u64, (restored, sink): &(Restored, Sink)) {
    assert_eq!(restored.txid, Txid(txid));
    assert!(sink.bytes == history.file(restored.txid), "transaction {txid}");
    let mut verifier = StateVerifier::new(page_size(), restored.pages);
    verifier.feed(&sink.bytes).unwrap();
    assert_eq!(verifier.finish(), Ok(restored.state));
}
