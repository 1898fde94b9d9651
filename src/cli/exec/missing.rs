//! `exec --restore-if-missing`: databases that do not exist are restored before the application starts.

use anyhow::Context;
use genesis_restore::target::Target;

use crate::cli::args::PARALLELISM;
use crate::cli::exit::{Code, Failure};
use crate::cli::restore::display::Display;
use crate::cli::{Found, open_unless_empty};
use crate::config::Database;
use crate::replicate::canonical;
use crate::restore::{self, Request};

/// Restores those that do not exist and whose replicas hold something. With `may_be_empty` a replica
/// that cannot be asked is taken for one that holds nothing.
pub async fn restore(databases: &[Database], may_be_empty: bool) -> Result<(), Failure> {
    for database in databases {
        let path = database.path.display();
        let exists = database.path.try_exists().with_context(|| format!("cannot look for {path}"));
        if exists.map_err(|error| Failure::new(Code::DATABASE, error))? {
            continue;
        }
        match restore_latest(database).await {
            Err(failure) if failure.code == Code::STORAGE && may_be_empty => {
                let reason = failure.reason();
                tracing::error!(%path, reason, "NOT restored: the application starts without");
            }
            other => other.map_err(|failure| {
                let hint = hint(failure.code);
                let failure = failure.hinted(hint);
                failure.context(format!("the application is not started: {path} is missing"))
            })?,
        }
    }
    Ok(())
}

async fn restore_latest(database: &Database) -> Result<(), Failure> {
    let path = database.path.display();
    let (replica, holdings) =
        match open_unless_empty(&database.replica).await.map_err(not_nothing)? {
            Found::Replica(replica, holdings) => (replica, holdings),
            Found::Nothing(reason) => {
                tracing::info!(%path, reason, "nothing to restore: the application starts without");
                return Ok(());
            }
        };
    let request = Request {
        target: Target::Latest,
        generation: None,
        min_txid: None,
        output: canonical(&database.path)?,
        remove_stale: false,
        parallelism: PARALLELISM,
        verify: true,
        check: None,
        state_folder: database.settings.state_dir.clone(),
    };
    let mut display = Display::new();
    let show = |progress| display.show(progress);
    let restored = restore::restore(&replica, holdings, &request, show).await;
    drop(display);
    let restored = restored.map_err(|error| not_nothing(error.into()))?.restored;
    tracing::info!(%path, txid = restored.txid.0, time = %restored.time, "restored");
    Ok(())
}

fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::STORAGE => Some(
            "Start again when it answers; --allow-empty-on-error starts the application without a \
             database.",
        ),
        Code::INTEGRITY => Some("`list` and `restore` tell which other states can be had."),
        _ => None,
    }
}

/// That there is nothing to restore where there is something is damage.
fn not_nothing(failure: Failure) -> Failure {
    if failure.code == Code::NOTHING { failure.with_code(Code::INTEGRITY) } else { failure }
}
