//! `replicate`: follow until told to stop.

use std::time::Duration;

use super::args::ReplicateArgs;
use super::exit::{Code, Failure};
use crate::replicate::{Options, Session};
use crate::shutdown::Shutdown;
use crate::store::retry::Persistence;

pub async fn run(args: ReplicateArgs) -> Result<Code, Failure> {
    let mut shutdown = listen()?;
    let mut session = start(&args, Persistence::UnlessPermanent).await?;
    tokio::select! {
        error = session.ended() => return Err(error.into()),
        _ = shutdown.asked() => {}
    }
    tracing::info!("shipping what is committed, then ending");
    finish(session, &mut shutdown, args.shutdown_timeout).await?;
    Ok(Code::DONE)
}

/// Begins to listen for the signals that ask for the end.
pub fn listen() -> Result<Shutdown, Failure> {
    Shutdown::listen().map_err(|error| Failure::new(Code::USAGE, error.into()))
}

/// Starts to follow.
pub async fn start(args: &ReplicateArgs, persistence: Persistence) -> Result<Session, Failure> {
    let options = Options {
        database: args.db.clone(),
        store: args.replica.store(),
        sync_interval: args.sync_interval.unwrap_or(args.replica.sync_interval()),
        snapshot_interval: args.snapshot_interval,
        audit_interval: Some(args.audit_interval).filter(|interval| !interval.is_zero()),
        wal_limit: Some(args.wal_limit.as_u64()).filter(|&limit| limit > 0),
        set_wal: args.set_wal,
        state_folder: args.state_dir.clone(),
        persistence,
    };
    Ok(Session::start(options).await?)
}

/// Ships everything committed, within a limit, or until told a second time.
pub async fn finish(
    session: Session,
    shutdown: &mut Shutdown,
    limit: Duration,
) -> Result<(), Failure> {
    let durable = session.durable();
    let cut_short = |why: &str| {
        let known = match durable {
            Some(txid) => format!("up to transaction {} it is known to be there", txid.0),
            None => "nothing of it is known to be there".to_owned(),
        };
        Failure::new(Code::UPLOAD_FAILED, anyhow::anyhow!("{why}; {known}")).at_the_end()
    };
    tokio::select! {
        finished = tokio::time::timeout(limit, session.finish()) => match finished {
            Ok(Ok(report)) => {
                let txid = report.recorded.map(|txid| txid.0);
                tracing::info!(txid, "everything committed is in the replica");
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::from(error).at_the_end()),
            Err(_elapsed) => Err(cut_short("the replica did not take it in time")),
        },
        _ = shutdown.asked() => Err(cut_short("told to end at once")),
    }
}
