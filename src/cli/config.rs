//! `config`: what the configuration says, and whether it can work.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Access, access};
use serde_json::{Map, Value, json};

use super::args::ConfigCommand;
use super::databases::{Configuration, all};
use super::exit::{Code, Failure};
use super::place::Place;
use super::{print, print_json};
use crate::config::values::{written_duration, written_size};
use crate::config::{Config, Database};
use crate::replicate::{canonical, state_folder};

pub fn run(command: &ConfigCommand, configuration: &Configuration) -> Result<Code, Failure> {
    let config = configuration.require()?;
    match command {
        ConfigCommand::Show(args) if args.json => print_json(&shown_json(&config))?,
        ConfigCommand::Show(_) => print(&shown(&config))?,
        ConfigCommand::Check(args) => return check(&config, args.json),
    }
    Ok(Code::DONE)
}

type Keys = Vec<(&'static str, Value)>;

/// What stands at the top.
fn process_keys(config: &Config) -> Keys {
    vec![("shutdown_timeout", written_duration(config.process.shutdown_timeout()).into())]
}

/// What is said of a database, and what holds where nothing is said.
fn database_keys(database: &Database) -> Keys {
    let Database { path, replica, settings } = database;
    let canonical = canonical(path).unwrap_or_else(|_| path.clone());
    let text = |path: &Path| Value::from(path.display().to_string());
    let mut keys: Keys = vec![
        ("path", text(path)),
        ("replica", replica.to_string().into()),
        ("sync_interval", written_duration(settings.sync_interval(replica)).into()),
        ("snapshot_interval", written_duration(settings.snapshot_interval()).into()),
        ("audit_interval", written_duration(settings.audit_interval()).into()),
        ("wal_limit", written_size(settings.wal_limit()).into()),
        ("spool_keep", written_size(settings.spool_keep()).into()),
        ("set_wal", settings.set_wal().into()),
        ("state_dir", text(&state_folder(&canonical, settings.state_dir.as_deref()))),
    ];
    // Without one it goes by what is free at each moment.
    keys.extend(settings.spool_limit.map(|limit| ("spool_limit", written_size(limit).into())));
    keys
}

/// The configuration as a configuration.
fn shown(config: &Config) -> String {
    let keys = |keys: Keys| keys.into_iter().map(|(key, value)| key_line(key, &value));
    let mut lines = vec![format!("# {}", config.file.display())];
    lines.extend(keys(process_keys(config)));
    for database in &config.databases {
        lines.push("\n[[db]]".to_owned());
        lines.extend(keys(database_keys(database)));
    }
    lines.join("\n") + "\n"
}

fn key_line(key: &str, value: &Value) -> String {
    // JSON's strings, but for dollars and one control character, are TOML's.
    let value = value.to_string().replace('$', "$$").replace('\x7f', "\\u007f");
    format!("{key} = {value}")
}

fn shown_json(config: &Config) -> Value {
    let map = |keys: Keys| keys.into_iter().map(|(key, value)| (key.to_owned(), value));
    let databases = config.databases.iter().map(|d| map(database_keys(d)).collect::<Map<_, _>>());
    let mut shown: Map<_, _> = map(process_keys(config)).collect();
    shown.insert("file".to_owned(), config.file.display().to_string().into());
    shown.insert("db".to_owned(), databases.map(Value::Object).collect());
    shown.into()
}

/// Says what is followed and where to, and what of it cannot work.
fn check(config: &Config, as_json: bool) -> Result<Code, Failure> {
    let mut checked = Vec::new();
    let mut problems = 0;
    let mut lines = Vec::new();
    for database in &config.databases {
        let found = problems_of(database);
        problems += found.len();
        let path = database.path.display().to_string();
        let (replica, exists) = (database.replica.to_string(), database.path.exists());
        let note = if exists { "" } else { " (not there yet: it is waited for)" };
        lines.push(format!("{path}{note} -> {replica}"));
        lines.extend(found.iter().map(|problem| format!("  {problem}")));
        checked.push(json!({
            "path": path, "exists": exists, "replica": replica, "problems": found,
        }));
    }
    if as_json {
        print_json(&json!({ "file": config.file.display().to_string(), "db": checked }))?;
    } else {
        print(&(lines.join("\n") + "\n"))?;
    }
    let file = config.file.display();
    all(config)?;
    if problems == 0 {
        return Ok(Code::DONE);
    }
    let error = anyhow::anyhow!("{file}: what it says cannot work ({problems} problems)");
    Err(Failure::new(Code::USAGE, error))
}

/// Why a database could not be followed.
fn problems_of(database: &Database) -> Vec<String> {
    let mut problems = Vec::new();
    let path = &database.path;
    if path.is_dir() {
        problems.push("it is a folder".to_owned());
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    match canonical(path) {
        Err(_) => problems.push(format!("there is no folder {}", folder.display())),
        Ok(path) => {
            let state = state_folder(&path, database.settings.state_dir.as_deref());
            problems.extend(cannot_be_written(&state).map(|why| format!("local state: {why}")));
            if matches!(&database.replica, Place::Folder(folder) if is_within(folder, &state)) {
                problems.push("replica: it is within the folder of local state".to_owned());
            }
            if !database.settings.set_wal() && has_rollback_journal(&path) {
                let reason = "it is not in WAL mode: let the application run PRAGMA \
                              journal_mode=WAL, or say set_wal = true";
                problems.push(reason.to_owned());
            }
        }
    }
    problems.extend(cannot_be_used(&database.replica).map(|why| format!("replica: {why}")));
    problems
}

fn is_within(folder: &Path, other: &Path) -> bool {
    let real = |path: &Path| canonical(path).unwrap_or_else(|_| path.to_owned());
    real(folder).starts_with(real(other))
}

/// Whether the header of a database says that it keeps a rollback journal.
fn has_rollback_journal(database: &Path) -> bool {
    let mut header = [0; 20];
    let read = File::open(database).and_then(|mut file| file.read_exact(&mut header));
    read.is_ok() && header.starts_with(b"SQLite format 3\0") && header.ends_with(&[1, 1])
}

/// Why a replica's place cannot be used, as far as that is known without a request.
fn cannot_be_used(place: &Place) -> Option<String> {
    match place {
        Place::Folder(folder) => cannot_be_written(folder),
        Place::Bucket(_) => None,
    }
}

/// Why a folder cannot be written to, or made.
fn cannot_be_written(folder: &Path) -> Option<String> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok())?;
    if !nearest.is_dir() {
        return Some(format!("{} is not a folder", nearest.display()));
    }
    let allowed = access(nearest, Access::WRITE_OK | Access::EXEC_OK);
    allowed.err().map(|error| format!("cannot write to {}: {error}", nearest.display()))
}
