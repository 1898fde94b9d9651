//! What each procedure does step by step.

use genesis_wal::checksum::Checksum;
use genesis_wal::header::Salts;
use genesis_wal::index::IndexHeader;

use super::*;

fn index(max_frame: u32, backfilled: u32) -> WalIndex {
    let header = IndexHeader {
        change: max_frame,
        page_size: None,
        max_frame,
        pages: 1,
        frame_checksum: Checksum(max_frame, 0),
        salts: Salts([1; 8]),
    };
    WalIndex { header, backfilled, read_marks: [0; 5], backfill_attempted: backfilled }
}

fn outcome(done: bool, index: WalIndex) -> Outcome {
    Outcome { now: Duration::ZERO, done, index, waited_for: false }
}

/// Runs a procedure over a WAL that stands still; a checkpoint backfills it up to `reach`.
fn run(ratchet: &mut Ratchet, procedure: Procedure, reach: u32) -> Vec<Step> {
    let mut wal = index(1000, 0);
    let mut steps = vec![ratchet.start(procedure, Duration::ZERO)];
    while let Some(&step) = steps.last().filter(|step| **step != Step::Finished) {
        if matches!(step, Step::Checkpoint(_)) {
            wal.backfilled = reach;
        }
        steps.push(ratchet.next(&outcome(true, wal)).unwrap());
    }
    steps
}

#[test]
fn a_drain_that_reaches_the_end_parks_on_one_reader() {
    let mut ratchet = Ratchet::new();
    let steps = run(&mut ratchet, Procedure::Drain, 1000);
    let leap = [Step::Begin, Step::Copy, Step::End];
    let (reserve, checkpoint) =
        ([Step::Reserve(Duration::ZERO)], [Step::Checkpoint(Duration::ZERO)]);
    assert_eq!(
        steps,
        [&reserve, &leap[..], &checkpoint, &reserve, &leap, &[Step::Release, Step::Finished]]
            .concat()
    );
    assert!(ratchet.is_parked());
    assert_eq!(ratchet.holds(), Holds { older: Guard::Proven, ..Holds::default() });
}

#[test]
fn a_drain_that_others_stand_in_the_way_of_gives_up_after_two_rounds() {
    let mut ratchet = Ratchet::new();
    let steps = run(&mut ratchet, Procedure::Drain, 999);
    let checkpoints = steps.iter().filter(|step| matches!(step, Step::Checkpoint(_)));
    assert_eq!(checkpoints.count(), usize::from(ROUNDS));
    assert!(!ratchet.is_parked());
}

/// Where as much comes in as is checkpointed, what is left does not become less.
#[test]
fn another_round_is_not_begun_in_vain() {
    for (left, rounds) in [(500, 2), (501, 1)] {
        let mut ratchet = Ratchet::new();
        let steps = run(&mut ratchet, Procedure::Drain, 1000 - left);
        let checkpoints = steps.iter().filter(|step| matches!(step, Step::Checkpoint(_)));
        assert_eq!(checkpoints.count(), rounds, "{left} of 1000 left");
    }
}

#[test]
fn a_force_gives_the_write_lock_back_whether_it_reached_the_end_or_not() {
    let mut ratchet = Ratchet::new();
    let steps = run(&mut ratchet, Procedure::Force, 999);
    assert!(steps.contains(&Step::Write(Duration::ZERO)));
    assert_eq!(steps.iter().rev().nth(1), Some(&Step::Rollback));
    assert_eq!(ratchet.holds(), Holds { older: Guard::Proven, ..Holds::default() });
}

/// A writer that tries to get the write lock reads for a moment, and may do so behind the last frame.
#[test]
fn a_checkpoint_under_the_write_lock_that_somebody_reads_behind_is_made_again() {
    let mut ratchet = Ratchet::new();
    let (mut wal, mut checkpoints) = (index(1000, 0), 0);
    let mut step = ratchet.start(Procedure::Force, Duration::ZERO);
    while step != Step::Finished {
        if matches!(step, Step::Checkpoint(_)) {
            checkpoints += 1;
            wal.backfilled = if checkpoints > 3 { 1000 } else { 998 };
        }
        step = ratchet.next(&outcome(true, wal)).unwrap();
    }
    // Two rounds, and two under the write lock.
    assert_eq!(checkpoints, 4);
    assert!(ratchet.is_parked());
}

#[test]
fn nothing_is_given_up_when_no_reader_can_begin() {
    let mut ratchet = Ratchet::new();
    ratchet.start(Procedure::Drain, Duration::ZERO);
    assert_eq!(ratchet.next(&outcome(true, index(9, 0))), Ok(Step::Begin));
    assert_eq!(ratchet.next(&outcome(false, index(9, 0))), Ok(Step::Release));
    assert_eq!(ratchet.next(&outcome(true, index(9, 0))), Ok(Step::Finished));
    assert_eq!(ratchet.holds(), Holds { older: Guard::Proven, ..Holds::default() });
}

#[test]
fn the_mark_stays_where_it_is_while_another_checkpoints() {
    let mut ratchet = Ratchet::new();
    for procedure in [Procedure::Drain, Procedure::Force] {
        assert_eq!(ratchet.start(procedure, Duration::ZERO), Step::Reserve(Duration::ZERO));
        for millis in 1..5 {
            let now = Duration::from_millis(millis);
            let busy = Outcome { now, ..outcome(false, index(9, 0)) };
            assert_eq!(ratchet.next(&busy), Ok(Step::Reserve(WRITE_PAUSE)), "{procedure:?}");
        }
        let busy = Outcome { now: PUSH_PATIENCE, ..outcome(false, index(9, 0)) };
        assert_eq!(ratchet.next(&busy), Ok(Step::Finished));
        // Whoever waits for us is not kept waiting.
        ratchet.start(procedure, Duration::ZERO);
        let waited_for = Outcome { waited_for: true, ..outcome(false, index(9, 0)) };
        assert_eq!(ratchet.next(&waited_for), Ok(Step::Finished));
    }
}

#[test]
fn what_the_mark_left_behind_is_not_left_to_the_application() {
    let mut ratchet = Ratchet::new();
    ratchet.start(Procedure::Force, Duration::ZERO);
    let mut steps = Vec::new();
    let mut step = Step::Finished;
    // Somebody writes all the while: the write lock is never had.
    for millis in 0..1000 {
        let done = !matches!(step, Step::Write(_));
        let now = Duration::from_millis(millis);
        step = ratchet.next(&Outcome { now, ..outcome(done, index(1000, 999)) }).unwrap();
        steps.push(step);
        if step == Step::Finished {
            break;
        }
    }
    let write = steps.iter().rposition(|step| matches!(step, Step::Write(_))).unwrap();
    assert_eq!(steps[write + 1..], [Step::Checkpoint(Duration::ZERO), Step::Finished]);
}

#[test]
fn whoever_waits_for_us_is_not_kept_from_its_checkpoint() {
    let mut ratchet = Ratchet::new();
    let steps = run(&mut ratchet, Procedure::Respond { since: Duration::ZERO }, 1000);
    assert!(!steps.iter().any(|step| matches!(step, Step::Reserve(_))), "{steps:?}");
}

#[test]
fn a_force_lets_nobody_checkpoint_between_its_last_leap_and_its_checkpoint() {
    let mut ratchet = Ratchet::new();
    let steps = run(&mut ratchet, Procedure::Force, 999);
    let last = |wanted: fn(&Step) -> bool| steps.iter().rposition(wanted).unwrap();
    let reserved = last(|step| matches!(step, Step::Reserve(_)));
    let locked = last(|step| matches!(step, Step::Write(_)));
    let checkpoint = last(|step| matches!(step, Step::Checkpoint(_)));
    assert!(reserved < locked && locked < checkpoint, "{steps:?}");
    assert!(steps[reserved..locked].contains(&Step::End), "the mark moves under the reservation");
}

/// The steps of a force whose syncs take so many milliseconds each.
fn force_on_a_disk(syncs: &[u64]) -> Vec<Step> {
    let (mut ratchet, mut now, mut syncs) = (Ratchet::new(), Duration::ZERO, syncs.iter());
    let mut steps = vec![ratchet.start(Procedure::Force, now)];
    while let Some(&step) = steps.last().filter(|step| **step != Step::Finished) {
        if step == Step::Sync {
            now += Duration::from_millis(*syncs.next().unwrap());
        }
        steps.push(ratchet.next(&Outcome { now, ..outcome(true, index(1000, 999)) }).unwrap());
    }
    assert_eq!(ratchet.holds(), Holds { older: Guard::Proven, ..Holds::default() });
    steps
}

/// A checkpointer that got in would wait for our mark, and all writers with it, until the sync has ended.
#[test]
fn nobody_can_begin_to_wait_for_us_while_we_sync() {
    let steps = force_on_a_disk(&[1]);
    let sync = steps.iter().position(|step| *step == Step::Sync).unwrap();
    assert_eq!(
        steps[sync - 1..=sync + 1],
        [Step::Reserve(Duration::ZERO), Step::Sync, Step::Begin]
    );
}

#[test]
fn writers_are_not_held_for_a_slow_disk() {
    let count =
        |steps: &[Step], wanted: fn(&Step) -> bool| steps.iter().filter(|s| wanted(s)).count();
    for (syncs, locks) in [(&[100][..], 1), (&[101, 100], 1), (&[5000, 101], 0)] {
        let steps = force_on_a_disk(syncs);
        assert_eq!(count(&steps, |step| *step == Step::Sync), syncs.len(), "{steps:?}");
        assert_eq!(count(&steps, |step| matches!(step, Step::Write(_))), locks, "{steps:?}");
        if locks == 0 {
            assert_eq!(steps[steps.len() - 2..], [Step::Release, Step::Finished]);
        }
    }
}

/// Runs a force over a WAL of so many frames, beside a writer that commits so many before each time that
/// the write lock is taken; the steps, and how much was copied under it.
fn force_beside(length: u32, commits: u32) -> (Vec<Step>, Vec<u32>) {
    let mut ratchet = Ratchet::new();
    let (mut wal, mut copied, mut under_lock) = (index(length, 0), 0, Vec::new());
    let mut steps = vec![ratchet.start(Procedure::Force, Duration::ZERO)];
    while let Some(&step) = steps.last().filter(|step| **step != Step::Finished) {
        match step {
            Step::Write(_) => wal = index(wal.header.max_frame + commits, wal.backfilled),
            Step::Copy => {
                let is_locked = ratchet.holds().write != Guard::Free;
                under_lock.extend(is_locked.then_some(wal.header.max_frame - copied));
                copied = wal.header.max_frame;
            }
            Step::Checkpoint(_) => wal.backfilled = copied.saturating_sub(1),
            _ => {}
        }
        steps.push(ratchet.next(&outcome(true, wal)).unwrap());
    }
    assert_eq!(ratchet.holds(), Holds { older: Guard::Proven, ..Holds::default() });
    (steps, under_lock)
}

#[test]
fn much_is_not_copied_under_the_write_lock() {
    let locks = |steps: &[Step]| steps.iter().filter(|s| matches!(s, Step::Write(_))).count();
    let (steps, under_lock) = force_beside(1000, 900);
    assert_eq!((locks(&steps), under_lock), (1, vec![900]));
    let (steps, under_lock) = force_beside(1000, 10_000);
    assert_eq!((locks(&steps), under_lock), (3, vec![10_000]));
    // Of a long WAL, to give way once more would make it longer still.
    let (steps, under_lock) = force_beside(8000, 1100);
    assert_eq!((locks(&steps), under_lock), (1, vec![1100]));
    let (steps, under_lock) = force_beside(1000, 100_000);
    assert_eq!((locks(&steps), under_lock), (3, vec![]));
    assert_eq!(steps.iter().filter(|step| **step == Step::Rollback).count(), 3);
}

#[test]
fn what_would_leave_the_wal_unguarded_is_not_done() {
    let mut ratchet = Ratchet::new();
    ratchet.start(Procedure::Drain, Duration::ZERO);
    for step in [Step::Begin, Step::Copy] {
        assert_eq!(ratchet.next(&outcome(true, index(9, 0))), Ok(step));
    }
    ratchet.holds = Holds { older: Guard::Proven, ..Holds::default() };
    assert_eq!(ratchet.next(&outcome(true, index(9, 0))), Err(Unguarded));
    assert_eq!(ratchet.next(&outcome(true, index(9, 0))), Ok(Step::Finished));
}
