//! Segments, written and read through the public interface.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use std::collections::HashMap;

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{self, Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{
    BadTransaction, EncodeError, PageRecord, SegmentEncoder, SegmentError, Stored,
    TransactionHeader, TransactionKind, fragments,
};
use genesis_wal::time::Micros;
use proptest::prelude::*;

mod deltas;
mod refusals;
mod round_trips;

fn stamp() -> Stamp {
    Stamp { generation: Generation { epoch: Epoch(1), random: 2 }, epoch: Epoch(3) }
}

fn number(page: u32) -> PageNumber {
    PageNumber::new(page).unwrap()
}

fn transaction(txid: u64, pages: u32, records: usize) -> TransactionHeader {
    TransactionHeader {
        txid: Txid(txid),
        kind: TransactionKind::Commit,
        late: txid.is_multiple_of(2),
        commits: 1,
        time: Micros(txid * 1000),
        since: Micros(if txid.is_multiple_of(2) { txid * 900 } else { txid * 1000 }),
        pages,
        records: u32::try_from(records).unwrap(),
        state: StateHash(txid * 7),
    }
}

/// A page that LZ4 shortens when `seed` is even, and one that it does not when it is odd.
fn image(size: PageSize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let noise = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    if seed.is_multiple_of(2) {
        vec![u8::try_from(seed % 251).unwrap(); size.bytes()]
    } else {
        std::iter::repeat_with(noise).take(size.bytes()).collect()
    }
}

/// The page with some bytes changed, at a place and to a content that `seed` tells.
fn changed(page: &[u8], seed: u64) -> Vec<u8> {
    let mut page = page.to_vec();
    let at = usize::try_from(seed.wrapping_mul(0x9e37_79b9)).unwrap() % (page.len() - 8);
    page[at..at + 8].copy_from_slice(&(!seed).to_le_bytes());
    page
}

type History = Vec<(TransactionHeader, Vec<(u32, Vec<u8>)>)>;
type State = HashMap<u32, Vec<u8>>;

/// Every page that was there before is offered as the base.
fn encode(size: PageSize, history: &History, cut_at: usize) -> Vec<u8> {
    let mut state = State::new();
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    let mut out = Vec::new();
    for (header, pages) in history {
        encoder.begin(*header, None).unwrap();
        for (page, image) in pages {
            let hash = PageHash::of(number(*page), image);
            let base = state.insert(*page, image.clone());
            encoder.page(number(*page), hash, image, base.as_deref()).unwrap();
            if encoder.len() >= cut_at {
                encoder.cut(&mut out).unwrap();
            }
        }
    }
    encoder.finish(&mut out).unwrap();
    out
}

/// Decodes a segment, joining fragments.
fn decode(size: PageSize, bytes: &[u8]) -> Result<History, String> {
    let mut state = State::new();
    let mut reader = Reader::new(bytes);
    let mut history: History = Vec::new();
    let mut open = false;
    while !reader.rest().is_empty() {
        let part = Part::decode(&mut reader).map_err(|e| e.to_string())?;
        for fragment in fragments(&part) {
            let fragment = fragment.map_err(|e| e.to_string())?;
            if open != (fragment.first_record > 0) {
                return Err("the fragments do not join".to_owned());
            }
            if fragment.first_record == 0 {
                history.push((fragment.header, Vec::new()));
            }
            open = !fragment.is_last();
            let (_, pages) = history.last_mut().unwrap();
            for record in &fragment.pages {
                let mut page = vec![0; size.bytes()];
                let base = state.get(&record.number.get()).map(Vec::as_slice);
                record.unpack(base, &mut page).map_err(|e| e.to_string())?;
                state.insert(record.number.get(), page.clone());
                pages.push((record.number.get(), page));
            }
        }
    }
    if open { Err("the last transaction is not complete".to_owned()) } else { Ok(history) }
}

/// Full images, packed and not, and a delta.
fn small_history(size: PageSize) -> History {
    let (packed, noise) = (image(size, 4), image(size, 5));
    let then = changed(&noise, 2);
    vec![
        (transaction(5, 9, 2), vec![(1, packed), (9, noise)]),
        (transaction(6, 9, 2), vec![(3, image(size, 7)), (9, then)]),
    ]
}

/// The only record of a part with one.
fn only_record<'a>(part: &Part<'a>) -> PageRecord<'a> {
    let fragment = fragments(part).next().unwrap().unwrap();
    let [record] = fragment.pages[..] else { unreachable!("{fragment:?}") };
    record
}

/// A segment of one commit, of page 1: as it is stored over a base, and how it was.
fn delta(size: PageSize, base: &[u8], page: &[u8]) -> (Stored, Vec<u8>) {
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(transaction(5, 9, 1), None).unwrap();
    let hash = PageHash::of(number(1), page);
    let stored = encoder.page(number(1), hash, page, Some(base)).unwrap();
    let mut segment = Vec::new();
    encoder.finish(&mut segment).unwrap();
    (stored, segment)
}
