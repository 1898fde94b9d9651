//! Which databases a command is about: those of the command line, or of the configuration.

use std::path::{Path, PathBuf};

use super::args::{ReplicateArgs, Source};
use super::exit::{Code, Failure};
use super::place::Place;
use crate::config::{Config, Database, ProcessSettings};
use crate::replicate::{Allowed, canonical};

/// Where the configuration is.
#[derive(Debug)]
pub struct Configuration {
    /// The file that the command line names.
    pub named: Option<PathBuf>,
}

/// What is followed.
#[derive(Debug)]
pub struct Chosen {
    pub databases: Vec<Database>,
    pub allowed: Allowed,
    pub process: ProcessSettings,
}

impl Configuration {
    /// Reads it.
    pub fn require(&self) -> Result<Config, Failure> {
        self.find()?.ok_or_else(|| {
            Failure::new(Code::USAGE, anyhow::anyhow!("there is no configuration")).hinted(
                "It is looked for in $GENESIS_REPLICATE_CONFIG, genesis-replicate.toml here and in \
                 /etc; or pass --config.",
            )
        })
    }

    /// What `replicate` and `exec` follow.
    pub fn chosen(&self, args: &ReplicateArgs) -> Result<Chosen, Failure> {
        let config = self.find()?;
        if let Some(config) = &config {
            tracing::info!(file = %config.file.display(), "the configuration");
        }
        let databases = match (&args.db, &args.replica, &config) {
            (Some(path), Some(replica), config) => vec![typed(config.as_ref(), path, replica)],
            (Some(path), None, Some(config)) => vec![named(config, path)?.clone()],
            (Some(_), None, None) => {
                let error = "nothing says where the replica is: pass --replica, or a configuration";
                return Err(says_too_little(error));
            }
            (None, _, Some(config)) => all(config)?.to_vec(),
            (None, _, None) => {
                let error = "nothing says which database: pass --db and --replica, or a \
                             configuration";
                return Err(says_too_little(error));
            }
        };
        if databases.len() > 1 && args.settings.state_dir.is_some() {
            let error = "--state-dir is for one database: choose one with --db";
            return Err(Failure::new(Code::USAGE, anyhow::anyhow!(error)));
        }
        let process = args.process.clone();
        let process = config.map_or(process.clone(), |config| process.or(&config.process));
        let with_flags = |database: Database| {
            let settings = args.settings.clone().or(&database.settings);
            Database { settings, ..database }
        };
        let allowed = Allowed { takeover: args.takeover, new_generation: args.new_generation };
        let databases = databases.into_iter().map(with_flags).collect();
        Ok(Chosen { databases, allowed, process })
    }

    /// The replica that a command reads.
    pub fn replica(&self, source: &Source) -> Result<Place, Failure> {
        match (&source.url, &source.db) {
            (Some(place), _) => Ok(place.clone()),
            (None, Some(path)) => Ok(named(&self.require()?, path)?.replica.clone()),
            // The command line takes one of them.
            (None, None) => Err(Failure::new(Code::USAGE, anyhow::anyhow!("no replica is named"))),
        }
    }

    /// Where local state goes of a database that is made at `path`, if not beside it.
    pub fn state_folder(&self, path: &Path) -> Result<Option<PathBuf>, Failure> {
        let config = self.find()?;
        let said = config.as_ref().and_then(|config| by_path(config, path));
        Ok(said.and_then(|database| database.settings.state_dir.clone()))
    }

    /// The paths of the databases that a command is about.
    pub fn paths(&self, db: Option<&Path>) -> Result<Vec<PathBuf>, Failure> {
        if let Some(path) = db {
            // One that is there needs no configuration.
            let config = if path.exists() { None } else { self.find()? };
            let path = match &config {
                Some(config) => &named(config, path)?.path,
                None => path,
            };
            return Ok(vec![path.to_owned()]);
        }
        let config = self.require()?;
        Ok(all(&config)?.iter().map(|database| database.path.clone()).collect())
    }

    fn find(&self) -> Result<Option<Config>, Failure> {
        Ok(Config::find(self.named.as_deref(), super::environment)?)
    }
}

/// A database of the command line. What the configuration says of it, or of all, holds for it.
fn typed(config: Option<&Config>, path: &Path, replica: &Place) -> Database {
    let said = config.and_then(|config| by_path(config, path)).map(|said| &said.settings);
    let settings = said.or(config.map(|config| &config.defaults)).cloned().unwrap_or_default();
    Database { path: path.to_owned(), replica: replica.clone(), settings }
}

/// A database of the configuration, by its path, or by its name if only one has it.
fn named<'a>(config: &'a Config, path: &Path) -> Result<&'a Database, Failure> {
    if let Some(database) = by_path(config, path) {
        return Ok(database);
    }
    let has_name = |database: &&Database| database.path.file_name() == Some(path.as_os_str());
    let mut of_this_name = config.databases.iter().filter(has_name);
    if let (Some(database), None) = (of_this_name.next(), of_this_name.next()) {
        return Ok(database);
    }
    let known = config.databases.iter().map(|database| database.path.display().to_string());
    let (file, path) = (config.file.display(), path.display());
    let known = known.collect::<Vec<_>>().join(", ");
    let error = anyhow::anyhow!("{file} does not say one database {path}; it has: {known}");
    Err(Failure::new(Code::USAGE, error))
}

fn by_path<'a>(config: &'a Config, path: &Path) -> Option<&'a Database> {
    // A folder that is not there has no canonical path.
    let same = |path: &Path| canonical(path).ok().or_else(|| std::path::absolute(path).ok());
    let wanted = same(path);
    config.databases.iter().find(|database| wanted.is_some() && same(&database.path) == wanted)
}

/// What was typed does not say what is followed.
fn says_too_little(error: &'static str) -> Failure {
    let hint = "--help has examples, and README.md the configuration.";
    Failure::new(Code::USAGE, anyhow::anyhow!(error)).hinted(hint)
}

/// The databases of the configuration, which must be some.
pub fn all(config: &Config) -> Result<&[Database], Failure> {
    if config.databases.is_empty() {
        let file = config.file.display();
        let error = anyhow::anyhow!("{file} names no database: it has no [[db]]");
        return Err(Failure::new(Code::USAGE, error));
    }
    Ok(&config.databases)
}
