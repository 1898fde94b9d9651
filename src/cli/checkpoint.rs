//! `checkpoint --truncate`: empties a WAL.

use tokio::task::spawn_blocking;

use super::args::CheckpointArgs;
use super::exit::{Code, Failure};
use super::print;
use crate::sqlite::truncate_wal;

pub async fn run(args: CheckpointArgs) -> Result<Code, Failure> {
    let CheckpointArgs { db, timeout, .. } = args;
    let database = db.display().to_string();
    let emptied = spawn_blocking(move || truncate_wal(&db, timeout)).await;
    if emptied.map_err(|error| Failure::new(Code::DATABASE, error.into()))?? {
        print(&format!("the WAL of {database} is empty\n"));
        return Ok(Code::DONE);
    }
    let error = anyhow::anyhow!("others kept the WAL of {database} for {timeout:?}");
    let hint = "A long read transaction of the application's does that.";
    Err(Failure::new(Code::DATABASE, error).hinted(hint))
}
