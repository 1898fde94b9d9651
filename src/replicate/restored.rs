//! What a restore leaves in the folder of local state of the database that it makes: which state that
//! is, and the hashes of its pages. Replication of that database goes on from there.
//!
//! The record is bound to the file of the database: a file of the same name that was not restored has
//! another inode.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::StateHash;
use serde::{Deserialize, Serialize};

use super::state::{StateError, StateFolder, identity};
use super::table::{AsOf, PageTable, keep};
use crate::durable::Temporary;
use crate::replica::Tip;
use crate::replica::sealed::{seal, unseal};

/// The record's name in the folder.
const FILE_NAME: &str = "restored";

/// The record as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// What tells the file of the database from others.
    database: String,
    generation: String,
    txid: u64,
    state: u64,
}

/// A state that a database was restored to, and from which nothing was replicated since.
#[derive(Debug, Clone)]
pub struct RestoredState {
    /// The line of history.
    pub generation: Generation,
    /// The transaction.
    pub txid: Txid,
    state: StateHash,
    path: PathBuf,
}

impl RestoredState {
    /// What a restore has left of this database. A record that is damaged, or of another file, is none.
    #[must_use]
    pub fn read(folder: &Path, database: &Path) -> Option<Self> {
        let path = folder.join(FILE_NAME);
        let record: Record = unseal(&std::fs::read(&path).ok()?).ok()?;
        let generation = record.generation.parse().ok()?;
        let (txid, state) = (Txid(record.txid), StateHash(record.state));
        let is_its = record.database == identity(&database.metadata().ok()?);
        is_its.then_some(Self { generation, txid, state, path })
    }

    /// Whether it is the state of a tip.
    #[must_use]
    pub fn is(&self, tip: &Tip) -> bool {
        (self.generation, self.txid, self.state)
            == (tip.generation, tip.reached.txid, tip.reached.state)
    }

    /// Forgets it: replication has gone on from it.
    pub fn forget(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot forget that the database was restored");
            }
            _ => {}
        }
    }
}

/// Leaves what is to be known of a restored database that will be at `path` and is in `file` now, and
/// keeps others from its local state until what is returned is dropped.
///
/// # Errors
/// [`StateError`]; nothing is wrong with the database then.
pub fn leave(
    path: &Path,
    folder: Option<&Path>,
    file: &File,
    as_of: AsOf,
    (state, table): (StateHash, Option<&PageTable>),
) -> Result<StateFolder, StateError> {
    let folder = StateFolder::open(path, folder)?;
    let write = || -> io::Result<()> {
        if let Some(table) = table {
            keep(table, as_of, folder.path())?;
        }
        let record = Record {
            database: identity(&file.metadata()?),
            generation: as_of.generation.to_string(),
            txid: as_of.txid.0,
            state: state.0,
        };
        let temporary = Temporary::create(folder.path())?;
        temporary.file().write_all(&seal(&record).map_err(io::Error::other)?)?;
        temporary.replace(&folder.path().join(FILE_NAME))
    };
    match write() {
        Ok(()) => Ok(folder),
        Err(source) => Err(StateError::Io { path: folder.path().to_owned(), source }),
    }
}
