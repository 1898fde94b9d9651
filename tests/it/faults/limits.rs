//! What the system really refuses: limits of the process, permissions, and a file system that has gone
//! read-only.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::process::{Pid, Resource, Rlimit, geteuid, getrlimit, prlimit};

use crate::support::{Ended, Process, Sandbox, Sqlite, contents_of, files_below, wait_until};

/// Nobody's user and group.
const NOBODY: u32 = 65_534;

/// Sets how much of something a running process may have.
fn limit(process: &Process, resource: Resource, most: u64) {
    let pid = Pid::from_raw(process.id().cast_signed());
    let maximum = getrlimit(resource).maximum;
    prlimit(pid, resource, Rlimit { current: Some(most), maximum }).unwrap();
}

/// Restores when all of `rows` are in the replica.
fn wait_for_rows(sandbox: &Sandbox, rows: &[&str]) {
    wait_until(&format!("{rows:?} in the replica"), || {
        let (restored, ended) = sandbox.try_restore(&[]);
        let contents = (ended.code == 0).then(|| contents_of(&restored))?;
        rows.iter().all(|row| contents.contains(row)).then_some(())
    });
}

#[test]
fn of_the_number_of_descriptors() {
    let sandbox = Sandbox::with_database();
    let mut replicator = sandbox.replicate();
    let mut application = sandbox.application(Sqlite::Shell);
    sandbox.wait_for_txid(1);
    limit(&replicator, Resource::Nofile, 3);
    application.run("INSERT INTO t VALUES('second'); INSERT INTO t VALUES('third');");
    replicator.wait_for_log("Too many open files");
    application.run("INSERT INTO t VALUES('fourth');");
    limit(&replicator, Resource::Nofile, 1024);
    wait_for_rows(&sandbox, &["'second'", "'third'", "'fourth'"]);
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 1);
}

/// A file that would be too long is an error, and not the end of the process by a signal.
#[test]
fn of_the_length_of_files() {
    let sandbox = Sandbox::with_database();
    let mut replicator = sandbox.replicate();
    let mut application = sandbox.application(Sqlite::Shell);
    sandbox.wait_for_txid(1);
    limit(&replicator, Resource::Fsize, 64 << 10);
    application.run("INSERT INTO t VALUES('second'); INSERT INTO t VALUES(randomblob(300000));");
    replicator.wait_for_log("NOT PROTECTED");
    application.run("INSERT INTO t VALUES('third');");
    assert!(replicator.ended().is_none());
    limit(&replicator, Resource::Fsize, 1 << 30);
    wait_for_rows(&sandbox, &["'second'", "'third'"]);
    let ended = replicator.stop();
    ended.expect_words(&["File too large"]);
    assert_eq!(sandbox.generations().len(), 1);
}

/// Whether this may be another user. Says so where it may not: such a test proves nothing then.
fn can_be_nobody() -> bool {
    let program = Process::command(["--version"]);
    let can = geteuid().is_root() && as_nobody(&program).output().is_ok_and(|o| o.status.success());
    if !can {
        eprintln!("skipped: only root can be another user, who must reach the program");
    }
    can
}

/// The same command as nobody's.
fn as_nobody(command: &Command) -> Command {
    let mut other = Command::new("setpriv");
    let id = NOBODY.to_string();
    other.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]);
    other.arg(command.get_program()).args(command.get_args());
    other
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Follows somebody's database as nobody: that ends in words, and leaves the database as it is.
#[track_caller]
fn refused(sandbox: &Sandbox, codes: &[i32], word: &str) -> Ended {
    let folder = sandbox.path("app");
    let before = files_below(&folder);
    let ended = sandbox.start(&mut as_nobody(&sandbox.replicate_command(&[]))).wait();
    assert!(codes.contains(&ended.code), "{ended:?}");
    assert!(ended.stderr.contains("app.db"), "{ended:?}");
    assert_eq!(files_below(&folder), before);
    ended.expect_words(&[word])
}

#[test]
fn of_another_users_files() {
    if !can_be_nobody() {
        return;
    }
    let sandbox = Sandbox::with_database();
    std::fs::create_dir(&sandbox.replica).unwrap();
    chown(&sandbox.replica, Some(NOBODY), Some(NOBODY)).unwrap();
    set_mode(sandbox.db.parent().unwrap().parent().unwrap(), 0o755);
    set_mode(&sandbox.db, 0o600);
    refused(&sandbox, &[2, 3], "ermission");
    // It may be read, and nothing may be made beside it.
    set_mode(&sandbox.db, 0o644);
    refused(&sandbox, &[2, 3], "ermission");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    application.close();
    sandbox.replicate().stop();
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'second'"));
}

/// As root beside somebody's application: what is made beside the database stays that application's.
#[test]
fn of_somebody_elses_application() {
    const INSERT: &str = "PRAGMA busy_timeout=5000; INSERT INTO t VALUES('of nobody');";
    if !can_be_nobody() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let folder = sandbox.path("app");
    set_mode(folder.parent().unwrap(), 0o755);
    for path in [&folder, &sandbox.db] {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    let mut shell = Command::new("sqlite3");
    let inserted = as_nobody(shell.arg("-bail").arg(&sandbox.db).arg(INSERT)).output().unwrap();
    assert!(inserted.status.success(), "{}", String::from_utf8_lossy(&inserted.stderr));
    replicator.stop();
    assert!(contents_of(&sandbox.restore(&[]).0).contains("'of nobody'"));
}

/// A file system of its own in a file, mounted for one process alone.
struct Disk<'a> {
    sandbox: &'a Sandbox,
}

impl<'a> Disk<'a> {
    /// Makes it; `None`, which is told, where that is not permitted.
    fn make(sandbox: &'a Sandbox) -> Option<Self> {
        let disk = Self { sandbox };
        std::fs::create_dir(disk.folder()).unwrap();
        let image = std::fs::File::create(disk.image()).unwrap();
        image.set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(disk.image()).output();
        let is_made = made.is_ok_and(|made| made.status.success())
            && disk.beside(&Command::new("true")).output().is_ok_and(|o| o.status.success());
        if !is_made {
            eprintln!("skipped: no file system can be made and mounted here");
        }
        is_made.then_some(disk)
    }

    fn folder(&self) -> std::path::PathBuf {
        self.sandbox.path("disk")
    }

    fn image(&self) -> std::path::PathBuf {
        self.sandbox.path("image")
    }

    /// The same command, which alone sees what is mounted. The process keeps its id.
    fn beside(&self, command: &Command) -> Command {
        let mut mounted = Command::new("unshare");
        mounted.args(["--mount", "--propagation", "private", "sh", "-c"]);
        mounted.arg("mount -o loop,errors=remount-ro \"$1\" \"$2\" && shift 2 && exec \"$@\"");
        mounted.arg("sh").args([self.image(), self.folder()]);
        mounted.arg(command.get_program()).args(command.get_args());
        mounted
    }

    /// Makes it read-only, as the kernel does after an error of the disk.
    fn fail(&self, process: &Process) {
        let mut enter = Command::new("nsenter");
        enter.args(["--mount", "--target", &process.id().to_string(), "mount", "-o"]);
        let failed = enter.arg("remount,abort").arg(self.folder()).output().unwrap();
        assert!(failed.status.success(), "{}", String::from_utf8_lossy(&failed.stderr));
    }
}

/// The local state lies on a disk that fails, from which it is read-only; the next start has it back.
#[test]
fn of_a_file_system_that_has_gone_read_only() {
    let sandbox = Sandbox::with_database();
    let Some(disk) = Disk::make(&sandbox) else { return };
    let state = disk.folder().join("state");
    let command = sandbox.replicate_command(&["--state-dir", state.to_str().unwrap()]);
    let mut replicator = sandbox.start(&mut disk.beside(&command));
    replicator.wait_until_followed();
    sandbox.wait_for_txid(1);
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    sandbox.wait_for_txid(2);
    disk.fail(&replicator);
    application.run("INSERT INTO t VALUES('third');");
    replicator.wait_for_log("NOT PROTECTED");
    application.run("INSERT INTO t VALUES('fourth'); PRAGMA wal_checkpoint(PASSIVE);");
    replicator.kill();
    assert_eq!(sandbox.last_txid(), Some(2));

    let mut replicator = sandbox.start(&mut disk.beside(&command));
    replicator.wait_until_followed();
    wait_for_rows(&sandbox, &["'second'", "'third'", "'fourth'"]);
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 1);
}
