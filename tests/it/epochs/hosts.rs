//! Two hosts and one replica. A host is known by its local state: here each has its own folder.

use std::process::Command;

use rustix::process::Signal;

use crate::support::{Process, Sandbox, Sqlite, contents_of, files_below, same_bytes, wait_until};

/// Another host, with a copy of the database as it is now, and the same replica.
fn other_host(sandbox: &Sandbox) -> Sandbox {
    let mut other = Sandbox::new();
    // By a process of its own: to close a file of a database here would drop locks.
    for suffix in ["", "-wal"] {
        let from = sandbox.db.with_file_name(format!("app.db{suffix}"));
        if from.exists() {
            let to = other.db.with_file_name(format!("app.db{suffix}"));
            assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
        }
    }
    other.replica.clone_from(&sandbox.replica);
    other
}

fn insert(sandbox: &Sandbox, value: &str) {
    sandbox.application(Sqlite::Bundled).run(&format!("INSERT INTO t VALUES('{value}');"));
}

fn take_over(host: &Sandbox) -> Process {
    // Of each epoch, that it is claimed, and then its base.
    let claims = || files_below(&host.replica.join("epochs")).len();
    let before = claims();
    let mut process = host.start(&mut host.replicate_command(&["--takeover"]));
    process.wait_until_followed();
    // What is followed is not claimed yet: until then whoever had the replica stores what it records.
    wait_until("a claim", || (claims() >= before + 2).then_some(()));
    process
}

/// A replica that is held by a host that was killed.
fn abandoned() -> Sandbox {
    let sandbox = Sandbox::with_database();
    let replicator = sandbox.replicate();
    sandbox.wait_for_txid(1);
    replicator.kill();
    sandbox
}

#[test]
fn of_two_that_race_for_a_replica_one_gets_it() {
    for round in 0..20 {
        let one = Sandbox::with_database();
        let other = other_host(&one);
        let hosts = [&one, &other];
        let mut running = hosts.map(|host| host.start(&mut host.replicate_command(&[])));
        let mut number = 0;
        let loser = wait_until("one of them to give way", || {
            number += 1;
            for host in hosts {
                insert(host, &format!("{number}"));
            }
            (0..2).find(|&at| running[at].ended().is_some())
        });
        let ended = running[loser].wait().expect_code(7);
        let said = ["has not released it", "fenced"];
        assert!(said.iter().any(|words| ended.stderr.contains(words)), "{}", ended.stderr);
        let won = 1 - loser;
        insert(hosts[won], "won");
        let [first, second] = running;
        if won == 0 { first } else { second }.stop();
        hosts[won].assert_complete();
        // Every state is one that the winner recorded, or both had.
        let last = hosts[won].last_txid().unwrap();
        for txid in [1, last / 2 + 1, last] {
            let said = hosts[won].restore(&["--txid", &txid.to_string()]).1;
            assert!(said.contains("verified"), "round {round}: {said}");
        }
    }
}

/// A writer that is stopped while another takes over, and goes on afterwards.
#[test]
fn a_writer_that_was_stopped_and_goes_on_leaves_orphans_only() {
    let stale = Sandbox::with_database();
    let mut replicator = stale.start(&mut stale.replicate_command(&["--log-level", "debug"]));
    replicator.wait_until_followed();
    stale.wait_for_txid(1);
    insert(&stale, "both");
    // Its look for other writers is over, too.
    replicator.wait_for_log("shipped first=2 last=2");
    replicator.signal(Signal::STOP);

    let successor = other_host(&stale);
    let holding = take_over(&successor);
    for value in ["one", "two", "three"] {
        insert(&successor, value);
    }
    successor.wait_for_txid(5);
    for n in 0..9 {
        insert(&stale, &format!("stale {n}"));
    }
    replicator.signal(Signal::CONT);
    let ended = replicator.wait().expect_code(7);
    ended.expect_words(&["fenced", "another writer has taken the replica over"]);
    insert(&successor, "four");
    holding.stop();

    let orphans = stale.objects_ending("-0000000001.seg");
    assert!(orphans.iter().any(|path| path.to_str().unwrap().contains("0003-")), "{orphans:?}");
    assert_eq!((stale.generations().len(), stale.last_txid()), (1, Some(6)));
    successor.assert_complete();
    let values = ["'both'", "'one'", "'two'", "'three'", "'four'"];
    for (txid, value) in (2..).zip(values) {
        let (restored, _) = stale.restore(&["--txid", &txid.to_string()]);
        let contents = contents_of(&restored);
        assert!(contents.contains(value) && !contents.contains("stale"), "{txid}: {contents}");
    }
    let listed = stale.run(&["list", stale.replica.to_str().unwrap(), "--transactions"]);
    assert_eq!(listed.expect_code(0).stdout.lines().count(), 2 + 6);

    // The successor has released it. What the first has in its spool is not taken for history.
    let back = stale.replicate();
    insert(&stale, "back");
    back.stop().expect_words(&["continues nothing: put aside"]);
    stale.assert_complete();
    let (restored, _) = stale.restore(&["--txid", "6"]);
    assert!(same_bytes(&restored, &successor.db));
}

#[test]
fn a_replica_that_another_host_has_is_not_taken_unasked() {
    let sandbox = abandoned();
    let other = other_host(&sandbox);
    insert(&other, "another");
    let refused = other.replicate_fails(&[]).expect_code(7);
    refused.expect_words(&["in epoch 1, by process", "since 20", "has not released", "--takeover"]);
    // Under `exec` the application runs, and its own code counts, unless it is 0.
    for (script, code) in [("exit 0", 7), ("exit 3", 3)] {
        let mut exec = other.exec_command(&[], &["sh", "-c", &format!("sleep 0.5; {script}")]);
        let ended = other.start(&mut exec).wait().expect_code(code);
        ended.expect_words(&["NOT protected", "has not released"]);
    }
    insert(&sandbox, "mine");
    sandbox.replicate().stop();
    assert_eq!(sandbox.last_txid(), Some(2));
    sandbox.assert_complete();

    // Once it is taken over, the first host needs to be told, too.
    let holding = take_over(&other);
    other.wait_for_txid(3);
    holding.kill();
    insert(&sandbox, "later");
    sandbox.replicate_fails(&[]).expect_code(7);
    take_over(&sandbox).stop();
    sandbox.assert_complete();
}

/// What it commits from then on is in no replica, and its 0 would say that it is.
#[test]
fn an_application_goes_on_when_its_replica_is_taken_over() {
    let sandbox = Sandbox::with_database();
    let mut exec =
        sandbox.start(sandbox.exec_command(&[], &["cat"]).stdin(std::process::Stdio::piped()));
    exec.wait_until_followed();
    sandbox.wait_for_txid(1);
    let other = other_host(&sandbox);
    let holding = take_over(&other);
    insert(&sandbox, "fenced off");
    exec.wait_for_log("another writer has taken the replica over");
    insert(&sandbox, "and later");
    exec.write(b"still here\n");
    wait_until("the application's answer", || (exec.output() == "still here\n").then_some(()));
    exec.close_input();
    exec.wait().expect_code(7).expect_words(&["fenced"]);
    insert(&other, "mine");
    holding.stop();
    other.assert_complete();
}

#[test]
fn a_replica_that_was_released_is_free() {
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    let other = other_host(&sandbox);
    insert(&other, "moved");
    other.replicate().stop();
    other.assert_complete();
    assert_eq!((other.generations().len(), other.last_txid()), (1, Some(2)));
}

/// The host is gone, and there is a copy of what the replica holds.
#[test]
fn a_copy_of_what_the_replica_holds_may_go_on() {
    let sandbox = abandoned();
    let other = other_host(&sandbox);
    let before = other.objects();
    let replicator = other.replicate();
    insert(&other, "next");
    replicator.stop();
    assert_eq!((other.generations().len(), other.last_txid()), (1, Some(2)));
    assert_eq!(other.objects().len(), before.len() + 1);
    other.assert_complete();
}

/// A copy of all that a host has, its state included, is another host.
#[test]
fn a_copy_of_the_local_state_does_not_make_a_host() {
    let sandbox = abandoned();
    let other = other_host(&sandbox);
    let copied = Command::new("cp").arg("-a").args([sandbox.state(), other.state()]).status();
    assert!(copied.unwrap().success());
    insert(&other, "another");
    other.replicate_fails(&[]).expect_code(7).expect_words(&["--takeover"]);
}

/// A writer that was killed between its claim and its base has written nothing: whoever comes next
/// goes on where the one before it ended.
#[test]
fn a_crash_between_claim_and_base() {
    let sandbox = abandoned();
    for epoch in 2..5 {
        insert(&sandbox, &format!("{epoch}"));
        sandbox.replicate().stop();
        for kind in ["base", "release"] {
            let name = format!("epochs/{epoch:010}.{kind}");
            std::fs::remove_file(sandbox.replica.join(name)).unwrap();
        }
        // What was written under it would be another crash.
        for object in sandbox.objects_ending(&format!("-{epoch:010}.seg")) {
            std::fs::remove_file(object).unwrap();
        }
    }
    let replicator = sandbox.replicate();
    insert(&sandbox, "last");
    replicator.stop();
    assert_eq!(sandbox.generations().len(), 1);
    sandbox.assert_complete();
}

/// A base that is damaged hides what is history, unless what its writer has stored tells: nothing is
/// restored by guessing.
#[test]
fn a_damaged_base() {
    let sandbox = Sandbox::with_database();
    sandbox.replicate().stop();
    sandbox.replicate().stop();
    let base = sandbox.replica.join("epochs/0000000002.base");
    let good = std::fs::read(&base).unwrap();
    let script = "import sys; f = open(sys.argv[1], 'r+b'); f.seek(40); f.write(b'x')";
    let mut command = Command::new("python3");
    assert!(command.args(["-c", script]).arg(&base).status().unwrap().success());
    assert_ne!(std::fs::read(&base).unwrap(), good);
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&["0000000002.base is damaged"]);
}
