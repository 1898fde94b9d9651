//! What the failures of an object store mean. They are told apart by status and code, never by message.

use std::error::Error as StdError;
use std::fmt;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::connect::InTheClear;
use super::requests::Verb;
use crate::store::StoreErrorKind;

/// A failed request.
#[derive(Debug)]
pub struct Failure {
    /// What it means.
    pub meaning: Meaning,
    /// Seconds for which the service wants to be left alone.
    pub retry_after: u32,
    /// In words.
    reason: String,
}

/// What a failed request means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// There is no such object.
    NotFound,
    /// The object is there already, or somebody else is at it.
    Taken,
    /// The range begins behind the end.
    BehindTheEnd,
    /// The service does not know conditional writes.
    NoConditions,
    /// The credentials are of no use, until others are found.
    Denied,
    /// It will fail again until somebody changes something.
    Permanent,
    /// The credentials have run out: there may be others.
    Expired,
    /// What arrived is not what was sent: try again.
    Damaged,
    /// The service or the way to it fails: try again.
    Passing,
    /// The answer was lost: try again.
    Unanswered,
}

impl Failure {
    /// A failure that is told by what we found, and not by the service.
    pub fn found(meaning: Meaning, reason: impl Into<String>) -> Self {
        Self { meaning, retry_after: 0, reason: reason.into() }
    }

    /// What the failure of a request means.
    pub fn of<E>(error: &SdkError<E, HttpResponse>, verb: Verb) -> Self
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let meaning = match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                return Self::answered(status, answer.err(), answer.raw(), verb);
            }
            SdkError::ConstructionFailure(_) => Meaning::Permanent,
            SdkError::DispatchFailure(failure) if failure.is_user() => Meaning::Permanent,
            SdkError::DispatchFailure(_) if is_caused_by::<CredentialsError>(error) => {
                Meaning::Denied
            }
            SdkError::DispatchFailure(_) if is_caused_by::<InTheClear>(error) => Meaning::Permanent,
            _ => Meaning::Unanswered,
        };
        Self::found(meaning, crate::describe(error))
    }

    fn answered<E: ProvideErrorMetadata>(
        status: u16,
        error: &E,
        answer: &HttpResponse,
        verb: Verb,
    ) -> Self {
        let code = error.code().unwrap_or_default();
        let meaning = meaning(status, code);
        let wish = answer.headers().get("retry-after").and_then(|wish| wish.trim().parse().ok());
        let mut reason = match code {
            "" => format!("the store answers {status}"),
            code => format!("the store answers {status} {code}"),
        };
        if let Some(message) = error.message().filter(|message| !message.is_empty()) {
            reason = format!("{reason}: {message}");
        }
        if let Some(advice) = advice(status, code, verb) {
            reason = format!("{reason} ({advice})");
        }
        Self { meaning, retry_after: wish.unwrap_or(0), reason }
    }

    /// Whether other credentials might help.
    pub fn is_of_credentials(&self) -> bool {
        matches!(self.meaning, Meaning::Denied | Meaning::Expired)
    }

    /// Whether the service answered that it does not do such a thing.
    pub fn is_refusal(&self) -> bool {
        matches!(self.meaning, Meaning::Permanent | Meaning::Damaged)
    }

    /// What it means to who wanted to store, read or list.
    pub fn kind(&self, verb: Verb) -> StoreErrorKind {
        match self.meaning {
            Meaning::NotFound => StoreErrorKind::NotFound,
            Meaning::NoConditions | Meaning::Denied | Meaning::Permanent => {
                StoreErrorKind::Permanent
            }
            Meaning::Unanswered if verb.changes() => StoreErrorKind::PerhapsDone,
            Meaning::Taken
            | Meaning::BehindTheEnd
            | Meaning::Expired
            | Meaning::Damaged
            | Meaning::Passing
            | Meaning::Unanswered => StoreErrorKind::Passing,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl StdError for Failure {}

/// Codes that tell of a body that is not what its head says.
const DAMAGED: [&str; 4] =
    ["BadDigest", "IncompleteBody", "InvalidDigest", "XAmzContentSHA256Mismatch"];

/// Codes that tell of a bad moment, whatever the status.
const PASSING: [&str; 8] = [
    "InternalError",
    "NoSuchUpload",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
];

/// What an answer means by its status, and by its code where the status is not enough.
fn meaning(status: u16, code: &str) -> Meaning {
    match (status, code) {
        (_, "NoSuchBucket") => Meaning::Permanent,
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => Meaning::Expired,
        (408 | 425 | 429, _) => Meaning::Passing,
        (_, code) if DAMAGED.contains(&code) => Meaning::Damaged,
        (_, code) if PASSING.contains(&code) => Meaning::Passing,
        (404, _) => Meaning::NotFound,
        (409 | 412, _) => Meaning::Taken,
        (416, _) => Meaning::BehindTheEnd,
        (501, _) => Meaning::NoConditions,
        (401 | 403, _) => Meaning::Denied,
        (500.. | 0..=299, _) => Meaning::Unanswered,
        _ => Meaning::Permanent,
    }
}

/// What to do about it, in words.
fn advice(status: u16, code: &str, verb: Verb) -> Option<String> {
    let text = match (status, code) {
        (_, "NoSuchBucket") => "make the bucket first, or check its name and its region",
        (_, "InvalidAccessKeyId") => "the service does not know the access key",
        (_, "SignatureDoesNotMatch") => "check the secret key, and that the region is right",
        (_, "RequestTimeTooSkewed") => "set the clock of this machine",
        (301 | 307, _) | (_, "PermanentRedirect" | "AuthorizationHeaderMalformed") => {
            "the bucket is in another region: say region=… in the address"
        }
        (401 | 403, _) => {
            return Some(format!(
                "the credentials must be right and allow {} here",
                verb.permission()
            ));
        }
        _ => return None,
    };
    Some(text.to_owned())
}

/// Whether there is such an error among the causes.
fn is_caused_by<T: StdError + 'static>(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<T>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_apart_by_status_and_code() {
        use Meaning::{
            BehindTheEnd, Damaged, Denied, Expired, NoConditions, NotFound, Passing, Permanent,
            Taken, Unanswered,
        };
        for (status, code, expected) in [
            (404, "NoSuchKey", NotFound),
            (404, "", NotFound),
            (404, "NoSuchBucket", Permanent),
            (404, "NoSuchUpload", Passing),
            (412, "PreconditionFailed", Taken),
            (409, "ConditionalRequestConflict", Taken),
            (416, "InvalidRange", BehindTheEnd),
            (403, "AccessDenied", Denied),
            (403, "InvalidAccessKeyId", Denied),
            (403, "SignatureDoesNotMatch", Denied),
            (403, "RequestTimeTooSkewed", Denied),
            (400, "ExpiredToken", Expired),
            (400, "RequestTimeout", Passing),
            (400, "BadDigest", Damaged),
            (400, "InvalidArgument", Permanent),
            (301, "PermanentRedirect", Permanent),
            (405, "MethodNotAllowed", Permanent),
            (429, "", Passing),
            (503, "SlowDown", Passing),
            (500, "", Unanswered),
            (502, "", Unanswered),
            (200, "InternalError", Passing),
            (501, "NotImplemented", NoConditions),
        ] {
            assert_eq!(meaning(status, code), expected, "{status} {code}");
        }
    }

    #[test]
    fn a_lost_answer_matters_to_what_changes_something() {
        let lost = Failure::found(Meaning::Unanswered, "timeout");
        assert_eq!(lost.kind(Verb::Put), StoreErrorKind::PerhapsDone);
        assert_eq!(lost.kind(Verb::Get), StoreErrorKind::Passing);
    }

    #[test]
    fn a_refusal_names_the_permission() {
        assert!(advice(403, "AccessDenied", Verb::List).unwrap().contains("s3:ListBucket"));
        assert!(advice(403, "", Verb::Put).unwrap().contains("s3:PutObject"));
        assert!(advice(400, "InvalidArgument", Verb::Put).is_none());
    }
}
