//! The state hash of a file, fed in pieces.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use genesis_restore::verify::{StateVerifier, VerifyError};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use proptest::prelude::*;

fn size(bytes: u32) -> PageSize {
    PageSize::new(bytes).unwrap()
}

/// A file of 512-byte pages, each full of its number, and its state hash.
fn file(pages: u32) -> (Vec<u8>, StateHash) {
    let (mut bytes, mut state) = (Vec::new(), StateHash::default());
    for number in (1..=pages).filter_map(PageNumber::new) {
        let page = vec![u8::try_from(number.get() % 251).unwrap(); 512];
        state = state.with(PageHash::of(number, &page));
        bytes.extend(page);
    }
    (bytes, state)
}

proptest! {
    #[test]
    fn pieces_of_any_size_give_the_same_hash(
        pages in 0u32..12,
        pieces in prop::collection::vec(0usize..1500, 0..12),
    ) {
        let (bytes, state) = file(pages);
        let mut verifier = StateVerifier::new(size(512), pages);
        let mut rest = &bytes[..];
        for piece in pieces {
            let (piece, others) = rest.split_at(piece.min(rest.len()));
            rest = others;
            verifier.feed(piece).unwrap();
        }
        verifier.feed(rest).unwrap();
        prop_assert_eq!(verifier.finish(), Ok(state));
    }
}

#[test]
fn stretches_add_up_to_the_file() {
    let (bytes, state) = file(7);
    for cut in 0..=7u32 {
        let (one, other) = bytes.split_at(cut as usize * 512);
        let hash = |skipped, pages, bytes: &[u8]| {
            let mut verifier = StateVerifier::of_stretch(size(512), skipped, pages);
            verifier.feed(bytes).unwrap();
            verifier.finish().unwrap()
        };
        assert_eq!(hash(0, cut, one).plus(hash(cut, 7 - cut, other)), state);
    }
    let mut verifier = StateVerifier::of_stretch(size(512), 3, 2);
    assert!(verifier.feed(&bytes[..3 * 512]).is_err());
}

#[test]
fn every_flipped_byte_changes_the_hash() {
    let (good, state) = file(3);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        let mut verifier = StateVerifier::new(size(512), 3);
        verifier.feed(&bad).unwrap();
        assert_ne!(verifier.finish(), Ok(state), "byte {at}");
    }
}

#[test]
fn a_file_of_another_length_has_no_hash() {
    let (bytes, _) = file(3);
    let mut verifier = StateVerifier::new(size(512), 3);
    verifier.feed(&bytes[1..]).unwrap();
    let short = VerifyError::BadLength { wanted: 1536, found: 1535 };
    assert_eq!(verifier.finish(), Err(short));
    let mut verifier = StateVerifier::new(size(512), 2);
    assert!(verifier.feed(&bytes).is_err());
}
