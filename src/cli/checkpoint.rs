//! `checkpoint --truncate`: empties a WAL.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::task::spawn_blocking;

use super::args::CheckpointArgs;
use super::databases::Configuration;
use super::exit::{Code, Failure};
use super::{print, print_json};
use crate::sqlite::{SourceError, truncate_wal};

pub async fn run(args: CheckpointArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let mut failures = Vec::new();
    let mut emptied = Vec::new();
    for path in configuration.paths(args.db.as_deref())? {
        let database = path.display().to_string();
        match empty(path, args.timeout).await {
            Err(failure) => failures.push(failure),
            Ok(()) if args.json => emptied.push(database),
            Ok(()) => print(&format!("the WAL of {database} is empty\n"))?,
        }
    }
    if args.json {
        print_json(&Report { emptied })?;
    }
    Failure::worst(failures).map_or(Ok(Code::DONE), Err)
}

#[derive(Debug, Serialize)]
struct Report {
    /// The databases whose WALs are empty.
    emptied: Vec<String>,
}

async fn empty(path: PathBuf, timeout: Duration) -> Result<(), Failure> {
    let database = path.display().to_string();
    let emptied = spawn_blocking(move || truncate_wal(&path, timeout)).await;
    match emptied.map_err(|error| Failure::new(Code::DATABASE, error.into()))? {
        Ok(true) => return Ok(()),
        Ok(false) => {}
        Err(error @ SourceError::NotWal { .. }) => {
            return Err(
                Failure::new(Code::DATABASE, error.into()).hinted("It has no WAL to empty.")
            );
        }
        Err(error) => return Err(error.into()),
    }
    let error = anyhow::anyhow!("others kept the WAL of {database} for {timeout:?}");
    let hint = "A long read transaction of the application's does that.";
    Err(Failure::new(Code::DATABASE, error).hinted(hint))
}
