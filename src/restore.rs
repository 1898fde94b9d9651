//! Restores a database from a replica: complete and proven, or absent.
//!
//! The file is put together under a temporary name beside its place, read back and compared with the
//! state hash that was recorded when the transaction was committed, synced, and given its name
//! without replacing anything.

mod blocks;
mod output;
mod route;
mod segments;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use genesis_restore::apply::{Applier, Base, Restored};
use genesis_restore::plan::{Plan, PlanError};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Gap;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use thiserror::Error;

use self::blocks::Blocks;
use self::route::Route;
use self::segments::Segments;
use crate::object::ObjectError;
use crate::replica::{Holdings, Replica, ReplicaError};
use crate::replicate::{AsOf, PageTable, StateError, StateFolder, leave};
use crate::sqlite::Check;
pub use output::Output;
pub use route::Instead;

/// Why nothing was restored.
#[derive(Debug, Error)]
pub enum RestoreError {
    /// The place of the new database cannot be used.
    #[error("cannot restore to {}: {reason}", path.display())]
    Output {
        /// The place.
        path: PathBuf,
        /// What is in the way.
        reason: &'static str,
    },
    /// The new database cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The place.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The replica does not hold the target.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The replica cannot be read or listed.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// An object cannot be used.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// An object cannot be used, and nothing else leads to the state that was asked for.
    #[error("this state cannot be restored, and {instead}")]
    Useless {
        /// The object.
        source: Box<ObjectError>,
        /// What can be restored instead.
        instead: Instead,
    },
    /// The state is of an earlier transaction than is wanted.
    #[error("the state would be that of transaction {}, and at least {} is wanted", found.0, wanted.0)]
    TooEarly {
        /// Its transaction.
        found: Txid,
        /// The earliest that is wanted.
        wanted: Txid,
    },
    /// SQLite finds something wrong with the database.
    #[error("the database is as it was recorded, but SQLite finds it corrupt: {0}")]
    Unsound(String),
    /// The objects do not fit together.
    #[error("the transactions do not fit together: {0}")]
    Broken(String),
    /// The file that was put together is not the state that was recorded.
    #[error("the restored database has state {found}, and {expected} was recorded")]
    Mismatch {
        /// The state that was recorded.
        expected: StateHash,
        /// The state of the file.
        found: StateHash,
    },
}

/// How far a restore has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of the database written from the snapshot, of so many.
    Snapshot(u64, u64),
    /// Segments applied, of so many.
    Segments(u64, u64),
    /// The file is read back and compared.
    Verify,
    /// SQLite checks the file.
    Check,
}

/// What to restore, where to, and how.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which state.
    pub target: Target,
    /// Of which line of history, if not the one that was current.
    pub generation: Option<Generation>,
    /// The earliest transaction whose state is wanted.
    pub min_txid: Option<Txid>,
    /// Where to.
    pub output: PathBuf,
    /// Remove the WAL and journals of a database that was there.
    pub remove_stale: bool,
    /// Objects fetched at once, and threads at work.
    pub parallelism: NonZeroUsize,
    /// Read the result back and compare it with the recorded state.
    pub verify: bool,
    /// What SQLite checks.
    pub check: Option<Check>,
    /// Where the local state of the new database goes, if not beside it.
    pub state_folder: Option<PathBuf>,
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    /// The line of history.
    pub generation: Generation,
    /// Bytes in a page.
    pub page_size: PageSize,
    /// The state.
    pub restored: Restored,
    /// What is missing after it, if it is taken for the latest because that may never have been durable.
    pub missing: Option<Gap>,
}

/// Finds the objects that make one state in what was listed, and whether it could be restored to where it is wanted.
///
/// # Errors
/// [`RestoreError`]
pub async fn find(
    replica: &Replica,
    holdings: Holdings,
    request: &Request,
) -> Result<Plan, RestoreError> {
    output::check_place(&request.output, request.remove_stale)?;
    let plan = Route::find(replica, holdings, request.target, request.generation).await?.plan;
    check_txid(plan.reaches, request)?;
    Ok(plan)
}

/// Restores one state of a database, by what was listed.
///
/// # Errors
/// [`RestoreError`]; nothing is at the output then.
pub async fn restore(
    replica: &Replica,
    holdings: Holdings,
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Result<Done, RestoreError> {
    output::check_place(&request.output, request.remove_stale)?;
    let mut route = Route::find(replica, holdings, request.target, request.generation).await?;
    loop {
        let output = Output::prepare(&request.output, request.remove_stale)?;
        match assemble(replica, &route, output, request, &mut progress).await {
            Err(RestoreError::Object(error)) => route.avoid(replica, error).await?,
            other => return other,
        }
    }
}

async fn assemble(
    replica: &Replica,
    route: &Route,
    mut output: Output,
    request: &Request,
    progress: &mut impl FnMut(Progress),
) -> Result<Done, RestoreError> {
    let plan = &route.plan;
    check_txid(plan.reaches, request)?;
    let manifest = Arc::new(replica.manifest(plan.manifest).await?);
    let page_size = manifest.layout.page_size;
    output.reserve(u64::from(manifest.layout.pages) * u64::from(page_size.get()))?;
    let blocks = Blocks::new(replica.store(), &route.holdings.inventory, &manifest);
    blocks.write(&output, request.parallelism, progress).await?;
    let applier = Applier::new(Base::from(manifest.as_ref()), plan.target, plan.reaches)
        .with_cuts(plan.cuts.clone());
    let segments = Segments::new(replica.store(), plan, request.parallelism);
    let restored = segments.apply(applier, &mut output, progress).await?;
    check_txid(restored.txid, request)?;
    output.sync();
    let mut hashes = None;
    if request.verify {
        progress(Progress::Verify);
        let table = output.hashes(page_size, restored.pages, request.parallelism).await?;
        let found = hashes.insert(table).state();
        if found != restored.state {
            return Err(RestoreError::Mismatch { expected: restored.state, found });
        }
    }
    if let Some(check) = request.check {
        progress(Progress::Check);
        output.check(check).await?;
    }
    let (generation, missing) = (plan.generation, plan.missing);
    let done = Done { generation, page_size, restored, missing };
    let _kept_until_it_is_placed = leave_state(&done, request, &output, hashes.as_ref());
    output.place().await?;
    Ok(done)
}

/// Leaves what replication needs to go on from the restored state. Without it every page is compared.
fn leave_state(
    done: &Done,
    request: &Request,
    output: &Output,
    hashes: Option<&PageTable>,
) -> Option<StateFolder> {
    let Restored { txid, time, state, .. } = done.restored;
    let as_of = AsOf { generation: done.generation, txid, time };
    let folder = request.state_folder.as_deref();
    let left = leave(&request.output, folder, output.file(), as_of, (state, hashes));
    let warn = |error: &StateError| {
        let reason = crate::describe(error);
        tracing::warn!(reason, "cannot leave local state: a start will compare every page");
    };
    left.inspect_err(warn).ok()
}

fn check_txid(found: Txid, request: &Request) -> Result<(), RestoreError> {
    match request.min_txid {
        Some(wanted) if found < wanted => Err(RestoreError::TooEarly { found, wanted }),
        _ => Ok(()),
    }
}
