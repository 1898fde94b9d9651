//! The rule by which parts follow one another, through the public interface.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{Part, PartHeader, Stamp};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{
    Reached, SegmentEncoder, Sequence, SequenceError, TransactionHeader, TransactionKind,
};
use genesis_wal::time::Micros;

const IMAGE: [u8; 512] = [7; 512];

fn page_size() -> PageSize {
    PageSize::new(512).unwrap()
}

fn stamp() -> Stamp {
    Stamp { generation: Generation { epoch: Epoch(1), random: 2 }, epoch: Epoch(3) }
}

/// The place in the WAL after a transaction.
fn position(txid: u64) -> WalPosition {
    WalPosition {
        identity: WalIdentity { salts: Salts([1; 8]), header_checksum: Checksum(2, 3) },
        frame: u32::try_from(txid).unwrap(),
        checksum: Checksum(5, 6),
        change: 7,
        pages: 8,
    }
}

/// The state after a transaction.
fn reached(txid: u64) -> Reached {
    let (time, state) = (Micros(txid * 1000), StateHash(txid * 7));
    Reached { txid: Txid(txid), time, state, position: Some(position(txid)) }
}

fn transaction(txid: u64, records: u32) -> TransactionHeader {
    let Reached { time, state, .. } = reached(txid);
    TransactionHeader {
        txid: Txid(txid),
        kind: TransactionKind::Commit,
        late: false,
        commits: 1,
        time,
        since: time,
        pages: 9,
        records,
        state,
    }
}

/// Encodes transactions from 3 on with so many records each, cut before the records listed: counted
/// over the whole segment, from 0.
fn segment(records: &[u32], cuts: &[u32]) -> Vec<u8> {
    let (mut out, mut place) = (Vec::new(), 0);
    let mut encoder = SegmentEncoder::new(page_size(), stamp(), reached(2).state);
    for (txid, &records) in (3..).zip(records) {
        encoder.begin(transaction(txid, records), Some(position(txid))).unwrap();
        for page in (1..=records).filter_map(PageNumber::new) {
            if cuts.contains(&place) {
                encoder.cut(&mut out).unwrap();
            }
            place += 1;
            encoder.page(page, PageHash::of(page, &IMAGE), &IMAGE, None).unwrap();
        }
    }
    encoder.finish(&mut out).unwrap();
    out
}

fn parts(segment: &[u8]) -> Vec<Part<'_>> {
    let mut reader = Reader::new(segment);
    let mut parts = Vec::new();
    while !reader.rest().is_empty() {
        parts.push(Part::decode(&mut reader).unwrap());
    }
    parts
}

fn ranges(parts: &[Part<'_>]) -> Vec<(u64, u64)> {
    parts.iter().map(|part| (part.header.first.0, part.header.last.0)).collect()
}

fn sequence() -> Sequence {
    Sequence::new(stamp().generation, page_size(), reached(2))
}

#[test]
fn a_part_may_end_one_transaction_and_go_on_with_the_next() {
    let segment = segment(&[4, 1], &[1, 2, 3]);
    let parts = parts(&segment);
    assert_eq!(ranges(&parts), [(3, 3), (3, 3), (3, 3), (3, 4)]);
    let mut sequence = sequence();
    for (part, missing) in parts.iter().zip([3, 2, 1]) {
        sequence.accept(part).unwrap();
        assert_eq!(sequence.reached(), reached(2));
        let unfinished = SequenceError::Unfinished { txid: Txid(3), missing };
        assert_eq!(sequence.finish(), Err(unfinished));
    }
    sequence.accept(&parts[3]).unwrap();
    assert_eq!(sequence.finish(), Ok(reached(4)));
}

#[test]
fn a_transaction_that_ends_within_a_part_is_reached_without_a_position() {
    let segment = segment(&[2, 2, 1], &[1, 3]);
    let parts = parts(&segment);
    assert_eq!(ranges(&parts), [(3, 3), (3, 4), (4, 5)]);
    let mut sequence = sequence();
    sequence.accept(&parts[0]).unwrap();
    sequence.accept(&parts[1]).unwrap();
    assert_eq!(sequence.reached(), Reached { position: None, ..reached(3) });
    sequence.accept(&parts[2]).unwrap();
    assert_eq!(sequence.finish(), Ok(reached(5)));
}

#[test]
fn a_segment_read_alone_is_its_own_beginning() {
    let segment = segment(&[2, 0, 1], &[1]);
    let parts = parts(&segment);
    let mut sequence = Sequence::beginning_with(&parts[0].header);
    assert_eq!((sequence.reached().txid, sequence.reached().state), (Txid(2), reached(2).state));
    for part in &parts {
        sequence.accept(part).unwrap();
    }
    assert_eq!(sequence.finish(), Ok(reached(5)));
}

#[test]
fn no_part_may_be_missing_doubled_or_exchanged() {
    let segment = segment(&[4, 1, 0, 2], &[1, 2, 3, 4, 5, 6]);
    let parts = parts(&segment);
    for at in 0..parts.len() {
        let mut sequence = sequence();
        for part in &parts[..at] {
            sequence.accept(part).unwrap();
        }
        let before = sequence;
        for (other, part) in parts.iter().enumerate().filter(|(other, _)| *other != at) {
            assert!(sequence.accept(part).is_err(), "part {other} for part {at}");
            assert_eq!(sequence, before);
        }
        sequence.accept(&parts[at]).unwrap();
    }
}

#[test]
fn what_does_not_follow_is_named() {
    let segment = segment(&[2, 1], &[1]);
    let parts = parts(&segment);
    let accept = |change: fn(&mut PartHeader)| {
        let mut part = parts[0];
        change(&mut part.header);
        sequence().accept(&part).unwrap_err()
    };
    let (wanted, found) = (stamp().generation, Generation { epoch: Epoch(9), random: 2 });
    let other = SequenceError::OtherGeneration { wanted, found };
    assert_eq!(accept(|h| h.stamp.generation.epoch = Epoch(9)), other);
    let (wanted, found) = (page_size(), PageSize::from_log2(12).unwrap());
    let other = SequenceError::OtherPageSize { wanted, found };
    assert_eq!(accept(|h| h.page_size = PageSize::from_log2(12).unwrap()), other);
    let broken = |txid: u64| {
        let (txid, known) = (Txid(txid), reached(txid).state);
        SequenceError::BrokenChain { txid, said: StateHash(1), known }
    };
    assert_eq!(accept(|h| h.before = StateHash(1)), broken(2));
    assert_eq!(accept(|h| h.after = StateHash(1)), broken(3));

    let mut past = Sequence::new(stamp().generation, page_size(), reached(3));
    let not_next = SequenceError::NotNext { after: Txid(3), found: Txid(3) };
    assert_eq!(past.accept(&parts[0]), Err(not_next));
    assert_eq!(sequence().accept(&parts[1]), Err(SequenceError::BadFragment(Txid(3))));
    let mut last = Reached { txid: Txid(u64::MAX), ..reached(2) };
    last.position = None;
    let mut at_the_end = Sequence::new(stamp().generation, page_size(), last);
    assert!(matches!(at_the_end.accept(&parts[0]), Err(SequenceError::NotNext { .. })));
}
