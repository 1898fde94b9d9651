//! Commit times, in microseconds and milliseconds since 1970-01-01T00:00:00Z.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

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

/// Written as RFC 3339, in UTC; as the bare number where no calendar reaches.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = i64::try_from(self.0).ok();
        match micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()) {
            Some(timestamp) => write!(f, "{timestamp:.6}"),
            None => write!(f, "{} µs after 1970", self.0),
        }
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
    fn people_read_times_in_utc() {
        assert_eq!(Micros(1_700_000_000_000_001).to_string(), "2023-11-14T22:13:20.000001Z");
        assert_eq!(Micros(u64::MAX).to_string(), format!("{} µs after 1970", u64::MAX));
    }

    #[test]
    fn a_name_never_says_earlier_than_the_commit() {
        assert_eq!(Micros(1_000).ceil_millis(), Millis(1));
        assert_eq!(Micros(1_001).ceil_millis(), Millis(2));
        assert!(Micros(1_001) <= Micros(1_001).ceil_millis().micros());
        assert_eq!("00001700000000".parse(), Ok(Millis(1_700_000_000)));
        assert!("1700000000".parse::<Millis>().is_err());
    }
}
