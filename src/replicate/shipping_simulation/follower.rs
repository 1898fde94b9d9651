//! A follower of the model: what `follow` and `tail` do, as a task of the simulated process, around the
//! real recorder, engine, spool and outbox.

mod meanwhile;
mod snapshot;

use std::cell::Cell;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use genesis_snapshot::block::hash_block;
use genesis_wal::id::Txid;
use genesis_wal::page::{PageHash, PageNumber};
use genesis_wal::part::Stamp;
use genesis_wal::segment::TransactionKind;
use genesis_wal::time::Micros;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::meanwhile::Left;
use self::snapshot::Snapshots;
use super::database::{Database, Pages, Still, layout, page_size};
use super::notary::Notary;
use crate::replicate::attempts::Attempts;
use crate::replicate::engine::{Action, Engine, Seen};
use crate::replicate::establish::{EstablishError, Origin};
use crate::replicate::follow::{FollowError, Follower, Stage, Word};
use crate::replicate::followed;
use crate::replicate::likeness::Likeness;
use crate::replicate::record::{self, Closed, GapEnd, RecordError, Recorder, State};
use crate::replicate::segments::Segments;
use crate::replicate::ship::{Outbox, ShippingEnded};
use crate::replicate::table::{Keeper, PageTable};
use crate::replicate::times::Times;
use crate::{clock, durable};

/// The shortest time between two looks for a word.
const LOOK: Duration = Duration::from_millis(50);

/// The shortest pause of a runtime's clock.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest pause before something wakes it.
const WOKEN: Duration = Duration::from_millis(100);

/// The longest pause where nothing is under way, unless the bell is rung.
const IDLE: Duration = Duration::from_secs(5);

/// Silence after which nothing is under way.
const QUIET: Duration = Duration::from_secs(2);

/// Who follows.
pub struct Hand {
    /// What a session gives to a follower.
    pub follower: Follower,
    /// What is followed.
    pub database: Arc<Mutex<Database>>,
    /// Who learns what was recorded.
    pub notary: Arc<Mutex<Notary>>,
    /// The process.
    pub process: usize,
    /// It records before the replica has answered, where it can.
    pub meanwhile: bool,
    /// The host's disk has lost nothing.
    pub keeps_all: bool,
    /// Where what was recorded then ends.
    pub left: Option<Left>,
}

impl Hand {
    /// Follows until told to stop; the last recorded transaction.
    pub async fn run(self) -> Result<Option<Txid>, FollowError> {
        self.follower.stage.send_replace(Stage::Followed);
        let (hand, origin) = self.await_origin().await?;
        let mut tail = hand.establish(origin)?;
        tail.tell(&tail.hand.database());
        let bell = Arc::clone(&tail.hand.database().bell);
        loop {
            let stopping = tail.hand.follower.alarm.stopping() && !tail.is_unfinished();
            let seen = tail.look(stopping);
            tail.attend()?;
            if tail.act(&seen, &bell).await? {
                return Ok(tail.finish());
            }
        }
    }

    async fn await_origin(self) -> Result<(Self, Origin), FollowError> {
        let (mut hand, mut may_record, mut pause) = (self, true, LOOK);
        loop {
            let mut word = None;
            if std::mem::take(&mut may_record) && hand.meanwhile {
                (hand, word) = hand.record_meanwhile().await?;
            }
            match word.map_or_else(|| hand.follower.words.try_recv(), Ok) {
                Ok(Word::Begin(origin)) => return Ok((hand, *origin)),
                Ok(Word::Settle(reply)) => _ = reply.send(()),
                Ok(Word::Compare(recorded, _, reply)) => {
                    // Who asked may have given up.
                    reply.send(Some(hand.compare(&recorded))).ok();
                    (may_record, pause) = (true, LOOK);
                }
                Err(TryRecvError::Empty) => {
                    sleep(pause).await;
                    pause = QUIET.min(pause * 2);
                }
                Err(TryRecvError::Disconnected) => return Err(ShippingEnded.into()),
            }
        }
    }

    fn compare(&self, recorded: &PageTable) -> Likeness {
        let database = self.database();
        let pages = database.current();
        compare(pages, recorded)
    }

    /// Goes on from where recording begins.
    fn establish(self, mut origin: Origin) -> Result<Tail, FollowError> {
        self.hears_of(&origin);
        let Follower { folder, spool, outbox, store, path, .. } = &self.follower;
        for name in &origin.unshipped {
            outbox.segment(*name)?;
        }
        let times = Times::begin(folder, origin.last_time, Arc::clone(store));
        let mut database = self.database.lock().unwrap();
        let known = origin.tip.zip(origin.table.take());
        let (at, absent_since, recorder) = if let Some((tip, table)) = known {
            let stamp = Stamp { generation: tip.generation, epoch: origin.epoch };
            let end = (tip.reached.txid, tip.reached.time, tip.reached.state);
            let line = Segments::new(spool.clone(), stamp, tip.page_size, end);
            match tip.reached.position.and_then(|place| database.place(&place)) {
                Some(at) => (at, Some(tip.reached.time), Recorder::continuing(table, line)),
                None => (database.commits(), None, self.after_absence(&database, table, line)?),
            }
        } else {
            let file = durable::nameless(folder).map_err(RecordError::Local)?;
            let table = PageTable::new(page_size(), file);
            let pages = layout(database.current()).pages;
            let recorder = Recorder::beginning(table, pages).map_err(RecordError::Local)?;
            (database.commits(), None, recorder)
        };
        followed::remember(folder, path).map_err(RecordError::Local)?;
        database.held = Some(at);
        drop(database);
        Ok(Tail {
            recorder,
            engine: Engine::new(self.follower.sync_interval, None),
            keeper: Keeper::new(folder.clone()),
            times,
            snapshots: Snapshots::begin(origin, self.follower.snapshot_interval),
            at,
            absent_since,
            settles: 1,
            last_read: clock::monotonic(),
            closing: Attempts::default(),
            told: Cell::new(Micros(0)),
            outbox: outbox.clone(),
            process: self.process,
            hand: self,
        })
    }

    /// Every page is compared; the database must not be another.
    fn after_absence(
        &self,
        database: &Database,
        mut table: PageTable,
        line: Segments,
    ) -> Result<Recorder, FollowError> {
        let Follower { folder, path, allowed, .. } = &self.follower;
        if !allowed.new_generation && !followed::was_followed(folder, path) {
            let likeness = compare(database.current(), &table).check();
            likeness.map_err(EstablishError::Another)?;
        }
        table.resize(layout(database.current()).pages).map_err(RecordError::Local)?;
        Ok(Recorder::after_absence(table, line))
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap()
    }

    fn notary(&self) -> MutexGuard<'_, Notary> {
        self.notary.lock().unwrap()
    }
}

/// How much of a recorded state a state holds.
fn compare(pages: &Pages, recorded: &PageTable) -> Likeness {
    let hashes = (1..).zip(pages.iter()).map(|(page, bytes)| {
        let page = PageNumber::new(page).unwrap();
        (recorded.hash(page), Some(PageHash::of(page, &bytes[..])))
    });
    let matching = hashes.filter(|(recorded, found)| recorded == found).count();
    let (matching, pages) = (u32::try_from(matching).unwrap(), layout(pages).pages);
    let is_equal = matching == pages && pages == recorded.pages();
    Likeness { matching, of: pages.min(recorded.pages()), is_equal }
}

/// A WAL that is being read.
struct Tail {
    hand: Hand,
    recorder: Recorder,
    engine: Engine,
    keeper: Keeper,
    times: Times,
    snapshots: Snapshots,
    /// Commits that were read.
    at: usize,
    absent_since: Option<Micros>,
    settles: u64,
    last_read: Duration,
    closing: Attempts,
    /// The time of the last record.
    told: Cell<Micros>,
    /// Where what is sealed goes.
    outbox: Outbox,
    /// As whose records they go into the books.
    process: usize,
}

impl Tail {
    fn is_unfinished(&self) -> bool {
        let is_left = self.recorder.is_behind() || self.snapshots.awaited.is_some();
        is_left && !self.hand.follower.outbox.is_closed()
    }

    fn is_idle(&self) -> bool {
        let is_idle = !self.is_unfinished() && self.snapshots.taking.is_none();
        is_idle && self.recorder.waiting() == 0 && clock::monotonic() > self.last_read + QUIET
    }

    fn look(&mut self, stopping: bool) -> Seen {
        self.times.look();
        Seen {
            now: clock::monotonic(),
            unread: self.at < self.hand.database().commits(),
            settles: self.settles,
            waiting: self.recorder.waiting(),
            stopping,
            parked: true,
            ..Seen::default()
        }
    }

    /// Does what the engine decides; whether that is to end.
    async fn act(&mut self, seen: &Seen, bell: &Notify) -> Result<bool, FollowError> {
        match self.engine.next(seen) {
            Action::Read => self.read()?,
            Action::Seal => self.seal_or_keep().await?,
            // Something wakes it before its poll.
            Action::Wait(_) if self.is_idle() => _ = timeout(IDLE, bell.notified()).await,
            Action::Wait(time) | Action::Sleep(time) | Action::Tick(time) => {
                sleep(time.clamp(SHORTEST, WOKEN)).await;
            }
            Action::Finish => return Ok(true),
            other => panic!("{other:?}"),
        }
        Ok(false)
    }

    /// Reads what is committed.
    fn read(&mut self) -> Result<(), RecordError> {
        let database = Arc::clone(&self.hand.database);
        let mut database = database.lock().unwrap();
        let (time, late_since) = (self.times.now(), self.absent_since);
        let seen = record::Seen { time, late_since, unplaced: false };
        for number in self.at..database.commits() {
            let transaction = database.transaction(number);
            let position = database.position(number + 1).unwrap();
            let mut frames = database.frames(number);
            self.recorder.record(&transaction, position, &mut frames, seen)?;
            self.at = number + 1;
            self.tell(&database);
        }
        database.held = Some(self.at);
        (self.absent_since, self.settles) = (None, self.settles + 1);
        self.last_read = clock::monotonic();
        Ok(())
    }

    /// Has noted which state a transaction is of, where one was recorded.
    fn tell(&self, database: &Database) {
        if let Some(line) = self.recorder.line().filter(|_| !self.recorder.is_behind()) {
            let (stamp, state) = (line.stamp(), database.state(self.at));
            let recorded = (line.last(), line.last_time());
            assert!(recorded.1 >= self.told.get(), "{recorded:?} is before {:?}", self.told);
            self.told.set(recorded.1);
            let state = (self.at, state);
            self.hand.notary().recorded(self.process, stamp, recorded, line.state(), state);
        }
    }

    /// What there is to do beside reading.
    fn attend(&mut self) -> Result<(), FollowError> {
        self.take_reports()?;
        match self.recorder.gap_end() {
            Some(GapEnd::Open) => {
                self.confirm_all();
                self.close_gap()?;
            }
            Some(GapEnd::Record) => self.close_gap()?,
            Some(GapEnd::Snapshot) | None => self.snapshot()?,
        }
        Ok(())
    }

    fn confirm_all(&mut self) {
        let database = Arc::clone(&self.hand.database);
        let database = database.lock().unwrap();
        let pages = database.state(self.at);
        let layout = layout(pages);
        for block in 0..layout.blocks() {
            let mut raw = vec![0; layout.bytes(block)];
            Still(pages).read(layout.first_page(block).unwrap(), &mut raw).unwrap();
            self.recorder.captured(block, &hash_block(layout, block, &raw).0);
        }
    }

    fn close_gap(&mut self) -> Result<(), RecordError> {
        let is_due = self.closing.is_due();
        if self.recorder.gap_end() != Some(GapEnd::Record) || !is_due {
            return Ok(());
        }
        if self.hand.follower.spool.is_full() {
            self.closing.pause();
            return Ok(());
        }
        let database = Arc::clone(&self.hand.database);
        let database = database.lock().unwrap();
        let (position, time) = (database.position(self.at), self.times.now());
        let mut still = Still(database.state(self.at));
        match self.recorder.close_gap(&mut still, position, time) {
            Err(RecordError::Local(_)) => self.closing.pause(),
            other => {
                let is_coarse = |closed: Closed| closed.kind == TransactionKind::Coarse;
                self.hand.notary().coarse += u64::from(other?.is_some_and(is_coarse));
                self.tell(&database);
            }
        }
        Ok(())
    }

    async fn seal_or_keep(&mut self) -> Result<(), FollowError> {
        match self.seal() {
            Err(RecordError::Local(_)) => {
                self.engine.seal_failed(clock::monotonic());
                sleep(LOOK).await;
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn seal(&mut self) -> Result<(), RecordError> {
        let bytes = self.recorder.waiting();
        let Some(name) = self.recorder.seal()? else { return Ok(()) };
        self.outbox.segment(name)?;
        if let Some(as_of) = self.recorder.as_of() {
            self.keeper.sealed(bytes, self.recorder.table(), as_of);
        }
        Ok(())
    }

    fn finish(self) -> Option<Txid> {
        let Self { recorder, keeper, .. } = self;
        keeper.finish(recorder.table(), recorder.as_of());
        recorder.line().map(Segments::last)
    }
}
