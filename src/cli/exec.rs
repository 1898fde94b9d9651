//! `exec`: run an application, ship what it commits, end with its code.

mod missing;

use std::collections::BTreeSet;

use super::args::ExecArgs;
use super::databases::Configuration;
use super::environment;
use super::exit::{Code, Failure};
use super::followed::Followed;
use super::replicate::listen;
use crate::config::Database;
use crate::exec::{Application, Ended, Signals};
use crate::shutdown::Shutdown;
use crate::store::retry::Persistence;

pub async fn run(args: ExecArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let mut shutdown = listen()?;
    let signals = Signals::listen().map_err(cannot_run)?;
    let chosen = configuration.chosen(&args.replicate)?;
    let begun = async {
        if args.restore_if_missing {
            missing::restore(&chosen.databases, args.allow_empty_on_error).await?;
        }
        // The application must start whether the store answers or not.
        Followed::start(&chosen.databases, chosen.allowed, Persistence::Always).await
    };
    let mut followed = tokio::select! {
        begun = begun => begun?,
        signal = shutdown.asked() => return Ok(Code(128 + signal)),
    };
    let withheld = if args.pass_credentials { vec![] } else { credentials(&chosen.databases) };
    if !withheld.is_empty() {
        let variables = withheld.join(" ");
        tracing::info!(variables, "withheld from the application; --pass-credentials passes them");
    }
    let started = Application::start(&args.command, &withheld, signals);
    let application = started.map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let code = if missing { Code::NOT_FOUND } else { Code::CANNOT_START };
        let command = args.command.first().map(|c| c.display().to_string()).unwrap_or_default();
        Failure::new(code, anyhow::Error::new(error).context(format!("cannot start {command}")))
    })?;
    let ended = run_to_its_end(application, &mut followed, &mut shutdown).await?;
    tracing::info!(code = ended.code(), "the application ended: shipping what it committed");
    match followed.finish(&mut shutdown, chosen.process.shutdown_timeout()).await {
        Err(failure) if ended.code() == 0 => Err(failure),
        Err(failure) => {
            failure.report(&mut std::io::stderr().lock()).ok();
            Ok(Code(ended.code()))
        }
        Ok(()) => Ok(Code(ended.code())),
    }
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
            ended = application.wait() => return ended.map_err(cannot_run),
            reason = followed.lose_one() => {
                tracing::error!(reason, "NOT protected any more; the application goes on");
            }
            // It is the application that is asked; `wait` tells it.
            _ = shutdown.asked() => {}
        }
    }
}

fn cannot_run(error: std::io::Error) -> Failure {
    Failure::new(Code::CANNOT_START, error.into())
}
