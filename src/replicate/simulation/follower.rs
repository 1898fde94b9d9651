//! Ours: the driver of `follow.rs` and `source.rs` step by step, around the real engine, ratchet,
//! cursor and scanner.

use std::time::Duration;

use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step as ScanStep, Transaction};

use super::super::cursor::{Cursor, Doubt, Next};
use super::super::engine::{Action, Engine, Seen};
use super::super::ratchet::{Guard, Holds, Outcome, Procedure, Ratchet, Step};
use super::Sim;
use super::sqlite::{Connection, Mode};
use super::world::{
    CHECKPOINT, OURS, Owner, PAGES, State, Tip, UNUSED, WRITE, World, index_of, page_size, pages,
    read_lock,
};

/// So many frames of the engine's are one of ours: its thresholds are made for larger transactions.
const SCALE: u32 = 250;

/// How often an index of two minds is read again before it is recovered.
const INDEX_RETRIES: usize = 4;

/// As in the driver.
const LOOK_AGAIN: Duration = Duration::from_micros(50);
const OF_TWO_MINDS: Duration = Duration::from_millis(500);

/// The descriptor that pins.
const PIN: Owner = Owner { process: OURS, connection: 9 };

/// A look at the wal-index, and what the oracle knew at that moment.
#[derive(Debug, Clone, Copy)]
struct Look {
    index: WalIndex,
    step: u64,
    published: usize,
    recoveries: u64,
}

/// What a transaction holds.
struct Held {
    look: Look,
    overlay: bool,
}

/// One life of the process.
pub struct Life {
    sim: Sim,
    reader: Connection,
    spare: Connection,
    writer: Connection,
    pinned: Option<usize>,
    cursor: Cursor,
    engine: Engine,
    ratchet: Ratchet,
    settled: Option<IndexHeader>,
    of_two_minds: Option<Duration>,
    /// Recoveries when the cursor took its count of commits.
    counted_at: u64,
    /// Recoveries when everything was last read.
    settled_at: u64,
    /// The place is of an earlier life: the WAL behind it may be restarted before it is read.
    absent: bool,
    /// The frames of the last scan, as they were proven.
    window: Vec<(u32, u64)>,
    /// Commits that were recorded and are not sealed, and the place behind them.
    unsealed: u64,
    last: Option<WalPosition>,
    /// How often everything was read.
    settles: u64,
    /// Commits that the last captured WAL holds after the captured state.
    commits_after: u32,
}

/// Lives until it is killed.
pub async fn live(sim: Sim, wal_limit: Option<u64>) {
    let connection = |number| Connection::new(&sim, OURS, number);
    let look = Look { index: EMPTY, step: 0, published: 0, recoveries: 0 };
    let mut life = Life {
        reader: connection(0),
        spare: connection(1),
        writer: connection(2),
        pinned: None,
        cursor: Cursor::at(page_size(), &look.index.header, None, pages()),
        engine: Engine::new(Duration::from_millis(3), wal_limit),
        ratchet: Ratchet::new(),
        settled: None,
        of_two_minds: None,
        counted_at: 0,
        settled_at: 0,
        absent: false,
        window: Vec::new(),
        unsealed: 0,
        last: None,
        settles: 0,
        commits_after: 0,
        sim,
    };
    let held = life.acquire().await;
    let tip = life.sim.world().replica.tip;
    let resumed = match tip {
        Some(tip) => life.resume(&held, tip).await,
        None => false,
    };
    if !resumed {
        life.begin_generation(&held).await;
    }
    loop {
        let doubt = life.follow(wal_limit).await;
        life.doubted(doubt);
        life.seal();
        life.keep_one_reader().await;
        let held = life.acquire().await;
        life.end_older().await;
        life.begin_generation(&held).await;
    }
}

const EMPTY: WalIndex = WalIndex {
    header: IndexHeader {
        change: 0,
        page_size: None,
        max_frame: 0,
        pages: 0,
        frame_checksum: genesis_wal::checksum::Checksum(0, 0),
        salts: genesis_wal::header::Salts([0; 8]),
    },
    backfilled: 0,
    read_marks: [0; 5],
    backfill_attempted: 0,
};

/// The source: `source.rs`.
impl Life {
    async fn op<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        self.sim.op(act).await
    }

    async fn index(&self) -> Option<Look> {
        for _ in 0..INDEX_RETRIES {
            let (first, mut look) = self
                .op(|world| {
                    let (step, published) = (world.step, world.published.len());
                    let recoveries = world.recoveries;
                    (world.copies[0], Look { index: EMPTY, step, published, recoveries })
                })
                .await;
            let second = self.op(|world| world.copies[1]).await;
            let rest = self.op(|world| (world.backfilled, world.marks, world.attempted)).await;
            // What stands behind the header belongs to it only if that is still there.
            let again = self.op(|world| world.copies[0]).await;
            if let Some(header) = first.filter(|_| first == second && first == again) {
                let (backfilled, read_marks, backfill_attempted) = rest;
                look.index = WalIndex { header, backfilled, read_marks, backfill_attempted };
                return Some(look);
            }
        }
        None
    }

    /// The wal-index, as soon as it is whole.
    async fn published(&mut self) -> Look {
        loop {
            if let Some(look) = self.index().await {
                return look;
            }
            // A writer that died between our look and our lock left it torn under that lock.
            self.writer.end().await;
            let free = if self.spare.is_busy() { &mut self.writer } else { &mut self.spare };
            if free.begin().await.is_ok() {
                free.end().await;
            }
        }
    }

    async fn acquire(&mut self) -> Held {
        loop {
            let before = self.index().await;
            let connection = if self.reader.is_busy() { &mut self.spare } else { &mut self.reader };
            if connection.begin().await.is_err() {
                continue;
            }
            let after = self.index().await;
            if let Some(held) = before.zip(after).and_then(|(b, a)| classify(&b.index, &a)) {
                return held;
            }
            let newest = if self.spare.is_busy() { &mut self.spare } else { &mut self.reader };
            newest.end().await;
        }
    }

    async fn begin(&mut self) -> bool {
        // Somebody may rebuild the index for longer than a connection waits.
        let refused = self.sim.world().is_refused();
        if refused {
            self.sim.rest(LOOK_AGAIN).await;
            return false;
        }
        let free = if self.reader.is_busy() { &mut self.spare } else { &mut self.reader };
        free.begin().await.is_ok()
    }

    async fn end_older(&mut self) {
        self.reader.end().await;
        if self.spare.is_busy() {
            std::mem::swap(&mut self.reader, &mut self.spare);
        }
    }

    async fn lock_writes(&mut self) -> bool {
        if self.writer.begin().await.is_err() {
            return false;
        }
        let locked = self.writer.begin_write().await.is_ok();
        if !locked {
            self.writer.end().await;
        }
        locked
    }

    async fn pin(&mut self) -> bool {
        for (unused, slot) in [true, false].into_iter().flat_map(|u| (1..5).map(move |s| (u, s))) {
            let usable = |look: &Look| {
                let least = if unused { UNUSED } else { look.index.header.max_frame };
                look.index.read_marks[slot] >= least
            };
            if !self.index().await.is_some_and(|look| usable(&look)) {
                continue;
            }
            if !self.op(|world| world.share(PIN, read_lock(slot))).await {
                continue;
            }
            if self.index().await.is_some_and(|look| usable(&look)) {
                self.pinned = Some(slot);
                self.sim.world().tally.pins += 1;
                return true;
            }
            self.op(|world| world.unshare(PIN, read_lock(slot))).await;
        }
        false
    }

    async fn unpin(&mut self) {
        if let Some(slot) = self.pinned.take() {
            self.op(|world| world.unshare(PIN, read_lock(slot))).await;
        }
    }

    async fn is_waited_for(&self) -> bool {
        self.op(|world| world.is_held_by_another(CHECKPOINT)).await
            && self.op(|world| world.is_held_by_another(WRITE)).await
    }

    async fn keep_one_reader(&mut self) {
        self.sim.world().replica.as_of = None;
        self.writer.end().await;
        if self.spare.is_busy() && self.reader.is_busy() {
            self.end_older().await;
        } else if !self.reader.is_busy() {
            while self.reader.begin().await.is_err() {}
        }
        self.unpin().await;
    }
}

/// The start: `establish.rs`.
impl Life {
    async fn begin_generation(&mut self, held: &Held) {
        let header = held.look.index.header;
        let wal = self.op(|world| world.wal_header()).await;
        self.cursor = Cursor::at(page_size(), &header, wal, pages());
        let upto = if held.overlay { header.max_frame } else { 0 };
        let state = self.capture(&header, upto, None).await.expect("the held state");
        self.sim.world().tally.generations += 1;
        self.start_from(held, held.look.published, state, false);
        self.seal();
    }

    /// Whether the tip is continued.
    async fn resume(&mut self, held: &Held, tip: Tip) -> bool {
        let (recorded, header) = (self.sim.world().state_at(tip.commits), held.look.index.header);
        let wal = self.op(|world| world.wal_header()).await;
        let place =
            tip.position.filter(|p| wal.as_ref().map(WalIdentity::from) == Some(p.identity));
        // On read mark 0 nothing keeps what was committed after the place.
        let kept = |place: &WalPosition| held.overlay || place.frame == header.max_frame;
        if let Some(place) = place.filter(kept) {
            let state = self.capture(&header, place.frame, Some(place)).await;
            if state == Some(recorded) {
                let change = header.change.wrapping_sub(self.commits_after);
                self.cursor = Cursor::at_position(page_size(), &WalPosition { change, ..place });
                self.sim.world().tally.resumed += 1;
                self.start_from(held, tip.commits, recorded, true);
                return true;
            }
        }
        let wal = self.op(|world| world.wal_header()).await;
        let cursor = Cursor::at(page_size(), &header, wal, pages());
        let upto = if held.overlay { header.max_frame } else { 0 };
        let state = self.capture(&header, upto, None).await;
        let proven = state == Some(recorded) && tip.commits == held.look.published;
        if proven {
            self.cursor = cursor;
            self.start_from(held, tip.commits, recorded, false);
        }
        proven
    }

    fn start_from(&mut self, held: &Held, commits: usize, state: State, absent: bool) {
        (self.settled, self.of_two_minds, self.absent) = (None, None, absent);
        (self.counted_at, self.settled_at) = (held.look.recoveries, held.look.recoveries);
        (self.last, self.unsealed) = (self.cursor.position(), 1);
        self.ratchet = Ratchet::new();
        let mut world = self.sim.world();
        assert_eq!(state, world.state_at(commits), "the captured state was never committed");
        let replica = &mut world.replica;
        (replica.commits, replica.state) = (commits, state);
        replica.as_of = (!absent).then_some(held.look.step);
    }

    /// The database with the frames up to `upto` over the file; `None` when `place` is not reached.
    async fn capture(
        &mut self,
        index: &IndexHeader,
        upto: u32,
        place: Option<WalPosition>,
    ) -> Option<State> {
        let mut overlay = [0; PAGES];
        if upto > 0 {
            let wal = self.op(|world| world.wal_header()).await?;
            let scanner = Scanner::new(wal, 0, wal.checksum, index);
            let (end, transactions) = self.run(scanner).await;
            if end != ScanEnd::Clean {
                return None;
            }
            let mut reached = None;
            let after = transactions.iter().filter(|t| t.frame > upto).count();
            self.commits_after = u32::try_from(after).unwrap();
            for transaction in transactions.iter().filter(|t| t.frame <= upto) {
                reached = Some((transaction.frame, transaction.checksum));
                for image in &transaction.images {
                    overlay[index_of(image.page.get())] = image.frame;
                }
            }
            if place.is_some_and(|place| reached != Some((place.frame, place.checksum))) {
                return None;
            }
        }
        let mut state = [0; PAGES];
        for (page, frame) in overlay.into_iter().enumerate() {
            let read = self.op(|world| match frame {
                0 => Some(world.database[page]),
                _ => world.frame(frame).map(|(_, stamp)| stamp),
            });
            state[page] = read.await?;
        }
        Some(state)
    }
}

/// The driver: `follow.rs`.
impl Life {
    async fn follow(&mut self, wal_limit: Option<u64>) -> Doubt {
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
            waited_for,
            read_back: false,
        }
    }

    async fn catch_up(&mut self) -> Result<WalIndex, Doubt> {
        loop {
            let look = self.published().await;
            if self.settled == Some(look.index.header) {
                self.settle(&look);
                return Ok(look.index);
            }
            self.read(&look).await?;
        }
    }

    async fn move_lock(&mut self, procedure: Procedure) -> Result<(), Doubt> {
        let now = self.sim.world().now;
        let mut step = self.ratchet.start(procedure, now);
        let mut locked = false;
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
                step => self.take(step).await,
            };
            locked |= done && matches!(step, Step::Write(_));
            let index = match (step, copied) {
                (Step::Begin, _) => before,
                (_, Some(copied)) => copied,
                _ => self.published().await.index,
            };
            let waited_for = self.is_waited_for().await;
            let now = self.sim.world().now;
            step = self.ratchet.next(&Outcome { now, done, index, waited_for });
        }
        let parked = self.ratchet.is_parked();
        let index = self.published().await.index;
        let max_frame = index.header.max_frame;
        let mut world = self.sim.world();
        world.tally.stranded += u64::from(!parked && index.backfilled == max_frame);
        world.replica.parked = parked;
        self.engine.moved(world.now, parked, max_frame.saturating_mul(SCALE));
        let tally = &mut world.tally;
        match procedure {
            Procedure::Drain => tally.drains += 1,
            Procedure::Force => {
                tally.forces += u64::from(locked);
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
        assert!(
            write != Guard::Free || !self.writer.is_busy(),
            "a write lock that nobody knows of"
        );
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
            Step::Rollback => self.writer.end().await,
            Step::Pin => return self.pin().await,
            Step::Unpin => self.unpin().await,
            Step::Look(pause) => self.sim.rest(pause).await,
            Step::Sync => self.sim.rest(Duration::from_millis(1)).await,
            Step::Copy | Step::Finished => panic!("{step:?} is not for here"),
        }
        true
    }

    async fn read(&mut self, look: &Look) -> Result<(), Doubt> {
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
        self.cursor.advance(identity, &header, commits)?;
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
    async fn run(&mut self, mut scanner: Scanner) -> (ScanEnd, Vec<Transaction>) {
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

    fn seal(&mut self) {
        self.unsealed = 0;
        let replica = &mut self.sim.world().replica;
        replica.tip = Some(Tip { commits: replica.commits, position: self.last });
    }

    /// A doubt is only right where its reason was injected.
    fn doubted(&self, doubt: Doubt) {
        let mut world = self.sim.world();
        world.note(PIN, || format!("doubts: {doubt}"));
        let recovered = world.recoveries != self.counted_at;
        // A recovery counts commits anew. One that finds an empty WAL gives it salts of zero: two lives of
        // such a WAL have one identity, and only the chain of checksums tells them apart.
        let reason = matches!(doubt, Doubt::LostCommits { .. } | Doubt::Scan(_));
        assert!(self.absent || (recovered && reason), "doubts without a reason: {doubt}");
        world.tally.doubts += 1;
        let belated = !self.absent && world.recoveries == self.settled_at;
        world.tally.belated_doubts += u64::from(belated);
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

/// As in `source.rs`.
fn classify(before: &WalIndex, after: &Look) -> Option<Held> {
    let now = &after.index;
    let same_wal = before.header.salts == now.header.salts;
    if before.header == now.header && before.backfilled == before.header.max_frame {
        Some(Held { look: *after, overlay: false })
    } else if same_wal && now.backfilled < before.header.max_frame {
        Some(Held { look: *after, overlay: true })
    } else {
        None
    }
}
