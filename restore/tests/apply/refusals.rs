//! What is missing, foreign or damaged.

use super::*;

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
