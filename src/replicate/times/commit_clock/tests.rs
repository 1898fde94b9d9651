use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const YEARS: Duration = Duration::from_hours(10 * 365 * 24);

/// 2026-11-23, in seconds.
const NOW: Duration = Duration::from_secs(1_795_400_000);

/// A machine with its clocks.
struct Machine {
    boot: Duration,
    wall: Duration,
    witness: Option<Duration>,
}

impl Machine {
    fn at(wall: Duration) -> Self {
        Self { boot: 77 * SECOND, wall, witness: None }
    }

    fn passes(&mut self, time: Duration) {
        self.boot += time;
        self.wall += time;
        self.witness = self.witness.map(|witness| witness + time);
    }

    fn is_set_back(&mut self, by: Duration) {
        self.wall = self.wall.checked_sub(by).unwrap();
    }

    fn reading(&self) -> Reading {
        let witness = self.witness.map(micros);
        Reading { boot: self.boot, wall: micros(self.wall), witness }
    }

    fn begin(&self) -> CommitClock {
        CommitClock::begin(&self.reading(), Micros(0), None)
    }

    /// Lets time pass with a look each second; how the clock stood at the end. It never goes back.
    #[track_caller]
    fn runs(&mut self, clock: &mut CommitClock, time: Duration) -> Standing {
        let mut before = clock.given().time;
        let mut standing = Standing::Together;
        for _ in 0..time.as_secs() {
            self.passes(SECOND);
            standing = clock.read(&self.reading()).1;
            assert!(clock.given().time > before);
            before = clock.given().time;
        }
        standing
    }
}

fn before(by: Duration) -> Duration {
    NOW.checked_sub(by).unwrap()
}

fn micros(time: Duration) -> Micros {
    Micros(time.as_micros().try_into().unwrap())
}

#[test]
fn it_is_the_wall_clock_while_nobody_sets_that_also_past_2038() {
    for start in [NOW, Duration::from_secs((1 << 31) - 30), Duration::from_secs((1 << 32) - 30)] {
        let mut machine = Machine::at(start);
        let mut clock = machine.begin();
        assert_eq!(machine.runs(&mut clock, MINUTE), Standing::Together);
        assert_eq!(clock.given().time, start + MINUTE);
    }
}

#[test]
fn a_small_step_is_made_good_without_a_jump() {
    let mut machine = Machine::at(NOW);
    let mut clock = machine.begin();
    machine.wall += 50 * SECOND;
    machine.passes(SECOND);
    clock.read(&machine.reading());
    assert_eq!(clock.given().time, NOW + SECOND + SECOND / 20);
    machine.runs(&mut clock, 1000 * SECOND);
    assert_eq!(clock.given().time, machine.wall);

    machine.is_set_back(50 * SECOND);
    machine.passes(SECOND);
    clock.read(&machine.reading());
    assert_eq!(clock.given().time + SECOND / 20, machine.wall + 50 * SECOND);
    machine.runs(&mut clock, 1000 * SECOND);
    assert_eq!(clock.given().time, machine.wall);
}

#[test]
fn a_step_ahead_is_believed_when_it_stood_for_ten_minutes() {
    for step in [61 * SECOND, HOUR, YEARS] {
        let mut machine = Machine::at(NOW);
        let mut clock = machine.begin();
        machine.wall += step;
        assert_eq!(machine.runs(&mut clock, 600 * SECOND), Standing::WallAhead(step));
        assert_eq!(clock.given().time, NOW + 600 * SECOND);
        assert_eq!(machine.runs(&mut clock, SECOND), Standing::Jumped(step));
        assert_eq!(clock.given().time, machine.wall);
        assert_eq!(machine.runs(&mut clock, SECOND), Standing::Together);
    }
}

#[test]
fn a_step_ahead_that_is_taken_back_was_none() {
    let mut machine = Machine::at(NOW);
    let mut clock = machine.begin();
    // Nor is a wall clock believed that is set again and again.
    for step in [YEARS, YEARS / 2, YEARS] {
        let right = machine.wall;
        machine.wall += step;
        assert_eq!(machine.runs(&mut clock, 9 * MINUTE), Standing::WallAhead(step));
        machine.wall = right + 9 * MINUTE;
    }
    assert_eq!(machine.runs(&mut clock, SECOND), Standing::Together);
    assert_eq!(clock.given().time, machine.wall);
}

#[test]
fn a_step_back_is_waited_for_at_half_speed() {
    let mut machine = Machine::at(NOW);
    let mut clock = machine.begin();
    machine.is_set_back(HOUR);
    assert_eq!(machine.runs(&mut clock, 600 * SECOND), Standing::WallBehind(HOUR));
    assert_eq!(clock.given().time, NOW + 600 * SECOND);
    machine.runs(&mut clock, 100 * SECOND);
    assert_eq!(clock.given().time, NOW + 650 * SECOND);
    assert!(matches!(machine.runs(&mut clock, HOUR), Standing::Waiting(_)));
    assert_eq!(machine.runs(&mut clock, HOUR), Standing::Together);
    machine.runs(&mut clock, HOUR);
    assert_eq!(clock.given().time, machine.wall);
}

#[test]
fn a_witness_decides_at_once() {
    let step_ahead = |witness: Duration| {
        let mut machine = Machine::at(NOW);
        let mut clock = machine.begin();
        machine.witness = Some(witness);
        machine.wall += HOUR;
        (machine.runs(&mut clock, SECOND), machine.runs(&mut clock, HOUR))
    };
    let believed = (Standing::Jumped(HOUR), Standing::Together);
    assert_eq!(step_ahead(before(30 * SECOND) + HOUR), believed);
    let refused = (Standing::WallAhead(HOUR), Standing::WallAhead(HOUR));
    assert_eq!(step_ahead(NOW), refused);

    let step_back = |witness: Duration| {
        let mut machine = Machine::at(NOW);
        let mut clock = machine.begin();
        machine.witness = Some(witness);
        machine.is_set_back(HOUR);
        machine.runs(&mut clock, 2 * SECOND)
    };
    assert_eq!(step_back(NOW), Standing::WallBehind(HOUR));
    assert!(matches!(step_back(before(HOUR)), Standing::Waiting(_)));
}

#[test]
fn a_machine_that_does_not_know_the_time_yet() {
    let mut machine = Machine::at(Duration::ZERO);
    let mut clock = machine.begin();
    assert_eq!(machine.runs(&mut clock, MINUTE), Standing::Together);
    machine.wall = NOW;
    assert_eq!(machine.runs(&mut clock, SECOND), Standing::Jumped(before(MINUTE)));
    assert_eq!(clock.given().time, NOW + SECOND);

    // And one that forgot it: nothing was recorded before this program was written.
    for forgotten in [Duration::ZERO, before(YEARS)] {
        machine.wall = forgotten;
        let standing = machine.runs(&mut clock, HOUR);
        assert!(matches!(standing, Standing::WallBehind(_)), "{standing:?}");
    }
    assert_eq!(clock.given().time, NOW + SECOND + HOUR * 2);
}

#[test]
fn a_suspended_machine_and_one_that_was_paused_from_outside() {
    let mut machine = Machine::at(NOW);
    let mut clock = machine.begin();
    machine.passes(8 * HOUR);
    assert_eq!(machine.runs(&mut clock, SECOND), Standing::Together);
    assert_eq!(clock.given().time, machine.wall);
    machine.wall += 8 * HOUR;
    assert_eq!(machine.runs(&mut clock, MINUTE), Standing::WallAhead(8 * HOUR));
    machine.runs(&mut clock, HOUR);
    assert_eq!(clock.given().time, machine.wall);
}

#[test]
fn away_the_boot_time_clock_went_on() {
    let mut machine = Machine::at(NOW);
    let last = machine.begin().given();
    machine.passes(HOUR);
    for wall in [NOW + HOUR, NOW + YEARS, before(YEARS), Duration::ZERO] {
        machine.wall = wall;
        let clock = CommitClock::begin(&machine.reading(), micros(NOW), Some(last));
        assert_eq!(clock.given().time, NOW + HOUR);
    }
}

#[test]
fn after_a_reboot_the_wall_clock_counts_unless_it_is_behind_or_the_witness_says_otherwise() {
    let begun = |wall, witness| {
        let machine = Machine { witness, ..Machine::at(wall) };
        CommitClock::begin(&machine.reading(), micros(NOW), None).given().time
    };
    assert_eq!(begun(NOW + HOUR, None), NOW + HOUR);
    assert_eq!(begun(before(YEARS), None), NOW);
    assert_eq!(begun(Duration::ZERO, None), NOW);
    assert_eq!(begun(NOW + YEARS, Some(NOW + HOUR)), NOW + HOUR);
    assert_eq!(begun(Duration::ZERO, Some(NOW + HOUR)), NOW + HOUR);
    assert_eq!(begun(NOW + HOUR, Some(NOW + HOUR + SECOND)), NOW + HOUR);
    // A time that was given on another run of the machine has a later boot-time clock.
    let machine = Machine::at(NOW + HOUR);
    let other = Given { boot: machine.boot + SECOND, time: NOW + YEARS };
    let clock = CommitClock::begin(&machine.reading(), micros(NOW), Some(other));
    assert_eq!(clock.given().time, NOW + HOUR);
}

proptest! {
    /// Whatever the clocks say, times never go back, stay at or after the floor, and go no slower
    /// than at half speed.
    #[test]
    fn times_never_go_back(
        floor in 0..u64::MAX / 2,
        readings in prop::collection::vec((0..1u64 << 40, any::<u64>(), any::<Option<u64>>()), 1..50),
    ) {
        let mut boot = Duration::ZERO;
        let first = Reading { boot, wall: Micros(readings[0].1), witness: None };
        let mut clock = CommitClock::begin(&first, Micros(floor), None);
        let mut last = Micros(floor);
        for (passes, wall, witness) in readings {
            boot += Duration::from_micros(passes);
            let reading = Reading { boot, wall: Micros(wall), witness: witness.map(Micros) };
            let (time, _) = clock.read(&reading);
            prop_assert!(time.0 >= last.0.saturating_add(passes / 2) || time.0 == u64::MAX);
            last = time;
        }
    }
}
