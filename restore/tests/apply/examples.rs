//! What is written, and which state it is.

use super::*;

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
fn images_that_are_replaced_do_not_fill_a_batch() {
    let changes: Vec<_> = (0..4_000).map(|_| change(8, &[0, 1, 2, 3, 4, 5, 6, 7], 1)).collect();
    let history = History::new(8, &changes);
    let segment = history.segment(FIRST + 1, history.last(), 100_000);
    let batch_bytes = 2 << 20;
    assert!(segment.len() > batch_bytes * 3 / 2, "{}", segment.len());
    let done = restore(&history, &[segment], Target::Latest, batch_bytes).unwrap();
    check(&history, history.last(), &done);
    assert_eq!(done.1.writes, [(0, 8 * PAGE)]);
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
