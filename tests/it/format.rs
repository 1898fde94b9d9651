//! `docs/format.md`, by a reader that was written from it alone: it restores the same bytes.

use std::path::Path;
use std::process::Command;

use crate::support::{Ended, Sandbox, Sqlite, same_bytes};

fn read_by_itself(sandbox: &Sandbox, output: &Path, txid: u64) -> Ended {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/read-replica.py");
    let mut command = Command::new("python3");
    command.arg(reader).arg(&sandbox.replica).arg(output).arg(txid.to_string());
    sandbox.start(&mut command).wait()
}

/// Transactions that take every turn that the format has: deltas, growth, a shrink, a rebase, several
/// writers and snapshots. How many there are.
fn history(sandbox: &Sandbox, page_size: u32) -> u64 {
    let mut application = sandbox.application(Sqlite::Bundled);
    application.run(&format!("PRAGMA page_size={page_size}; PRAGMA journal_mode=WAL;"));
    application.run("CREATE TABLE t(a PRIMARY KEY, b);");
    let mut replicator = sandbox.replicate();
    for turn in 1..=4_u32 {
        for n in 0..4 {
            application.run(&format!(
                "INSERT INTO t VALUES({turn}{n}, randomblob({page_size} * 2));
                 UPDATE t SET b = 'short {turn}' WHERE a % 3 = {n};"
            ));
        }
        application.run("DELETE FROM t WHERE a % 4 = 0; VACUUM;");
        replicator.stop();
        if turn == 2 {
            // The WAL goes, and with it what was committed meanwhile.
            application.run("INSERT INTO t VALUES('unseen', 1); PRAGMA wal_checkpoint(TRUNCATE);");
            application.close();
            application = sandbox.application(Sqlite::Bundled);
            application.run("INSERT INTO t VALUES('after', 1);");
        }
        let mut command = sandbox.replicate_command(&["--snapshot-interval", "100ms"]);
        replicator = sandbox.start(&mut command);
        replicator.wait_until_followed();
    }
    replicator.stop();
    sandbox.last_txid().unwrap()
}

#[test]
fn a_reader_written_from_the_description_restores_the_same_bytes() {
    for page_size in [512, 4096, 65536] {
        let sandbox = Sandbox::new();
        let last = history(&sandbox, page_size);
        assert!(last > 30, "{last}");
        for txid in (1..last).step_by(7).chain([last]) {
            let (restored, _) = sandbox.restore(&["--txid", &txid.to_string()]);
            let output = sandbox.path(&format!("out/by-itself-{txid}"));
            read_by_itself(&sandbox, &output, txid).expect_code(0);
            assert!(same_bytes(&restored, &output), "transaction {txid}, {page_size} bytes a page");
        }
    }
}
