//! Applying transactions, against a model that writes each of them in order.

#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

mod model;

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

#[test]
fn each_page_is_written_once_and_neighbours_together() {
    let changes = [change(8, &[0, 1, 2, 6], 1), change(8, &[1, 2, 3], 1), change(8, &[6], 1)];
    let history = History::new(8, &changes);
    let done = restore_all(&history, Target::Latest).unwrap();
    check(&history, FIRST + 3, &done);
    assert_eq!(done.1.writes, [(0, 4 * PAGE), (6 * 512, PAGE)]);
}

#[test]
fn what_a_shrink_cuts_off_is_never_written() {
    let history = History::new(8, &[change(8, &[6, 7], 1), change(4, &[0], 1)]);
    let done = restore_all(&history, Target::Latest).unwrap();
    check(&history, FIRST + 2, &done);
    assert_eq!(done.1.writes, [(0, PAGE)]);
}

#[test]
fn what_is_regrown_is_what_was_written_last() {
    let changes = [change(8, &[6, 7], 1), change(3, &[0], 1), change(9, &[1], 1)];
    let history = History::new(8, &changes);
    for batch_bytes in [1, usize::MAX] {
        let segment = history.segment(FIRST + 1, history.last(), 1);
        let done = restore(&history, &[segment], Target::Latest, batch_bytes).unwrap();
        check(&history, FIRST + 3, &done);
    }
}

/// A history of deltas alone: page 2 changes in every transaction, others now and then.
fn long_history() -> History {
    let changes: Vec<_> = (0..40).map(|n| change(6, &[1, n % 5 * 2], 1)).collect();
    History::new(6, &changes)
}

#[test]
fn a_chain_of_deltas_is_written_once_and_goes_on_from_the_file() {
    let history = long_history();
    let segment = history.segment(FIRST + 1, history.last(), 1);
    let all = parts(&segment);
    let deltas = all.iter().flat_map(fragments).flat_map(|f| f.unwrap().pages);
    assert!(deltas.filter(PageRecord::is_delta).count() > 40);
    for batch_bytes in [1, 700, 5000, usize::MAX] {
        let done =
            restore(&history, std::slice::from_ref(&segment), Target::Latest, batch_bytes).unwrap();
        check(&history, history.last(), &done);
        if batch_bytes == usize::MAX {
            assert_eq!(done.1.writes, [(0, 3 * PAGE), (4 * 512, PAGE)]);
        }
    }
}

#[test]
fn a_base_that_is_not_the_right_one_is_noticed_and_named() {
    let history = History::new(6, &[change(6, &[4], 1), change(6, &[1], 1)]);
    let segments = [history.segment(FIRST + 1, history.last(), 1)];
    let (txid, source) = (Txid(FIRST + 1), SegmentError::BadHash(number(5)));
    for batch_bytes in [1, usize::MAX] {
        let mut noticed = 0;
        for at in 4 * PAGE..5 * PAGE {
            let mut sink = history.sink_at(FIRST);
            sink.bytes[at] ^= 1;
            match restore_onto(sink, history.base_at(FIRST), &segments, Target::Latest, batch_bytes)
            {
                Err(error) => {
                    assert_eq!(error, ApplyError::Image { txid, source }, "byte {at}");
                    noticed += 1;
                }
                // The change hid the byte.
                Ok(done) => check(&history, history.last(), &done),
            }
        }
        assert!(noticed > PAGE - 32, "{noticed}");
    }
}

#[test]
fn a_page_that_was_not_there_before_is_no_base() {
    let history = History::new(6, &[change(6, &[1], 1)]);
    let segment = history.segment(FIRST + 1, history.last(), 1);
    let base = Base { pages: 1, ..history.base_at(FIRST) };
    let mut applier = Applier::new(base, Target::Latest, Txid(history.last()));
    let pushed = applier.push(&parts(&segment)[0], &mut history.sink_at(FIRST));
    let (txid, source) = (Txid(FIRST + 1), SegmentError::NoBase(number(2)));
    assert_eq!(pushed, Err(ApplyError::Image { txid, source }));
}

#[test]
fn a_time_takes_every_transaction_of_that_time() {
    let changes = [change(4, &[0], 1), change(4, &[1], 0), change(4, &[2], 5), change(4, &[3], 0)];
    let history = History::new(4, &changes);
    for (time, txid) in [(1_000, 5), (1_001, 7), (1_005, 7), (1_006, 9), (9_999, 9)] {
        let done = restore_all(&history, Target::Time(Micros(time))).unwrap();
        check(&history, txid, &done);
    }
}

#[test]
fn transactions_seen_late_are_told() {
    // Transaction 6 is late: committed between 1,000 and 1,001.
    let history = History::new(4, &[change(4, &[0], 1), change(4, &[1], 1)]);
    let at = |target| restore_all(&history, target).unwrap().0;
    let interval = Some((Micros(1_000), Micros(1_001)));
    let before = at(Target::Time(Micros(1_000)));
    assert_eq!((before.late, before.left_out), (None, interval));
    let after = at(Target::Time(Micros(1_001)));
    assert_eq!((after.late, after.left_out), (interval, None));
    let latest = at(Target::Latest);
    assert_eq!((latest.late, latest.left_out), (None, None));
}

#[test]
fn nothing_missing_goes_unnoticed() {
    let changes = vec![change(6, &[0, 1, 2], 1); 6];
    let history = History::new(6, &changes);
    let segment = |first, last| history.segment(first, last, usize::MAX);
    let run = |segments: &[Vec<u8>], target| {
        restore(&history, segments, target, usize::MAX).map(|(restored, _)| restored.txid)
    };
    let missing = ApplyError::Missing { after: Txid(7), found: Txid(9) };
    let gap = [segment(6, 7), segment(9, 11)];
    assert_eq!(run(&gap, Target::Latest), Err(missing.clone()));
    // Transaction 8, which is missing, may have been before that time.
    assert_eq!(run(&gap, Target::Time(Micros(1_003))), Err(missing));
    assert_eq!(run(&gap, Target::Txid(Txid(7))), Ok(Txid(7)));
    let target = Target::Txid(Txid(9));
    let txid = Txid(8);
    let not_reached = ApplyError::NotReached { target, txid };
    assert_eq!(run(&[segment(6, 8)], target), Err(not_reached));
    assert_eq!(run(&[segment(6, 11), segment(6, 9)], Target::Latest), Ok(Txid(11)));
}

#[test]
fn a_missing_fragment_is_noticed() {
    let history = History::new(6, &[change(6, &[0, 1, 2, 3], 1), change(6, &[1], 1)]);
    let segment = history.segment(6, 7, 1);
    let all = parts(&segment);
    assert!(all.len() >= 5);
    let run = |parts: &[Part<'_>], target| {
        let mut sink = history.sink_at(FIRST);
        let mut applier = Applier::new(history.base_at(FIRST), target, Txid(7));
        for part in parts {
            if applier.push(part, &mut sink)? == Flow::Reached {
                break;
            }
        }
        applier.finish(&mut sink).map(|restored| restored.txid)
    };
    assert_eq!(run(&all, Target::Latest), Ok(Txid(7)));
    for missing in 0..4 {
        let mut some = all.clone();
        some.remove(missing);
        let noticed = run(&some, Target::Txid(Txid(6)));
        assert!(noticed.is_err(), "fragment {missing}");
    }
    let cut_off = run(&all[..2], Target::Latest);
    let missing = 2;
    let txid = Txid(6);
    assert_eq!(cut_off, Err(ApplyError::Incomplete { txid, missing }));
    assert_eq!(run(&all[..4], Target::Txid(Txid(6))), Ok(Txid(6)));
}

#[test]
fn input_that_is_cut_off_between_parts_is_no_state() {
    let changes = [change(6, &[0, 1, 2, 3], 1), change(6, &[1], 1), change(6, &[2, 4], 1)];
    let history = History::new(6, &changes);
    let segment = history.segment(6, 8, 1);
    let all = parts(&segment);
    let run = |count: usize, target| {
        let mut applier = Applier::new(history.base_at(FIRST), target, Txid(8));
        let (mut sink, mut flow) = (history.sink_at(FIRST), Flow::Continue);
        for part in &all[..count] {
            flow = applier.push(part, &mut sink).unwrap();
        }
        let ended_early = applier.txid() < Txid(8) && flow == Flow::Continue;
        (ended_early, applier.finish(&mut sink).map(|restored| restored.txid.0))
    };
    let ends_early = |txid: u64| Err(Error::EndsEarly { txid: Txid(txid), reaches: Txid(8) });
    let incomplete = |txid: u64, missing| Err(Error::Incomplete { txid: Txid(txid), missing });
    let expected = [
        ends_early(5),
        incomplete(6, 3),
        incomplete(6, 2),
        incomplete(6, 1),
        ends_early(6),
        ends_early(7),
        incomplete(8, 1),
        Ok(8),
    ];
    for (count, expected) in expected.into_iter().enumerate() {
        assert_eq!(run(count, Target::Latest), (count < 7, expected.clone()), "{count} parts");
        let far = run(count, Target::Time(Micros(9_999)));
        assert_eq!(far, (count < 7, expected), "{count} parts");
    }
    // Transaction 8 shows that nothing more belongs to the time of transaction 7.
    let time = Target::Time(Micros(1_002));
    assert_eq!(run(4, time), (true, ends_early(6)));
    assert_eq!(run(5, time), (true, ends_early(7)));
    assert_eq!(run(6, time), (false, Ok(7)));
    let txid = Target::Txid(Txid(7));
    let not_reached = Err(Error::NotReached { target: txid, txid: Txid(6) });
    assert_eq!(run(4, txid), (true, not_reached));
    assert_eq!(run(5, txid), (false, Ok(7)));
    let text = ends_early(6).unwrap_err().to_string();
    let expected = "the objects end with transaction 6, and by their names they go on to \
                    transaction 8";
    assert_eq!(text, expected);
}

#[test]
fn a_part_of_something_else_is_refused() {
    let history = History::new(4, &[change(4, &[0], 1), change(4, &[1], 1)]);
    let segment = history.segment(6, 7, usize::MAX);
    let base = history.base_at(FIRST);
    let run = |base: Base| {
        let mut applier = Applier::new(base, Target::Latest, Txid(7));
        applier.push(&parts(&segment)[0], &mut Sink::default())
    };
    let generation = genesis_wal::id::Generation { epoch: Epoch(9), random: 9 };
    let other = run(Base { generation, ..base });
    assert!(matches!(other, Err(ApplyError::OtherGeneration { .. })));
    let page_size = PageSize::new(1024).unwrap();
    let other = run(Base { page_size, ..base });
    assert!(matches!(other, Err(ApplyError::OtherPageSize { .. })));
    let state = StateHash(1);
    let broken = |txid, said| Err(ApplyError::BrokenChain { txid: Txid(txid), said, known: state });
    assert_eq!(run(Base { state, ..base }), broken(5, base.state));
    // Also where the snapshot stands within the segment, and at its end.
    for txid in [6, 7] {
        let said = state_of(history.file(Txid(txid)));
        let within = Base { txid: Txid(txid), state, ..base };
        assert_eq!(run(within), broken(txid, said));
    }
}

#[test]
fn a_database_that_grows_is_given_every_page() {
    let history = History::new(3, &[change(6, &[0], 1)]);
    for missing in [4, 5, 6] {
        let mut history = history.clone();
        history.transactions[0].images.remove(&missing);
        history.transactions[0].header.records -= 1;
        let error = restore_all(&history, Target::Latest).unwrap_err();
        let expected = ApplyError::MissingPage { txid: Txid(6), page: u64::from(missing) };
        assert_eq!(error, expected);
    }
}

/// A sink that keeps nothing but where it was written to.
#[derive(Default)]
struct Places(Vec<u64>);

impl PageSink for Places {
    type Error = io::Error;

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&mut self, offset: u64, _bytes: &[u8]) -> io::Result<()> {
        self.0.push(offset);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.push(len);
        Ok(())
    }
}

#[test]
fn a_database_grows_over_the_lock_page_without_it() {
    let size = PageSize::new(65_536).unwrap();
    let lock = size.lock_page().get();
    let header = genesis_wal::segment::TransactionHeader {
        pages: lock + 1,
        records: 1,
        ..History::new(1, &[change(1, &[0], 1)]).transactions[0].header
    };
    let mut encoder = SegmentEncoder::new(size, stamp(), StateHash(1));
    encoder.begin(header, None).unwrap();
    let page = vec![7; size.bytes()];
    let hash = PageHash::of(number(lock + 1), &page);
    encoder.page(number(lock + 1), hash, &page, None).unwrap();
    let mut segment = Vec::new();
    encoder.finish(&mut segment).unwrap();
    for pages in [lock - 1, lock] {
        let base = Base {
            generation: stamp().generation,
            txid: Txid(FIRST),
            state: StateHash(1),
            page_size: size,
            pages,
            time: Micros(0),
        };
        let mut sink = Places::default();
        let mut applier = Applier::new(base, Target::Latest, Txid(FIRST + 1));
        applier.push(&parts(&segment)[0], &mut sink).unwrap();
        applier.finish(&mut sink).unwrap();
        assert_eq!(sink.0, [u64::from(lock) * 65_536, u64::from(lock + 1) * 65_536]);
    }
}

#[test]
fn no_flipped_byte_behind_a_valid_envelope_yields_other_pages() {
    let history = History::new(4, &[change(5, &[0, 1], 1), change(4, &[2], 1)]);
    let good = history.segment(6, 7, usize::MAX);
    let part = parts(&good)[0];
    for at in 0..part.payload.len() {
        let mut payload = part.payload.to_vec();
        payload[at] ^= 0x41;
        let mut bad = Vec::new();
        part::encode(&part.header, &payload, &mut bad).unwrap();
        if let Ok((_, sink)) = restore(&history, &[bad], Target::Latest, usize::MAX) {
            assert!(sink.bytes == history.file(Txid(7)), "byte {at}");
        }
    }
}

/// A sink whose disk is full.
struct Full;

impl PageSink for Full {
    type Error = io::Error;

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&mut self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    fn set_len(&mut self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }
}

#[test]
fn after_an_error_nothing_is_restored() {
    let history = History::new(4, &[change(4, &[0], 1), change(4, &[1], 1)]);
    let segment = history.segment(6, 7, 1);
    let parts = parts(&segment);
    let mut applier =
        Applier::new(history.base_at(FIRST), Target::Latest, Txid(7)).with_batch_bytes(1);
    let full = applier.push(&parts[0], &mut Full);
    assert!(matches!(full, Err(ApplyError::Sink(_))));
    let again = applier.push(&parts[0], &mut Full);
    assert!(matches!(again, Err(ApplyError::Broken)));
    let finished = applier.finish(&mut Full);
    assert!(matches!(finished, Err(ApplyError::Broken)));
}

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
