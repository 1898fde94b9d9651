//! Kill after kill: the replicator, the writer or both, at random moments. Whatever is restored is the
//! state after exactly one of the writer's transactions, none acknowledged as durable is ever lost,
//! and in the end nothing is missing.
//!
//! `GENESIS_KILLS` sets the number of kills, `GENESIS_SEED` repeats a run's choices.

mod writer;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use genesis_replicate::clock;

use crate::support::{
    Process, Random, Repeatable, Sandbox, assert_same, contents_of, same_bytes, setting,
};
pub use writer::{Model, Running, Writer};

const KILLS: u64 = 20;

/// Applications that are killed beside each other, each with its own replicator: a kill takes mostly
/// waiting.
const AT_ONCE: u64 = 4;

/// What has been restored so far.
#[derive(Debug)]
pub struct Witness<'a> {
    sandbox: &'a Sandbox,
    writer: &'a Writer<'a>,
    model: Model,
    /// The writer's transaction in each restored state, by transaction id.
    seen: BTreeMap<u64, u64>,
}

impl<'a> Witness<'a> {
    /// A witness that has seen nothing yet.
    pub fn new(sandbox: &'a Sandbox, writer: &'a Writer<'a>) -> Self {
        Self { sandbox, writer, model: Model::new(), seen: BTreeMap::new() }
    }

    /// Restores the latest state: it is the writer's after one transaction, and no older than
    /// `durable` or than anything restored before.
    fn look(&mut self, durable: u64) {
        let (restored, said) = self.sandbox.restore(&[]);
        let (txid, _) = self.testify(&restored, &said);
        assert!(txid >= durable, "transaction {durable} was durable, and {txid} is the last");
    }

    /// A restored state is the writer's after one transaction, and no state before it is another's: its
    /// transaction, and the writer's.
    pub fn testify(&mut self, restored: &Path, said: &str) -> (u64, u64) {
        let (_, rest) = said.split_once("as of transaction ").unwrap();
        let txid = rest.split(',').next().unwrap().parse().unwrap();
        let n = Writer::step_of(restored);
        let acknowledged = self.writer.acknowledged();
        assert!(n <= acknowledged + 1, "{n} restored, {acknowledged} acknowledged");
        let what = format!("transaction {txid}, the writer's {n}");
        assert_same(&contents_of(restored), &self.model.contents(n), &what);
        self.remember(txid, n);
        (txid, n)
    }

    fn remember(&mut self, txid: u64, n: u64) {
        let before = self.seen.insert(txid, n);
        assert!(before.is_none_or(|before| before == n), "{txid} was {before:?} and is {n}");
        assert!(self.seen.values().is_sorted(), "states out of order: {:?}", self.seen);
    }

    /// Restores one transaction of a generation.
    fn look_at(&mut self, generation: &str, txid: u64) {
        let txid_text = txid.to_string();
        let more = ["--generation", generation, "--txid", &txid_text];
        let (restored, _) = self.sandbox.restore(&more);
        let n = Writer::step_of(&restored);
        let what = format!("transaction {txid} of {generation}, the writer's {n}");
        assert_same(&contents_of(&restored), &self.model.contents(n), &what);
        self.remember(txid, n);
    }
}

/// What runs beside each other.
struct Scene<'a> {
    sandbox: &'a Sandbox,
    writer: &'a Writer<'a>,
    random: Random,
    running: Option<Running>,
    replicator: Option<Process>,
}

impl Scene<'_> {
    /// Starts what does not run, in any order.
    fn start(&mut self) {
        let writer_first = self.random.next(2) == 0;
        if writer_first {
            self.start_writer();
        }
        if self.replicator.is_none() {
            let mut command = self.sandbox.replicate_command(&[]);
            self.replicator = Some(self.sandbox.start(&mut command));
        }
        self.start_writer();
    }

    fn start_writer(&mut self) {
        if self.running.is_none() {
            self.running = Some(self.writer.start(self.random.next(u64::MAX)));
        }
    }

    fn wait_until_followed(&mut self) {
        self.replicator.as_mut().unwrap().wait_until_followed();
    }

    /// Lets some time pass that is no multiple of anything.
    fn pass_time(&mut self) {
        let more = 1 + self.random.next(150);
        self.writer.wait_for(self.writer.acknowledged() + more);
        clock::rest(Duration::from_micros(self.random.next(4000)));
    }

    fn kill_some(&mut self) {
        let whom = self.random.next(6);
        if whom != 0 {
            self.replicator.take().unwrap().kill();
        }
        if whom < 3 {
            self.running.take().unwrap().kill();
        }
    }
}

#[test]
fn kill_after_kill() {
    let run = Repeatable::new();
    let kills = setting("GENESIS_KILLS").unwrap_or(KILLS).div_ceil(AT_ONCE);
    std::thread::scope(|scope| {
        let mut seeds = run.random();
        for _ in 0..AT_ONCE {
            let random = Random::new(seeds.next(u64::MAX));
            scope.spawn(move || kill_in_one_place(random, kills));
        }
    });
}

fn kill_in_one_place(random: Random, kills: u64) {
    let sandbox = Sandbox::new();
    let writer = Writer::create(&sandbox);
    let (running, replicator) = (None, None);
    let mut scene = Scene { sandbox: &sandbox, writer: &writer, random, running, replicator };
    let mut witness = Witness::new(&sandbox, &writer);

    let mut durable = 0;
    for _ in 0..kills {
        scene.start();
        if scene.random.next(4) > 0 {
            scene.wait_until_followed();
            scene.pass_time();
        } else {
            // In the middle of the start.
            clock::rest(Duration::from_micros(scene.random.next(60_000)));
        }
        durable = durable.max(sandbox.last_txid().unwrap_or(0));
        if durable > 0 && scene.random.next(4) == 0 {
            witness.look(durable);
        }
        scene.kill_some();
        if durable > 0 {
            witness.look(durable);
        }
    }

    scene.start();
    scene.wait_until_followed();
    scene.pass_time();
    scene.running.take().unwrap().stop();
    scene.replicator.take().unwrap().stop();
    witness.look(durable);
    compare_the_end(&sandbox, &writer, &witness);
    look_back(&sandbox, &mut witness, &mut scene.random);
    eprintln!(
        "{} generations, {} transactions",
        sandbox.generations().len(),
        writer.acknowledged()
    );
}

/// Everything acknowledged is there, and the restored file is the source's.
fn compare_the_end(sandbox: &Sandbox, writer: &Writer<'_>, witness: &Witness<'_>) {
    let (_, last) = witness.seen.last_key_value().unwrap();
    assert_eq!(*last, writer.acknowledged());
    let (restored, _) = sandbox.restore(&[]);
    let mut shell = sandbox.application(crate::support::Sqlite::Shell);
    shell.run("PRAGMA wal_checkpoint(TRUNCATE);");
    shell.close();
    assert!(same_bytes(&restored, &sandbox.db));
}

/// Any transaction of any generation is still there, in its order.
fn look_back(sandbox: &Sandbox, witness: &mut Witness<'_>, random: &mut Random) {
    let listing = sandbox.list();
    let mut before = 0;
    for line in listing["generations"].as_array().unwrap() {
        let generation = line["generation"].as_str().unwrap();
        for window in line["windows"].as_array().unwrap() {
            let txid = |key: &str| window[key].as_u64().unwrap();
            let (first, last) = (txid("first_txid"), txid("last_txid"));
            assert!(first > before, "{generation} uses transaction ids again: {listing:#}");
            before = last;
            witness.look_at(generation, first + random.next(last - first + 1));
        }
    }
}
