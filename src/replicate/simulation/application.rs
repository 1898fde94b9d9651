//! The application: writers, readers and checkpointers, each a process of its own.

use std::time::Duration;

use super::Sim;
use super::sqlite::{Connection, Mode, busy_pause};
use super::world::PAGES;

/// Commits, spills and rolls back. Dies nowhere by itself.
pub async fn write(sim: Sim, process: usize, pause: Duration, checkpoint_at: u32) {
    let mut connection = Connection::new(&sim, process, 0);
    let mut tries = 0;
    loop {
        let pause = sim.world().random.time(pause);
        sim.rest(pause).await;
        if connection.begin().await.is_err() {
            continue;
        }
        if connection.begin_write().await.is_err() {
            connection.end().await;
            sim.rest(busy_pause(tries)).await;
            tries += 1;
            continue;
        }
        tries = 0;
        let committed = transaction(&sim, &mut connection).await;
        connection.end().await;
        if committed && connection.max_frame() >= checkpoint_at {
            // That it is busy is no concern of a commit.
            connection.checkpoint(Mode::Passive, Duration::ZERO).await.ok();
        }
    }
}

/// One transaction; whether it committed.
async fn transaction(sim: &Sim, connection: &mut Connection) -> bool {
    let id = sim.world().next_id();
    let mut version = 0;
    let mut pages = |least: u64| {
        let mut world = sim.world();
        let (count, first) = (least + world.random.below(2), world.random.index(PAGES));
        let pages = (0..usize::try_from(count).unwrap()).map(|n| {
            version += 1;
            ((first + n) % PAGES, (id << 8) | version)
        });
        pages.collect::<Vec<_>>()
    };
    let spills = if sim.world().random.once_in(4) { 1 + sim.world().random.below(2) } else { 0 };
    for _ in 0..spills {
        let spilled = pages(1);
        connection.write(id, &spilled, false).await;
    }
    if spills > 0 && sim.world().random.once_in(2) {
        connection.undo().await;
        return false;
    }
    let last = pages(1);
    connection.write(id, &last, true).await;
    true
}

/// Reads one state for long, and finds it unchanged.
pub async fn read(sim: Sim, process: usize, hold: Duration) {
    let mut connection = Connection::new(&sim, process, 0);
    loop {
        let pause = sim.world().random.time(hold);
        sim.rest(pause).await;
        if connection.begin().await.is_err() {
            continue;
        }
        let seen = connection.read().await;
        let hold = sim.world().random.time(hold);
        sim.rest(hold).await;
        assert_eq!(connection.read().await, seen, "a reader's state changed under it");
        let known = sim.world().published.iter().rev().any(|commit| commit.state == seen);
        assert!(known || seen == [0; PAGES], "a reader saw a state that was never committed");
        connection.end().await;
    }
}

/// Checkpoints in every mode.
pub async fn checkpoint(sim: Sim, process: usize, pause: Duration) {
    let mut connection = Connection::new(&sim, process, 0);
    loop {
        let rest = sim.world().random.time(pause);
        sim.rest(rest).await;
        let (mode, patience) = {
            let random = &mut sim.world().random;
            let modes = [Mode::Passive, Mode::Passive, Mode::Full, Mode::Restart, Mode::Truncate];
            (random.one_of(&modes), random.one_of(&[0, 10, 500]))
        };
        // It tries again later.
        connection.checkpoint(mode, Duration::from_millis(patience)).await.ok();
    }
}

/// An operator who wants one blocking checkpoint, and waits for it.
pub async fn operate(sim: Sim, process: usize) {
    let mut connection = Connection::new(&sim, process, 0);
    let mode = sim.world().random.one_of(&[Mode::Full, Mode::Restart, Mode::Truncate]);
    let mut began = sim.world().now;
    // Another checkpoint that is running makes it fail at once.
    while connection.checkpoint(mode, Duration::from_secs(5)).await.is_err() {
        let waited = sim.world().now.saturating_sub(began);
        assert!(waited < Duration::from_secs(1), "a checkpoint waited for {waited:?}, in vain");
        sim.rest(Duration::from_millis(1)).await;
        began = sim.world().now;
    }
    let mut world = sim.world();
    let waited = world.now.saturating_sub(began);
    assert!(waited < Duration::from_secs(1), "a checkpoint waited for {waited:?}");
    world.tally.served += 1;
    world.tally.served_micros += u64::try_from(waited.as_micros()).unwrap();
}
