//! What the service's clock says: each of its answers tells the time, to the second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use genesis_wal::time::Micros;

use crate::clock;

/// When this machine was started, by the clock of the service, in microseconds since 1970; 0 as long
/// as nothing was heard of it.
#[derive(Debug, Clone, Default)]
pub struct Dates(Arc<AtomicU64>);

impl Dates {
    /// When this machine was started, by that clock.
    #[must_use]
    pub fn booted_at(&self) -> Option<Micros> {
        Some(Micros(self.0.load(Ordering::Relaxed))).filter(|at| at.0 > 0)
    }
}

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "Dates"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(micros);
        let boot = u64::try_from(clock::since_boot().as_micros()).ok();
        if let Some(booted_at) = date.zip(boot).and_then(|(date, boot)| date.checked_sub(boot)) {
            self.0.store(booted_at, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads the `Date` of an answer: microseconds since 1970.
fn micros(date: &str) -> Option<u64> {
    let seconds = DateTime::from_str(date, Format::HttpDate).ok()?.secs();
    u64::try_from(seconds).ok()?.checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_date_is_read() {
        assert_eq!(micros("Tue, 14 Nov 2023 22:13:20 GMT"), Some(1_700_000_000_000_000));
        for text in ["", "yesterday", "Thu, 01 Jan 1903 00:00:00 GMT", "1700000000"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
