//! What stands in a configuration file, key by key.

use std::ffi::OsString;
use std::path::Path;

use clap::error::ContextKind;
use clap::{Args, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::expand::expand;
use super::{Config, Database, ProcessSettings, Settings};
use crate::cli::place::Place;

/// What is wrong with a file, and at which of its bytes.
#[derive(Debug)]
pub struct Wrong {
    pub at: usize,
    pub message: String,
}

/// The tables of databases, and what only such a table says.
const DATABASES: &str = "db";
const PATH: &str = "path";
const REPLICA: &str = "replica";

/// Reads the text of the file at an absolute path.
pub fn parse(
    file: &Path,
    text: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Config, Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        message: error.message().to_owned(),
    })?;
    let reader = Reader { environment, folder: file.parent().unwrap_or(Path::new("/")) };
    let mut defaults = Settings::default();
    let mut process = ProcessSettings::default();
    let mut tables = Vec::new();
    for entry in entries(table.get_ref()) {
        match entry.key {
            DATABASES => tables = entry.tables()?,
            PATH | REPLICA => {
                return Err(entry.misplaced("is said of a database: write it below [[db]]"));
            }
            key if has::<ProcessSettings>(key) => reader.set(&mut process, &entry)?,
            key if has::<Settings>(key) => reader.set(&mut defaults, &entry)?,
            _ => {
                let known = [keys::<Settings>(), keys::<ProcessSettings>()].concat();
                return Err(entry.unknown(&[known, vec![DATABASES.to_owned()]].concat()));
            }
        }
    }
    reader.resolve(&mut defaults);
    let mut databases = Vec::<Database>::new();
    for table in tables {
        let database = reader.database(table, &defaults)?;
        if let Some(shared) = databases.iter().find_map(|other| shared(&database, other)) {
            let message = format!("another database has this {shared} already");
            return Err(Wrong { at: table.0, message });
        }
        databases.push(database);
    }
    Ok(Config { file: file.to_owned(), databases, defaults, process })
}

/// What two databases have in common that each must have for itself.
fn shared(one: &Database, other: &Database) -> Option<&'static str> {
    let state_dir = |database: &Database| database.settings.state_dir.clone();
    if one.path == other.path {
        Some(PATH)
    } else if one.replica.is_where(&other.replica) {
        Some(REPLICA)
    } else {
        (state_dir(one).is_some() && state_dir(one) == state_dir(other)).then_some("state_dir")
    }
}

/// Reads values, with the environment and the folder at which relative paths begin.
struct Reader<'a> {
    environment: &'a dyn Fn(&str) -> Option<OsString>,
    folder: &'a Path,
}

impl Reader<'_> {
    fn database(
        &self,
        (at, table): (usize, &DeTable),
        defaults: &Settings,
    ) -> Result<Database, Wrong> {
        let (mut path, mut replica) = (None, None);
        let mut settings = Settings::default();
        for entry in entries(table) {
            match entry.key {
                PATH => path = Some(self.folder.join(self.text(&entry)?)),
                REPLICA => {
                    let place = self.text(&entry)?.parse::<Place>();
                    let place = place.map_err(|message| entry.wrong(message))?;
                    replica = Some(place.relative_to(self.folder));
                }
                key if has::<Settings>(key) => self.set(&mut settings, &entry)?,
                key if has::<ProcessSettings>(key) => {
                    return Err(entry.misplaced("is said of the process: write it above [[db]]"));
                }
                _ => {
                    let own = vec![PATH.to_owned(), REPLICA.to_owned()];
                    return Err(entry.unknown(&[own, keys::<Settings>()].concat()));
                }
            }
        }
        self.resolve(&mut settings);
        let missing = |key| Wrong { at, message: format!("this database has no `{key}`") };
        Ok(Database {
            path: path.ok_or_else(|| missing(PATH))?,
            replica: replica.ok_or_else(|| missing(REPLICA))?,
            settings: settings.or(defaults),
        })
    }

    fn resolve(&self, settings: &mut Settings) {
        settings.state_dir = settings.state_dir.take().map(|folder| self.folder.join(folder));
    }

    /// A value as it would be typed.
    fn text(&self, entry: &Entry) -> Result<String, Wrong> {
        match entry.value.get_ref() {
            DeValue::String(text) => {
                let expanded = expand(text, self.environment);
                let expanded = expanded.map_err(|message| entry.wrong(message))?;
                if expanded.is_empty() { Err(entry.wrong("it is empty")) } else { Ok(expanded) }
            }
            _ => Err(entry.wrong("it is text: write it in quotes")),
        }
    }

    /// Sets one key, as the flag of the same name would.
    fn set<S: Args>(&self, settings: &mut S, entry: &Entry) -> Result<(), Wrong> {
        let value = match entry.value.get_ref() {
            DeValue::Integer(number) => number.to_string(),
            DeValue::Boolean(is_so) => is_so.to_string(),
            _ => self.text(entry)?,
        };
        let flag = format!("--{}={value}", entry.key.replace('_', "-"));
        let command = S::augment_args(Command::new("configuration").no_binary_name(true));
        let matches = command.try_get_matches_from([flag]);
        let set =
            matches.and_then(|mut matches| settings.update_from_arg_matches_mut(&mut matches));
        set.map_err(|error| {
            let reason = std::error::Error::source(&error).map(ToString::to_string);
            let possible = error.get(ContextKind::ValidValue).map(|v| format!("it is one of {v}"));
            entry.wrong(reason.or(possible).unwrap_or_else(|| "it has no such value".to_owned()))
        })
    }
}

/// A key and its value, and where they stand.
struct Entry<'a> {
    key: &'a str,
    key_at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

/// What stands in a table, in the file's order.
fn entries<'a>(table: &'a DeTable<'a>) -> Vec<Entry<'a>> {
    let entry = |(key, value): (&'a Spanned<_>, _)| Entry {
        key: AsRef::<str>::as_ref(key.get_ref()),
        key_at: key.span().start,
        value,
    };
    let mut entries: Vec<_> = table.iter().map(entry).collect();
    entries.sort_by_key(|entry| entry.key_at);
    entries
}

impl<'a> Entry<'a> {
    fn wrong(&self, message: impl std::fmt::Display) -> Wrong {
        Wrong { at: self.value.span().start, message: format!("`{}`: {message}", self.key) }
    }

    fn misplaced(&self, place: &str) -> Wrong {
        Wrong { at: self.key_at, message: format!("`{}` {place}", self.key) }
    }

    fn unknown(&self, known: &[String]) -> Wrong {
        let nearness = |key: &String| strsim::jaro_winkler(self.key, key);
        let nearest = known.iter().max_by(|a, b| nearness(a).total_cmp(&nearness(b)));
        let nearest = nearest.map(|key| format!(": did you mean `{key}`?")).unwrap_or_default();
        Wrong { at: self.key_at, message: format!("there is no key `{}`{nearest}", self.key) }
    }

    /// The tables of an array of tables.
    fn tables(&self) -> Result<Vec<(usize, &'a DeTable<'a>)>, Wrong> {
        let wrong = || self.wrong("each database is a table of its own: [[db]]");
        let values = self.value.get_ref().as_array().ok_or_else(wrong)?;
        let table = |value: &'a Spanned<DeValue<'a>>| {
            let table = value.get_ref().as_table().ok_or_else(wrong)?;
            Ok((value.span().start, table))
        };
        values.iter().map(table).collect()
    }
}

/// The keys that set the fields of `S`.
fn keys<S: Args>() -> Vec<String> {
    let command = S::augment_args(Command::new("configuration"));
    command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
}

fn has<S: Args>(key: &str) -> bool {
    keys::<S>().iter().any(|known| known == key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(text: &str) -> Result<Config, Wrong> {
        let environment = |name: &str| match name {
            "BUCKET" => Some("/backup".into()),
            "EMPTY" => Some(OsString::new()),
            _ => None,
        };
        parse(Path::new("/srv/genesis-replicate.toml"), text, &environment)
    }

    #[test]
    fn what_is_said_of_a_database_wins_over_what_stands_at_the_top() {
        let config = read(
            "sync_interval = '2s'\nstate_dir = 'state'\nshutdown_timeout = '5s'\nset_wal = true
             [[db]]\npath = 'app.db'\nreplica = '${BUCKET}/app'\nset_wal = false
             [[db]]\npath = '/b.db'\nreplica = 'b'\nsync_interval = '3s'\nwal_limit = 0\naudit_interval = 0
             state_dir = '/var/state'",
        );
        let config = config.unwrap();
        let [a, b] = <[Database; 2]>::try_from(config.databases).unwrap();
        assert_eq!(
            (a.path.as_path(), b.path.as_path()),
            ("/srv/app.db".as_ref(), "/b.db".as_ref())
        );
        assert_eq!(a.replica, Place::Folder("/backup/app".into()));
        assert_eq!(b.replica, Place::Folder("/srv/b".into()));
        let of =
            |d: &Database| (d.settings.sync_interval(&d.replica).as_secs(), d.settings.set_wal());
        assert_eq!((of(&a), of(&b)), ((2, false), (3, true)));
        assert_eq!(b.settings.audit_interval(), Duration::ZERO);
        assert_eq!(a.settings.state_dir.unwrap(), Path::new("/srv/state"));
        assert_eq!(b.settings.state_dir.unwrap(), Path::new("/var/state"));
        assert_eq!((a.settings.wal_limit, b.settings.wal_limit.unwrap().as_u64()), (None, 0));
        assert_eq!(config.process.shutdown_timeout(), Duration::from_secs(5));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let (db, two) = ("[[db]]\npath = 'a'\nreplica = 'r'\n", "[[db]]\npath = 'b'\n");
        let bucket = "[[db]]\npath = 'a'\nreplica = 's3://bucket/a?region=x'\n";
        for (text, at, message) in [
            ("sync-interval = '1s'".to_owned(), 0, "did you mean `sync_interval`?"),
            (format!("{db}replika = 's'"), 32, "did you mean `replica`?"),
            ("path = 'x'".to_owned(), 0, "below [[db]]"),
            (format!("{db}shutdown_timeout = '1s'"), 32, "above [[db]]"),
            ("sync_interval = '9m'".to_owned(), 16, "`sync_interval`: more than 5 minutes"),
            ("snapshot_interval = 5".to_owned(), 20, "a number and a unit"),
            ("snapshot_interval = 0".to_owned(), 20, "after every commit"),
            ("snapshot_interval = '0s'".to_owned(), 20, "after every commit"),
            ("spool_limit = 0".to_owned(), 14, "nothing would be recorded"),
            ("wal_limit = 'much'".to_owned(), 12, "16MB"),
            ("wal_limit = 1.5".to_owned(), 12, "in quotes"),
            ("set_wal = 'perhaps'".to_owned(), 10, "one of true, false"),
            ("state_dir = ''".to_owned(), 12, "empty"),
            ("state_dir = '${EMPTY}'".to_owned(), 12, "it is empty"),
            ("[[db]]\npath = '${EMPTY}'".to_owned(), 14, "it is empty"),
            ("db = 5".to_owned(), 5, "[[db]]"),
            ("[db]\npath = 'a'".to_owned(), 0, "[[db]]"),
            ("[[db]]\npath = 'a'".to_owned(), 0, "no `replica`"),
            ("[[db]]\npath = 5".to_owned(), 14, "in quotes"),
            ("[[db]]\npath = '${NONE}'".to_owned(), 14, "NONE is not set"),
            (format!("{db}{two}replica = 'ftp://x'"), 60, "no other URL is supported"),
            (format!("{db}{two}replica = 'r'"), 32, "this replica already"),
            (
                format!("{bucket}{two}replica = 's3://bucket/a?region=y'"),
                53,
                "this replica already",
            ),
            (format!("{db}[[db]]\npath = 'a'\nreplica = 's'"), 32, "this path already"),
            (format!("state_dir = 's'\n{db}{two}replica = 's'"), 48, "this state_dir already"),
            ("a b".to_owned(), 2, "expected `=`"),
        ] {
            let wrong = read(&text).expect_err(&text);
            assert!(wrong.message.contains(message), "{text}: {}", wrong.message);
            assert_eq!(wrong.at, at, "{text}: {}", wrong.message);
        }
    }

    /// So that nothing can be set that the other does not know.
    #[test]
    fn every_key_is_a_flag() {
        let command = <crate::cli::args::Args as clap::CommandFactory>::command();
        let replicate = command.find_subcommand("replicate").unwrap();
        for key in [keys::<Settings>(), keys::<ProcessSettings>()].concat() {
            let flag = key.replace('_', "-");
            assert!(replicate.get_arguments().any(|a| a.get_long() == Some(&flag)), "{key}");
        }
    }
}
