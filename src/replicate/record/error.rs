//! Why a transaction was not recorded.

use std::convert::Infallible;
use std::io;

use genesis_wal::segment::EncodeError;
use thiserror::Error;

use crate::replicate::cursor::Doubt;
use crate::replicate::segments::SegmentsError;
use crate::replicate::ship::ShippingEnded;
use crate::replicate::table::AdvanceError;
use crate::sqlite::SourceError;

/// Why a transaction was not recorded.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It does not continue what was recorded.
    #[error("{0}")]
    Doubt(Doubt),
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The local state cannot be written.
    #[error("cannot write the local state")]
    Local(#[from] io::Error),
    /// The segment cannot be encoded.
    #[error("cannot encode a segment")]
    Encode(#[from] EncodeError),
    /// Nothing more is shipped.
    #[error(transparent)]
    Outbox(#[from] ShippingEnded),
    /// No transaction id is left.
    #[error("the last transaction id is used up")]
    TxidsExhausted,
}

impl RecordError {
    /// Whether it may pass by itself, or when somebody mends what is outside: a full disk, a failing
    /// one, no descriptors left.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Source(error) => error.may_pass(),
            Self::Doubt(_) | Self::Encode(_) | Self::Outbox(_) | Self::TxidsExhausted => false,
        }
    }
}

impl From<AdvanceError> for RecordError {
    fn from(error: AdvanceError) -> Self {
        match error {
            AdvanceError::Missing(page) => Self::Doubt(Doubt::MissingPage(page)),
            AdvanceError::NoRoom(error) => Self::Local(error),
        }
    }
}

impl From<Infallible> for RecordError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl<E: Into<RecordError>> From<SegmentsError<E>> for RecordError {
    fn from(error: SegmentsError<E>) -> Self {
        match error {
            SegmentsError::Spool(error) => Self::Local(error),
            SegmentsError::Encode(error) => Self::Encode(error),
            SegmentsError::Image(error) => error.into(),
        }
    }
}
