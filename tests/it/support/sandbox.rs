//! A folder with a database, its replica and what is restored from it.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::statvfs;
use serde_json::Value;
use tempfile::TempDir;

use super::{Application, Ended, Process, Server, Sqlite, same_bytes, wait_until};

/// What must be free of a file system in memory before it is used.
const ENOUGH_MEMORY: u64 = 4 << 30;

/// Patient: whoever waits for a lock must get it.
const LOAD: &str = "
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
while True:
    connection.execute('INSERT INTO t VALUES (?)', ('x' * 200,))
    time.sleep(float(sys.argv[2]))
";

/// A place to work in, which goes with the test.
#[derive(Debug)]
pub struct Sandbox {
    folder: TempDir,
    outputs: AtomicU32,
    /// The database.
    pub db: PathBuf,
    /// Where its replica goes: a folder, or an address.
    pub replica: PathBuf,
}

impl Sandbox {
    /// An empty place: neither database nor replica is there yet.
    pub fn new() -> Self {
        Self::named("app.db")
    }

    /// A place for a database of this name.
    pub fn named(name: &str) -> Self {
        Self::within(&std::env::temp_dir(), name)
    }

    /// An empty place in memory, where there is such a file system with room: no disk is waited for.
    pub fn in_memory() -> Self {
        let memory = Path::new("/dev/shm");
        let free = statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
        if free > ENOUGH_MEMORY { Self::within(memory, "app.db") } else { Self::new() }
    }

    fn within(folder: &Path, name: &str) -> Self {
        let folder = tempfile::tempdir_in(folder).unwrap();
        for inner in ["app", "out", "logs"] {
            std::fs::create_dir(folder.path().join(inner)).unwrap();
        }
        let (db, replica) = (folder.path().join("app").join(name), folder.path().join("replica"));
        Self { folder, outputs: AtomicU32::new(0), db, replica }
    }

    /// A place with a database in WAL mode, made by the system's shell: a table `t(a)` of one row.
    pub fn with_database() -> Self {
        let sandbox = Self::new();
        let mut shell = sandbox.application(Sqlite::Shell);
        shell.run("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES('first');");
        shell.close();
        sandbox
    }

    /// A place with a database in WAL mode: a table `big(id, n, photo)` of so many rows, a page each,
    /// that do not compress.
    pub fn large(rows: u32) -> Self {
        let sandbox = Self::new();
        let mut shell = sandbox.application(Sqlite::Shell);
        shell.run(&format!(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;
             CREATE TABLE big(id INTEGER PRIMARY KEY, n INT, photo BLOB);
             WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < {rows})
             INSERT INTO big SELECT n, 0, randomblob(3500) FROM c;"
        ));
        shell.close();
        sandbox
    }

    /// The same place, with its replica in an object store.
    pub fn with_replica(mut self, address: &str) -> Self {
        self.replica = address.into();
        self
    }

    fn is_in_a_bucket(&self) -> bool {
        self.replica.starts_with("s3:")
    }

    /// A path in this place.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of local state.
    pub fn state(&self) -> PathBuf {
        let name = self.db.file_name().unwrap().to_str().unwrap();
        self.db.with_file_name(format!(".{name}-genesis"))
    }

    /// Opens the database by an SQLite.
    pub fn application(&self, sqlite: Sqlite) -> Application {
        Application::open(sqlite, &self.db)
    }

    /// An application that commits row after row to `t`, with a pause after each, until it is killed.
    pub fn load(&self, pause: Duration) -> Process {
        let mut command = Command::new("python3");
        let pause = pause.as_secs_f64().to_string();
        self.start(command.args(["-c", LOAD]).arg(&self.db).arg(pause))
    }

    /// Starts any command here.
    pub fn start(&self, command: &mut Command) -> Process {
        if self.is_in_a_bucket() {
            command.envs(Server::credentials());
        }
        Process::start(command, &self.path("logs"))
    }

    /// Runs the program under test to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(&mut Process::command(arguments)).wait()
    }

    /// `replicate`, with what comes behind.
    pub fn replicate_command(&self, more: &[&str]) -> Command {
        let mut command = Process::command(["replicate", "--db"]);
        command.arg(&self.db).arg("--replica").arg(&self.replica).args(more);
        command
    }

    /// `exec`, with the application behind.
    pub fn exec_command(&self, more: &[&str], application: &[&str]) -> Command {
        let mut command = Process::command(["exec", "--db"]);
        command.arg(&self.db).arg("--replica").arg(&self.replica).args(more);
        command.arg("--").args(application);
        command
    }

    /// Starts to replicate; returns when the database is followed.
    pub fn replicate(&self) -> Process {
        let mut process = self.start(&mut self.replicate_command(&[]));
        process.wait_until_followed();
        process
    }

    /// Runs `replicate` where it must fail.
    pub fn replicate_fails(&self, more: &[&str]) -> Ended {
        self.start(&mut self.replicate_command(more)).wait()
    }

    /// What `list --json` says.
    pub fn list(&self) -> Value {
        let listed = self.run(&["list", self.replica.to_str().unwrap(), "--json"]);
        serde_json::from_str(&listed.expect_code(0).stdout).unwrap()
    }

    /// The generations, oldest first.
    pub fn generations(&self) -> Vec<String> {
        let listing = self.list();
        let lines = listing["generations"].as_array().unwrap();
        lines.iter().map(|line| line["generation"].as_str().unwrap().to_owned()).collect()
    }

    /// The last transaction that can be restored.
    pub fn last_txid(&self) -> Option<u64> {
        if !self.is_in_a_bucket() && !self.replica.join("genesis.json").exists() {
            return None;
        }
        let listed = self.run(&["list", self.replica.to_str().unwrap(), "--json"]);
        if self.is_in_a_bucket() && listed.code == 6 {
            return None;
        }
        let listing: Value = serde_json::from_str(&listed.expect_code(0).stdout).unwrap();
        let windows = listing["generations"].as_array()?.last()?["windows"].as_array()?.clone();
        windows.last()?["last_txid"].as_u64()
    }

    /// Waits until a transaction can be restored.
    pub fn wait_for_txid(&self, txid: u64) {
        wait_until(&format!("transaction {txid} in the replica"), || {
            self.last_txid().filter(|last| *last >= txid)
        });
    }

    /// Waits until no sealed segment waits for upload.
    pub fn wait_until_shipped(&self) {
        let spool = self.state().join("spool");
        wait_until("an empty spool", || {
            let waiting =
                files_below(&spool).into_iter().filter(|name| !name.starts_with("shipped/"));
            (waiting.count() == 0).then_some(())
        });
    }

    /// Restores, wherever that leads. The output's folder is new and empty before.
    pub fn try_restore(&self, more: &[&str]) -> (PathBuf, Ended) {
        let number = self.outputs.fetch_add(1, Ordering::Relaxed);
        let folder = self.path("out").join(number.to_string());
        std::fs::create_dir(&folder).unwrap();
        let output = folder.join("restored.db");
        let replica = self.replica.to_str().unwrap();
        let mut arguments = vec!["restore", replica, "--output", output.to_str().unwrap()];
        arguments.extend(more);
        let ended = self.run(&arguments);
        (output, ended)
    }

    /// Restores: the database, and what was said.
    #[track_caller]
    pub fn restore(&self, more: &[&str]) -> (PathBuf, String) {
        let (output, ended) = self.try_restore(more);
        let ended = ended.expect_code(0);
        assert_eq!(mode(&output), 0o600);
        let mut made = files_below(output.parent().unwrap());
        made.retain(|name| !name.starts_with(".restored.db-genesis/"));
        assert_eq!(made, ["restored.db"]);
        (output, ended.stdout)
    }

    /// The replica's latest state is the database, byte for byte.
    #[track_caller]
    pub fn assert_complete(&self) {
        self.assert_complete_after(self.application(Sqlite::Shell));
    }

    /// The same once an application has emptied the WAL and ended.
    #[track_caller]
    pub fn assert_complete_after(&self, mut application: Application) {
        application.run("PRAGMA wal_checkpoint(TRUNCATE);");
        application.close();
        assert!(same_bytes(&self.restore(&[]).0, &self.db));
    }

    /// Restores where it must fail: nothing is left then.
    #[track_caller]
    pub fn restore_fails(&self, more: &[&str]) -> Ended {
        let (output, ended) = self.try_restore(more);
        assert_ne!(ended.code, 0, "{}", ended.stdout);
        assert_eq!(files_below(output.parent().unwrap()), [""; 0]);
        ended
    }

    /// The names of the replica's objects but the writers' claims, in order.
    pub fn objects(&self) -> Vec<String> {
        let mut names = files_below(&self.replica);
        names.retain(|name| !name.starts_with("epochs/"));
        names
    }

    /// The paths of the objects whose names end like this, in order.
    pub fn objects_ending(&self, ending: &str) -> Vec<PathBuf> {
        let names = self.objects().into_iter().filter(|name| name.ends_with(ending));
        names.map(|name| self.replica.join(name)).collect()
    }
}

/// Writes a file, which is made or replaced.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    File::create(path).unwrap().write_all(bytes.as_ref()).unwrap();
}

/// Renames what is no file of a running database; what was in that place is gone.
#[allow(clippy::disallowed_methods, reason = "it needs to survive no power failure")]
pub fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

/// The permissions of a file or folder.
pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// The files below a folder, in order; none below one that is not there.
pub fn files_below(folder: &Path) -> Vec<String> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                found.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = Vec::new();
    walk(folder, folder, &mut found);
    found.sort();
    found
}
