//! The command line: what was typed (`args`), what it means (`place`, `databases`), and running it.

pub(crate) mod args;
mod check;
mod checkpoint;
mod config;
mod databases;
mod exec;
mod exit;
mod followed;
mod list;
pub(crate) mod place;
mod replicate;
mod restore;

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use clap::error::{ContextKind, ContextValue};
use rustix::process::Signal;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use self::args::{Args, Command};
use self::databases::Configuration;
use self::exit::{Code, Failure};
use self::place::Place;
use crate::replica::{Holdings, Replica, ReplicaError};
use crate::store::Store;
use crate::store::retry::{Persistence, Retrying};
use crate::{heap, sqlite, telemetry};

/// Runs the command that the process was started with.
#[must_use]
pub fn main() -> ExitCode {
    heap::give_back();
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(mut error) => {
            hide_secrets(&mut error);
            // Help and version go to standard output and are no failures.
            if error.use_stderr() {
                error.print().ok();
                return Code::USAGE.into();
            }
            return ended(printed(error.print()).map(|()| Code::DONE));
        }
    };
    telemetry::start(args.log_level.into(), args.log_format);
    ended(run(args))
}

/// Tells of a failure; the code to end with.
fn ended(done: Result<Code, Failure>) -> ExitCode {
    match done {
        Ok(code) => code.into(),
        Err(failure) => {
            failure.report(&mut std::io::stderr().lock()).ok();
            failure.code.into()
        }
    }
}

/// Leaves out of an error what was typed, where that is an address: credentials may be in it.
fn hide_secrets(error: &mut clap::Error) {
    for kind in [ContextKind::InvalidValue, ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
    {
        if let Some(ContextValue::String(typed)) = error.get(kind)
            && (typed.contains('@') || typed.contains("://") || typed.starts_with("s3:"))
        {
            error.insert(kind, ContextValue::String("…".to_owned()));
            // It repeats what was typed.
            error.remove(ContextKind::Suggested);
        }
    }
}

fn run(args: Args) -> Result<Code, Failure> {
    if !sqlite::is_recent() {
        let found =
            anyhow::anyhow!("this program needs SQLite 3.54.1, and has {}", sqlite::version());
        return Err(Failure::new(Code::DATABASE, found));
    }
    refuse_long_files().map_err(replicate::cannot_listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(Code::DATABASE, anyhow::Error::new(error).context("cannot start threads"))
    })?;
    let configuration = Configuration { named: args.config };
    let done = runtime.block_on(async {
        wait_for_children()?;
        match args.command {
            Command::Exec(args) => exec::run(args, &configuration).await,
            Command::Replicate(args) => replicate::run(args, &configuration).await,
            Command::Restore(args) => restore::run(args, &configuration).await,
            Command::Check(args) => check::run(args, &configuration).await,
            Command::Checkpoint(args) => checkpoint::run(args, &configuration).await,
            Command::List(args) => list::run(args, &configuration).await,
            Command::Config(command) => config::run(&command, &configuration),
        }
    });
    // What still runs waits for a store that does not answer: nothing of it is wanted any more.
    runtime.shutdown_background();
    done
}

/// A file that may not be so long is an error of the write, instead of the end of this process.
fn refuse_long_files() -> io::Result<()> {
    let nobody_asks = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(Signal::XFSZ.as_raw(), nobody_asks).map(drop)
}

/// Lets the ends of children be waited for, also where this process was started to ignore them.
fn wait_for_children() -> Result<(), Failure> {
    let listener = signal(SignalKind::child()).map_err(replicate::cannot_listen)?;
    // The handler stays.
    drop(listener);
    Ok(())
}

/// How long somebody who asks for something waits for a store that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens the replica in a place, to restore from it.
async fn open(place: &Place) -> Result<(Replica, Holdings), Failure> {
    let opened = Replica::open_outlined(patient_store(place)).await;
    opened.map_err(|error| cannot_use(place, error))
}

fn cannot_use(place: &Place, error: ReplicaError) -> Failure {
    Failure::from(error).context(format!("cannot use {place}"))
}

fn patient_store(place: &Place) -> Arc<dyn Store> {
    Arc::new(Retrying::new(place.store(), Persistence::For(PATIENCE)))
}

/// What is in a place for a replica.
enum Found {
    /// A replica, and what it holds.
    Replica(Replica, Holdings),
    /// Provably no state that could be restored, and none that is lost; why.
    Nothing(&'static str),
}

/// Opens the replica in a place where there may be none yet.
async fn open_unless_empty(place: &Place) -> Result<Found, Failure> {
    let (replica, mut holdings) = match open(place).await {
        Err(failure) if failure.code == Code::NOTHING => {
            // Objects without a description are a damaged replica, and not none.
            let is_empty = patient_store(place).list("").await?.is_empty();
            return if is_empty {
                Ok(Found::Nothing("there is no replica yet"))
            } else {
                Err(failure)
            };
        }
        other => other?,
    };
    let is_nothing = |holdings: &Holdings| holdings.inventory.generations().next().is_none();
    if is_nothing(&holdings) && !holdings.is_whole() {
        holdings = replica.holdings().await.map_err(|error| cannot_use(place, error))?;
    }
    Ok(if is_nothing(&holdings) {
        Found::Nothing("the replica holds nothing yet")
    } else {
        Found::Replica(replica, holdings)
    })
}

/// A variable of the environment.
#[allow(clippy::disallowed_methods, reason = "the command line owns the environment")]
fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// Writes to standard output. A reader that went away is no failure.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    printed(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Writes JSON to standard output.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value);
    print(&format!("{}\n", json.map_err(|error| cannot_print(error.into()))?))
}

fn printed(done: std::io::Result<()>) -> Result<(), Failure> {
    match done {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(cannot_print(error.into()))
        }
        _ => Ok(()),
    }
}

fn cannot_print(error: anyhow::Error) -> Failure {
    Failure::new(Code::DATABASE, error.context("cannot write to standard output"))
}

/// Whether a person watches standard error.
fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}
