//! What runs beside the application: nothing, the replicator, or Litestream.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bucket::Bucket;
use crate::process::{terminate, wait};
use crate::s3::Server;
use crate::wire::Wire;

/// How long a replicator may take to end.
const END_PATIENCE: Duration = Duration::from_mins(1);

/// What runs beside the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Side {
    Without,
    With,
    Litestream { version: &'static str, program: PathBuf },
}

impl Side {
    /// The sides that can be run here; of a Litestream that is not found, it is said.
    pub fn available(target: &Path) -> Vec<Self> {
        let mut sides = vec![Self::Without, Self::With];
        for (version, variable) in
            [("0.3.13", "LITESTREAM_0_3_13"), ("0.5.17", "LITESTREAM_0_5_17")]
        {
            #[allow(clippy::disallowed_methods, reason = "the benchmark's own command line")]
            let named = std::env::var_os(variable).map(PathBuf::from);
            let folder = target.join("litestream").join(version);
            let program = named.unwrap_or_else(|| folder.join("bin/litestream"));
            if program.is_file() {
                sides.push(Self::Litestream { version, program });
            } else {
                eprintln!(
                    "! no Litestream {version}: neither {variable} nor {}",
                    program.display()
                );
            }
        }
        sides
    }

    pub fn name(&self) -> String {
        match self {
            Self::Without => "without".to_owned(),
            Self::With => "with".to_owned(),
            Self::Litestream { version, .. } => format!("litestream {version}"),
        }
    }

    /// Starts it, with its defaults.
    pub fn start(&self, database: &Path, replica: &Path, log: &Log) -> Result<Option<Replicator>> {
        self.start_with(database, replica, log, &[])
    }

    /// Starts it; `more` are options of ours.
    pub fn start_with(
        &self,
        database: &Path,
        replica: &Path,
        log: &Log,
        more: &[&str],
    ) -> Result<Option<Replicator>> {
        self.start_to(database, Destination::Folder(replica), log, more)
    }

    /// Starts it, wherever the replica is to be.
    pub fn start_to(
        &self,
        database: &Path,
        replica: Destination<'_>,
        log: &Log,
        more: &[&str],
    ) -> Result<Option<Replicator>> {
        let mut command = match self {
            Self::Without => return Ok(None),
            Self::With => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_genesis-replicate"));
                command.arg("replicate").arg("--db").arg(database).arg("--replica");
                command.arg(replica.address()).envs(Server::credentials());
                command.args(["--log-format", "json", "--log-level", log.level]).args(more);
                command
            }
            Self::Litestream { program, .. } => litestream(program, database, replica)?,
        };
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log.path)?);
        let child = command.spawn().with_context(|| format!("cannot run {command:?}"))?;
        Ok(Some(Replicator { child, must_succeed: *self == Self::With }))
    }
}

/// Where a replica is to be.
#[derive(Debug, Clone, Copy)]
pub enum Destination<'a> {
    Folder(&'a Path),
    /// In an object store, through a network.
    Bucket(&'a Bucket, &'a Wire),
}

impl Destination<'_> {
    fn address(self) -> OsString {
        match self {
            Self::Folder(folder) => folder.into(),
            Self::Bucket(bucket, wire) => bucket.address(Some(wire)).into(),
        }
    }
}

/// Litestream 0.5.17 does not start where this is set. Nobody proves who they are on the loopback.
pub const AUTHORITIES: &str = "AWS_CA_BUNDLE";

fn litestream(program: &Path, database: &Path, replica: Destination<'_>) -> Result<Command> {
    let mut command = Command::new(program);
    command.arg("replicate");
    match replica {
        Destination::Folder(folder) => {
            command.arg(database).arg(format!("file://{}", folder.display()));
        }
        Destination::Bucket(bucket, wire) => {
            let config = database.with_extension("yml");
            bucket.configure_litestream(&config, database, wire)?;
            command.arg("-config").arg(config).env_remove(AUTHORITIES);
        }
    }
    Ok(command)
}

/// Where a replicator logs to, and how much.
#[derive(Debug)]
pub struct Log {
    pub path: PathBuf,
    pub level: &'static str,
}

/// A replicator at work. It is killed when this is dropped.
#[derive(Debug)]
pub struct Replicator {
    child: Child,
    must_succeed: bool,
}

impl Replicator {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it.
    pub fn stop(mut self) -> Result<()> {
        terminate(&self.child)?;
        let status = wait(&mut self.child, END_PATIENCE)?;
        ensure!(status.success() || !self.must_succeed, "the replicator failed: {status}");
        Ok(())
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
