//! The WAL that is being read: `tail.rs`.

use std::time::Duration;

use genesis_wal::index::WalIndex;
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step as ScanStep, Transaction};

use super::super::sqlite::Mode;
use super::super::world::{CHECKPOINT, WRITE, World, index_of};
use super::{LOOK_AGAIN, Life, Look, OF_TWO_MINDS, PIN, SCALE};
use crate::replicate::cursor::{Doubt, Next};
use crate::replicate::ratchet::{Guard, Holds, Outcome, Procedure, Step};

impl Life {
    async fn catch_up(&mut self) -> Result<WalIndex, Doubt> {
        // The driver goes on while much is ahead of it; no more than this has to be read.
        loop {
            let look = self.published().await;
            if self.settled == Some(look.index.header) {
                self.settle(&look);
                return Ok(look.index);
            }
            self.read(&look).await?;
            if self.settled == Some(look.index.header) {
                return Ok(look.index);
            }
        }
    }

    pub(super) async fn move_lock(&mut self, procedure: Procedure) -> Result<(), Doubt> {
        let now = self.sim.world().now;
        let mut step = self.ratchet.start(procedure, now);
        let (mut locked, mut gave_way) = (false, 0);
        self.sim.world().replica.parked = false;
        while step != Step::Finished {
            self.sim.world().note(PIN, || format!("{procedure:?}: {step:?}"));
            self.compare_books();
            let before = self.published().await.index;
            let mut copied = None;
            let done = match step {
                Step::Copy => {
                    copied = Some(self.catch_up().await?);
                    true
                }
                Step::Checkpoint(_) if !self.is_write_locked => self.checkpoint_beside().await?,
                Step::Sync => {
                    let takes = self.sim.world().random.one_of(&[1, 1, 1, 1, 1, 1, 1, 1, 1, 120]);
                    let (sim, takes) = (self.sim.clone(), Duration::from_millis(takes));
                    self.beside(async move { sim.rest(takes).await }).await?;
                    true
                }
                step => self.take(step).await,
            };
            locked |= done && matches!(step, Step::Write(_));
            gave_way += u64::from(step == Step::Rollback);
            let index = match (step, copied) {
                (Step::Begin, _) => before,
                (_, Some(copied)) => copied,
                _ => self.published().await.index,
            };
            let waited_for = self.is_waited_for().await;
            let now = self.sim.world().now;
            let next = self.ratchet.next(&Outcome { now, done, index, waited_for });
            step = next.expect("the WAL would be left unguarded");
        }
        let parked = self.ratchet.is_parked();
        let index = self.published().await.index;
        let max_frame = index.header.max_frame;
        let mut world = self.sim.world();
        assert!(!world.is_held_by_us(WRITE), "a procedure leaves the write lock behind");
        assert!(!world.is_held_by_us(CHECKPOINT), "a procedure leaves its reservation behind");
        world.tally.stranded += u64::from(!parked && index.backfilled == max_frame);
        world.replica.parked = parked;
        let scaled = |frames: u32| frames.saturating_mul(SCALE);
        self.engine.moved(world.now, parked, scaled(max_frame), scaled(index.backlog()));
        let tally = &mut world.tally;
        match procedure {
            Procedure::Drain => tally.drains += 1,
            Procedure::Force => {
                tally.forces += u64::from(locked);
                tally.gave_way += u64::from(gave_way > 1);
                tally.emptied += u64::from(locked && parked);
            }
            Procedure::Respond { .. } => tally.answers += 1,
        }
        Ok(())
    }

    /// What the ratchet believes to hold is what is held.
    fn compare_books(&self) {
        let Holds { older, newer, pin, write } = self.ratchet.holds();
        let believed = [older, newer, pin].map(|guard| guard != Guard::Free);
        let held = [self.reader.is_busy(), self.spare.is_busy(), self.pinned.is_some()];
        assert_eq!(believed, held, "what is held is not what the ratchet believes");
        // The write lock is given back early where the index has to be recovered.
        assert!(write != Guard::Free || !self.is_write_locked, "a write lock that nobody knows of");
    }

    async fn take(&mut self, step: Step) -> bool {
        match step {
            Step::Begin => return self.begin().await,
            Step::End => self.end_older().await,
            Step::Checkpoint(pause) => {
                self.sim.rest(pause).await;
                return self.spare.checkpoint(Mode::Passive, Duration::ZERO).await.is_ok();
            }
            Step::Write(pause) => {
                self.sim.rest(pause).await;
                return self.lock_writes().await;
            }
            Step::Rollback => self.unlock_writes().await,
            Step::Reserve(pause) => {
                self.sim.rest(pause).await;
                return self.op(|world| world.reserve(CHECKPOINT)).await;
            }
            Step::Release => self.op(|world| world.end_reservation(CHECKPOINT)).await,
            Step::Pin => return self.pin().await,
            Step::Unpin => self.unpin().await,
            Step::Look(pause) => self.sim.rest(pause).await,
            Step::Sync | Step::Copy | Step::Finished => panic!("{step:?} is not for here"),
        }
        true
    }

    pub(super) async fn read(&mut self, look: &Look) -> Result<(), Doubt> {
        let header = self.op(|world| world.wal_header()).await;
        match self.cursor.next(&look.index.header, header) {
            Next::UpToDate => {
                self.cursor.confirm(&look.index.header);
                self.counted_at = look.recoveries;
                self.settle(look);
            }
            Next::LookAgain => return self.look_again(ScanEnd::SaltChanged { frame: 1 }).await,
            Next::Doubt(doubt) => return Err(doubt),
            Next::Scan { scanner, identity } => return self.scan(look, scanner, identity).await,
        }
        Ok(())
    }

    async fn scan(
        &mut self,
        look: &Look,
        scanner: Scanner,
        identity: WalIdentity,
    ) -> Result<(), Doubt> {
        let (end, transactions) = self.run(scanner).await;
        if end != ScanEnd::Clean {
            return self.look_again(end).await;
        }
        let commits = u32::try_from(transactions.len()).unwrap();
        let header = look.index.header;
        self.cursor.advance(identity, &header, commits, false)?;
        self.counted_at = look.recoveries;
        let before = header.change.wrapping_sub(commits);
        for (number, transaction) in (1u32..).zip(&transactions) {
            self.last = Some(WalPosition {
                identity,
                frame: transaction.frame,
                checksum: transaction.checksum,
                change: before.wrapping_add(number),
                pages: transaction.pages,
            });
            // Within its window the driver reads nothing again. Only what a lock keeps can be.
            let window: &[_] = if self.absent { &self.window } else { &[] };
            self.op(|world| record(world, transaction, window)).await;
            self.unsealed += 1;
        }
        self.settle(look);
        Ok(())
    }

    /// Runs a scan to its end.
    pub(super) async fn run(&mut self, mut scanner: Scanner) -> (ScanEnd, Vec<Transaction>) {
        let mut transactions = Vec::new();
        let mut window = Vec::new();
        loop {
            let count = if scanner.frames_left() == 0 { 0 } else { 3 };
            let next = scanner.next_frame();
            let ended = self.op(|world| {
                let bytes = world.frames_from(next, count);
                let stamp = |frame| Some((frame, world.frame(frame)?.1));
                window.extend((next..next + count).filter_map(stamp));
                let mut reader = Reader::new(bytes);
                loop {
                    match scanner.step(&mut reader) {
                        ScanStep::Commit(transaction) => transactions.push(transaction),
                        ScanStep::End(end) => return Some(end),
                        ScanStep::NeedBytes if bytes.is_empty() => return Some(scanner.torn()),
                        ScanStep::NeedBytes => return None,
                    }
                }
            });
            if let Some(end) = ended.await {
                self.window = window;
                return (end, transactions);
            }
        }
    }

    fn settle(&mut self, look: &Look) {
        (self.settled, self.of_two_minds) = (Some(look.index.header), None);
        (self.settled_at, self.absent) = (look.recoveries, false);
        self.settles += 1;
        let mut world = self.sim.world();
        let copied = world.replica.commits;
        assert_eq!(copied, look.published, "believes to be up to date, and is not");
        world.replica.as_of = Some(look.step);
    }

    async fn look_again(&mut self, end: ScanEnd) -> Result<(), Doubt> {
        let now = self.sim.world().now;
        let since = *self.of_two_minds.get_or_insert(now);
        if now.saturating_sub(since) > OF_TWO_MINDS {
            return Err(Doubt::Scan(end));
        }
        self.sim.rest(LOOK_AGAIN).await;
        Ok(())
    }
}

/// Records a transaction: reads its pages again, and compares with what was committed.
fn record(world: &mut World, transaction: &Transaction, window: &[(u32, u64)]) {
    let commit = world.published[world.replica.commits];
    for image in &transaction.images {
        let proven = window.iter().find(|(frame, _)| *frame == image.frame);
        let again = || world.frame(image.frame).expect("a frame that was scanned").1;
        let stamp = proven.map_or_else(again, |(_, stamp)| *stamp);
        assert_eq!(stamp >> 8, commit.id, "another commit than the one that is next");
        world.replica.state[index_of(image.page.get())] = stamp;
    }
    assert_eq!(world.replica.state, commit.state, "the copied state is not the committed one");
    world.replica.commits += 1;
}
