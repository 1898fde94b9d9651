//! Requests by what they ask for: counted, since each costs money, and each with its deadline.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
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

/// How many requests were made of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; Verb::ALL.len()]);

impl Counts {
    fn add(&mut self, verb: Verb) {
        for (of, count) in Verb::ALL.iter().zip(&mut self.0) {
            *count += u64::from(*of == verb);
        }
    }

    /// Whether there was any.
    pub fn is_any(&self) -> bool {
        self.0.iter().any(|count| *count > 0)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let made = Verb::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0);
        let words: Vec<_> = made.map(|(verb, count)| format!("{count} {}", verb.name())).collect();
        f.write_str(&words.join(", "))
    }
}

/// How often requests are told, while there are any.
const TELL_EVERY: Duration = Duration::from_hours(1);

/// The requests that were made: all of them, and those that were not told yet.
#[derive(Debug)]
pub struct Requests(Mutex<Book>);

#[derive(Debug)]
struct Book {
    all: Counts,
    untold: Counts,
    told_at: Duration,
}

impl Requests {
    /// None yet, at this time.
    pub fn new(now: Duration) -> Self {
        let (all, untold) = (Counts::default(), Counts::default());
        Self(Mutex::new(Book { all, untold, told_at: now }))
    }

    /// Counts one that is made now. Where those before were not told for an hour, they are due, and those
    /// of so many minutes: without requests nobody is woken to tell that there were none.
    pub fn count(&self, verb: Verb, now: Duration) -> Option<(Counts, u64)> {
        let mut book = self.book();
        let since = now.saturating_sub(book.told_at);
        let due = (since >= TELL_EVERY).then(|| {
            book.told_at = now;
            (std::mem::take(&mut book.untold), since.as_secs() / 60)
        });
        book.all.add(verb);
        book.untold.add(verb);
        due.filter(|(untold, _)| untold.is_any())
    }

    /// All of them.
    pub fn all(&self) -> Counts {
        self.book().all
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Numbers are whole whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let requests = Requests::new(Duration::ZERO);
        assert!(!requests.all().is_any());
        for verb in [Verb::Put, Verb::List, Verb::Put] {
            assert_eq!(requests.count(verb, Duration::ZERO), None);
        }
        assert!(requests.all().is_any());
        assert_eq!(requests.all().to_string(), "2 PUT, 1 LIST");
    }

    #[test]
    fn those_of_an_hour_are_told_with_the_first_after_it() {
        let minutes = Duration::from_mins;
        let requests = Requests::new(minutes(10));
        let told = |verb, now| {
            let told = requests.count(verb, minutes(now));
            told.map(|(counts, minutes)| (counts.to_string(), minutes))
        };
        assert_eq!(told(Verb::Put, 20), None);
        assert_eq!(told(Verb::Head, 69), None);
        assert_eq!(told(Verb::Get, 75), Some(("1 PUT, 1 HEAD".to_owned(), 65)));
        assert_eq!(told(Verb::Put, 134), None);
        assert_eq!(told(Verb::Put, 300), Some(("1 PUT, 1 GET".to_owned(), 225)));
        assert_eq!(requests.all().to_string(), "3 PUT, 1 GET, 1 HEAD");
        // Of an hour without any there is nothing to tell.
        let quiet = Requests::new(minutes(0));
        assert_eq!(quiet.count(Verb::List, minutes(200)), None);
    }

    #[test]
    fn a_large_body_has_more_time() {
        assert_eq!(deadline(0), ANSWER);
        assert_eq!(deadline(16 << 20), ANSWER + Duration::from_secs(256));
    }
}
