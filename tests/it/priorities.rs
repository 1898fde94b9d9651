//! What reads the whole database, for a snapshot or to prove it, runs when nothing else wants to.

use crate::support::{Process, Sandbox, wait_until};

/// The kernel's number for `SCHED_IDLE`.
const IDLE: u32 = 5;

/// The scheduling policies of the threads whose name begins like this.
fn policies(process: &Process, name: &str) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let policy = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread may end while it is looked at.
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        let (before, fields) = stat.rsplit_once(") ")?;
        let is_meant = before.split_once('(')?.1.starts_with(name);
        // It is field 41; what is left begins with field 3.
        is_meant.then(|| fields.split(' ').nth(41 - 3).unwrap().parse().unwrap())
    };
    tasks.filter_map(policy).collect()
}

#[test]
fn of_what_reads_the_whole_database() {
    let sandbox = Sandbox::large(12_000);
    let more = ["--audit-interval", "1s"];
    let mut replicator = sandbox.start(&mut sandbox.replicate_command(&more));
    for name in ["capture-", "audit"] {
        wait_until(&format!("threads of {name} that are idle"), || {
            let found = policies(&replicator, name);
            (!found.is_empty() && found.iter().all(|policy| *policy == IDLE)).then_some(())
        });
    }
    replicator.wait_until_followed();
    let followers = policies(&replicator, "follow");
    assert!(!followers.is_empty() && !followers.contains(&IDLE), "{followers:?}");
    replicator.stop();
}
