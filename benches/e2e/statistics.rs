//! Percentiles and medians.

/// The value that `permille` of the sorted values do not exceed; 0 of none.
pub fn percentile(sorted: &[u64], permille: usize) -> u64 {
    let rank = (sorted.len() * permille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Median, least and greatest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub least: f64,
    pub greatest: f64,
}

impl Spread {
    /// `None` of none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (least, greatest) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(*sorted.get(middle - 1)?, *sorted.get(middle)?)
        } else {
            *sorted.get(middle)?
        };
        Some(Self { median, least, greatest })
    }
}

/// A count or a time as a number to calculate with.
#[allow(clippy::cast_precision_loss, reason = "nothing that is measured has 16 digits")]
pub fn number(value: impl TryInto<u64>) -> f64 {
    value.try_into().unwrap_or(u64::MAX) as f64
}

/// Nanoseconds as milliseconds.
pub fn millis(nanos: u64) -> f64 {
    number(nanos) / 1e6
}

/// Nanoseconds as microseconds.
pub fn micros(nanos: u64) -> f64 {
    number(nanos) / 1e3
}
