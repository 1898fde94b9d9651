//! What a database costs to which nothing is written.

use std::path::Path;
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{Sandbox, Sqlite, can_trace, traced, wait_until};

/// Everything that a replica could be asked by: calls with a path, and those on what they opened.
const CALLS: &str = "%file,getdents64,read,pread64,write,pwrite64,fsync,fdatasync,ftruncate,fstat";

/// How long nothing is asked for at least. The timers of an idle follower are shorter.
const IDLE: Duration = Duration::from_secs(4);

/// The calls that name something in a folder.
fn calls_in(folder: &Path, trace: &Path) -> Vec<String> {
    let trace = std::fs::read_to_string(trace).unwrap_or_default();
    let folder = folder.to_str().unwrap();
    trace.lines().filter(|line| line.contains(folder)).map(str::to_owned).collect()
}

#[test]
fn a_database_without_commits_makes_no_requests() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    let trace = sandbox.path("logs/calls");
    let command = sandbox.replicate_command(&["--log-level", "debug", "--audit-interval", "1s"]);
    let mut replicator = sandbox.start(&mut traced(&command, CALLS, &trace));
    replicator.wait_until_followed();
    replicator.wait_for_log("verified: a second look");
    replicator.wait_for_log("parked=true");
    let parked = replicator.logged("parked=true");
    let mut application = sandbox.application(Sqlite::Shell);
    application.run("INSERT INTO t VALUES('second');");
    replicator.wait_for_log("shipped first=2");
    replicator.wait_for_another("parked=true", parked);
    let audited = replicator.logged("every page was read again");
    let before = calls_in(&sandbox.replica, &trace);
    assert!(!before.is_empty(), "nothing was traced");

    clock::rest(IDLE);
    replicator.wait_for_another("every page was read again", audited);
    let asked = calls_in(&sandbox.replica, &trace).split_off(before.len());
    assert!(asked.is_empty(), "{asked:#?}");

    // It was not asleep.
    application.run("INSERT INTO t VALUES('third');");
    wait_until("a request", || {
        (calls_in(&sandbox.replica, &trace).len() > before.len()).then_some(())
    });
    replicator.stop();
}
