//! Numbers that name things in a replica, one type each. `Display` writes a fixed width, so that
//! names sort as their numbers do; `FromStr` reads back exactly what `Display` writes.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A text that is no fixed-width number of the expected form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not a {expected}")]
pub struct ParseError {
    /// What the text should have been.
    pub expected: &'static str,
}

/// Reads exactly `width` digits of the given radix, lower-case, without a sign.
pub(crate) fn parse_digits(
    text: &str,
    width: usize,
    radix: u32,
    expected: &'static str,
) -> Result<u64, ParseError> {
    let canonical = |byte: u8| char::from(byte).is_digit(radix) && !byte.is_ascii_uppercase();
    if text.len() != width || !text.bytes().all(canonical) {
        return Err(ParseError { expected });
    }
    u64::from_str_radix(text, radix).map_err(|_overflow| ParseError { expected })
}

/// Numbers the recorded states of a database, from 1: one more for each commit seen and for each
/// rebase, never used twice within a replica. Zero stands before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Txid(pub u64);

impl Txid {
    /// The id after this one; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Txid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

impl FromStr for Txid {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse_digits(text, 20, 10, "transaction id of 20 digits").map(Self)
    }
}

/// The number under which one writer owns a replica, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch after this one; `None` after the last.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

impl FromStr for Epoch {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = "epoch of 10 digits";
        let number = parse_digits(text, 10, 10, expected)?;
        u32::try_from(number).map(Self).map_err(|_too_large| ParseError { expected })
    }
}

/// One line of history: the epoch of its first writer and a random number. Generations are ordered
/// by epoch, never by a clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation {
    /// The epoch of the writer that began it.
    pub epoch: Epoch,
    /// Tells apart what two writers began under one number.
    pub random: u64,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.epoch, self.random)
    }
}

impl FromStr for Generation {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = "generation of the form <epoch>-<16 hex digits>";
        let (epoch, random) = text.split_once('-').ok_or(ParseError { expected })?;
        Ok(Self { epoch: epoch.parse()?, random: parse_digits(random, 16, 16, expected)? })
    }
}

/// The id of a snapshot, as people type it: the epoch of its writer, and which of that writer's it is.
/// It is in no object's name; copies of one snapshot share it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    /// Who wrote it.
    pub epoch: Epoch,
    /// Which of that writer's snapshots it is.
    pub attempt: u32,
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch.0, self.attempt)
    }
}

impl FromStr for BackupId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let expected = "backup id of the form <epoch>-<number>";
        let wrong = ParseError { expected };
        let (epoch, attempt) = text.split_once('-').ok_or(wrong)?;
        let number = |text: &str| text.parse().map_err(|_no_number| wrong);
        let id = Self { epoch: Epoch(number(epoch)?), attempt: number(attempt)? };
        if id.to_string() == text { Ok(id) } else { Err(wrong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_width_text_round_trips() {
        for txid in [Txid(0), Txid(17), Txid(u64::MAX)] {
            assert_eq!(txid.to_string().len(), 20);
            assert_eq!(txid.to_string().parse(), Ok(txid));
        }
        for epoch in [Epoch(1), Epoch(u32::MAX)] {
            assert_eq!(epoch.to_string().parse(), Ok(epoch));
        }
        let generation = Generation { epoch: Epoch(12), random: 0xdead_beef };
        assert_eq!(generation.to_string(), "0000000012-00000000deadbeef");
        assert_eq!(generation.to_string().parse(), Ok(generation));
    }

    #[test]
    fn a_backup_id_is_typed_as_it_is_shown() {
        let id = BackupId { epoch: Epoch(12), attempt: 3 };
        assert_eq!(id.to_string(), "12-3");
        assert_eq!("12-3".parse(), Ok(id));
        for text in ["", "12", "-3", "12-", "12-03", "+12-3", "12-3-4", "12--3", "4294967296-0"] {
            assert!(text.parse::<BackupId>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in
            ["", "17", "+0000000000000000017", "00000000000000000017 ", "99999999999999999999"]
        {
            assert!(text.parse::<Txid>().is_err(), "{text:?}");
        }
        assert!("9999999999".parse::<Epoch>().is_err());
        assert!("0000000012-00000000DEADBEEF".parse::<Generation>().is_err());
        assert!("0000000012".parse::<Generation>().is_err());
    }
}
