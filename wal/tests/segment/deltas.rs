//! Pages stored as what changed in them.

use super::*;

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
