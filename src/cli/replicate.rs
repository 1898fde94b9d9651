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
    let mut followed =
        Followed::start(&chosen.databases, chosen.allowed, Persistence::UnlessPermanent).await?;
    while !followed.is_over() {
        tokio::select! {
            reason = followed.lose_one() => if !followed.is_over() {
                tracing::error!(reason, "NOT protected any more; the others are");
            },
            _ = shutdown.asked() => {
                tracing::info!("shipping what is committed, then ending");
                followed.finish(&mut shutdown, chosen.process.shutdown_timeout()).await?;
                return Ok(Code::DONE);
            }
        }
    }
    Err(followed.why())
}

/// Begins to listen for the signals that ask for the end.
pub fn listen() -> Result<Shutdown, Failure> {
    Shutdown::listen().map_err(|error| {
        Failure::new(Code::USAGE, anyhow::Error::from(error).context("cannot listen for signals"))
    })
}
