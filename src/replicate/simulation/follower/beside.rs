//! A second thread of ours, as `sqlite/guards.rs` has it: it waits for the disk, and what is committed is
//! read meanwhile.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use super::super::Sim;
use super::super::sqlite::{Connection, Mode};
use super::super::world::OURS;
use super::Life;
use crate::replicate::cursor::Doubt;

/// The rest of who has nothing to read.
const BESIDE_PAUSE: Duration = Duration::from_millis(1);

/// The connection that is opened where the spare one is in use.
const ANOTHER: u8 = 7;

/// One of two threads.
struct Thread<'a, T> {
    task: Pin<Box<dyn Future<Output = T> + 'a>>,
    ready_at: Duration,
    ended: Option<T>,
}

impl<'a, T> Thread<'a, T> {
    fn new(task: impl Future<Output = T> + 'a) -> Self {
        Self { task: Box::pin(task), ready_at: Duration::ZERO, ended: None }
    }

    /// When it goes on; `None` when it has ended.
    fn next(&self) -> Option<Duration> {
        self.ended.is_none().then_some(self.ready_at)
    }

    fn is_ready(&self, now: Duration) -> bool {
        self.next().is_some_and(|at| at <= now)
    }

    fn step(&mut self, sim: &Sim, context: &mut Context<'_>) {
        if let Poll::Ready(ended) = self.task.as_mut().poll(context) {
            self.ended = Some(ended);
        }
        let mut world = sim.world();
        self.ready_at = world.now + std::mem::take(&mut world.rest);
    }
}

impl Life {
    pub(super) async fn checkpoint_beside(&mut self) -> Result<bool, Doubt> {
        let another = Connection::new(&self.sim, OURS, ANOTHER);
        let mut spare = std::mem::replace(&mut self.spare, another);
        let done = self.beside(spare.checkpoint(Mode::Passive, Duration::ZERO)).await;
        self.spare = spare;
        Ok(done?.is_ok())
    }

    /// Does what waits for the disk, and reads meanwhile.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Doubt> {
        let (sim, has_ended) = (self.sim.clone(), Cell::new(false));
        let mut work = Thread::new(work);
        let mut reads = Thread::new(self.read_until(&has_ended));
        poll_fn(|context| {
            let now = sim.world().now;
            let both = work.is_ready(now) && reads.is_ready(now);
            if both && sim.world().random.once_in(2) || !reads.is_ready(now) {
                work.step(&sim, context);
                if work.ended.is_some() {
                    // It listens for the end while it rests.
                    has_ended.set(true);
                    reads.ready_at = now;
                }
            } else {
                reads.step(&sim, context);
            }
            match work.next().into_iter().chain(reads.next()).min() {
                Some(at) => {
                    sim.world().rest = at.saturating_sub(now);
                    Poll::Pending
                }
                None => Poll::Ready(()),
            }
        })
        .await;
        reads.ended.expect("both have ended")?;
        Ok(work.ended.expect("both have ended"))
    }

    async fn read_until(&mut self, has_ended: &Cell<bool>) -> Result<(), Doubt> {
        while !has_ended.get() {
            let look = self.published().await;
            if self.settled == Some(look.index.header) {
                self.sim.rest(BESIDE_PAUSE).await;
            } else {
                self.sim.world().tally.read_beside += 1;
                self.read(&look).await?;
            }
        }
        Ok(())
    }
}
