//! The driver: `follow.rs`.

use std::time::Duration;

use super::{Life, Look, SCALE};
use crate::replicate::cursor::Doubt;
use crate::replicate::engine::{Action, Engine, Seen};

impl Life {
    pub(super) async fn follow(&mut self, wal_limit: Option<u64>) -> Doubt {
        self.engine = Engine::new(Duration::from_millis(3), wal_limit);
        let mut writes = 0;
        loop {
            let look = self.published().await;
            let seen = self.seen(&look, writes).await;
            writes = self.sim.world().wal_writes;
            let doubted = match self.engine.next(&seen) {
                Action::Read => self.read(&look).await,
                Action::Move(procedure) => self.move_lock(procedure).await,
                Action::Seal => {
                    self.seal();
                    Ok(())
                }
                Action::Wait(time) => {
                    let woken = self.sim.world().random.time(time);
                    self.sim.rest(woken).await;
                    Ok(())
                }
                Action::Sleep(time) | Action::Tick(time) => {
                    self.sim.rest(time).await;
                    Ok(())
                }
                Action::ReadBack => panic!("there is no file to be read back"),
                Action::Finish => panic!("nobody told it to stop"),
            };
            if let Err(doubt) = doubted {
                return doubt;
            }
        }
    }

    async fn seen(&self, look: &Look, writes: u64) -> Seen {
        let (index, waited_for) = (look.index, self.is_waited_for().await);
        let world = self.sim.world();
        Seen {
            now: world.now,
            unread: self.settled != Some(index.header),
            settles: self.settles,
            written: world.wal_writes != writes,
            waiting: self.unsealed,
            stopping: false,
            max_frame: index.header.max_frame.saturating_mul(SCALE),
            backfilled: index.backfilled.saturating_mul(SCALE),
            wal_bytes: u64::from(index.header.max_frame),
            parked: self.ratchet.is_parked() && index.backfilled == index.header.max_frame,
            on_mark_zero: self.ratchet.is_parked(),
            waited_for,
            read_back: false,
        }
    }
}
