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

#[test]
fn round_trips_at_every_page_size_in_one_part_and_in_many() {
    for log2 in 9..=16 {
        let size = PageSize::from_log2(log2).unwrap();
        let history = small_history(size);
        for cut_at in [1, usize::MAX] {
            let bytes = encode(size, &history, cut_at);
            assert_eq!(decode(size, &bytes).unwrap(), history, "{size} {cut_at}");
        }
    }
}

#[test]
fn the_part_header_sums_its_transactions_up() {
    let size = PageSize::new(512).unwrap();
    let bytes = encode(size, &small_history(size), usize::MAX);
    let part = Part::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!((part.header.first, part.header.last), (Txid(5), Txid(6)));
    assert_eq!((part.header.before, part.header.after), (StateHash(1), StateHash(42)));
    assert_eq!(part.header.stamp, stamp());
}

#[test]
fn every_flipped_byte_of_a_payload_behind_a_valid_envelope_is_an_error_or_another_header() {
    let size = PageSize::new(512).unwrap();
    let history = small_history(size);
    let good = encode(size, &history, usize::MAX);
    let part = Part::decode(&mut Reader::new(&good)).unwrap();
    for at in 0..part.payload.len() {
        let mut payload = part.payload.to_vec();
        payload[at] ^= 0x41;
        let mut bytes = Vec::new();
        part::encode(&part.header, &payload, &mut bytes).unwrap();
        if let Ok(decoded) = decode(size, &bytes) {
            assert_ne!(decoded, history, "byte {at}");
            let pages = |h: &History| h.iter().map(|(_, p)| p.clone()).collect::<Vec<_>>();
            assert_eq!(pages(&decoded), pages(&history), "byte {at} yields a wrong page");
        }
    }
    for cut in 0..part.payload.len() {
        let mut bytes = Vec::new();
        part::encode(&part.header, &part.payload[..cut], &mut bytes).unwrap();
        assert!(decode(size, &bytes).is_err(), "cut at {cut}");
    }
}

#[test]
fn a_page_that_changed_a_little_is_small_at_every_page_size() {
    for log2 in 9..=16 {
        let size = PageSize::from_log2(log2).unwrap();
        let base = image(size, 5);
        // In both halves of the page.
        let page = changed(&changed(&base, 1), 3);
        let (stored, segment) = delta(size, &base, &page);
        let part = Part::decode(&mut Reader::new(&segment)).unwrap();
        let record = only_record(&part);
        assert_eq!((stored, record.is_delta()), (Stored::Delta, true), "{size}");
        assert!(record.stored_len() < 90 + size.bytes() / 200, "{size}: {}", record.stored_len());
        let mut unpacked = vec![0; size.bytes()];
        assert_eq!(record.unpack(Some(&base), &mut unpacked), Ok(()));
        assert!(unpacked == page, "{size}");
    }
}

#[test]
fn no_other_base_yields_a_page() {
    for log2 in [9, 12, 16] {
        let size = PageSize::from_log2(log2).unwrap();
        let base = image(size, 5);
        let (_, segment) = delta(size, &base, &changed(&base, 1));
        let part = Part::decode(&mut Reader::new(&segment)).unwrap();
        let record = only_record(&part);
        let unpack = |base: Option<&[u8]>| record.unpack(base, &mut vec![0; size.bytes()]);
        assert_eq!(unpack(None), Err(SegmentError::NoBase(number(1))));
        assert_eq!(unpack(Some(&base[1..])), Err(SegmentError::NoBase(number(1))));
        let bad_hash = Err(SegmentError::BadHash(number(1)));
        assert_eq!(unpack(Some(&image(size, 7))), bad_hash);
        let changed_bytes = |at: &usize| {
            let mut other = base.clone();
            other[*at] ^= 1;
            unpack(Some(&other))
        };
        // What was changed, and the end of a block, stand in the delta itself.
        let taken =
            (0..size.bytes()).step_by(size.bytes() / 512).filter(|at| changed_bytes(at).is_ok());
        assert!(taken.count() <= 24, "{size}");
    }
}

#[test]
fn a_delta_that_saves_little_is_a_full_image() {
    let size = PageSize::new(4096).unwrap();
    let (base, mut page) = (image(size, 5), image(size, 7));
    for (common, expected) in [(0, Stored::Full), (900, Stored::Full), (1400, Stored::Delta)] {
        page[..common].copy_from_slice(&base[..common]);
        assert_eq!(delta(size, &base, &page).0, expected, "{common} bytes in common");
    }
    // Flat pages are small either way.
    assert_eq!(delta(size, &base, &image(size, 4)).0, Stored::Delta);
}

#[test]
fn only_commits_hold_deltas() {
    let size = PageSize::new(512).unwrap();
    let base = image(size, 5);
    for (kind, commits) in [(TransactionKind::Rebase, 0), (TransactionKind::Coarse, 3)] {
        let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
        encoder.begin(TransactionHeader { kind, commits, ..transaction(5, 9, 1) }, None).unwrap();
        let refused = encoder.page(number(1), PageHash(0), &base, Some(&base));
        assert_eq!(refused, Err(EncodeError::BadBase(number(1))));
        assert_eq!(encoder.page(number(1), PageHash(0), &base, None), Ok(Stored::Full));

        let (_, segment) = delta(size, &base, &changed(&base, 1));
        let part = Part::decode(&mut Reader::new(&segment)).unwrap();
        let mut payload = part.payload.to_vec();
        payload[8] = if kind == TransactionKind::Rebase { 2 } else { 3 };
        payload[12] = u8::try_from(commits).unwrap();
        let part = Part { payload: &payload, ..part };
        assert_eq!(fragments(&part).next(), Some(Err(SegmentError::NoBase(number(1)))));
    }
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(transaction(5, 9, 1), None).unwrap();
    let short = encoder.page(number(1), PageHash(0), &base, Some(&base[1..]));
    assert_eq!(short, Err(EncodeError::BadBase(number(1))));
}

#[test]
fn deltas_are_in_halves_where_and_only_where_pages_are_longer_than_that() {
    for (log2, encoding) in [(9, 2), (15, 2), (16, 3)] {
        let size = PageSize::from_log2(log2).unwrap();
        let base = image(size, 5);
        let (_, segment) = delta(size, &base, &changed(&base, 1));
        let part = Part::decode(&mut Reader::new(&segment)).unwrap();
        let mut payload = part.payload.to_vec();
        assert_eq!(payload[60], encoding, "{size}");
        payload[60] = 5 - encoding;
        let part = Part { payload: &payload, ..part };
        assert_eq!(fragments(&part).next(), Some(Err(SegmentError::BadImage(number(1)))));
    }
}

#[test]
fn every_flipped_byte_of_a_delta_in_halves_is_noticed() {
    let size = PageSize::new(65_536).unwrap();
    let base = image(size, 5);
    let page = changed(&changed(&base, 1), 3);
    let (_, segment) = delta(size, &base, &page);
    let part = Part::decode(&mut Reader::new(&segment)).unwrap();
    let record = only_record(&part);
    for at in 0..record.stored_len() {
        let mut stored = record.stored().to_vec();
        stored[at] ^= 0x41;
        let mut out = vec![0; size.bytes()];
        if record.over(&stored).unpack(Some(&base), &mut out).is_ok() {
            assert!(out == page, "byte {at}");
        }
        let cut = record.over(&record.stored()[..at]).unpack(Some(&base), &mut out);
        assert!(cut.is_err(), "cut at {at}");
    }
}

#[test]
fn absurd_counts_are_refused_before_they_are_allocated() {
    let size = PageSize::new(512).unwrap();
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(transaction(5, 9, 0), None).unwrap();
    let mut good = Vec::new();
    encoder.finish(&mut good).unwrap();
    let part = Part::decode(&mut Reader::new(&good)).unwrap();
    let mut payload = part.payload.to_vec();
    payload[36..40].copy_from_slice(&u32::MAX.to_le_bytes());
    payload[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    let part = Part { payload: &payload, ..part };
    assert_eq!(fragments(&part).next(), Some(Err(SegmentError::BadCount(Txid(5)))));
}

#[test]
fn the_encoder_refuses_what_no_decoder_takes() {
    let size = PageSize::new(512).unwrap();
    let page = image(size, 2);
    let hash = PageHash(0);
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    assert_eq!(encoder.page(number(1), hash, &page, None), Err(EncodeError::NotOpen));
    encoder.begin(transaction(5, 9, 2), None).unwrap();
    encoder.page(number(3), hash, &page, None).unwrap();
    let bad = |n| Err(EncodeError::BadPage(number(n)));
    assert_eq!(encoder.page(number(3), hash, &page, None), bad(3));
    assert_eq!(encoder.page(number(10), hash, &page, None), bad(10));
    assert_eq!(encoder.page(number(4), hash, &page[1..], None), bad(4));
    let incomplete = Err(EncodeError::Incomplete { txid: Txid(5), records: 1 });
    assert_eq!(encoder.begin(transaction(6, 9, 0), None), incomplete);
    assert_eq!(encoder.finish(&mut Vec::new()), incomplete);
    encoder.page(number(4), hash, &page, None).unwrap();
    let gap = Err(EncodeError::OutOfSequence { before: Txid(5), found: Txid(7) });
    assert_eq!(encoder.begin(transaction(7, 9, 0), None), gap);
}

#[test]
fn a_contradiction_in_a_header_is_refused_by_both_sides() {
    type Change = fn(&mut TransactionHeader);
    let bad_commits = |kind, commits| BadTransaction::BadCommits { txid: Txid(6), kind, commits };
    let cases: [(Change, BadTransaction); 7] = [
        (|h| h.late = false, BadTransaction::BadInterval(Txid(6))),
        (|h| h.since = Micros(h.time.0 + 1), BadTransaction::BadInterval(Txid(6))),
        (|h| h.time = Micros(4_999), BadTransaction::TimeGoesBack(Txid(6))),
        (|h| h.commits = 0, bad_commits(TransactionKind::Commit, 0)),
        (|h| h.commits = 2, bad_commits(TransactionKind::Commit, 2)),
        (|h| h.kind = TransactionKind::Rebase, bad_commits(TransactionKind::Rebase, 1)),
        (
            |h| (h.kind, h.commits) = (TransactionKind::Coarse, 0),
            bad_commits(TransactionKind::Coarse, 0),
        ),
    ];
    let size = PageSize::new(512).unwrap();
    let good_header = TransactionHeader { since: Micros(3_000), ..transaction(6, 9, 0) };
    let good =
        encode(size, &vec![(transaction(5, 9, 0), vec![]), (good_header, vec![])], usize::MAX);
    let part = Part::decode(&mut Reader::new(&good)).unwrap();
    for (change, expected) in cases {
        let mut header = good_header;
        change(&mut header);
        let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
        encoder.begin(transaction(5, 9, 0), None).unwrap();
        assert_eq!(encoder.begin(header, None), Err(expected.into()));

        let payload = with_second_header(part.payload, &header);
        let part = Part { payload: &payload, ..part };
        assert_eq!(fragments(&part).nth(1), Some(Err(expected.into())));
    }
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    let zero = TransactionHeader { late: false, ..transaction(0, 9, 0) };
    assert_eq!(encoder.begin(zero, None), Err(BadTransaction::NoTxid.into()));
}

/// Writes what a header says of kind, flags, commits and times into the second fragment of a payload
/// whose fragments have no pages.
fn with_second_header(payload: &[u8], header: &TransactionHeader) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let fragment = &mut payload[56..];
    fragment[8] = match header.kind {
        TransactionKind::Commit => 1,
        TransactionKind::Rebase => 2,
        TransactionKind::Coarse => 3,
    };
    fragment[9] = u8::from(header.late);
    fragment[12..16].copy_from_slice(&header.commits.to_le_bytes());
    fragment[16..24].copy_from_slice(&header.time.0.to_le_bytes());
    fragment[24..32].copy_from_slice(&header.since.0.to_le_bytes());
    payload
}

#[test]
fn a_cut_before_the_first_page_leaves_no_empty_fragment() {
    let size = PageSize::new(512).unwrap();
    let (page, mut bytes) = (image(size, 4), Vec::new());
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(transaction(5, 9, 0), None).unwrap();
    encoder.begin(transaction(6, 9, 1), None).unwrap();
    encoder.cut(&mut bytes).unwrap();
    let part = Part::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!((part.header.first, part.header.last), (Txid(5), Txid(5)));
    assert_eq!(part.header.after, StateHash(35));
    assert_eq!(encoder.cut(&mut Vec::new()), Ok(()));
    encoder.page(number(1), PageHash::of(number(1), &page), &page, None).unwrap();
    encoder.finish(&mut bytes).unwrap();
    assert_eq!(decode(size, &bytes).unwrap().len(), 2);
}

#[test]
fn an_empty_fragment_of_a_transaction_with_records_is_refused() {
    let size = PageSize::new(512).unwrap();
    let good = encode(size, &vec![(transaction(5, 9, 0), vec![])], usize::MAX);
    let part = Part::decode(&mut Reader::new(&good)).unwrap();
    let mut payload = part.payload.to_vec();
    payload[36] = 1;
    let part = Part { payload: &payload, ..part };
    assert_eq!(fragments(&part).next(), Some(Err(SegmentError::BadCount(Txid(5)))));
}

#[test]
fn an_image_is_as_long_as_its_encoding_allows() {
    let size = PageSize::new(512).unwrap();
    for (seed, encoding) in [(4, 0), (5, 1)] {
        let good = encode(size, &vec![(transaction(5, 9, 1), vec![(1, image(size, seed))])], 1);
        let part = Part::decode(&mut Reader::new(&good)).unwrap();
        let mut payload = part.payload.to_vec();
        assert_eq!(payload[60], 1 - encoding);
        payload[60] = encoding;
        let part = Part { payload: &payload, ..part };
        assert_eq!(fragments(&part).next(), Some(Err(SegmentError::BadImage(number(1)))));
    }
}

#[test]
fn the_lock_page_is_refused_by_both_sides() {
    let size = PageSize::new(65_536).unwrap();
    let lock = size.lock_page();
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(transaction(5, lock.get() + 1, 1), None).unwrap();
    let page = image(size, 2);
    assert_eq!(encoder.page(lock, PageHash(0), &page, None), Err(EncodeError::BadPage(lock)));

    encoder.page(number(lock.get() + 1), PageHash(0), &page, None).unwrap();
    let mut good = Vec::new();
    encoder.finish(&mut good).unwrap();
    let part = Part::decode(&mut Reader::new(&good)).unwrap();
    let mut payload = part.payload.to_vec();
    payload[56..60].copy_from_slice(&lock.get().to_le_bytes());
    let part = Part { payload: &payload, ..part };
    assert_eq!(fragments(&part).next(), Some(Err(SegmentError::BadPage(lock.get()))));
}

proptest! {
    #[test]
    fn any_history_round_trips_however_it_is_cut(
        log2 in 9u8..=13,
        sizes in prop::collection::vec(prop::collection::btree_set(1u32..60, 0..12), 1..8),
        seed in any::<u32>(),
        cut_at in 1usize..20_000,
    ) {
        let size = PageSize::from_log2(log2).unwrap();
        let history: History = (1u64..)
            .zip(&sizes)
            .map(|(txid, pages)| {
                let first = |p: u32| image(size, u64::from(seed) + u64::from(p));
                let images = pages.iter().map(|&p| (p, changed(&first(p), txid / 2)));
                (transaction(txid, 60, pages.len()), images.collect())
            })
            .collect();
        prop_assert_eq!(decode(size, &encode(size, &history, cut_at)).unwrap(), history);
    }

    #[test]
    fn no_payload_makes_the_decoder_panic(payload in prop::collection::vec(any::<u8>(), 0..400)) {
        let size = PageSize::new(512).unwrap();
        let good = encode(size, &small_history(size), usize::MAX);
        let part = Part::decode(&mut Reader::new(&good)).unwrap();
        let _count = fragments(&Part { payload: &payload, ..part }).count();
    }
}
