//! Applications that commit to a database, each by its own SQLite.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use genesis_replicate::clock;
use rusqlite::Connection;

use super::wait::patience;

/// Whose SQLite an application uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sqlite {
    /// The one that the program under test bundles, in the test's process.
    Bundled,
    /// The system's `sqlite3` shell.
    Shell,
    /// Python's `sqlite3` module.
    Python,
}

/// An application with an open connection.
#[derive(Debug)]
pub enum Application {
    Inside(Connection),
    Outside(Outside),
}

/// Runs each line of input, a JSON string, as SQL.
const PYTHON: &str = "
import json, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
for line in sys.stdin:
    connection.executescript(json.loads(line))
    print('done', flush=True)
connection.close()
";

impl Application {
    /// Opens a database, which is created if need be.
    pub fn open(sqlite: Sqlite, path: &Path) -> Self {
        match sqlite {
            Sqlite::Bundled => {
                let connection = Connection::open(path).unwrap();
                connection.busy_timeout(Duration::from_secs(5)).unwrap();
                Self::Inside(connection)
            }
            Sqlite::Shell => {
                let mut command = Command::new("sqlite3");
                command.args(["-batch", "-bail", "-cmd", ".timeout 5000"]).arg(path);
                Self::Outside(Outside::start(&mut command, sqlite))
            }
            Sqlite::Python => {
                let mut command = Command::new("python3");
                command.args(["-c", PYTHON]).arg(path);
                Self::Outside(Outside::start(&mut command, sqlite))
            }
        }
    }

    /// The connection of one in the test's process.
    #[track_caller]
    pub fn connection(&self) -> &Connection {
        let Self::Inside(connection) = self else { panic!("no connection here") };
        connection
    }

    /// Runs SQL; returns when it is done.
    #[track_caller]
    pub fn run(&mut self, sql: &str) {
        match self {
            Self::Inside(connection) => connection.execute_batch(sql).unwrap(),
            Self::Outside(process) => process.run(sql),
        }
    }

    /// Closes the connection as an application does that ends.
    pub fn close(self) {
        match self {
            Self::Inside(connection) => connection.close().map_err(|(_, error)| error).unwrap(),
            Self::Outside(mut process) => {
                process.input.take();
                assert!(process.child.wait().unwrap().success());
            }
        }
    }

    /// Ends as an application does that is killed.
    pub fn kill(self) {
        match self {
            Self::Inside(_) => panic!("the test's own process cannot be killed"),
            Self::Outside(process) => drop(process),
        }
    }
}

/// An application in a process of its own, which is killed when this is dropped.
#[derive(Debug)]
pub struct Outside {
    child: Child,
    input: Option<ChildStdin>,
    /// The lines that it writes.
    output: Receiver<String>,
    sqlite: Sqlite,
}

impl Outside {
    fn start(command: &mut Command, sqlite: Sqlite) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, output) = channel();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It ends with the application.
        std::thread::spawn(move || {
            lines.map_while(Result::ok).try_for_each(|line| sender.send(line)).ok()
        });
        let input = child.stdin.take();
        Self { child, input, output, sqlite }
    }

    #[track_caller]
    fn run(&mut self, sql: &str) {
        let input = self.input.as_mut().unwrap();
        match self.sqlite {
            Sqlite::Python => writeln!(input, "{}", serde_json::to_string(sql).unwrap()),
            _ => write!(input, "{sql}\n.print done\n"),
        }
        .unwrap();
        let deadline = clock::monotonic() + patience();
        loop {
            let left = deadline.saturating_sub(clock::monotonic());
            match self.output.recv_timeout(left) {
                Ok(line) if line == "done" => return,
                Ok(_other) => {}
                Err(RecvTimeoutError::Disconnected) => panic!("the application died of: {sql}"),
                Err(RecvTimeoutError::Timeout) => panic!("the application is stuck in: {sql}"),
            }
        }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
