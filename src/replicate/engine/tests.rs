//! When what is done, look by look.

use super::*;

const INTERVAL: Duration = Duration::from_secs(1);

fn at(millis: u64) -> Seen {
    Seen { now: Duration::from_millis(millis), parked: true, ..Seen::default() }
}

#[test]
fn the_first_transaction_ships_at_once_and_the_next_when_the_interval_ends() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    assert_eq!(engine.next(&Seen { waiting: 1, ..at(100) }), Action::Seal);
    let waiting = Seen { waiting: 1, ..at(400) };
    assert_eq!(engine.next(&Seen { now: Duration::from_millis(1050), ..waiting }), {
        Action::Wait(Duration::from_millis(50))
    });
    assert_eq!(engine.next(&Seen { waiting: 1, ..at(1100) }), Action::Seal);
    assert_eq!(engine.next(&Seen { waiting: 1, ..at(9000) }), Action::Seal);
}

#[test]
fn much_that_waits_ships_early() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    assert_eq!(engine.next(&Seen { waiting: 1, ..at(100) }), Action::Seal);
    assert_eq!(engine.next(&Seen { waiting: SEAL_BYTES, ..at(101) }), Action::Seal);
}

/// A checkpoint may take longer than an interval.
#[test]
fn what_is_sealed_beside_a_move_counts_as_sealed() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    let millis = Duration::from_millis;
    assert!(!engine.seal_due(millis(100), 0));
    assert!(engine.seal_due(millis(100), 1));
    assert!(!engine.seal_due(millis(400), 1));
    assert!(engine.seal_due(millis(400), SEAL_BYTES));
    assert!(!engine.seal_due(millis(1399), 1));
    assert!(engine.seal_due(millis(1400), 1));
    assert!(matches!(engine.next(&Seen { waiting: 1, ..at(1500) }), Action::Wait(_)));
}

#[test]
fn stopping_reads_seals_and_ends() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    assert_eq!(engine.next(&Seen { waiting: 1, ..at(100) }), Action::Seal);
    let stopping = Seen { stopping: true, unread: true, ..at(101) };
    assert_eq!(engine.next(&stopping), Action::Read);
    // Not everything was read yet; then more is committed, which nobody asked for.
    assert_eq!(engine.next(&stopping), Action::Read);
    let settled = Seen { settles: 1, waiting: 1, ..stopping };
    assert_eq!(engine.next(&settled), Action::Seal);
    assert_eq!(engine.next(&Seen { waiting: 0, ..settled }), Action::Finish);
}

#[test]
fn steady_commits_keep_nothing_from_being_sealed() {
    let mut engine = Engine::new(INTERVAL, None);
    let steady = Seen { unread: true, waiting: 1, ..at(5000) };
    assert_eq!(engine.next(&steady), Action::Seal);
    assert_eq!(engine.next(&steady), Action::Read);
    assert_eq!(engine.next(&Seen { waiting: SEAL_BYTES, ..steady }), Action::Seal);
}

#[test]
fn an_event_is_looked_after_until_its_commit_should_be_visible() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    let mut now = Duration::from_secs(5);
    let mut pauses = Vec::new();
    let mut written = true;
    while let Action::Sleep(pause) = engine.next(&Seen { now, written, ..at(0) }) {
        written = false;
        pauses.push(pause);
        now += pause;
    }
    assert_eq!(pauses.first(), Some(&FIRST_RECHECK));
    assert!(pauses.windows(2).all(|pair| pair[1] == pair[0] * 2), "{pauses:?}");
    assert!(pauses.iter().sum::<Duration>() >= RECHECK_SPAN);
    assert!(pauses.len() < 12, "{pauses:?}");
}

#[test]
fn commits_close_together_are_polled_for_and_silence_ends_that() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    assert_eq!(engine.next(&Seen { unread: true, ..at(1000) }), Action::Read);
    assert_eq!(engine.next(&at(1000)), Action::Wait(IDLE_POLL));
    assert_eq!(engine.next(&Seen { unread: true, ..at(1005) }), Action::Read);
    assert_eq!(engine.next(&at(1005)), Action::Tick(BUSY_POLL));
    assert_eq!(engine.next(&at(1016)), Action::Wait(IDLE_POLL));
    assert_eq!(engine.next(&at(60_000)), Action::Wait(QUIET_POLL));
}
const LOADED: Seen = Seen {
    now: Duration::from_secs(1),
    unread: false,
    settles: 0,
    written: false,
    waiting: 0,
    stopping: false,
    max_frame: 1000,
    backfilled: 0,
    wal_bytes: 4 << 20,
    parked: false,
    on_mark_zero: false,
    waited_for: false,
    read_back: false,
};

#[test]
fn many_frames_are_drained_and_forced_only_over_the_limit() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    engine.last_read = LOADED.now;
    assert_eq!(engine.next(&LOADED), Action::Move(Procedure::Drain));
    engine.moved(LOADED.now, false, 1000, 0);
    assert!(matches!(engine.next(&LOADED), Action::Wait(_)));
    let grown = Seen { max_frame: 5000, backfilled: 900, wal_bytes: 20 << 20, ..LOADED };
    assert_eq!(engine.next(&grown), Action::Move(Procedure::Force));
    let mut never = Engine::new(INTERVAL, None);
    never.last_read = LOADED.now;
    assert_eq!(never.next(&grown), Action::Move(Procedure::Drain));
}

/// What the engine does with a WAL that grows by so many frames a look, up to the first move.
fn moves_at(on_mark_zero: bool, growth: u32) -> u32 {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    for look in 1..=1000 {
        let now = LOADED.now + Duration::from_millis(u64::from(look));
        let max_frame = look * growth;
        let seen = Seen { now, unread: true, max_frame, on_mark_zero, ..LOADED };
        match engine.next(&seen) {
            Action::Move(Procedure::Drain) => return max_frame,
            other => assert_eq!(other, Action::Read),
        }
    }
    panic!("the lock is not moved");
}

/// Past 1,000 frames every commit of an application would sort the WAL in vain.
#[test]
fn read_mark_zero_is_left_before_the_application_tries_to_checkpoint() {
    assert_eq!(moves_at(true, 200), 600);
    assert_eq!(moves_at(false, 200), 1000);
    assert_eq!(moves_at(true, 2), 996);
}

#[test]
fn a_wal_that_grows_as_fast_as_it_is_checkpointed_is_drained_less_often_where_a_force_ends_it() {
    let next_after = |wal_limit, backlog| {
        let mut engine = Engine::new(INTERVAL, wal_limit);
        engine.moved(LOADED.now, false, 1500, backlog);
        let seen = |max_frame| Seen { max_frame, backfilled: 600, wal_bytes: 1 << 20, ..LOADED };
        let mut is_moved =
            |max_frame: &u32| matches!(engine.next(&seen(*max_frame)), Action::Move(_));
        (1500..100_000).step_by(100).find(|at| is_moved(at))
    };
    let limit = Some(1 << 30);
    assert_eq!(next_after(limit, 900), Some(6000));
    assert_eq!(next_after(limit, 20), Some(2500));
    assert_eq!(next_after(None, 900), Some(2500));
}

#[test]
fn silence_parks_the_lock_with_growing_pauses_while_that_fails() {
    let mut engine = Engine::new(INTERVAL, None);
    let (mut now, mut moves) = (Duration::from_secs(1), Vec::new());
    while now < Duration::from_mins(1) {
        let seen = Seen { now, max_frame: 3, ..LOADED };
        match engine.next(&seen) {
            Action::Move(procedure) => {
                assert_eq!(procedure, Procedure::Drain);
                moves.push(now);
                engine.moved(now, false, 3, 0);
            }
            Action::Wait(pause) => now += pause.max(Duration::from_micros(1)),
            other => panic!("{other:?}"),
        }
    }
    assert!((8..20).contains(&moves.len()), "{moves:?}");
    let parked = Seen { now, max_frame: 3, backfilled: 3, parked: true, ..LOADED };
    assert!(matches!(engine.next(&parked), Action::Wait(_)));
}

#[test]
fn a_checkpointer_is_answered_in_the_second_look_without_a_commit_between() {
    let mut engine = Engine::new(INTERVAL, None);
    engine.last_read = LOADED.now;
    let waits = |max_frame, millis| Seen {
        waited_for: true,
        max_frame,
        now: LOADED.now + Duration::from_millis(millis),
        ..LOADED
    };
    assert_eq!(engine.next(&waits(10, 0)), Action::Sleep(BUSY_POLL));
    assert_eq!(engine.next(&waits(11, 1)), Action::Sleep(BUSY_POLL));
    let since = LOADED.now + Duration::from_millis(1);
    let response = Action::Move(Procedure::Respond { since });
    assert_eq!(engine.next(&waits(11, 2)), response);
    assert_eq!(engine.next(&waits(11, 2)), Action::Sleep(BUSY_POLL));
    // In vain, it is answered twenty times a second.
    let answers = (100..1100).filter(|&millis| engine.next(&waits(11, millis)) == response).count();
    assert!((15..=21).contains(&answers), "{answers}");
}

#[test]
fn what_is_to_be_read_back_is_read_in_slices_behind_everything_else() {
    let mut engine = Engine::new(INTERVAL, None);
    let due = |millis| Seen { read_back: true, ..at(millis) };
    assert_eq!(engine.next(&due(5000)), Action::ReadBack);
    assert_eq!(engine.next(&due(5001)), Action::Wait(Duration::from_millis(3)));
    assert_eq!(engine.next(&Seen { unread: true, ..due(5004) }), Action::Read);
    assert_eq!(engine.next(&due(5004)), Action::ReadBack);
    assert_eq!(engine.next(&at(5020)), Action::Wait(IDLE_POLL));
}

#[test]
fn steady_commits_do_not_keep_a_large_wal_from_being_emptied() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    let steady = Seen { unread: true, wal_bytes: 20 << 20, max_frame: 5000, ..LOADED };
    assert_eq!(engine.next(&steady), Action::Move(Procedure::Force));
    engine.moved(steady.now, false, 5000, 0);
    assert_eq!(engine.next(&steady), Action::Read);
    assert_eq!(engine.next(&Seen { max_frame: 10, wal_bytes: 40 << 10, ..steady }), Action::Read);
    let restarted = Seen { max_frame: 1500, ..steady };
    assert_eq!(engine.next(&restarted), Action::Move(Procedure::Force));
}

#[test]
fn what_cannot_be_recorded_yet_is_passed_over_only_where_it_must_be() {
    let mut engine = Engine::new(INTERVAL, None);
    let kept = Seen { max_frame: 3000, wal_bytes: 12 << 20, ..LOADED };
    let at = |millis, seen| Seen { now: LOADED.now + Duration::from_millis(millis), ..seen };
    assert_eq!(engine.next_unrecorded(&Seen { unread: true, ..kept }), None);
    assert_eq!(engine.next_unrecorded(&at(60_000, kept)), None);
    let waited_for = Seen { waited_for: true, ..kept };
    assert_eq!(engine.next_unrecorded(&at(60_001, waited_for)), None);
    let since = at(60_001, kept).now;
    let response = Some(Procedure::Respond { since });
    assert_eq!(engine.next_unrecorded(&at(60_002, waited_for)), response);
    let large = Seen { unread: true, max_frame: 6000, wal_bytes: 24 << 20, ..kept };
    assert_eq!(engine.next_unrecorded(&at(61_000, large)), Some(Procedure::Drain));
    // What came in meanwhile is left for the silence.
    engine.moved(at(61_000, large).now, false, 6500, 0);
    let left = Seen { max_frame: 6500, backfilled: 6000, wal_bytes: 26 << 20, ..kept };
    assert_eq!(engine.next_unrecorded(&at(61_001, Seen { unread: true, ..left })), None);
    assert_eq!(engine.next_unrecorded(&at(61_202, left)), Some(Procedure::Drain));
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    assert_eq!(engine.next_unrecorded(&large), Some(Procedure::Force));
}

#[test]
fn writers_are_not_held_again_and_again_while_somebody_reads_an_old_state() {
    let mut engine = Engine::new(INTERVAL, Some(16 << 20));
    let (mut forces, mut moves) = (Vec::new(), 0);
    // 100,000 frames a second, none of which can be backfilled.
    for millis in 0..60_000 {
        let max_frame = 5000 + 100 * u32::try_from(millis).unwrap();
        let now = LOADED.now + Duration::from_millis(millis);
        let seen = Seen { now, unread: true, wal_bytes: 20 << 20, max_frame, ..LOADED };
        if let Action::Move(procedure) = engine.next(&seen) {
            moves += 1;
            forces.extend((procedure == Procedure::Force).then_some(millis));
            engine.moved(now, false, max_frame, 0);
        }
    }
    assert!((8..16).contains(&forces.len()), "{forces:?}");
    assert!(moves > 5000, "the mark goes on: {moves}");
    // Once the WAL was emptied, the next is not waited for.
    let seen = Seen { now: LOADED.now + Duration::from_secs(61), ..LOADED };
    engine.moved(seen.now, true, 7_000_000, 0);
    let large = Seen { unread: true, wal_bytes: 20 << 20, max_frame: 5000, ..seen };
    assert_eq!(engine.next(&large), Action::Move(Procedure::Force));
}
