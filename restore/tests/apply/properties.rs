//! Any history, any segments of it, any target.

use super::*;

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let change = (1u32..14, prop::collection::vec(0u32..14, 0..5), 0u64..3)
        .prop_map(|(pages, changed, time)| Change { pages, changed, time });
    prop::collection::vec(change, 1..9)
}

/// Segments that cover a history, each beginning up to two transactions too early.
fn cover(history: &History, lens: &[(u64, u64)], cut_at: usize) -> Vec<Vec<u8>> {
    let (mut segments, mut reached) = (Vec::new(), FIRST);
    for (len, early) in lens.iter().cycle() {
        if reached == history.last() {
            break;
        }
        let first = (reached + 1).saturating_sub(*early).max(FIRST + 1);
        reached = (reached + len).min(history.last());
        segments.push(history.segment(first, reached, cut_at));
    }
    segments
}

proptest! {
    #[test]
    fn every_target_is_the_state_that_the_model_has(
        pages in 1u32..10,
        changes in changes(),
        lens in prop::collection::vec((1u64..5, 0u64..3), 1..4),
        cut_at in prop_oneof![Just(1usize), 1usize..3000],
        batch_bytes in prop_oneof![Just(1usize), 1usize..5000],
    ) {
        let history = History::new(pages, &changes);
        let segments = cover(&history, &lens, cut_at);
        let restore = |target| restore(&history, &segments, target, batch_bytes).unwrap();
        check(&history, history.last(), &restore(Target::Latest));
        for txid in FIRST..=history.last() {
            check(&history, txid, &restore(Target::Txid(Txid(txid))));
        }
        for time in 1_000..1_000 + 3 * changes.len() as u64 {
            let by_then = history.transactions.iter().rfind(|t| t.header.time.0 <= time);
            let txid = by_then.map_or(FIRST, |t| t.header.txid.0);
            check(&history, txid, &restore(Target::Time(Micros(time))));
        }
    }

    #[test]
    fn every_snapshot_leads_to_every_state_after_it(
        pages in 1u32..10,
        changes in changes(),
        lens in prop::collection::vec((1u64..5, 0u64..3), 1..4),
        cut_at in prop_oneof![Just(1usize), 1usize..3000],
        batch_bytes in prop_oneof![Just(1usize), 1usize..5000],
    ) {
        let history = History::new(pages, &changes);
        let segments = cover(&history, &lens, cut_at);
        for snapshot in FIRST..=history.last() {
            for txid in snapshot..=history.last() {
                let target = Target::Txid(Txid(txid));
                let done = restore_from(&history, snapshot, &segments, target, batch_bytes);
                check(&history, txid, &done.unwrap());
            }
        }
    }

    #[test]
    fn a_file_with_a_wrong_byte_gives_a_true_state_or_is_noticed(
        changes in changes(),
        cut_at in 1usize..3000,
        at in any::<prop::sample::Index>(),
        batch_bytes in 1usize..5000,
    ) {
        let history = History::new(4, &changes);
        let segments = [history.segment(FIRST + 1, history.last(), cut_at)];
        let mut sink = history.sink_at(FIRST);
        let at = at.index(sink.bytes.len());
        sink.bytes[at] ^= 0x20;
        let done = restore_onto(sink, history.base_at(FIRST), &segments, Target::Latest, batch_bytes);
        if let Ok((restored, sink)) = done {
            let is_true = sink.bytes == history.file(restored.txid);
            prop_assert_eq!(state_of(&sink.bytes) == restored.state, is_true);
        }
    }

    #[test]
    fn parts_in_any_order_give_a_true_state_or_an_error(
        changes in changes(),
        cut_at in 1usize..3000,
        order in prop::collection::vec(any::<prop::sample::Index>(), 1..12),
        batch_bytes in 1usize..5000,
    ) {
        let history = History::new(4, &changes);
        let segment = history.segment(FIRST + 1, history.last(), cut_at);
        let all = parts(&segment);
        let mut sink = history.sink_at(FIRST);
        let mut applier = Applier::new(history.base_at(FIRST), Target::Latest, Txid(FIRST)).with_batch_bytes(batch_bytes);
        for index in order {
            if applier.push(index.get(&all), &mut sink).is_err() {
                break;
            }
        }
        if let Ok(restored) = applier.finish(&mut sink) {
            check(&history, restored.txid.0, &(restored, sink));
        }
    }

    #[test]
    fn no_payload_makes_the_applier_panic(
        changes in changes(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let history = History::new(4, &changes);
        let segment = history.segment(FIRST + 1, history.last(), usize::MAX);
        let part = Part::decode(&mut Reader::new(&segment)).unwrap();
        let mut payload = part.payload.to_vec();
        for (index, byte) in flips {
            let at = index.index(payload.len());
            payload[at] = byte;
        }
        let header = part::PartHeader {
            stamp: Stamp { epoch: Epoch(8), ..part.header.stamp },
            ..part.header
        };
        let part = Part { header, payload: &payload };
        let mut sink = history.sink_at(FIRST);
        let mut applier = Applier::new(history.base_at(FIRST), Target::Latest, Txid(FIRST));
        if applier.push(&part, &mut sink).is_ok()
            && let Ok(restored) = applier.finish(&mut sink)
        {
            prop_assert_eq!(restored.state, state_of(history.file(restored.txid)));
            prop_assert!(sink.bytes == history.file(restored.txid));
        }
    }
}
