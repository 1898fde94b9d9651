//! What neither side takes.

use super::*;

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
