//! An application whose database is, after its n-th transaction, a pure function of n.

use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Command;

use rusqlite::{Connection, OpenFlags};

use crate::support::{Process, Sandbox, Sqlite, contents, wait_until};

const SCHEMA: &str = include_str!("schema.sql");
const STEP: &str = include_str!("step.sql");
const WRITER: &str = include_str!("writer.py");

/// The application, running or not, and its ledger.
#[derive(Debug)]
pub struct Writer<'a> {
    sandbox: &'a Sandbox,
    ledger: PathBuf,
}

/// The application while it runs.
#[derive(Debug)]
pub struct Running(Process);

impl<'a> Writer<'a> {
    /// Creates its database.
    pub fn create(sandbox: &'a Sandbox) -> Self {
        let mut shell = sandbox.application(Sqlite::Shell);
        shell.run("PRAGMA page_size=1024; PRAGMA journal_mode=WAL;");
        shell.run(&format!("BEGIN;\n{SCHEMA}\nCOMMIT;"));
        shell.close();
        let ledger = sandbox.path("ledger");
        std::fs::File::create(&ledger).unwrap();
        Self { sandbox, ledger }
    }

    /// Starts it, or starts it again.
    pub fn start(&self, seed: u64) -> Running {
        let mut command = Command::new("python3");
        command.args(["-c", WRITER]).arg(&self.sandbox.db).arg(&self.ledger);
        Running(self.sandbox.start(command.args([STEP, &seed.to_string()])))
    }

    /// The last transaction whose commit was acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let mut ledger = std::fs::File::open(&self.ledger).unwrap();
        let entries = ledger.metadata().unwrap().len() / 8;
        if entries == 0 {
            return 0;
        }
        let mut last = [0; 8];
        ledger.seek(SeekFrom::Start((entries - 1) * 8)).unwrap();
        ledger.read_exact(&mut last).unwrap();
        u64::from_le_bytes(last)
    }

    /// Waits until a transaction is acknowledged.
    pub fn wait_for(&self, n: u64) {
        let what = format!("transaction {n} of the writer");
        wait_until(&what, || (self.acknowledged() >= n).then_some(()));
    }

    /// The last transaction in a restored database.
    pub fn step_of(restored: &Path) -> u64 {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let uri = format!("file:{}?immutable=1", restored.display());
        let connection = Connection::open_with_flags(uri, flags).unwrap();
        connection
            .query_row("SELECT n FROM progress", [], |row| row.get::<_, i64>(0))
            .unwrap()
            .cast_unsigned()
    }
}

impl Running {
    /// Lets it finish its transaction and close the database.
    pub fn stop(self) {
        self.0.stop();
    }

    /// Kills it wherever it is.
    pub fn kill(self) {
        self.0.kill();
    }
}

/// What the database is after each transaction, told by running the same ones on an empty one.
#[derive(Debug)]
pub struct Model {
    connection: Connection,
    n: u64,
}

impl Model {
    /// The state before the first transaction.
    pub fn new() -> Self {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(SCHEMA).unwrap();
        Self { connection, n: 0 }
    }

    /// The contents after transaction `n`. Cheap where `n` only grows.
    pub fn contents(&mut self, n: u64) -> String {
        if n < self.n {
            *self = Self::new();
        }
        self.connection.execute_batch("BEGIN").unwrap();
        for n in self.n + 1..=n {
            for step in STEP.split(';') {
                let mut statement = self.connection.prepare_cached(step).unwrap();
                statement.execute(&[(":n", &n.cast_signed())]).unwrap();
            }
        }
        self.connection.execute_batch("COMMIT").unwrap();
        self.n = n;
        contents(&self.connection)
    }
}
