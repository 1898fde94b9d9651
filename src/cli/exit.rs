//! Exit codes, and how a failure is told.
//!
//! | code | meaning |
//! | --- | --- |
//! | 0 | done |
//! | 2 | usage or configuration |
//! | 3 | the database, or the system, which has no room, threads or output for us |
//! | 4 | the replica's storage |
//! | 5 | integrity: something is not what was written |
//! | 6 | nothing to restore |
//! | 7 | owned by another writer, or fenced by one |
//! | 75 | the final upload failed |
//! | 128 + n | signal n ended it before it began, or a restore |
//!
//! `exec` ends with the application's own code: 128 + n when signal n ended it, 127 when it was not
//! found, 126 when it could not be started.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::config::ConfigError;
use crate::object::ObjectError;
use crate::replica::ReplicaError;
use crate::replicate::{
    EstablishError, FollowError, RecordError, SessionError, ShipError, StateError,
};
use crate::restore::RestoreError;
use crate::sqlite::SourceError;
use crate::store::StoreError;
use genesis_restore::plan::PlanError;

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    pub const DONE: Self = Self(0);
    pub const USAGE: Self = Self(2);
    pub const DATABASE: Self = Self(3);
    pub const STORAGE: Self = Self(4);
    pub const INTEGRITY: Self = Self(5);
    pub const NOTHING: Self = Self(6);
    pub const OWNED: Self = Self(7);
    pub const UPLOAD_FAILED: Self = Self(75);
    pub const CANNOT_START: Self = Self(126);
    pub const NOT_FOUND: Self = Self(127);
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code.0)
    }
}

/// A failure, its exit code, and what to do about it.
#[derive(Debug)]
pub struct Failure {
    pub code: Code,
    error: anyhow::Error,
    hint: Option<&'static str>,
}

impl Failure {
    pub fn new(code: Code, error: anyhow::Error) -> Self {
        Self { code, error, hint: None }
    }

    /// The same failure, in the course of something.
    pub fn context(self, context: String) -> Self {
        Self { error: self.error.context(context), ..self }
    }

    /// The same failure, where it means something else.
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The same failure, with what to do about it, if that is known.
    pub fn hinted(self, hint: impl Into<Option<&'static str>>) -> Self {
        Self { hint: hint.into().or(self.hint), ..self }
    }

    /// The same failure, at the end of a run: what was committed may not be in the replica. That
    /// another writer owns it is the greater trouble.
    pub fn at_the_end(self) -> Self {
        if self.code == Code::OWNED {
            return self;
        }
        let error = self.error.context("not everything that was committed is in the replica");
        let hint = "What is missing is in the WAL or in the spool: the next start ships it.";
        Self { code: Code::UPLOAD_FAILED, error, hint: self.hint.or(Some(hint)) }
    }

    /// The failure with its causes, on one line.
    pub fn reason(&self) -> String {
        format!("{:#}", self.error)
    }

    /// The failure with the highest code. The others are reported.
    pub fn worst(failures: Vec<Self>) -> Option<Self> {
        failures.into_iter().reduce(|one, other| {
            let (worse, other) =
                if one.code.0 < other.code.0 { (other, one) } else { (one, other) };
            other.report(&mut io::stderr().lock()).ok();
            worse
        })
    }

    /// Writes the failure with its causes, and what to do.
    pub fn report(&self, out: &mut impl Write) -> io::Result<()> {
        writeln!(out, "genesis-replicate: {:#}", self.error)?;
        self.hint.map_or(Ok(()), |hint| writeln!(out, "  {hint}"))
    }
}

const FENCED: &str =
    "What was committed since then is not in its history. Stop the other writer, or let it go on.";

const EMPTIED: &str =
    "A start begins a new replica there. What was in this one is lost, but for copies.";

impl From<SessionError> for Failure {
    fn from(error: SessionError) -> Self {
        let (code, hint) = match &error {
            SessionError::Follow(error) => (code_of_follow(error), hint_for_follow(error)),
            SessionError::State(StateError::InUse { .. }) => {
                (Code::OWNED, Some("Stop that process first, or let it go on."))
            }
            SessionError::Replica(error) => (code_of(error), hint_for_replica(error)),
            SessionError::Ship(ShipError::Fenced(_)) => (Code::OWNED, Some(FENCED)),
            SessionError::Ship(ShipError::Emptied(_)) => (Code::INTEGRITY, Some(EMPTIED)),
            SessionError::Ship(ShipError::Store(_)) => (Code::STORAGE, None),
            SessionError::Path { .. }
            | SessionError::State(StateError::Io { .. })
            | SessionError::Descriptor(_)
            | SessionError::Died => (Code::DATABASE, None),
        };
        Self::new(code, error.into()).hinted(hint)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(Code::USAGE, error.into())
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        let code = match &error {
            RestoreError::Output { .. } => Code::USAGE,
            RestoreError::Write { .. } => Code::DATABASE,
            RestoreError::Plan(PlanError::Gap { .. })
            | RestoreError::Useless { .. }
            | RestoreError::Unsound(_)
            | RestoreError::Broken(_)
            | RestoreError::Mismatch { .. } => Code::INTEGRITY,
            RestoreError::Plan(_) | RestoreError::TooEarly { .. } => Code::NOTHING,
            RestoreError::Replica(error) => code_of(error),
            RestoreError::Object(error) => code_of_object(error),
        };
        let hint = matches!(error, RestoreError::Unsound(_)).then_some(
            "Restore an earlier state, or this one without --integrity-check to repair it.",
        );
        Self::new(code, error.into()).hinted(hint)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let hint = hint_for(&error);
        Self::new(Code::DATABASE, error.into()).hinted(hint)
    }
}

impl From<ReplicaError> for Failure {
    fn from(error: ReplicaError) -> Self {
        let hint = hint_for_replica(&error);
        Self::new(code_of(&error), error.into()).hinted(hint)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(Code::STORAGE, error.into())
    }
}

fn code_of(error: &ReplicaError) -> Code {
    match error {
        ReplicaError::Missing => Code::NOTHING,
        ReplicaError::NotAReplica(_) => Code::INTEGRITY,
        ReplicaError::Taken(_) | ReplicaError::Held { .. } | ReplicaError::Another(_) => {
            Code::OWNED
        }
        ReplicaError::UnknownFormat(_) => Code::USAGE,
        ReplicaError::Object(error) => code_of_object(error),
        ReplicaError::Local(_) => Code::DATABASE,
        ReplicaError::Store(_)
        | ReplicaError::EpochsExhausted
        | ReplicaError::TxidsExhausted
        | ReplicaError::Random(_) => Code::STORAGE,
    }
}

fn hint_for_replica(error: &ReplicaError) -> Option<&'static str> {
    Some(match error {
        ReplicaError::Missing => "Check the address: where a replica is, there is a genesis.json.",
        ReplicaError::Held { .. } => {
            "If that one is gone, or is to give way, start with --takeover: it stops writing to this \
             replica then."
        }
        ReplicaError::Another(_) => ANOTHER,
        ReplicaError::UnknownFormat(_) => "A newer version of this program wrote it: use that one.",
        _ => return None,
    })
}

const ANOTHER: &str = "Check --db and --replica. To begin a new line of history with this database, start with \
                       --new-generation.";

fn code_of_follow(error: &FollowError) -> Code {
    if matches!(error, FollowError::Establish(EstablishError::Another(_))) {
        return Code::OWNED;
    }
    if error.is_for_want_of_a_replica() { Code::STORAGE } else { Code::DATABASE }
}

fn hint_for_follow(error: &FollowError) -> Option<&'static str> {
    match error {
        FollowError::Source(error)
        | FollowError::Establish(EstablishError::Source(error))
        | FollowError::Record(RecordError::Source(error)) => hint_for(error),
        FollowError::Establish(EstablishError::Another(_)) => Some(ANOTHER),
        _ => None,
    }
}

fn code_of_object(error: &ObjectError) -> Code {
    match error {
        ObjectError::Damaged { .. } | ObjectError::Missing { .. } => Code::INTEGRITY,
        ObjectError::Store(_) => Code::STORAGE,
    }
}

fn hint_for(error: &SourceError) -> Option<&'static str> {
    Some(match error {
        SourceError::NotWal { .. } => {
            "Let the application run PRAGMA journal_mode=WAL, or pass --set-wal to switch it now."
        }
        SourceError::NotADatabase { .. } => {
            "Encrypted databases cannot be followed: check that --db names the right file."
        }
        SourceError::Locked { .. } => {
            "A database can only be followed when its application lets others read it."
        }
        SourceError::FollowedTwice { .. } => "Name each database once in the configuration.",
        SourceError::NetworkFileSystem { .. } => {
            "Keep the database on a local file system, and this program beside it."
        }
        SourceError::Gone { .. } => {
            "What was committed until then was recorded; start again to follow what is there now."
        }
        _ => return None,
    })
}
