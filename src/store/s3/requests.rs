//! Requests by what they ask for: counted, since each costs money, and each with its deadline.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// To store an object, or a part of one.
    Put,
    /// To begin, complete or give up an object that is stored in parts.
    Post,
    /// The bytes of an object.
    Get,
    /// Whether there is an object.
    Head,
    /// The names of objects.
    List,
    /// To remove an object.
    Delete,
}

impl Verb {
    const ALL: [Self; 6] = [Self::Put, Self::Post, Self::Get, Self::Head, Self::List, Self::Delete];

    /// Whether something is different after it.
    pub fn changes(self) -> bool {
        matches!(self, Self::Put | Self::Post | Self::Delete)
    }

    /// The permission that it takes.
    pub fn permission(self) -> &'static str {
        match self {
            Self::Put | Self::Post => "s3:PutObject",
            Self::Get | Self::Head => "s3:GetObject and s3:ListBucket",
            Self::List => "s3:ListBucket",
            Self::Delete => "s3:DeleteObject",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::List => "LIST",
            Self::Delete => "DELETE",
        }
    }
}

/// How many requests were made.
#[derive(Debug, Default)]
pub struct Requests {
    counts: [AtomicU64; Verb::ALL.len()],
}

impl Requests {
    /// Counts one.
    pub fn count(&self, verb: Verb) {
        for (of, count) in Verb::ALL.iter().zip(&self.counts) {
            count.fetch_add(u64::from(*of == verb), Ordering::Relaxed);
        }
    }

    /// Whether there was any.
    pub fn is_any(&self) -> bool {
        self.counts.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let made = Verb::ALL.into_iter().zip(counts).filter(|(_, count)| *count > 0);
        let words: Vec<_> = made.map(|(verb, count)| format!("{count} {}", verb.name())).collect();
        f.write_str(&words.join(", "))
    }
}

/// A connection takes at most this long.
pub const CONNECT: Duration = Duration::from_secs(5);

/// An answer begins, and goes on, within this time.
pub const ANSWER: Duration = Duration::from_secs(15);

/// Bytes come and go at least as fast.
const BYTES_PER_SECOND: u64 = 64 << 10;

/// How long a request may take that moves so many bytes.
pub fn deadline(bytes: u64) -> Duration {
    ANSWER + Duration::from_secs(bytes / BYTES_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_told() {
        let requests = Requests::default();
        assert!(!requests.is_any());
        for verb in [Verb::Put, Verb::List, Verb::Put] {
            requests.count(verb);
        }
        assert!(requests.is_any());
        assert_eq!(requests.to_string(), "2 PUT, 1 LIST");
    }

    #[test]
    fn a_large_body_has_more_time() {
        assert_eq!(deadline(0), ANSWER);
        assert_eq!(deadline(16 << 20), ANSWER + Duration::from_secs(256));
    }
}
