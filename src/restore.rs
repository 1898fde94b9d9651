//! Restores a database from a replica: complete and proven, or absent.
//!
//! The file is put together under a temporary name beside its place, read back and compared with the
//! state hash that was recorded when the transaction was committed, synced, and given its name
//! without replacing anything.

mod blocks;
mod output;

use std::path::PathBuf;
use std::sync::Arc;

use genesis_restore::apply::{Applier, ApplyError, Base, Flow, Restored};
use genesis_restore::plan::{Plan, PlanError, plan};
use genesis_restore::target::Target;
use genesis_wal::id::Generation;
use genesis_wal::name::SegmentName;
use genesis_wal::page::StateHash;
use thiserror::Error;

use crate::object::{ObjectError, PartStream, proven};
use crate::replica::{Replica, ReplicaError};
use crate::store::StoreError;
pub use output::Output;

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
    /// The replica cannot be read.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The replica cannot be listed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object cannot be used.
    #[error(transparent)]
    Object(#[from] ObjectError),
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
}

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which state.
    pub target: Target,
    /// Of which line of history, if not the one that was current.
    pub generation: Option<Generation>,
    /// Where to.
    pub output: PathBuf,
}

/// Restores one state of a database.
///
/// # Errors
/// [`RestoreError`]; nothing is at the output then.
pub async fn restore(
    replica: &Replica,
    request: &Request,
    mut progress: impl FnMut(Progress),
) -> Result<Restored, RestoreError> {
    let output = Output::prepare(&request.output)?;
    let plan = plan(&replica.inventory().await?, request.target, request.generation)?;
    assemble(replica, &plan, output, &mut progress).await
}

async fn assemble(
    replica: &Replica,
    plan: &Plan,
    mut output: Output,
    progress: &mut impl FnMut(Progress),
) -> Result<Restored, RestoreError> {
    let manifest = replica.manifest(plan.manifest).await?;
    blocks::write(replica.store(), &manifest, &mut output, progress).await?;
    let mut applier = Applier::new(Base::from(&manifest), plan.target, plan.reaches);
    let total = plan.segments.len() as u64;
    for (number, segment) in (1..).zip(&plan.segments) {
        let flow = apply(replica, plan, *segment, &mut applier, &mut output).await?;
        progress(Progress::Segments(number, total));
        if flow == Flow::Reached {
            break;
        }
    }
    let restored = applier.finish(&mut output).map_err(|error| refused(error, plan, &output))?;
    progress(Progress::Verify);
    let found = output.state(manifest.layout.page_size, restored.pages)?;
    if found != restored.state {
        return Err(RestoreError::Mismatch { expected: restored.state, found });
    }
    output.place()?;
    Ok(restored)
}

async fn apply(
    replica: &Replica,
    plan: &Plan,
    segment: SegmentName,
    applier: &mut Applier,
    output: &mut Output,
) -> Result<Flow, RestoreError> {
    let mut parts = PartStream::new(Arc::clone(replica.store()), segment.into());
    let mut flow = Flow::Continue;
    while flow == Flow::Continue
        && let Some(bytes) = parts.next().await?
    {
        let part = proven(segment.into(), &bytes)?;
        flow = applier.push(&part, output).map_err(|error| match refused(error, plan, output) {
            RestoreError::Broken(reason) => ObjectError::damaged(segment, reason).into(),
            other => other,
        })?;
    }
    if flow == Flow::Continue && applier.txid() < segment.last {
        let reason = format!("it ends with transaction {}", applier.txid().0);
        return Err(ObjectError::damaged(segment, reason).into());
    }
    Ok(flow)
}

/// An image is unpacked when its batch is full: the segment that it is from may be an earlier one.
fn refused(error: ApplyError<std::io::Error>, plan: &Plan, output: &Output) -> RestoreError {
    let origin = match &error {
        ApplyError::Image { txid, .. } => {
            plan.segments.iter().find(|segment| (segment.first..=segment.last).contains(txid))
        }
        _ => None,
    };
    match (error, origin) {
        (ApplyError::Sink(source), _) => output.failed(source),
        (error, Some(segment)) => ObjectError::damaged(*segment, crate::describe(&error)).into(),
        (error, None) => RestoreError::Broken(crate::describe(&error)),
    }
}
