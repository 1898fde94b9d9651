//! A restore over a very long history of tiny transactions: its memory is bounded.
//!
//! `GENESIS_TRANSACTIONS` sets their number. 10 million take some minutes, and 2 GB of disk.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use genesis_replicate::clock;
use genesis_replicate::replica::Replica;
use genesis_replicate::store::FileStore;
use genesis_wal::name::ObjectName;

use crate::support::{Changing, Process, Repeatable, Sandbox, setting, write};

const TRANSACTIONS: u64 = 20_000;

/// Merging leaves no more segments.
const SEGMENTS: u64 = 200;

/// The most memory that a restore may take.
const MOST_BYTES: u64 = 300 << 20;

fn store(replica: &Path, name: ObjectName, bytes: &[u8]) {
    let path = replica.join(name.to_string());
    std::fs::DirBuilder::new().recursive(true).create(path.parent().unwrap()).unwrap();
    write(&path, bytes);
}

#[tokio::test]
async fn the_memory_of_a_restore_is_bounded() {
    let run = Repeatable::new();
    let (sandbox, last) =
        (Sandbox::new(), setting("GENESIS_TRANSACTIONS").unwrap_or(TRANSACTIONS) + 1);
    Replica::open_or_create(Arc::new(FileStore::new(sandbox.replica.clone()))).await.unwrap();
    let mut database = Changing::new(run.random());
    for (name, bytes) in database.snapshot() {
        store(&sandbox.replica, name, &bytes);
    }
    let step = (last / SEGMENTS).max(1);
    for first in (2..=last).step_by(usize::try_from(step).unwrap()) {
        let (name, bytes) = database.segment(2, first, (first + step - 1).min(last));
        store(&sandbox.replica, name.into(), &bytes);
    }

    let output = sandbox.path("out/restored.db");
    let arguments = ["restore", sandbox.replica.to_str().unwrap(), "--output"];
    let started = clock::monotonic();
    let mut restore =
        sandbox.start(Process::command(arguments).arg(&output).args(["--parallelism", "4"]));
    let mut most = 0;
    let ended = loop {
        most = most.max(restore.peak().unwrap_or_default());
        if let Some(ended) = restore.ended() {
            break ended.expect_code(0);
        }
        clock::rest(Duration::from_millis(2));
    };
    let (took, mib) = (clock::monotonic().saturating_sub(started), most >> 20);
    eprintln!("restored over {} transactions in {took:?}, with {mib} MiB of memory", last - 1);
    assert!(ended.stdout.contains(&format!("as of transaction {last},")), "{}", ended.stdout);
    assert!(std::fs::read(&output).unwrap() == database.bytes);
    assert!(most > 0 && most < MOST_BYTES, "{mib} MiB");
}
