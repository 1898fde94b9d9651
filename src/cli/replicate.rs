//! `replicate`: follow until told to stop.

use super::args::ReplicateArgs;
use super::databases::Configuration;
use super::exit::{Code, Failure};
use super::followed::Followed;
use crate::shutdown::Shutdown;
use crate::store::retry::Persistence;

pub async fn run(args: ReplicateArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let mut shutdown = listen()?;
    let chosen = configuration.chosen(&args)?;
    let limit = chosen.process.shutdown_timeout();
    let mut followed =
        Followed::start(&chosen.databases, chosen.allowed, Persistence::UnlessPermanent).await;
    if followed.has_lost() {
        return Err(followed.give_up(&mut shutdown, limit).await);
    }
    while !followed.is_over() {
        tokio::select! {
            reason = followed.lose_one() => if !followed.is_over() {
                tracing::error!(reason, "NOT protected any more; the others are");
            },
            _ = shutdown.asked() => {
                tracing::info!("shipping what is committed, then ending");
                followed.finish(&mut shutdown, limit).await?;
                return Ok(Code::DONE);
            }
        }
    }
    Err(followed.why())
}

/// Begins to listen for the signals that ask for the end.
pub fn listen() -> Result<Shutdown, Failure> {
    Shutdown::listen().map_err(cannot_listen)
}

/// The system hears of no signal for us.
pub fn cannot_listen(error: std::io::Error) -> Failure {
    Failure::new(Code::DATABASE, anyhow::Error::new(error).context("cannot listen for signals"))
}
