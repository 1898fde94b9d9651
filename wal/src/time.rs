//! Commit times, in microseconds and milliseconds since 1970-01-01T00:00:00Z.

use std::fmt;
use std::str::FromStr;

use crate::id::{ParseError, parse_digits};

/// A commit time: microseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub u64);

impl Micros {
    /// The first whole millisecond at or after this time. Names carry it, so that a state named for
    /// a millisecond was committed by then.
    #[must_use]
    pub fn ceil_millis(self) -> Millis {
        Millis(self.0.div_ceil(1000))
    }
}

/// Milliseconds since 1970, UTC: the time in an object name, 14 digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// The time in microseconds; the last representable one where it would overflow.
    #[must_use]
    pub fn micros(self) -> Micros {
        Micros(self.0.saturating_mul(1000))
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:014}", self.0)
    }
}

impl FromStr for Millis {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_digits(text, 14, 10, "time of 14 digits").map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_says_earlier_than_the_commit() {
        assert_eq!(Micros(1_000).ceil_millis(), Millis(1));
        assert_eq!(Micros(1_001).ceil_millis(), Millis(2));
        assert!(Micros(1_001) <= Micros(1_001).ceil_millis().micros());
        assert_eq!("00001700000000".parse(), Ok(Millis(1_700_000_000)));
        assert!("1700000000".parse::<Millis>().is_err());
    }
}
