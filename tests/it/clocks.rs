//! The wall clock is set, in either direction and far: transactions keep their order and their times.

use genesis_replicate::clock;
use genesis_wal::time::Micros;
use rusqlite::Connection;
use serde_json::Value;

use crate::support::{
    Application, Ended, Process, Sandbox, Server, Sqlite, WallClock, contents, contents_of, write,
};

const TEN_YEARS: i64 = 10 * 365 * 86_400;

/// A followed database on a machine whose wall clock is set, and what it held at which moments.
struct Machine {
    sandbox: Sandbox,
    clock: WallClock,
    application: Application,
    watcher: Connection,
    began: Micros,
    moments: Vec<(Micros, String)>,
}

impl Machine {
    fn new() -> Self {
        let sandbox = Sandbox::with_database();
        let clock = WallClock::new(&sandbox.path("logs"));
        let application = sandbox.application(Sqlite::Shell);
        let watcher = Connection::open(&sandbox.db).unwrap();
        Self { sandbox, clock, application, watcher, began: clock::wall(), moments: Vec::new() }
    }

    fn replicate(&self) -> Process {
        let mut command = self.sandbox.replicate_command(&[]);
        let mut process = self.sandbox.start(self.clock.give(&mut command));
        process.wait_until_followed();
        process
    }

    /// Commits once, and remembers when that had been seen.
    fn commit(&mut self) {
        let txid = self.moments.len() as u64 + 2;
        self.application.run(&format!("INSERT INTO t VALUES('transaction {txid}');"));
        self.sandbox.wait_for_txid(txid);
        self.moments.push((clock::wall(), contents(&self.watcher)));
    }

    fn times(&self) -> Vec<Micros> {
        let replica = self.sandbox.replica.to_str().unwrap();
        times(self.sandbox.run(&["list", replica, "--transactions", "--json"]))
    }

    /// Every transaction has a time, none an earlier one than that before it.
    fn assert_ordered(&self) {
        let times = self.times();
        assert_eq!(times.len(), self.moments.len() + 1);
        assert!(times.is_sorted(), "{times:?}");
    }

    /// Every moment leads to what the database held then, although the wall clock was set.
    fn assert_unharmed(&self) {
        self.assert_ordered();
        for (moment, state) in &self.moments {
            let (restored, said) = self.sandbox.restore(&["--timestamp", &moment.to_string()]);
            assert_eq!(contents_of(&restored), *state, "at {moment}: {said}");
        }
        let times = self.times();
        assert!(times[0] >= self.began && times.last() < Some(&clock::wall()), "{times:?}");
    }
}

/// The times that `list --transactions` tells of the only generation.
fn times(listed: Ended) -> Vec<Micros> {
    let listed: Value = serde_json::from_str(&listed.expect_code(0).stdout).unwrap();
    let lines = listed["generations"].as_array().unwrap();
    assert_eq!(lines.len(), 1);
    let transactions = lines[0]["transactions"].as_array().unwrap();
    transactions.iter().map(|row| parse(row["time"].as_str().unwrap())).collect()
}

fn parse(time: &str) -> Micros {
    Micros(time.parse::<jiff::Timestamp>().unwrap().as_microsecond().try_into().unwrap())
}

#[test]
fn it_is_set_while_we_run() {
    let mut machine = Machine::new();
    let mut replicator = machine.replicate();
    machine.commit();
    for (seconds, told) in
        [(TEN_YEARS, "was set ahead"), (-TEN_YEARS, "was set back"), (0, "of the wall clock again")]
    {
        machine.clock.set(seconds);
        machine.commit();
        replicator.wait_for_log(told);
        machine.commit();
    }
    replicator.stop();
    machine.assert_unharmed();
}

#[test]
fn it_is_set_while_we_are_away() {
    let mut machine = Machine::new();
    for seconds in [0, TEN_YEARS, -TEN_YEARS, -6 * TEN_YEARS, 3600, -3600, 0] {
        machine.clock.set(seconds);
        let replicator = machine.replicate();
        machine.commit();
        machine.commit();
        if seconds == TEN_YEARS { replicator.kill() } else { drop(replicator.stop()) }
    }
    machine.assert_unharmed();
}

/// What was measured before the machine was started anew is of no use.
#[test]
fn a_machine_that_lost_the_time_when_it_was_started_anew() {
    let mut machine = Machine::new();
    for seconds in [0, -TEN_YEARS, -6 * TEN_YEARS] {
        machine.clock.set(seconds);
        let replicator = machine.replicate();
        machine.commit();
        replicator.stop();
        std::fs::remove_file(machine.sandbox.state().join("clock")).unwrap();
    }
    machine.assert_ordered();
    assert!(machine.times().iter().all(|time| *time >= machine.began));
    let (restored, _) = machine.sandbox.restore(&["--timestamp", &clock::wall().to_string()]);
    assert_eq!(contents_of(&restored), machine.moments.last().unwrap().1);
}

#[test]
fn a_machine_that_is_told_the_time_when_it_runs() {
    let mut machine = Machine::new();
    machine.clock.set(-6 * TEN_YEARS);
    let mut replicator = machine.replicate();
    machine.commit();
    machine.clock.set(0);
    replicator.wait_for_log("commit times jump ahead");
    machine.commit();
    replicator.stop();
    machine.assert_ordered();
    let times = machine.times();
    assert!(times[1] < parse("1971-01-01T00:00:00Z") && times[2] > machine.began, "{times:?}");
    for (txid, time) in (2..).zip(&times[1..]) {
        let (_, said) = machine.sandbox.restore(&["--timestamp", &time.to_string()]);
        assert!(said.contains(&format!("as of transaction {txid},")), "{said}");
    }
}

/// A new line of history does not begin before the old one ended, whatever is left of that.
#[test]
fn it_was_set_back_and_the_tip_cannot_be_read() {
    let mut machine = Machine::new();
    let replicator = machine.replicate();
    machine.commit();
    replicator.stop();
    let last = *machine.times().last().unwrap();
    let tip = machine.sandbox.objects_ending(".seg").pop().unwrap();
    let mut damaged = std::fs::read(&tip).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&tip).unwrap();
    write(&tip, &damaged);
    std::fs::remove_file(machine.sandbox.state().join("clock")).unwrap();
    machine.clock.set(-3600);
    let mut replicator = machine.replicate();
    replicator.wait_for_log("a snapshot is stored");
    replicator.stop();
    let begun = &machine.sandbox.list()["generations"][1]["snapshots"][0]["time"];
    assert!(parse(begun.as_str().unwrap()) >= last, "{begun} is before {last}");
}

/// An object store has a clock of its own, which tells that the machine's is wrong.
#[test]
fn it_is_wrong_from_the_start_and_the_store_knows_the_time() {
    for seconds in [3600, -3600] {
        let (sandbox, began) = (Sandbox::with_database(), clock::wall());
        let address = Server::ministack().address();
        let wall_clock = WallClock::new(&sandbox.path("logs"));
        wall_clock.set(seconds);
        let mut replicate = Process::command(["replicate", "--db"]);
        replicate.arg(&sandbox.db).args(["--replica", &address]).envs(Server::credentials());
        let mut replicator = sandbox.start(wall_clock.give(&mut replicate));
        replicator.wait_until_followed();
        replicator.wait_for_log("a snapshot is stored");
        sandbox.application(Sqlite::Shell).run("INSERT INTO t VALUES('second');");
        replicator.stop();
        let mut list = Process::command(["list", &address, "--transactions", "--json"]);
        let times = times(sandbox.start(list.envs(Server::credentials())).wait());
        assert_eq!(times.len(), 2);
        // Its answers tell whole seconds, rounded down.
        let (from, to) = (Micros(began.0 - 2_000_000), clock::wall());
        assert!(times.iter().all(|time| (from..to).contains(time)), "{times:?}");
    }
}
