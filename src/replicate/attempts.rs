//! When something that failed is tried again.

use std::time::Duration;

use crate::clock;

/// The pause after a failure. After what cost something in vain it doubles, up to the longest.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Attempts at something, and the pauses between.
#[derive(Debug)]
pub struct Attempts {
    next: Duration,
    longer: Duration,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { next: Duration::ZERO, longer: PAUSE }
    }
}

impl Attempts {
    /// Whether it is time for the next.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.next <= clock::monotonic()
    }

    /// One would be in vain now.
    pub fn pause(&mut self) {
        self.next = clock::monotonic() + PAUSE;
    }

    /// One was in vain, and cost something.
    pub fn pause_longer(&mut self) {
        self.next = clock::monotonic() + self.longer;
        self.longer = LONGEST_PAUSE.min(self.longer * 2);
    }

    /// One has succeeded.
    pub fn is_over(&mut self) {
        self.longer = PAUSE;
    }

    /// Somebody waits: the next is due, and its failure one of few.
    pub fn hurry(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_somebody_waits() {
        let mut attempts = Attempts::default();
        assert!(attempts.is_due());
        for _ in 0..20 {
            attempts.pause_longer();
        }
        let left = |attempts: &Attempts| attempts.next.saturating_sub(clock::monotonic());
        assert!(!attempts.is_due() && left(&attempts) > LONGEST_PAUSE / 2);
        attempts.hurry();
        assert!(attempts.is_due());
        attempts.pause_longer();
        assert!(!attempts.is_due() && left(&attempts) <= PAUSE);
        attempts.pause_longer();
        assert!(left(&attempts) > PAUSE);
        attempts.is_over();
        attempts.pause();
        assert!(!attempts.is_due() && left(&attempts) <= PAUSE);
    }
}
