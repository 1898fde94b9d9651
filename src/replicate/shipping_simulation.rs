//! A simulation of everything above the WAL: sessions on several hosts, their spools, the store, and
//! restores of what is in it, by chance that a seed fixes.
//!
//! | module | holds |
//! | --- | --- |
//! | `network` | the store, and requests that are delayed, overtaken, lost, or done unheard |
//! | `database` | a database and its WAL, as a model |
//! | `follower` | what drives the real recorder, engine and spool over that model |
//! | `host` | a disk, clocks, and one process after another: each a runtime of its own |
//! | `notary` | which state every recorded transaction is of, and what was reported durable |
//! | `away` | a store that is away for an hour |
//! | `world` | all of it, and what must hold |
//!
//! The session, the claim, the spool, shipping, merging and restoring are the real ones. Their time is
//! that of the runtime, which is paused: it passes when nothing else is to be done. Whatever a process
//! holds in memory is dropped with its runtime, at any of its waits.
//!
//! `GENESIS_SEEDS=n` runs so many seeds, `GENESIS_FIRST_SEED=n` begins with another than 0, and
//! `GENESIS_SEED=n` replays one. A seed that fails prints its last 60 events, or `GENESIS_TRACE=n`.

mod away;
mod database;
mod follower;
mod host;
mod network;
mod notary;
mod tally;
mod world;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use genesis_restore::target::Target;
use genesis_wal::id::Txid;

use self::network::Weather;
use self::tally::Tally;
use self::world::World;
use crate::simulated::{self, Random};

/// How much is done before nothing fails any more: what ends soon is cheap, and much happens only late.
const ACTS: [u64; 3] = [20, 60, 120];

/// Whatever may happen.
fn act(world: &mut World) {
    let host = world.random.index(world.hosts.len());
    match world.random.below(100) {
        0..38 => commit(world, host),
        38..72 => disturb(world, host),
        72..90 => change(world, host),
        90..93 => world.check_latest(),
        93..97 => {
            let choice = world.random.index(40);
            world.check_promise(choice);
        }
        _ => world.check_any(),
    }
}

/// The application does something.
fn commit(world: &mut World, host: usize) {
    if world.random.once_in(19) {
        // Enough to be merged.
        let alive = world.hosts.iter().position(|host| host.life.is_some());
        for _ in 0..60 {
            world.commit(alive.unwrap_or(host));
            world.pass(Duration::from_millis(60));
        }
    } else {
        for _ in 0..=world.random.below(3) {
            world.commit(host);
        }
    }
}

/// A process begins, ends, dies, or is stopped for a while.
fn disturb(world: &mut World, host: usize) {
    match world.random.below(34) {
        // Everybody wants the replica at once.
        0..2 => {
            for number in 0..world.hosts.len() {
                world.hosts[number].allowed.takeover = true;
                world.start(number, None);
            }
        }
        2..22 => {
            if world.hosts[host].database.is_none() {
                world.restore_host(host, Target::Latest);
            }
            let doom = world.random.one_of(&[None, Some(12), Some(60)]);
            let doom = doom.map(|most| 1 + world.random.below(most));
            world.start(host, doom);
            // Before it hears of the replica.
            if world.random.once_in(3) {
                for _ in 0..=world.random.below(3) {
                    world.commit(host);
                    let time = world.random.time(Duration::from_millis(100));
                    world.pass(time);
                }
            }
        }
        22..26 => world.hosts[host].finish(),
        26..29 => world.die(host),
        29..31 => world.lose_power(host),
        _ => {
            let until = world.now + world.random.time(Duration::from_mins(1));
            if let Some(life) = &mut world.hosts[host].life {
                life.stopped_until = until;
            }
        }
    }
}

/// Something around the processes is another.
fn change(world: &mut World, host: usize) {
    match world.random.below(18) {
        0..5 => {
            if let Some(database) = world.hosts[host].database.clone() {
                database.lock().unwrap().restart_wal(&mut world.random);
            }
        }
        5..11 => {
            let calms = [Weather::Calm, Weather::Rough(4), Weather::Rough(15), Weather::Slow];
            let weather = match world.random.below(6) {
                0 => Weather::Out,
                _ => world.random.one_of(&calms),
            };
            let listed = world.random.one_of(&[1, 5, usize::MAX]);
            world.note(|| format!("{weather:?}"));
            let mut sea = world.sea();
            (sea.weather, sea.listed_at_once) = (weather, listed);
        }
        11..14 => {
            let most = world.random.one_of(&[1, 100, 1 << 40]);
            world.hosts[host].set_clock(skew(most, &mut world.random));
        }
        14..16 => {
            let most = world.random.one_of(&[1, 100, 1 << 40]);
            world.sea().date_offset = skew(most, &mut world.random);
        }
        _ => {
            let target = match world.random.below(3) {
                0 => Target::Txid(Txid(1 + world.random.below(30))),
                _ => Target::Latest,
            };
            world.restore_host(host, target);
        }
    }
}

fn skew(most: u64, random: &mut Random) -> i64 {
    let micros = i64::try_from(random.below(most * 1_000)).unwrap();
    if random.once_in(2) { micros } else { -micros }
}

/// All of one seed.
fn play(world: &mut World) {
    world.start(0, None);
    let most = world.random.one_of(&[20, 500, 5_000]);
    for _ in 0..world.random.one_of(&ACTS) {
        act(world);
        let most = if world.random.once_in(20) { 60_000 } else { most };
        let time = world.random.time(Duration::from_millis(most));
        world.pass(time);
    }
    world.come_to_rest();
    world.check_latest();
    for choice in 0..3 {
        world.check_promise(choice);
    }
    let choice = world.random.index(200);
    world.check_promise(choice);
    world.end();
    world.count();
    world.check_latest();
    world.check_losses();
}

/// Runs one seed: what happened, or what went wrong, and all that was noted where that is wanted.
fn run(seed: u64, traced: bool) -> (Result<Tally, String>, Vec<String>) {
    simulated::seed(Some(seed));
    let mut world = World::new(Random::new(seed), traced);
    let ended = panic::catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    simulated::enter(None);
    let (tally, trace) = (world.tally, world.trace());
    drop(world);
    simulated::seed(None);
    (ended.map(|()| tally).map_err(|reason| simulated::reason(&*reason)), trace)
}

/// Runs a seed once more, and tells how it fails.
fn report(seed: u64) -> String {
    let (ended, trace) = run(seed, true);
    let reason = ended.err().unwrap_or_else(|| "it did not fail a second time".to_owned());
    let last = simulated::last_of(&trace);
    let replay = "cargo test --lib shipping_simulation";
    format!("{last}\n{reason}\nGENESIS_SEED={seed} {replay}")
}

#[test]
fn what_was_durable_comes_back_whatever_fails() {
    let Range { start: first, end } = simulated::seeds(200);
    let count = end - first;
    let next = AtomicU64::new(first);
    let work = || {
        let mut tally = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return tally;
            }
            let happened = run(seed, false).0.unwrap_or_else(|_reason| {
                next.store(end, Ordering::Relaxed);
                panic!("{}", report(seed));
            });
            tally.add(&happened);
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            tally.add(&worker.join().unwrap_or_else(|failed| panic::resume_unwind(failed)));
        }
    });
    println!("{count} seeds from {first}: {tally:#?}");
    if count >= 500 {
        let Tally { fenced, refused, others, merged, coarse, lines, losses, .. } = tally;
        let Tally { meanwhile, confirmed, .. } = tally;
        assert!([fenced, refused, others].iter().all(|times| *times > count / 10), "too quiet");
        assert!(merged > count / 50 && coarse > count / 10 && lines > count * 2, "too calm");
        assert!(losses > count / 10, "nothing was lost");
        assert!(meanwhile > count / 20 && confirmed > count / 200, "all answers came at once");
    }
}

#[test]
fn a_seed_replays_exactly() {
    for seed in 0..10 {
        let [first, second] = [run(seed, true), run(seed, true)].map(|(_, trace)| trace);
        let differ = first.iter().zip(&second).find(|(first, second)| first != second);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}
