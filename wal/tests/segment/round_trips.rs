//! What was encoded is decoded again.

use super::*;

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
