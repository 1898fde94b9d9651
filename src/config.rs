//! The configuration: a file of TOML that says which databases are followed, where to, and how.
//!
//! It is the first of these that there is: the file that is named by `--config` or else by
//! `$GENESIS_REPLICATE_CONFIG`, which must be there, `genesis-replicate.toml` in the working folder,
//! and `/etc/genesis-replicate.toml`.
//!
//! Its keys are the fields of [`Settings`] and [`ProcessSettings`], which are the flags of the command
//! line as well. What a flag says wins, then what is said of the database, then what stands at the
//! top. Relative paths begin at the folder of the file.

mod expand;
mod file;
mod settings;
pub mod values;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::cli::place::Place;
pub use settings::{ProcessSettings, Settings};

/// The variable that may name the file.
pub const VARIABLE: &str = "GENESIS_REPLICATE_CONFIG";

/// Where the file is looked for when nothing names it.
pub const PLACES: [&str; 2] = ["genesis-replicate.toml", "/etc/genesis-replicate.toml"];

/// What a configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file that says it.
    pub file: PathBuf,
    /// The databases, in the file's order; each with what stands at the top.
    pub databases: Vec<Database>,
    /// What stands at the top, for every database.
    pub defaults: Settings,
    /// What stands at the top, for the process.
    pub process: ProcessSettings,
}

/// A database to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Database {
    /// The database.
    pub path: PathBuf,
    /// Where its replica is.
    pub replica: Place,
    /// How it is followed.
    pub settings: Settings,
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that says something wrong.
    #[error("{}:{line}:{column}: {message}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads the configuration that `named` or the environment names, or else the first that there is.
    ///
    /// # Errors
    /// [`ConfigError`], also when one is named and not there.
    pub fn find(
        named: Option<&Path>,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Option<Self>, ConfigError> {
        let named = named
            .map(Path::to_owned)
            .or_else(|| environment(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from));
        if let Some(path) = named {
            return Self::read(&path, environment).map(Some);
        }
        for path in PLACES {
            match Self::read(Path::new(path), &environment) {
                Err(ConfigError::Unreadable { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                other => return other.map(Some),
            }
        }
        Ok(None)
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(
        path: &Path,
        environment: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        let absolute = std::path::absolute(path).map_err(unreadable)?;
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        file::parse(&absolute, &text, &environment).map_err(|wrong| {
            let before = text.get(..wrong.at).unwrap_or(&text);
            let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
            ConfigError::Wrong {
                path: path.to_owned(),
                line: before.matches('\n').count() + 1,
                column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
                message: wrong.message,
            }
        })
    }
}
