//! How fast the database is read again: once in an interval, and never faster than 5 MB/s. A value
//! without I/O.

use std::time::Duration;

/// A block of 64 KiB takes as long as this at 5 MB/s.
const FASTEST: Duration = Duration::from_micros(13_108);

/// Blocks that are read at once: 1 MiB, so that a large database does not wake anybody for each block.
const TOGETHER: u32 = 16;

/// Time that was not used is not made up for beyond so many blocks: 4 MiB.
const MOST: u32 = 64;

/// Says how many blocks may be read when.
#[derive(Debug, Clone)]
pub struct Pacer {
    interval: Duration,
    /// The moment up to which the time was used; none before the first read.
    used: Option<Duration>,
}

impl Pacer {
    /// A pacer that spreads the database over `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { interval, used: None }
    }

    /// How many blocks are to be read now, of a database of `blocks`, of which `left` are left; with
    /// `haste`, as if the interval were over. What it answers is taken to be read. The first read is
    /// due at once: a process that is often started again comes to an end, too.
    pub fn take(&mut self, now: Duration, blocks: u32, left: u32, haste: bool) -> u32 {
        let leisure = if haste { Duration::ZERO } else { self.interval };
        let each = (leisure / blocks.max(1)).max(FASTEST);
        let wanted = left.min(TOGETHER);
        let Some(used) = self.used else {
            self.used = Some(now);
            return wanted;
        };
        let paid = now.saturating_sub(used).as_nanos() / each.as_nanos();
        let paid = u32::try_from(paid).unwrap_or(u32::MAX);
        if paid < wanted {
            return 0;
        }
        let taken = left.min(paid).min(MOST);
        self.used = Some(if paid > MOST { now } else { used + each * taken });
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEEK: Duration = Duration::from_hours(7 * 24);

    /// Reads a whole database, with a look every `pause`: how long it took, and the most blocks within
    /// one second of it.
    fn pass(pacer: &mut Pacer, blocks: u32, pause: Duration, haste: bool) -> (Duration, u32) {
        let start = Duration::from_mins(1);
        let (mut now, mut left, mut reads) = (start, blocks, Vec::new());
        while left > 0 {
            let taken = pacer.take(now, blocks, left, haste);
            assert!(taken <= left && taken <= MOST);
            left -= taken;
            reads.push((now, taken));
            now += pause;
        }
        let within = |(end, _): &(Duration, u32)| {
            let second = reads.iter().filter(|(at, _)| at <= end && *at + SECOND > *end);
            second.map(|(_, taken)| taken).sum::<u32>()
        };
        (now.saturating_sub(start), reads.iter().map(within).max().unwrap())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_pass_takes_the_interval() {
        for blocks in [40, 16_384] {
            let (took, _) = pass(&mut Pacer::new(WEEK), blocks, Duration::from_mins(1), false);
            // The first megabyte is read at once.
            let first = WEEK * TOGETHER / blocks;
            assert!(took + first + Duration::from_hours(1) >= WEEK, "{blocks}: {took:?}");
            assert!(took <= WEEK, "{blocks}: {took:?}");
        }
    }

    #[test]
    fn nothing_is_read_faster_than_five_megabytes_a_second() {
        for (interval, haste) in [(WEEK, true), (SECOND, false), (SECOND, true)] {
            let mut pacer = Pacer::new(interval);
            let (took, most) = pass(&mut pacer, 4_000, Duration::from_millis(100), haste);
            let bytes = f64::from(4_000 * 65_536);
            let rate = bytes / took.as_secs_f64();
            assert!((4.5e6..=5.2e6).contains(&rate), "{rate}");
            // A second's worth, and what may come together at its start.
            assert!(most <= 76 + TOGETHER, "{most}");
        }
    }

    #[test]
    fn a_long_pause_is_not_made_up_for() {
        let mut pacer = Pacer::new(WEEK);
        assert_eq!(pacer.take(SECOND, 4_000, 4_000, true), TOGETHER);
        assert_eq!(pacer.take(SECOND * 100, 4_000, 3_984, true), MOST);
        assert_eq!(pacer.take(SECOND * 100, 4_000, 3_920, true), 0);
    }

    #[test]
    fn every_start_reads_some_of_a_small_database() {
        let mut pacer = Pacer::new(WEEK);
        assert_eq!(pacer.take(SECOND, 3, 3, false), 3);
        assert_eq!(pacer.take(SECOND * 1000, 3, 3, false), 0);
        assert_eq!(pacer.take(WEEK + SECOND, 3, 3, false), 3);
        assert_eq!(Pacer::new(WEEK).take(SECOND, 40, 24, false), TOGETHER);
    }
}
