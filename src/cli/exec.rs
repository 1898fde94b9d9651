//! `exec`: run an application, ship what it commits, end with its code.

mod missing;

use std::collections::BTreeSet;

use super::args::ExecArgs;
use super::databases::Configuration;
use super::environment;
use super::exit::{Code, Failure};
use super::followed::Followed;
use super::replicate::{cannot_listen, listen};
use crate::config::Database;
use crate::exec::{Application, Ended, Signals};
use crate::shutdown::Shutdown;
use crate::store::retry::Persistence;

pub async fn run(args: ExecArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let mut shutdown = listen()?;
    let signals = Signals::listen().map_err(cannot_listen)?;
    let chosen = configuration.chosen(&args.replicate)?;
    let begun = async {
        if args.restore_if_missing {
            missing::restore(&chosen.databases, args.allow_empty_on_error).await?;
        }
        // The application must start whether the store answers or not.
        let (databases, allowed) = (&chosen.databases, chosen.allowed);
        Ok::<_, Failure>(Followed::start(databases, allowed, Persistence::Always).await)
    };
    let mut followed = tokio::select! {
        begun = begun => begun?,
        signal = shutdown.asked() => return Ok(Code(128 + signal)),
    };
    let limit = chosen.process.shutdown_timeout();
    if followed.has_lost() {
        return Err(followed.give_up(&mut shutdown, limit).await);
    }
    let withheld = if args.pass_credentials { vec![] } else { credentials(&chosen.databases) };
    if !withheld.is_empty() {
        let variables = withheld.join(" ");
        tracing::info!(variables, "withheld from the application; --pass-credentials passes them");
    }
    let own = match Application::start(&args.command, &withheld, signals) {
        Ok(application) => run_to_its_end(application, &mut followed, &mut shutdown).await,
        Err(error) => Err(cannot_start(&args, error)),
    };
    shutdown.has_ended();
    if let Ok(ended) = &own {
        tracing::info!(code = ended.code(), "the application ended: shipping what it committed");
    } else {
        tracing::info!("there is no application: shipping what was committed");
    }
    let own = own.map(|ended| Code(ended.code()));
    match followed.finish(&mut shutdown, limit).await {
        Err(failure) if matches!(own, Ok(Code::DONE)) => Err(failure),
        Err(failure) => {
            failure.report(&mut std::io::stderr().lock()).ok();
            own
        }
        Ok(()) => own,
    }
}

fn cannot_start(args: &ExecArgs, error: std::io::Error) -> Failure {
    let missing = error.kind() == std::io::ErrorKind::NotFound;
    let code = if missing { Code::NOT_FOUND } else { Code::CANNOT_START };
    let command = args.command.first().map(|c| c.display().to_string()).unwrap_or_default();
    Failure::new(code, anyhow::Error::new(error).context(format!("cannot start {command}")))
}

/// The variables with the credentials of these databases' replicas, of those that are set.
fn credentials(databases: &[Database]) -> Vec<&'static str> {
    let variables = databases.iter().flat_map(|d| d.replica.credential_variables().iter().copied());
    let set: BTreeSet<_> = variables.filter(|name| environment(name).is_some()).collect();
    set.into_iter().collect()
}

/// Waits for the application. It lives on when a database can no longer be followed.
async fn run_to_its_end(
    mut application: Application,
    followed: &mut Followed,
    shutdown: &mut Shutdown,
) -> Result<Ended, Failure> {
    loop {
        tokio::select! {
            ended = application.wait() => return ended.map_err(|error| {
                let error = anyhow::Error::new(error);
                Failure::new(Code::CANNOT_START, error.context("cannot wait for the application"))
            }),
            reason = followed.lose_one() => {
                tracing::error!(reason, "NOT protected any more; the application goes on");
            }
            // It is the application that is asked; `wait` tells it.
            _ = shutdown.asked() => {}
        }
    }
}
