//! How long the application's writers were held: a histogram, and its summary.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Holds are told apart from 1 µs to a minute, to two digits.
const LONGEST_MICROS: u64 = 60_000_000;
const DIGITS: u8 = 2;

/// How often the holds since the last time are told.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// For how long the application's writers were held, to two digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WriterHolds {
    /// How often they were held.
    pub count: u64,
    /// The time that half of the holds did not exceed.
    pub p50: Duration,
    /// The time that 99 of 100 did not exceed.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl WriterHolds {
    fn tell(self, since: &str) {
        let Self { count, p50, p99, max } = self;
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            since,
            count,
            p50_micros = micros(p50),
            p99_micros = micros(p99),
            max_micros = micros(max),
            "held the application's writers for checkpoints"
        );
    }
}

/// The distribution of holds.
#[derive(Debug, Default)]
struct Distribution {
    /// Made for the first hold: most databases have none.
    histogram: Option<Histogram<u64>>,
}

impl Distribution {
    fn record(&mut self, held: Duration) {
        if self.histogram.is_none() {
            self.histogram = Histogram::new_with_bounds(1, LONGEST_MICROS, DIGITS).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(u64::try_from(held.as_micros()).unwrap_or(u64::MAX));
        }
    }

    /// `None` of none.
    fn summary(&self) -> Option<WriterHolds> {
        let histogram = self.histogram.as_ref()?;
        let quantile = |q| Duration::from_micros(histogram.value_at_quantile(q));
        Some(WriterHolds {
            count: histogram.len(),
            p50: quantile(0.5),
            p99: quantile(0.99),
            max: Duration::from_micros(histogram.max()),
        })
    }
}

/// The book of one follower's holds: all of them, and those that were not told yet.
#[derive(Debug)]
pub struct HoldBook {
    all: Distribution,
    untold: Distribution,
    tell_at: Duration,
    /// Since when they are held.
    since: Option<Duration>,
}

impl HoldBook {
    /// A book without holds, begun then.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        let (all, untold) = (Distribution::default(), Distribution::default());
        Self { all, untold, tell_at: now + TELL_EVERY, since: None }
    }

    /// Writers are held from now on.
    pub fn begin(&mut self, now: Duration) {
        self.since = Some(now);
    }

    /// Writers are not held any more.
    pub fn end(&mut self, now: Duration) {
        if let Some(since) = self.since.take() {
            self.all.record(now.saturating_sub(since));
            self.untold.record(now.saturating_sub(since));
        }
    }

    /// The holds from the beginning; `None` of none.
    #[must_use]
    pub fn all(&self) -> Option<WriterHolds> {
        self.all.summary()
    }

    /// Logs all holds, if there were any.
    pub fn tell_all(&self) {
        if let Some(holds) = self.all() {
            holds.tell("the start");
        }
    }

    /// Logs the holds since the last time, once an hour, if there were any.
    pub fn tell_hourly(&mut self, now: Duration) {
        if let Some(holds) = self.hourly(now) {
            holds.tell("an hour ago");
        }
    }

    /// Once an hour: the holds since the last time; `None` of none.
    fn hourly(&mut self, now: Duration) -> Option<WriterHolds> {
        if now < self.tell_at {
            return None;
        }
        self.tell_at = now + TELL_EVERY;
        std::mem::take(&mut self.untold).summary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);
    const HOLD: Duration = Duration::from_millis(1);

    fn hold(book: &mut HoldBook, held: Duration) {
        book.begin(HOUR);
        book.end(HOUR.saturating_add(held));
    }

    fn count(holds: Option<WriterHolds>) -> u64 {
        holds.map_or(0, |holds| holds.count)
    }

    #[test]
    fn the_summary_is_right_to_two_digits() {
        let mut book = HoldBook::new(Duration::ZERO);
        assert_eq!(book.all(), None);
        (1..=1000).for_each(|micros| hold(&mut book, Duration::from_micros(micros)));
        let WriterHolds { count, p50, p99, max } = book.all().unwrap();
        assert_eq!(count, 1000);
        for (found, micros) in [(p50, 500), (p99, 990), (max, 1000)] {
            let right = (micros..=micros + micros / 100).contains(&found.as_micros());
            assert!(right, "{found:?} instead of {micros} µs");
        }
    }

    #[test]
    fn a_hold_out_of_all_bounds_counts_as_the_longest() {
        let mut book = HoldBook::new(Duration::ZERO);
        hold(&mut book, Duration::ZERO);
        hold(&mut book, Duration::MAX);
        let holds = book.all().unwrap();
        assert_eq!(holds.count, 2);
        assert!(holds.max >= Duration::from_mins(1), "{holds:?}");
    }

    #[test]
    fn a_lock_that_was_not_taken_is_no_hold() {
        let mut book = HoldBook::new(Duration::ZERO);
        book.end(HOUR);
        hold(&mut book, HOLD);
        book.end(HOUR);
        assert_eq!(count(book.all()), 1);
    }

    #[test]
    fn every_hold_is_told_in_one_hour_and_no_hour_without_any() {
        let mut book = HoldBook::new(Duration::ZERO);
        hold(&mut book, HOLD);
        assert_eq!(book.hourly(HOLD), None);
        assert_eq!(count(book.hourly(HOUR)), 1);
        assert_eq!(book.hourly(HOUR + HOLD), None);
        assert_eq!(book.hourly(2 * HOUR), None);
        hold(&mut book, HOLD);
        hold(&mut book, HOLD);
        assert_eq!(count(book.hourly(3 * HOUR)), 2);
        assert_eq!(count(book.all()), 3);
    }
}
