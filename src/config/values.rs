//! Durations and sizes as people write them, on the command line and in the configuration.

use std::time::Duration;

use bytesize::ByteSize;
use jiff::SpanRelativeTo;

/// The longest interval between uploads.
const MAX_SYNC_INTERVAL: Duration = Duration::from_mins(5);

/// Reads a duration: `50ms`, `1m 30s`, or `0`.
///
/// # Errors
/// What a duration looks like.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed = text.parse::<jiff::Span>();
    let parsed = parsed.and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()));
    let parsed =
        parsed.map_err(|_syntax| "a duration is a number and a unit, such as 50ms, 10s or 7d")?;
    Duration::try_from(parsed).map_err(|_negative| "a duration is not negative".to_owned())
}

/// Reads how long a committed transaction may wait for upload.
///
/// # Errors
/// What such a duration looks like.
pub fn sync_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval > MAX_SYNC_INTERVAL {
        return Err("more than 5 minutes of commits would be at risk; 5m is the most".to_owned());
    }
    Ok(interval)
}

/// Reads the time between two snapshots.
///
/// # Errors
/// What such a duration looks like.
pub fn snapshot_interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval.is_zero() {
        return Err(
            "a snapshot after every commit would be made; give a time, such as 4h".to_owned()
        );
    }
    Ok(interval)
}

/// Reads how much may wait on the local disk.
///
/// # Errors
/// What such a size looks like.
pub fn spool_limit(text: &str) -> Result<ByteSize, String> {
    let limit = size(text)?;
    if limit.as_u64() == 0 {
        return Err(
            "nothing could ever wait for upload, and nothing would be recorded; give a size, \
                    such as 1GiB"
                .to_owned(),
        );
    }
    Ok(limit)
}

/// Reads a size: `16MB`, `1 GiB`, or a number of bytes.
///
/// # Errors
/// What a size looks like.
pub fn size(text: &str) -> Result<ByteSize, String> {
    let parsed = text.parse::<ByteSize>();
    parsed.map_err(|_syntax| "a size is a number and a unit, such as 16MB or 1GiB".to_owned())
}

/// Writes a duration so that [`duration`] reads the same.
#[must_use]
pub fn written_duration(duration: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    let seconds = duration.as_secs();
    if seconds > 0 && seconds.is_multiple_of(DAY) && duration.subsec_nanos() == 0 {
        return format!("{}d", seconds / DAY);
    }
    // One that is too long for the type is not read either.
    jiff::SignedDuration::try_from(duration).map_or_else(|_| String::new(), |d| format!("{d:#}"))
}

/// Writes a size so that [`size`] reads the same: in the largest unit that leaves no rest.
#[must_use]
pub fn written_size(size: ByteSize) -> String {
    const UNITS: [(u64, &str); 7] = [
        (bytesize::GIB, "GiB"),
        (bytesize::GB, "GB"),
        (bytesize::MIB, "MiB"),
        (bytesize::MB, "MB"),
        (bytesize::KIB, "KiB"),
        (bytesize::KB, "kB"),
        (1, "B"),
    ];
    let bytes = size.as_u64();
    let fits = |(unit, _): &&(u64, &str)| bytes > 0 && bytes.is_multiple_of(*unit);
    UNITS
        .iter()
        .find(fits)
        .map_or_else(|| "0".to_owned(), |(unit, name)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_hours(7 * 24)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("-1s").is_err() && duration("1").is_err() && duration("00").is_err());
        assert!(snapshot_interval("0").is_err() && snapshot_interval("0s").is_err());
        assert_eq!(snapshot_interval("1ms"), Ok(Duration::from_millis(1)));
        assert_eq!(sync_interval("5m"), Ok(Duration::from_mins(5)));
        assert!(sync_interval("6m").unwrap_err().contains("5m is the most"));
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (text, bytes) in [("16MB", 16_000_000), ("1GiB", 1 << 30), ("0", 0), ("7B", 7)] {
            assert_eq!(size(text).unwrap().as_u64(), bytes);
            assert_eq!(written_size(ByteSize(bytes)), text);
        }
        assert_eq!(size("1.5 GB").unwrap().as_u64(), 1_500_000_000);
        assert!(size("a lot").unwrap_err().contains("16MB"));
        assert!(spool_limit("0").is_err() && spool_limit("0KB").is_err());
        assert_eq!(spool_limit("1").unwrap().as_u64(), 1);
        for text in ["50ms", "1s", "4h", "1m 30s", "0s", "1ms 500µs", "7d", "25h"] {
            assert_eq!(written_duration(duration(text).unwrap()), text);
        }
    }
}
