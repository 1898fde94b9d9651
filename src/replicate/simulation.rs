//! A simulation of the read-mark ratchet: one WAL, the application's processes and ours, interleaved
//! at every lock operation and every access to the shared memory, by chance that a seed fixes.
//!
//! | module | holds |
//! | --- | --- |
//! | `world` | files, wal-index, locks, and the oracle |
//! | `sqlite` | a connection, as `wal.c` of SQLite 3.54.1 has it |
//! | `application` | writers, readers and checkpointers |
//! | `follower` | ours: the driver, step by step, around the real engine, ratchet, cursor and scanner |
//!
//! An actor is a future. Each of its steps is one atomic operation; between two of them anybody else
//! may run, and its process may die.
//!
//! `GENESIS_SEEDS=n` runs so many seeds, `GENESIS_FIRST_SEED=n` begins with another than 0, and
//! `GENESIS_SEED=n` replays one. A seed that fails prints its last 60 steps, or `GENESIS_TRACE=n`.

mod application;
mod follower;
mod sqlite;
mod tally;
mod world;

use std::cell::{RefCell, RefMut};
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tally::Tally;
use world::{OURS, World, read_lock};

use crate::simulated::{self, Random};

/// Steps in which everything may happen.
const CHAOS: u64 = 4_000;

/// Steps in which a waiting checkpointer must come through, and in which the lock must be parked.
const PATIENCE: u64 = 30_000;

/// How long a step takes then.
const SLOW_TICK: Duration = Duration::from_micros(10);

/// The world, as an actor reaches it.
#[derive(Debug, Clone)]
struct Sim(Rc<RefCell<World>>);

impl Sim {
    /// The world. Not to be kept across a step.
    fn world(&self) -> RefMut<'_, World> {
        self.0.borrow_mut()
    }

    /// Lets others run, then does one thing.
    async fn op<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.rest(Duration::ZERO).await;
        act(&mut self.world())
    }

    /// Lets others run for a while.
    async fn rest(&self, time: Duration) {
        self.world().rest = time;
        Yield(false).await;
    }

    /// Dies perhaps: for places at which that is delicate.
    async fn imperil(&self) {
        if self.world().is_doomed() {
            Yield(false).await;
        }
    }
}

/// Ready when it is polled again.
struct Yield(bool);

impl Future for Yield {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// What an actor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Us { wal_limit: Option<u64> },
    Writer { pause: Duration, checkpoint_at: u32 },
    Reader { hold: Duration },
    Checkpointer { pause: Duration },
    Operator,
}

struct Actor {
    role: Role,
    process: usize,
    task: Pin<Box<dyn Future<Output = ()>>>,
    ready_at: Duration,
}

/// The run of one seed.
struct Run {
    sim: Sim,
    actors: Vec<Actor>,
    /// Once in so many steps a process of the application dies, and ours.
    crash: u64,
    death: u64,
    /// Once in so many steps the turn passes on.
    turn: u64,
    /// How long a step takes.
    tick: Duration,
    current: usize,
}

impl Run {
    fn new(seed: u64, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let change = if random.once_in(3) { u32::MAX - 20 } else { 0 };
        let (crash, death) =
            (random.one_of(&[0, 0, 200, 700]), random.one_of(&[0, 0, 0, 600, 2_500]));
        let (turn, peril) = (random.one_of(&[1, 1, 3, 12]), random.one_of(&[0, 0, 8, 40]));
        let roles = roles(&mut random);
        let mut world = World::new(random, change);
        world.peril = peril;
        world.trace = traced.then(Vec::new);
        let sim = Sim(Rc::new(RefCell::new(world)));
        let tick = Duration::from_micros(1);
        let mut run = Self { sim, actors: Vec::new(), crash, death, turn, tick, current: 0 };
        for role in roles {
            run.spawn(role);
        }
        run
    }

    fn spawn(&mut self, role: Role) {
        let process = self.actors.len();
        let (task, ready_at) = (start(&self.sim, role, process), self.sim.world().now);
        self.actors.push(Actor { role, process, task, ready_at });
    }

    /// The actor whose turn it is. When all rest, time goes on.
    fn choose(&mut self) -> usize {
        let mut world = self.sim.world();
        let now = world.now;
        let stays = self.actors[self.current].ready_at <= now && !world.random.once_in(self.turn);
        if stays {
            return self.current;
        }
        let ready = |actor: &Actor, now| actor.ready_at <= now;
        if !self.actors.iter().any(|actor| ready(actor, now)) {
            world.now = self.actors.iter().map(|actor| actor.ready_at).min().unwrap();
        }
        let now = world.now;
        let count = self.actors.iter().filter(|actor| ready(actor, now)).count();
        let chosen = world.random.index(count);
        let mut others = self.actors.iter().enumerate().filter(|(_, actor)| ready(actor, now));
        others.nth(chosen).unwrap().0
    }

    /// One step of one actor. False when it has come to its end.
    fn step(&mut self) -> bool {
        self.current = self.choose();
        let actor = &mut self.actors[self.current];
        let lasts = {
            let mut world = self.sim.world();
            world.step += 1;
            world.tally.steps += 1;
            world.now += self.tick;
            if actor.process == OURS { self.death } else { self.crash }
        };
        let polled = actor.task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut world = self.sim.world();
        world.check();
        actor.ready_at = world.now + std::mem::take(&mut world.rest);
        let dies = std::mem::take(&mut world.dying) || world.random.once_in(lasts);
        let spared = world.spared == Some(actor.process) || actor.role == Role::Operator;
        drop(world);
        if dies && !spared {
            self.kill(self.current);
        }
        polled.is_pending()
    }

    /// A process dies, and is started again after a while.
    fn kill(&mut self, at: usize) {
        let actor = &mut self.actors[at];
        let mut world = self.sim.world();
        world.bury(actor.process);
        if actor.process == OURS {
            world.tally.deaths += 1;
        } else {
            world.tally.crashes += 1;
        }
        let pause = world.random.time(Duration::from_millis(3));
        actor.ready_at = world.now + pause;
        drop(world);
        actor.task = start(&self.sim, actor.role, actor.process);
    }

    /// All of it.
    fn run(&mut self) {
        for _ in 0..CHAOS {
            self.step();
        }
        while self.sim.world().spared.is_some() {
            self.step();
        }
        self.serve();
        self.come_to_rest();
    }

    /// Only writers are left beside us, and an operator, who must come through.
    fn serve(&mut self) {
        (self.crash, self.death) = (0, 0);
        self.tick = SLOW_TICK;
        self.sim.world().peril = 0;
        self.retain(|role| matches!(role, Role::Us { .. } | Role::Writer { .. }));
        self.actors.push(Actor {
            role: Role::Operator,
            process: 90,
            task: start(&self.sim, Role::Operator, 90),
            ready_at: self.sim.world().now,
        });
        let operator = self.actors.len() - 1;
        if (0..PATIENCE).any(|_| !self.step()) {
            assert_eq!(self.current, operator, "an actor came to its end");
        } else {
            // Known where it looked at the mark of a slot just before that was moved to the end: it
            // waits for this slot still, while readers and our pin take turns on it.
            self.sim.world().tally.starved += 1;
        }
        self.retain(|role| role != Role::Operator);
        while self.sim.world().spared.is_some() {
            self.step();
        }
    }

    /// Only we are left: everything is copied and checkpointed, and the lock is parked.
    fn come_to_rest(&mut self) {
        self.retain(|role| matches!(role, Role::Us { .. }));
        for _ in 0..PATIENCE {
            self.step();
            if self.is_at_rest() {
                return;
            }
        }
        panic!("the lock was not parked");
    }

    fn is_at_rest(&self) -> bool {
        let mut world = self.sim.world();
        let full = world.copies[0].is_some_and(|header| header.max_frame == world.backfilled);
        let copied =
            world.replica.as_of.is_some() && world.replica.commits == world.published.len();
        let over = full && copied && world.replica.parked;
        if over {
            assert_eq!(world.replica.state, world.state(), "the copy is not what was committed");
            let stands = |mark| world.is_shared_by(OURS, read_lock(mark));
            let elsewhere = (1..5).any(stands);
            assert!(elsewhere != stands(0), "the lock stands on {elsewhere} and {}", stands(0));
            // A checkpointer that has just said that it backfilled everything still had mark 0.
            world.tally.beside += u64::from(elsewhere);
        }
        over
    }

    fn retain(&mut self, stays: impl Fn(Role) -> bool) {
        for actor in self.actors.iter().filter(|actor| !stays(actor.role)) {
            self.sim.world().bury(actor.process);
        }
        self.actors.retain(|actor| stays(actor.role));
        self.current = 0;
    }
}

/// Who takes part.
fn roles(random: &mut Random) -> Vec<Role> {
    let micros = Duration::from_micros;
    let limit = 5 + random.below(30);
    let mut roles = vec![Role::Us { wal_limit: random.once_in(2).then_some(limit) }];
    let pause = micros(random.one_of(&[1, 50, 500, 5_000, 300_000]));
    let checkpoint_at = random.one_of(&[4, 12, u32::MAX]);
    for _ in 0..=random.below(3) {
        roles.push(Role::Writer { pause, checkpoint_at });
    }
    for _ in 0..random.below(4) {
        roles.push(Role::Checkpointer { pause: micros(random.one_of(&[50, 1_000, 100_000])) });
    }
    if random.once_in(2) {
        roles.push(Role::Reader { hold: micros(random.one_of(&[20, 400, 20_000])) });
    }
    roles
}

fn start(sim: &Sim, role: Role, process: usize) -> Pin<Box<dyn Future<Output = ()>>> {
    let sim = sim.clone();
    match role {
        Role::Us { wal_limit } => Box::pin(follower::live(sim, wal_limit)),
        Role::Writer { pause, checkpoint_at } => {
            Box::pin(application::write(sim, process, pause, checkpoint_at))
        }
        Role::Reader { hold } => Box::pin(application::read(sim, process, hold)),
        Role::Checkpointer { pause } => Box::pin(application::checkpoint(sim, process, pause)),
        Role::Operator => Box::pin(application::operate(sim, process)),
    }
}

/// Runs one seed; what happened, or what went wrong.
fn run(seed: u64, traced: bool) -> Result<Tally, String> {
    let mut run = Run::new(seed, traced);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| run.run()));
    let world = run.sim.world();
    match ended {
        Ok(()) => Ok(world.tally),
        Err(reason) => {
            let last = simulated::last_of(world.trace.as_deref().unwrap_or_default());
            Err(format!("{last}\nseed {seed}: {}", simulated::reason(&*reason)))
        }
    }
}

#[test]
fn ratchet_survives_every_interleaving() {
    let Range { start: first, end } = simulated::seeds(2000);
    let count = end - first;
    let mut tally = Tally::default();
    for seed in first..end {
        let Ok(happened) = run(seed, false) else {
            panic!("{}", run(seed, true).expect_err("it failed without a trace"));
        };
        tally.add(&happened);
    }
    println!("{count} seeds from {first}: {tally:#?}");
    if count >= 1_000 {
        assert!(tally.drains > count && tally.answers > count && tally.pins > count / 10);
        assert!(tally.forces > count / 40 && tally.emptied * 2 > tally.forces, "forced in vain");
        assert!(tally.recoveries > count / 10 && tally.ghosts > count / 10);
        assert!(tally.stranded * 2 < tally.drains, "not parked where it could be");
        assert!(tally.read_beside > count / 2, "nothing was read beside");
        assert!(tally.starved < count / 200 && tally.beside < count / 50, "not served in time");
        assert!(tally.doubts < tally.recoveries + tally.deaths, "too many doubts");
    }
}
