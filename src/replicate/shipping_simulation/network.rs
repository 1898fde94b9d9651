//! The store, and the network to it: requests take their time, overtake one another, fail before or
//! after they were done, and may be done long after whoever asked has given up.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use genesis_wal::name::ObjectName;
use genesis_wal::time::Micros;
use tokio::sync::{Notify, oneshot};

use crate::simulated::{self, Random};
use crate::store::{Body, Claims, Listed, MemoryStore, Store, StoreError, StoreErrorKind};

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// Nothing fails.
    Calm,
    /// One in so many requests fails.
    Rough(u64),
    /// Nothing fails, and everything takes long.
    Slow,
    /// Everything fails.
    Out,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// It never arrives.
    Lost,
    /// It is done, and the answer is lost.
    AnswerLost,
    /// It is done long after who asked was told that it failed.
    Late,
}

/// What is asked.
#[derive(Debug, Clone)]
enum Verb {
    Create(ObjectName, Bytes),
    Get(ObjectName),
    GetRange(ObjectName, Range<u64>),
    Exists(ObjectName),
    List(String),
}

#[derive(Debug)]
enum Answer {
    Stored,
    Bytes(Bytes),
    Is(bool),
    Listed(Vec<Listed>),
}

type Outcome = Result<Answer, StoreError>;
type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What happens next to a request.
enum Step {
    /// It arrives: its work begins.
    Arrive(Verb),
    /// It is worked on.
    Work(Work),
    /// A listing looks at the next names, after those that it has found.
    List { prefix: String, after: Option<String>, found: Vec<Listed> },
    /// The answer comes back.
    Answer(Outcome),
}

/// A request under way.
struct Request {
    process: usize,
    reply: Option<oneshot::Sender<Outcome>>,
    /// It is answered with this, whatever comes of it.
    failure: Option<StoreError>,
    step: Step,
}

/// The store and all that is under way to it.
pub struct Sea {
    /// The time of the world.
    pub now: Duration,
    /// Chance.
    pub random: Random,
    /// How the network is.
    pub weather: Weather,
    /// By how much the store's clock is ahead of the world's, which began at [`EPOCH`].
    pub date_offset: i64,
    /// Names that a listing looks at in one go.
    pub listed_at_once: usize,
    /// Requests so far.
    pub requests: u64,
    /// What happened, where that is wanted.
    pub trace: Option<Vec<String>>,
    objects: MemoryStore,
    under_way: BTreeMap<(Duration, u64), Request>,
    sequence: u64,
    processes: BTreeMap<usize, Seat>,
    /// What the boot-time clock of a process said at the start of the world.
    pub boots: BTreeMap<usize, Duration>,
    booted_at: BTreeMap<usize, Micros>,
}

/// A process, as the network knows it.
#[derive(Debug)]
struct Seat {
    /// It dies after so many more requests.
    left: u64,
    /// Rung at each of its requests.
    bell: Arc<Notify>,
}

/// What the clocks say when the world begins.
pub const EPOCH: Micros = Micros(1_700_000_000_000_000);

impl Sea {
    /// An empty store under a calm sky.
    pub fn new(random: Random, objects: MemoryStore, trace: bool) -> Self {
        Self {
            now: Duration::ZERO,
            random,
            weather: Weather::Calm,
            date_offset: 0,
            listed_at_once: usize::MAX,
            requests: 0,
            trace: trace.then(Vec::new),
            objects,
            under_way: BTreeMap::new(),
            sequence: 0,
            processes: BTreeMap::new(),
            boots: BTreeMap::new(),
            booted_at: BTreeMap::new(),
        }
    }

    /// The store itself.
    pub fn objects(&self) -> &MemoryStore {
        &self.objects
    }

    /// Notes what happens, where that is wanted.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>12.3?} {}", self.now, what()));
        }
    }

    /// A process comes, which is to die with its request after so many more. A bell is rung at each.
    pub fn register(&mut self, process: usize, requests: u64) -> Arc<Notify> {
        let bell = Arc::new(Notify::new());
        self.processes.insert(process, Seat { left: requests, bell: Arc::clone(&bell) });
        bell
    }

    /// Whether a process is to die.
    pub fn is_doomed(&self, process: usize) -> bool {
        self.processes.get(&process).is_some_and(|seat| seat.left == 0)
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|(key, _)| key.0)
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Duration) {
        self.now = now;
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let request = entry.remove();
            self.step(request);
        }
    }

    fn step(&mut self, request: Request) {
        let Request { process, reply, failure, step } = request;
        let begins = matches!(step, Step::Arrive(_));
        let next = match step {
            Step::Arrive(Verb::List(prefix)) => {
                Step::List { prefix, after: None, found: Vec::new() }
            }
            Step::Arrive(verb) => Step::Work(work(self.objects.clone(), verb)),
            Step::Work(mut work) => {
                let polled = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                match polled {
                    // Others may come in between.
                    Poll::Pending => Step::Work(work),
                    Poll::Ready(outcome) => {
                        self.note(|| format!("#{process} {:?}", Brief(&outcome)));
                        Step::Answer(outcome)
                    }
                }
            }
            Step::List { prefix, after, mut found } => {
                let more = self.look(&prefix, after.as_ref());
                let (last, is_over) = (more.last().cloned(), more.len() < self.listed_at_once);
                found.extend(more.into_iter().map(|(_, listed)| listed));
                if is_over {
                    Step::Answer(Ok(Answer::Listed(found)))
                } else {
                    Step::List { prefix, after: last.map(|last| last.0), found }
                }
            }
            Step::Answer(outcome) => {
                if let Some(reply) = reply {
                    let wall = EPOCH.0 + u64::try_from(self.now.as_micros()).unwrap();
                    let date = wall.saturating_add_signed(self.date_offset);
                    let since_boot =
                        self.boots.get(&process).copied().unwrap_or_default() + self.now;
                    let since_boot = u64::try_from(since_boot.as_micros()).unwrap();
                    self.booted_at.insert(process, Micros(date.saturating_sub(since_boot)));
                    // Whoever asked may be gone.
                    reply.send(failure.map_or(outcome, Err)).ok();
                }
                return;
            }
        };
        let pause = if begins { Duration::ZERO } else { self.delay() };
        self.put(pause, Request { process, reply, failure, step: next });
    }

    /// The next names of a listing.
    fn look(&self, prefix: &str, after: Option<&String>) -> Vec<(String, Listed)> {
        let listed = |(key, object): (&String, &Bytes)| {
            Some((key.clone(), Listed { name: key.parse().ok()?, size: object.len() as u64 }))
        };
        self.objects.change(|objects| {
            let named = objects.iter().filter(|(key, _)| key.starts_with(prefix));
            let rest = named.filter(|(key, _)| after.is_none_or(|after| *key > after));
            rest.filter_map(listed).take(self.listed_at_once).collect()
        })
    }

    fn send(&mut self, process: usize, verb: Verb, reply: oneshot::Sender<Outcome>) {
        self.requests += 1;
        self.now = simulated::machine().map_or(self.now, |machine| self.now.max(machine.now()));
        if let Some(Seat { left, bell }) = self.processes.get_mut(&process) {
            *left = left.saturating_sub(1);
            bell.notify_one();
        }
        let fate = self.fate();
        self.note(|| format!("#{process} {:?}: {fate:?}", Brief(&verb)));
        let pause = self.delay();
        match fate {
            Fate::Done => {
                let step = Step::Arrive(verb);
                self.put(pause, Request { process, reply: Some(reply), failure: None, step });
            }
            Fate::Lost => {
                let pause = pause + self.patience();
                let kind =
                    self.random.one_of(&[StoreErrorKind::Passing, StoreErrorKind::PerhapsDone]);
                let step = Step::Answer(Err(failure(kind, &verb)));
                self.put(pause, Request { process, reply: Some(reply), failure: None, step });
            }
            Fate::AnswerLost => {
                let failure = Some(failure(StoreErrorKind::PerhapsDone, &verb));
                let step = Step::Arrive(verb);
                self.put(pause, Request { process, reply: Some(reply), failure, step });
            }
            Fate::Late => {
                let told = Step::Answer(Err(failure(StoreErrorKind::PerhapsDone, &verb)));
                let late = pause + self.patience() + self.patience();
                let step = Step::Arrive(verb);
                self.put(pause, Request { process, reply: Some(reply), failure: None, step: told });
                self.put(late, Request { process, reply: None, failure: None, step });
            }
        }
    }

    fn put(&mut self, pause: Duration, request: Request) {
        self.sequence += 1;
        self.under_way.insert((self.now + pause, self.sequence), request);
    }

    fn fate(&mut self) -> Fate {
        let fails = match self.weather {
            Weather::Calm | Weather::Slow => false,
            Weather::Rough(times) => self.random.once_in(times),
            Weather::Out => true,
        };
        match (fails, self.weather) {
            (false, _) => Fate::Done,
            (true, Weather::Out) => Fate::Lost,
            (true, _) => self.random.one_of(&[Fate::Lost, Fate::AnswerLost, Fate::Late]),
        }
    }

    fn delay(&mut self) -> Duration {
        let millis = match (self.weather, self.random.below(20)) {
            (Weather::Slow, _) => 20_000,
            (Weather::Calm, _) => 20,
            (_, 0) => 5_000,
            (_, 1..4) => 300,
            _ => 30,
        };
        self.random.time(Duration::from_millis(millis))
    }

    /// How long somebody waits for an answer that does not come.
    fn patience(&mut self) -> Duration {
        let seconds = self.random.one_of(&[0, 0, 1, 20]);
        self.random.time(Duration::from_secs(seconds))
    }
}

fn work(objects: MemoryStore, verb: Verb) -> Work {
    Box::pin(async move {
        Ok(match verb {
            Verb::Create(name, bytes) => {
                objects.create(&name, Body::Bytes(bytes)).await?;
                Answer::Stored
            }
            Verb::Get(name) => Answer::Bytes(objects.get(&name).await?),
            Verb::GetRange(name, range) => Answer::Bytes(objects.get_range(&name, range).await?),
            Verb::Exists(name) => Answer::Is(objects.exists(&name).await?),
            Verb::List(prefix) => Answer::Listed(objects.list(&prefix).await?),
        })
    })
}

fn failure(kind: StoreErrorKind, verb: &Verb) -> StoreError {
    let (action, subject) = ("do", format!("{:?}", Brief(verb)));
    StoreError { kind, action, subject, retry_after: 0, source: "the network".into() }
}

/// Says it without the bytes.
struct Brief<'a, T>(&'a T);

impl fmt::Debug for Brief<'_, Verb> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Verb::Create(name, bytes) => write!(f, "create {name} of {} bytes", bytes.len()),
            Verb::Get(name) => write!(f, "get {name}"),
            Verb::GetRange(name, range) => write!(f, "get {range:?} of {name}"),
            Verb::Exists(name) => write!(f, "look for {name}"),
            Verb::List(prefix) => write!(f, "list {prefix:?}"),
        }
    }
}

impl fmt::Debug for Brief<'_, Outcome> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Ok(Answer::Stored) => write!(f, "stored"),
            Ok(Answer::Bytes(bytes)) => write!(f, "{} bytes", bytes.len()),
            Ok(Answer::Is(is)) => write!(f, "is there: {is}"),
            Ok(Answer::Listed(listed)) => write!(f, "{} names", listed.len()),
            Err(error) => write!(f, "{error}: {:?}", error.kind),
        }
    }
}

/// The store as one process sees it.
#[derive(Clone)]
pub struct Port {
    sea: Arc<Mutex<Sea>>,
    process: usize,
    claims: Claims,
}

impl Port {
    /// The port of a process.
    pub fn new(sea: Arc<Mutex<Sea>>, process: usize, claims: Claims) -> Self {
        Self { sea, process, claims }
    }

    async fn ask(&self, verb: Verb) -> Outcome {
        let (reply, answer) = oneshot::channel();
        self.sea().send(self.process, verb, reply);
        match answer.await {
            Ok(outcome) => outcome,
            Err(_never) => std::future::pending().await,
        }
    }

    fn sea(&self) -> MutexGuard<'_, Sea> {
        self.sea.lock().unwrap()
    }
}

impl fmt::Debug for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Port({})", self.process)
    }
}

#[async_trait]
impl Store for Port {
    async fn create(&self, name: &ObjectName, body: Body) -> Result<(), StoreError> {
        let bytes = match body {
            Body::Bytes(bytes) => bytes,
            Body::File(path) => std::fs::read(&path).map(Bytes::from).map_err(|error| {
                let subject = path.display().to_string();
                let (kind, action) = (StoreErrorKind::NotFound, "store");
                StoreError { kind, action, subject, retry_after: 0, source: error.into() }
            })?,
        };
        self.ask(Verb::Create(*name, bytes)).await.map(|_stored| ())
    }

    async fn get(&self, name: &ObjectName) -> Result<Bytes, StoreError> {
        match self.ask(Verb::Get(*name)).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    async fn get_range(&self, name: &ObjectName, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self.ask(Verb::GetRange(*name, range)).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            other => panic!("{other:?}"),
        }
    }

    async fn exists(&self, name: &ObjectName) -> Result<bool, StoreError> {
        match self.ask(Verb::Exists(*name)).await? {
            Answer::Is(is) => Ok(is),
            other => panic!("{other:?}"),
        }
    }

    async fn claims(&self, _witness: &ObjectName) -> Result<Claims, StoreError> {
        Ok(self.claims)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        match self.ask(Verb::List(prefix.to_owned())).await? {
            Answer::Listed(listed) => Ok(listed),
            other => panic!("{other:?}"),
        }
    }

    fn booted_at(&self) -> Option<Micros> {
        self.sea().booted_at.get(&self.process).copied()
    }
}
