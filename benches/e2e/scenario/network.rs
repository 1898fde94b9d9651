//! A replica behind a network: how long a commit is on its way, and what is asked for it.

mod restore;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use genesis_wal::name::ObjectName;
use tempfile::TempDir;

pub use self::restore::{database_20, database_100, segments_100};
use super::Place;
use crate::arrivals::{Arrival, Numbering, holds, lags};
use crate::bucket::Bucket;
use crate::clock;
use crate::figure::{Figure, figure};
use crate::side::{Destination, Log, Replicator, Side};
use crate::statistics::{millis, number, percentile};
use crate::wire::{Request, Wire, by_verb};
use crate::writer::{Load, Writer};

const LOAD: Load = Load { seconds: 20, rate: 10, synchronous: "NORMAL" };

/// Commits that come when all before them were shipped long ago.
const LONE: usize = 5;
const LONE_PAUSE: Duration = Duration::from_millis(2500);

/// How long it is idle, when everything was shipped [`REST`] ago.
const IDLE: Duration = Duration::from_secs(20);
const REST: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(2);
const PATIENCE: u64 = 60_000_000_000;

pub fn behind_20(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, Duration::from_millis(20))
}

pub fn behind_100(place: Place<'_>, side: &Side) -> Result<Vec<Figure>> {
    run(place, side, Duration::from_millis(100))
}

fn run(place: Place<'_>, side: &Side, round_trip: Duration) -> Result<Vec<Figure>> {
    let scene = Scene::set(place, side, round_trip)?;
    clock::rest(REST);
    let begun = clock::nanos();
    let commits = place.writer.start(&scene.database, LOAD)?.finish()?;
    let ended = clock::nanos();
    scene.await_after(commits.end())?;
    let lags: Option<Vec<_>> =
        lags(&commits, &scene.arrivals(), scene.numbering).into_iter().collect();
    let mut lags = lags.context("not every commit has arrived")?;
    lags.sort_unstable();
    let written = scene.wire.requests();
    let mut lone = (0..LONE).map(|_| scene.lone(place.writer)).collect::<Result<Vec<_>>>()?;
    lone.sort_unstable();
    clock::rest(REST);
    let before = scene.wire.requests().len();
    clock::rest(IDLE);
    let idle = scene.wire.requests().split_off(before);
    scene.replicator.stop()?;
    let mut figures = vec![
        figure("commit to store, median", "ms", millis(percentile(&lags, 500))),
        figure("commit to store, p99", "ms", millis(percentile(&lags, 990))),
        figure("lone commit to store, median", "ms", millis(percentile(&lone, 500))),
    ];
    let is_of_load = |request: &&Request| (begun..ended).contains(&request.at);
    figures.extend(per_minute(WRITING, written.iter().filter(is_of_load), ended - begun));
    let idle_nanos = u64::try_from(IDLE.as_nanos())?;
    figures.extend(per_minute(IDLING, &idle, idle_nanos));
    Ok(figures)
}

/// Names of the figures, by verb; the last is of all together.
type Names = [(&'static str, &'static str); 6];

const WRITING: Names = [
    ("PUT", "PUT while writing"),
    ("GET", "GET while writing"),
    ("HEAD", "HEAD while writing"),
    ("LIST", "LIST while writing"),
    ("POST", "POST while writing"),
    ("", "requests while writing"),
];

const IDLING: Names = [
    ("PUT", "PUT when idle"),
    ("GET", "GET when idle"),
    ("HEAD", "HEAD when idle"),
    ("LIST", "LIST when idle"),
    ("POST", "POST when idle"),
    ("", "requests when idle"),
];

fn per_minute<'a>(
    names: Names,
    requests: impl IntoIterator<Item = &'a Request>,
    nanos: u64,
) -> impl Iterator<Item = Figure> {
    let counts = by_verb(requests);
    let of_minute = move |count: usize| number(count) * 6e10 / number(nanos);
    let figures = names.map(|(verb, name)| {
        let count = match verb {
            "" => Some(counts.values().sum()),
            verb => counts.get(verb).copied(),
        };
        count.map(|count| figure(name, "1/min", of_minute(count)))
    });
    figures.into_iter().flatten()
}

/// A new database that is followed through a network, and was committed to once.
struct Scene {
    database: PathBuf,
    bucket: Bucket,
    wire: Wire,
    replicator: Replicator,
    numbering: Numbering,
    // Removed last.
    _folder: TempDir,
}

impl Scene {
    fn set(place: Place<'_>, side: &Side, round_trip: Duration) -> Result<Self> {
        let folder = TempDir::new_in(place.folder).context("no folder")?;
        let database = folder.path().join("app.db");
        place.writer.make(&database)?;
        let bucket = Bucket::new()?;
        let wire = bucket.wire(round_trip)?;
        let log = Log { path: folder.path().join("log"), level: "info" };
        let replicator =
            side.start_to(&database, Destination::Bucket(&bucket, &wire), &log, &[])?;
        let replicator = replicator.context("nothing is replicated")?;
        let numbering = Numbering::NextObject;
        let mut scene = Self { database, bucket, wire, replicator, numbering, _folder: folder };
        scene.numbering = scene
            .await_first(side)
            .with_context(|| std::fs::read_to_string(&log.path).unwrap_or_default())?;
        place.writer.commit(&scene.database)?;
        Ok(scene)
    }

    /// Waits for the first object of the history: the transactions that are numbered from there on.
    fn await_first(&self, side: &Side) -> Result<Numbering> {
        let until = clock::nanos() + PATIENCE;
        while clock::nanos() < until {
            let arrivals = self.arrivals();
            let ours = arrivals.iter().find_map(|arrival| match arrival.name.parse().ok()? {
                // One commit comes before those that are measured.
                ObjectName::Manifest(manifest) => Some(Numbering::After(manifest.txid.0 + 1)),
                _ => None,
            });
            let others = *side != Side::With && !arrivals.is_empty();
            if let Some(numbering) = ours.or(others.then_some(Numbering::NextObject)) {
                return Ok(numbering);
            }
            clock::rest(POLL);
        }
        bail!("{} does not begin to replicate", side.name())
    }

    /// What the store has acknowledged, in that order.
    fn arrivals(&self) -> Vec<Arrival> {
        let requests = self.wire.requests().into_iter();
        let stored = requests.filter(|request| request.verb == "PUT").filter_map(|request| {
            let name = self.bucket.name(&request.path)?.to_owned();
            Some(Arrival { at: request.done()?, name })
        });
        let mut arrivals: Vec<_> = stored.collect();
        arrivals.sort_by_key(|arrival| arrival.at);
        arrivals
    }

    /// Waits until transactions have arrived after this time, and then for as long as nothing else may
    /// be expected; when the first did.
    fn await_after(&self, time: u64) -> Result<u64> {
        let until = time + PATIENCE;
        let is_after =
            |arrival: &Arrival| arrival.at > time && holds(arrival, self.numbering).is_some();
        loop {
            if let Some(first) = self.arrivals().iter().find(|arrival| is_after(arrival)) {
                clock::rest(LONE_PAUSE);
                return Ok(first.at);
            }
            ensure!(clock::nanos() < until, "nothing has arrived");
            clock::rest(POLL);
        }
    }

    /// How long one commit is on its way.
    fn lone(&self, writer: &Writer) -> Result<u64> {
        writer.commit(&self.database)?;
        let ended = clock::nanos();
        Ok(self.await_after(ended)? - ended)
    }
}
