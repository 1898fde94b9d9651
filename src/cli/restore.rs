//! `restore`: a database as it was after any transaction.

pub mod display;

use std::path::PathBuf;

use genesis_restore::plan::{Plan, backup};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::{Gap, Inventory};
use genesis_wal::id::{Generation, Txid};
use genesis_wal::time::Micros;
use serde::Serialize;

use self::display::Display;
use super::args::{IntegrityCheck, Otherwise, RestoreArgs};
use super::databases::Configuration;
use super::exit::{Code, Failure};
use super::replicate::listen;
use super::{Found, open, open_unless_empty, print, print_json};
use crate::replica::{Holdings, Replica};
use crate::restore::{Done, Request, RestoreError, find, restore};
use crate::sqlite::Check;

pub async fn run(args: RestoreArgs, configuration: &Configuration) -> Result<Code, Failure> {
    let place = configuration.replica(&args.source)?;
    if args.if_exists == Some(Otherwise::Skip) && args.output.exists() {
        return skip(&args, &format!("{} is there already", args.output.display()));
    }
    let (replica, mut holdings) = if args.if_no_replica == Some(Otherwise::Skip) {
        match open_unless_empty(&place).await? {
            Found::Replica(replica, holdings) => (replica, holdings),
            Found::Nothing(reason) => return skip(&args, reason),
        }
    } else {
        open(&place).await?
    };
    let state_folder = match args.state_dir.clone() {
        None => configuration.state_folder(&args.output)?,
        typed => typed,
    };
    if args.backup.is_some_and(|id| backup(&holdings.inventory, id, args.generation).is_err()) {
        holdings = replica.holdings().await?;
    }
    if args.dry_run {
        show_plan(&replica, holdings, &args).await
    } else {
        let mut shutdown = listen()?;
        tokio::select! {
            restored = restore_and_show(&replica, holdings, &args, state_folder) => restored,
            // What was written is gone with the restore.
            signal = shutdown.asked() => Ok(Code(128 + signal)),
        }
    }
}

fn skip(args: &RestoreArgs, reason: &str) -> Result<Code, Failure> {
    if args.json {
        print_json(&Skipped { skipped: reason })?;
    } else {
        print(&format!("nothing restored: {reason}\n"))?;
    }
    Ok(Code::DONE)
}

async fn show_plan(
    replica: &Replica,
    holdings: Holdings,
    args: &RestoreArgs,
) -> Result<Code, Failure> {
    let request = request(&holdings.inventory, args)?;
    let plan = find(replica, holdings, &request).await?;
    if args.json {
        print_json(&PlanReport::of(&plan))?;
    } else {
        print(&format!("{plan}\n"))?;
    }
    Ok(Code::DONE)
}

async fn restore_and_show(
    replica: &Replica,
    holdings: Holdings,
    args: &RestoreArgs,
    state_folder: Option<PathBuf>,
) -> Result<Code, Failure> {
    let mut display = Display::new();
    let request = Request { state_folder, ..request(&holdings.inventory, args)? };
    let done = restore(replica, holdings, &request, |progress| display.show(progress)).await?;
    drop(display);
    if args.json {
        print_json(&Report::of(&done, args))?;
    } else {
        print(&summary(&done, args))?;
    }
    Ok(Code::DONE)
}

/// Which state is meant, and in which line of history, if that is said.
fn target(
    inventory: &Inventory,
    args: &RestoreArgs,
) -> Result<(Target, Option<Generation>), RestoreError> {
    if let Some(id) = args.backup {
        let state = backup(inventory, id, args.generation)?;
        return Ok((Target::Txid(state.txid), Some(state.generation)));
    }
    let target = match (args.txid, args.timestamp) {
        (Some(txid), _) => Target::Txid(Txid(txid)),
        (None, Some(time)) => Target::Time(time),
        (None, None) => Target::Latest,
    };
    Ok((target, args.generation))
}

fn request(inventory: &Inventory, args: &RestoreArgs) -> Result<Request, RestoreError> {
    let (target, generation) = target(inventory, args)?;
    Ok(Request {
        target,
        generation,
        min_txid: args.min_txid.map(Txid),
        output: args.output.clone(),
        remove_stale: args.force,
        parallelism: args.parallelism,
        verify: !args.no_verify,
        check: match args.integrity_check {
            IntegrityCheck::None => None,
            IntegrityCheck::Quick => Some(Check::Quick),
            IntegrityCheck::Full => Some(Check::Full),
        },
        state_folder: None,
    })
}

fn summary(done: &Done, args: &RestoreArgs) -> String {
    let Done { restored, .. } = done;
    let left_out = restored.left_out.map(|(since, until)| {
        format!(
            "note: the next transaction was committed between {since} and {until}, while nobody \
             looked; it is left out\n"
        )
    });
    let late = restored.late.map(|(since, until)| {
        format!(
            "note: this transaction was committed between {since} and {until}, while nobody \
             looked\n"
        )
    });
    let missing = done.missing.map(|Gap { after, next }| {
        format!(
            "note: what is between {} and {} is missing, and left out with all behind it: its writer \
             was killed, and it may never have been durable, or it is lost\n",
            after.0, next.0
        )
    });
    format!(
        "restored {} as of transaction {}, committed {}\n{} pages, state {}, {}\n{}{}{}",
        args.output.display(),
        restored.txid.0,
        restored.time,
        restored.pages,
        restored.state,
        if args.no_verify { "not read back" } else { "verified" },
        late.unwrap_or_default(),
        left_out.unwrap_or_default(),
        missing.unwrap_or_default(),
    )
}

#[derive(Debug, Serialize)]
struct Skipped<'a> {
    /// Why nothing was restored.
    skipped: &'a str,
}

/// What would be fetched.
#[derive(Debug, Serialize)]
struct PlanReport {
    generation: String,
    snapshot: String,
    snapshot_txid: u64,
    segments: Vec<String>,
    segment_bytes: u64,
    reaches_txid: u64,
    /// What is missing after that, and left out of the latest state.
    missing: Option<Missing>,
}

impl PlanReport {
    fn of(plan: &Plan) -> Self {
        Self {
            generation: plan.generation.to_string(),
            snapshot: plan.manifest.to_string(),
            snapshot_txid: plan.manifest.txid.0,
            segments: plan.segments.iter().map(ToString::to_string).collect(),
            segment_bytes: plan.segment_bytes,
            reaches_txid: plan.reaches.0,
            missing: plan.missing.map(Missing::from),
        }
    }
}

/// What was restored.
#[derive(Debug, Serialize)]
struct Report {
    output: String,
    generation: String,
    txid: u64,
    time: String,
    bytes: u64,
    pages: u32,
    state: String,
    verified: bool,
    /// When the transaction was committed, if nobody looked then.
    late: Option<Interval>,
    /// When the next one was committed, which may have been by the time that was asked for.
    left_out: Option<Interval>,
    /// What is missing after it, and left out of the latest state.
    missing: Option<Missing>,
}

/// Transactions that nothing holds.
#[derive(Debug, Serialize)]
struct Missing {
    after_txid: u64,
    next_txid: u64,
}

impl From<Gap> for Missing {
    fn from(Gap { after, next }: Gap) -> Self {
        Self { after_txid: after.0, next_txid: next.0 }
    }
}

#[derive(Debug, Serialize)]
struct Interval {
    since: String,
    until: String,
}

impl Report {
    fn of(done: &Done, args: &RestoreArgs) -> Self {
        let Done { generation, page_size, restored, missing } = done;
        let interval = |(since, until): (Micros, Micros)| Interval {
            since: since.to_string(),
            until: until.to_string(),
        };
        Self {
            output: args.output.display().to_string(),
            generation: generation.to_string(),
            txid: restored.txid.0,
            time: restored.time.to_string(),
            bytes: u64::from(restored.pages) * u64::from(page_size.get()),
            pages: restored.pages,
            state: restored.state.to_string(),
            verified: !args.no_verify,
            late: restored.late.map(interval),
            left_out: restored.left_out.map(interval),
            missing: missing.map(Missing::from),
        }
    }
}
