//! A store that is away for an hour of commits.

use std::time::Duration;

use genesis_restore::target::Target;

use super::database::bytes_of;
use super::host::Settings;
use super::network::Weather;
use super::world::World;
use crate::replicate::SpoolLimits;
use crate::simulated::{self, Random};

/// What may wait in the spool, in bytes, and what a segment may add to that.
const LIMIT: u64 = 100_000;
const SEGMENT: u64 = 64 << 10;

/// Commits meanwhile.
const COMMITS: usize = 1_200;

#[test]
fn what_the_spool_could_not_keep_comes_as_one_record_and_all_before_it_one_by_one() {
    for seed in 0..2 {
        simulated::seed(Some(seed));
        stay_away(&mut World::new(Random::new(seed), false));
        simulated::seed(None);
    }
}

fn stay_away(world: &mut World) {
    world.hosts.truncate(1);
    world.hosts[0].settings = Settings {
        sync_interval: Duration::from_secs(1),
        snapshot_interval: Duration::from_hours(24),
        spool: SpoolLimits { keep: 64 << 20, wait: Some(LIMIT) },
    };
    world.start(0, None);
    world.come_to_rest();
    let before = world.history(0).len();
    world.sea().weather = Weather::Out;
    let (begun, mut most) = (world.now, 0);
    for commit in 0..COMMITS {
        world.commit(0);
        let pause = world.random.time(Duration::from_secs(7));
        world.pass(pause);
        if commit % 20 == 0 {
            most = most.max(world.waiting(0));
        }
    }
    assert!(world.now > begun + Duration::from_hours(1));
    assert!((LIMIT / 2..LIMIT + SEGMENT).contains(&most), "{most} bytes waited");
    world.come_to_rest();
    assert_eq!(world.waiting(0), 0);

    let history = world.history(0);
    let steps: Vec<usize> =
        history.windows(2).map(|pair| pair[1].commits - pair[0].commits).collect();
    let coarse: Vec<usize> = steps.iter().copied().filter(|commits| *commits != 1).collect();
    assert_eq!((coarse.len(), world.coarse()), (1, 1), "{steps:?}");
    let kept = steps.iter().position(|commits| *commits != 1).unwrap() + 1 - before;
    assert!(kept > 10, "only {kept} were kept one by one");
    // One more was made when the store was back.
    assert_eq!(steps.iter().sum::<usize>(), history.last().unwrap().commits - history[0].commits);
    assert!(coarse[0] + kept >= COMMITS, "{} and {kept} of {COMMITS}", coarse[0]);
    for record in history {
        let (generation, txid) = record.place;
        let (_, bytes) = world.restore(Target::Txid(txid), Some(generation)).unwrap();
        assert!(bytes == bytes_of(&record.pages), "{txid:?}");
    }
}
