//! `exec`: run an application, ship what it commits, end with its code.

use super::args::ExecArgs;
use super::exit::{Code, Failure};
use super::replicate;
use crate::exec::{Application, Ended};
use crate::replicate::{Session, SessionError};
use crate::store::retry::Persistence;

pub async fn run(args: ExecArgs) -> Result<Code, Failure> {
    // The application must start whether the store answers or not.
    let mut session = replicate::start(&args.replicate, Persistence::Always).await?;
    let started = Application::start(&args.command);
    let application = started.map_err(|error| {
        let missing = error.kind() == std::io::ErrorKind::NotFound;
        let code = if missing { Code::NOT_FOUND } else { Code::CANNOT_START };
        let command = args.command.first().map(|c| c.display().to_string()).unwrap_or_default();
        Failure::new(code, anyhow::Error::new(error).context(format!("cannot start {command}")))
    })?;
    let (ended, lost) = run_to_its_end(application, &mut session).await?;
    let shipped = if let Some(error) = lost {
        Err(Failure::from(error).at_the_end())
    } else {
        tracing::info!(code = ended.code(), "the application ended: shipping what it committed");
        let limit = args.replicate.shutdown_timeout;
        replicate::finish(session, &mut replicate::listen()?, limit).await
    };
    match shipped {
        Err(failure) if ended.code() == 0 => Err(failure),
        Err(failure) => {
            failure.report(&mut std::io::stderr().lock()).ok();
            Ok(Code(ended.code()))
        }
        Ok(()) => Ok(Code(ended.code())),
    }
}

/// Waits for the application. It lives on when its database can no longer be followed; why, then.
async fn run_to_its_end(
    mut application: Application,
    session: &mut Session,
) -> Result<(Ended, Option<SessionError>), Failure> {
    let failed = |error: std::io::Error| Failure::new(Code::CANNOT_START, error.into());
    let lost = tokio::select! {
        ended = application.wait() => return Ok((ended.map_err(failed)?, None)),
        error = session.ended() => error,
    };
    let reason = crate::describe(&lost);
    tracing::error!(reason, "the database is NOT protected any more; the application goes on");
    Ok((application.wait().await.map_err(failed)?, Some(lost)))
}
