//! What a process that is killed has half written, and who removes it.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::support::{Fuse, Sandbox, can_trace, failing_at, files_below};

fn temporaries(folder: &Path) -> Vec<String> {
    let mut found = files_below(folder);
    found.retain(|name| name.contains(".tmp-"));
    found
}

/// Kills a command when it is about to give a file its name.
fn killed_before_renaming(sandbox: &Sandbox, command: &Command, call: &str) {
    let trace = sandbox.path("logs/killed");
    let mut command = failing_at(command, call, "signal=KILL:when=1", &[], &trace);
    sandbox.start(&mut command).wait().expect_code(137);
}

/// The whole database, under another name.
#[test]
fn a_restore_that_is_killed() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    let out = sandbox.path("out");
    let (replica, output) = (sandbox.replica.to_str().unwrap(), sandbox.path("out/new.db"));
    let arguments = ["restore", replica, "--output", output.to_str().unwrap()];
    let command = crate::support::Process::command(arguments);
    killed_before_renaming(&sandbox, &command, "renameat2");
    assert_eq!(temporaries(&out).len(), 1);
    assert!(!output.exists());
    sandbox.run(&arguments).expect_code(0);
    assert_eq!(temporaries(&out), [""; 0]);
}

/// Another host may be writing what lies in a folder that is shared, with a lock that is not seen here.
#[test]
fn a_restore_into_a_shared_folder() {
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    let (folder, out) = (sandbox.path("shared"), sandbox.path("mounted"));
    std::fs::create_dir(&folder).unwrap();
    let Some(_mounted) = Fuse::mount(&folder, &out) else { return };
    File::create(folder.join(".tmp-fedcba9876543210")).unwrap();
    let old = folder.join(".tmp-0123456789abcdef");
    File::create(&old).unwrap();
    assert!(Command::new("touch").args(["-d", "2 days ago"]).arg(&old).status().unwrap().success());
    let output = out.join("new.db");
    let replica = sandbox.replica.to_str().unwrap();
    let arguments = ["restore", replica, "--output", output.to_str().unwrap()];
    sandbox.run(&arguments).expect_code(0);
    assert_eq!(temporaries(&folder), [".tmp-fedcba9876543210"]);
}

#[test]
fn a_replicator_that_is_killed() {
    if !can_trace() {
        return;
    }
    let sandbox = Sandbox::with_database();
    killed_before_renaming(&sandbox, &sandbox.replicate_command(&[]), "rename");
    assert_eq!(temporaries(&sandbox.state()).len(), 1);
    sandbox.replicate().stop();
    assert_eq!(temporaries(&sandbox.state()), [""; 0]);

    // In the replica another may be at it, as long as it is not old.
    let epochs = sandbox.replica.join("epochs");
    let old = epochs.join(".tmp-0123456789abcdef");
    File::create(&old).unwrap();
    assert!(Command::new("touch").args(["-d", "2 days ago"]).arg(&old).status().unwrap().success());
    File::create(epochs.join(".tmp-fedcba9876543210")).unwrap();
    sandbox.replicate().stop();
    assert_eq!(temporaries(&sandbox.replica), ["epochs/.tmp-fedcba9876543210"]);
}
