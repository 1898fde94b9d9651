//! What the writers of a replica tell of themselves, as it is stored: claims, bases and releases. Bytes
//! and values only: nothing here knows of a store.

use std::fmt;

use genesis_wal::id::{Epoch, Generation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::sealed::{Unsealed, unseal};

/// The earlier epochs that a base names at most.
pub const NAMED: usize = 256;

/// Why bytes are no record of an epoch.
#[derive(Debug, Error)]
pub enum BadRecord {
    /// They are no record at all.
    #[error(transparent)]
    Unsealed(#[from] Unsealed),
    /// Nobody writes that.
    #[error("what it tells does not fit together")]
    Contradiction,
}

/// Who holds an epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holder {
    /// Tells one host's state of this database from every other: a random number.
    pub host: String,
    /// What the host calls itself.
    pub name: String,
    /// The process.
    pub pid: u32,
    /// When it began, by its own clock.
    pub since: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host: _, name, pid, since } = self;
        write!(f, "process {pid} of host {name} since {since}")
    }
}

/// `epochs/<epoch>` or `epochs/<epoch>-<nonce>`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimRecord {
    /// Its writer.
    pub holder: Holder,
    /// Tells this claim from every other.
    pub nonce: String,
}

/// `epochs/<epoch>.release`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRecord {
    /// The epoch in its name.
    pub epoch: u32,
    /// When it was written, by its writer's clock.
    pub time: String,
    /// The last transaction that is stored with all before it; none where nobody told, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub txid: Option<u64>,
}

impl ReleaseRecord {
    /// The record in the object of an epoch.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn decode(epoch: Epoch, bytes: &[u8]) -> Result<Self, BadRecord> {
        let record: Self = unseal(bytes)?;
        if record.epoch == epoch.0 { Ok(record) } else { Err(BadRecord::Contradiction) }
    }
}

/// `epochs/<epoch>.base`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseRecord {
    /// The epoch in its name.
    pub epoch: u32,
    /// Its writer.
    pub holder: Holder,
    /// The line of the newest state, where there is one that can be continued.
    pub generation: Option<String>,
    /// The last transaction that is there; 0 when there is none.
    pub txid: u64,
    /// The state after it, where it can be continued: 16 hex digits.
    pub state: Option<String>,
    /// Earlier epochs and their bases, newest first.
    pub before: Vec<(u32, u64)>,
}

impl BaseRecord {
    /// The record in the object of an epoch, if it holds together.
    ///
    /// # Errors
    /// [`BadRecord`].
    pub fn decode(epoch: Epoch, bytes: &[u8]) -> Result<Self, BadRecord> {
        let record: Self = unseal(bytes)?;
        let descends = record.before.is_sorted_by(|newer, older| newer.0 > older.0);
        let is_earlier = record.before.first().is_none_or(|newest| newest.0 < record.epoch);
        let generation = record.generation.as_ref().map(|text| text.parse::<Generation>());
        let holds = record.epoch == epoch.0
            && descends
            && is_earlier
            && record.before.len() <= NAMED
            && generation.is_none_or(|parsed| parsed.is_ok());
        if holds { Ok(record) } else { Err(BadRecord::Contradiction) }
    }
}
