//! Trouble between the program and its object store: refused, reset, silent, busy, slow, cut off,
//! damaged, unanswered; one kind after another while an application commits. The application never waits
//! for the network, nothing is lost, and when the trouble ends nothing is left to be shipped.
//!
//! `GENESIS_TROUBLES` sets how many there are, `GENESIS_SEED` repeats a run's choices.

use std::process::Stdio;
use std::time::Duration;

use genesis_replicate::clock;
use rustix::process::Signal;

use crate::kill::{Witness, Writer};
use crate::support::{
    Ended, Fault, Process, Proxy, Random, Repeatable, Request, Sandbox, Server, setting, wait_until,
};

const TROUBLES: u64 = 100;

/// So many befall one database: an emulator slows down with the objects that it holds.
const AT_ONCE: u64 = 20;

/// No commit takes this long, whatever the network does. A request that is not answered takes longer.
const PROMPT: Duration = Duration::from_secs(14);

/// A place whose replica is behind a proxy.
struct Scene<'a> {
    sandbox: &'a Sandbox,
    proxy: &'a Proxy,
    writer: &'a Writer<'a>,
    witness: Witness<'a>,
    random: Random,
    replicator: Option<Process>,
    /// What a look past the proxy has found last.
    durable: u64,
    restored: u32,
}

impl Scene<'_> {
    fn through_the_proxy(&self) -> String {
        self.proxy.address(self.sandbox.replica.to_str().unwrap())
    }

    /// Starts the replicator, under `exec`: it must not end for any state of the network.
    fn start(&mut self) {
        let mut command = Process::command(["exec", "--sync-interval", "250ms"]);
        command.args(["--snapshot-interval", "5s", "--db"]);
        command.arg(&self.sandbox.db).arg("--replica").arg(self.through_the_proxy());
        // An application that ends with its input, which ends with whoever holds the other side.
        command.args(["--", "cat"]).stdin(Stdio::piped());
        let mut replicator = self.sandbox.start(&mut command);
        replicator.wait_until_followed();
        self.replicator = Some(replicator);
    }

    /// One trouble, from its beginning to some commits later.
    fn trouble(&mut self) {
        let total = self.random.next(5) == 0;
        let kind = Kind::draw(&mut self.random);
        if total && kind == Kind::Refused {
            self.proxy.refuse();
        } else {
            let per_cent = if total { 100 } else { 10 + self.random.next(50) };
            let mut random = Random::new(self.random.next(u64::MAX));
            self.proxy.disturb(move |request| {
                if random.next(100) < per_cent {
                    kind.strikes(request, &mut random)
                } else {
                    Fault::None
                }
            });
        }
        self.commit();
        if self.random.next(8) == 0 {
            self.replicator.take().unwrap().kill();
            self.start();
            self.commit();
        }
        if !total && kind != Kind::Silent && self.random.next(4) == 0 {
            self.restore_in_trouble(kind);
        }
    }

    /// Some commits are made, and promptly.
    fn commit(&mut self) {
        let wanted = self.writer.acknowledged() + 10 + self.random.next(50);
        let begun = clock::monotonic();
        self.writer.wait_for(wanted);
        assert!(clock::monotonic() < begun + PROMPT, "commits waited for the network");
    }

    /// Restores through the proxy: the right state, or an error that says what is wrong.
    fn restore_in_trouble(&mut self, kind: Kind) {
        let output = self.sandbox.path("out").join(format!("in-trouble-{}", self.restored));
        self.restored += 1;
        let address = self.through_the_proxy();
        let ended = self.sandbox.run(&["restore", &address, "--output", output.to_str().unwrap()]);
        if ended.code == 0 {
            self.witness.testify(&output, &ended.stdout);
        } else {
            assert!([4, 5, 6].contains(&ended.code), "{kind:?}: {ended:?}");
            assert!(ended.stderr.contains("genesis-replicate: "), "{kind:?}: {ended:?}");
            assert!(!output.exists());
        }
    }

    /// Ends the trouble: soon everything is in the replica that was committed until now.
    fn heal(&mut self) {
        self.proxy.heal();
        let acknowledged = self.writer.acknowledged();
        let what = format!("the writer's transaction {acknowledged} in the replica");
        wait_until(&what, || {
            let (output, ended) = self.sandbox.try_restore(&[]);
            let is_empty = ended.code == 6 && self.durable == 0;
            if is_empty {
                return None;
            }
            let (txid, n) = self.witness.testify(&output, &ended.expect_code(0).stdout);
            assert!(txid >= self.durable, "{txid} is the last, and {} was there", self.durable);
            self.durable = txid;
            (n >= acknowledged).then_some(())
        });
    }

    fn finish(&mut self) -> Ended {
        let mut replicator = self.replicator.take().unwrap();
        replicator.signal(Signal::TERM);
        replicator.wait()
    }
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Refused,
    Silent,
    Busy,
    Slow,
    Truncated,
    Corrupted,
    Unanswered,
    Everything,
}

impl Kind {
    fn draw(random: &mut Random) -> Self {
        random.of(&[
            Self::Refused,
            Self::Silent,
            Self::Busy,
            Self::Slow,
            Self::Truncated,
            Self::Corrupted,
            Self::Unanswered,
            Self::Everything,
        ])
    }

    fn strikes(self, request: &Request, random: &mut Random) -> Fault {
        // Listings have nothing that would prove them: TLS must.
        let is_object = request.method == "GET" && !request.path.contains("list-type");
        match self {
            Self::Refused => Fault::Reset,
            Self::Silent => Fault::Silence,
            Self::Busy => match random.next(4) {
                0 => Fault::Status(429, Some(1)),
                1 => Fault::Status(500, None),
                _ => Fault::Status(503, None),
            },
            Self::Slow => Fault::Slow,
            Self::Truncated => Fault::Truncated,
            Self::Corrupted if is_object => Fault::Corrupted(random.next(u64::MAX)),
            Self::Corrupted => Fault::None,
            Self::Unanswered => Fault::Lost,
            Self::Everything => match Self::draw(random) {
                Self::Silent | Self::Everything => Fault::None,
                other => other.strikes(request, random),
            },
        }
    }
}

fn trouble_after_trouble(server: &Server, troubles: u64) {
    let run = Repeatable::new();
    let mut random = run.random();
    for begun in (0..troubles).step_by(usize::try_from(AT_ONCE).unwrap()) {
        disturb_one(server, random.next(u64::MAX), AT_ONCE.min(troubles - begun));
    }
}

fn disturb_one(server: &Server, seed: u64, troubles: u64) {
    let sandbox = Sandbox::new().with_replica(&server.address());
    let proxy = Proxy::before(server);
    let writer = Writer::create(&sandbox);
    let running = writer.start(seed);
    let mut scene = Scene {
        sandbox: &sandbox,
        proxy: &proxy,
        writer: &writer,
        witness: Witness::new(&sandbox, &writer),
        random: Random::new(seed),
        replicator: None,
        durable: 0,
        restored: 0,
    };
    scene.start();
    for n in 1..=troubles {
        scene.trouble();
        if n % 5 == 0 {
            scene.heal();
        }
    }
    scene.heal();
    running.stop();
    scene.finish().expect_code(128 + 15);
    scene.heal();
    sandbox.assert_complete();
    let (requests, restored) = (proxy.requests().len(), scene.restored);
    eprintln!(
        "{requests} requests, {restored} restores in trouble, {} commits",
        writer.acknowledged()
    );
}

#[test]
fn trouble_before_an_emulator() {
    trouble_after_trouble(Server::ministack(), setting("GENESIS_TROUBLES").unwrap_or(TROUBLES));
}

/// Where names are not claimed, and nothing but a look keeps from replacing.
#[test]
fn trouble_before_garage() {
    if let Some(server) = Server::garage() {
        trouble_after_trouble(server, setting("GENESIS_TROUBLES").unwrap_or(TROUBLES / 4));
    }
}
