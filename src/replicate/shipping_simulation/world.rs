//! The world: hosts, the store and the network between, and what must hold of them at any time.

mod checks;
mod rest;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use genesis_restore::target::Target;
use genesis_wal::id::Generation;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::database::{Database, PAGE};
use super::host::{Ended, Host, Settings};
use super::network::{EPOCH, Port, Sea};
use super::notary::{Notary, Recorded};
use super::tally::Tally;
use crate::replica::{Replica, ReplicaError};
use crate::replicate::session::SessionError;
use crate::replicate::{Allowed, EstablishError, FollowError, ShipError, SpoolLimits};
use crate::restore::{Request, restore};
use crate::simulated::Random;
use crate::store::{Claims, MemoryStore, Objects};

/// The shortest time that passes.
const TICK: Duration = Duration::from_millis(1);

/// The world.
pub struct World {
    pub random: Random,
    pub now: Duration,
    pub hosts: Vec<Host>,
    pub tally: Tally,
    sea: Arc<Mutex<Sea>>,
    notary: Arc<Mutex<Notary>>,
    claims: Claims,
    folder: TempDir,
    restores: Runtime,
    processes: usize,
    outputs: usize,
}

impl World {
    /// A world with so many hosts, of which the first has a database.
    pub fn new(mut random: Random, trace: bool) -> Self {
        let claims = random.one_of(&[Claims::Exclusive, Claims::Shared]);
        let objects = MemoryStore::new(Objects::default());
        let objects = if claims == Claims::Shared { objects.with_shared_claims() } else { objects };
        let sea = Arc::new(Mutex::new(Sea::new(random.clone(), objects, trace)));
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_none| tempfile::tempdir()).unwrap();
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let restores = builder.enable_time().start_paused(true).build().unwrap();
        let hosts = 1 + random.index(3);
        let mut world = Self {
            random,
            now: Duration::ZERO,
            hosts: Vec::new(),
            tally: Tally::default(),
            sea,
            notary: Arc::default(),
            claims,
            folder,
            restores,
            processes: 0,
            outputs: 0,
        };
        for number in 0..hosts {
            let host = world.host(number);
            world.hosts.push(host);
        }
        let first = Database::new(Database::drawn(&mut world.random), &mut world.random);
        world.hosts[0].database = Some(Arc::new(Mutex::new(first)));
        std::fs::File::create(world.hosts[0].path()).unwrap();
        world
    }

    fn host(&mut self, number: usize) -> Host {
        let folder = self.folder.path().join(number.to_string());
        crate::durable::create_folders(&folder, 0o700).unwrap();
        let random = &mut self.random;
        let settings = Settings {
            sync_interval: Duration::from_millis(random.one_of(&[50, 1_000, 5_000])),
            snapshot_interval: Duration::from_secs(random.one_of(&[5, 60, 3_600])),
            spool: SpoolLimits {
                keep: random.one_of(&[0, 10_000, 64 << 20]),
                wait: random.one_of(&[None, Some(500), Some(3_000), Some(30_000)]),
            },
        };
        Host {
            folder,
            database: None,
            wall: EPOCH,
            boot: (Duration::from_secs(1_000 * (1 + number as u64)), number as u64),
            allowed: Allowed::default(),
            life: None,
            settings,
        }
    }

    /// The store and the network.
    pub fn sea(&self) -> MutexGuard<'_, Sea> {
        self.sea.lock().unwrap()
    }

    fn notary(&self) -> MutexGuard<'_, Notary> {
        self.notary.lock().unwrap()
    }

    /// Notes what happens, where that is wanted.
    pub fn note(&self, what: impl FnOnce() -> String) {
        self.sea().note(what);
    }

    /// What happened, where that was wanted.
    pub fn trace(&self) -> Vec<String> {
        self.sea().trace.clone().unwrap_or_default()
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time.max(TICK);
        while self.now < end {
            let next = self.sea().next().unwrap_or(end);
            let mut until = next.clamp(self.now + TICK, end.max(self.now + TICK));
            let first = self.random.index(self.hosts.len());
            for number in 0..self.hosts.len() {
                let number = (first + number) % self.hosts.len();
                until = self.hosts[number].run_until(until).max(self.now);
                let process = self.hosts[number].life.as_ref().map(|life| life.process);
                let is_doomed = process.is_some_and(|process| self.sea().is_doomed(process));
                if is_doomed {
                    self.note(|| format!("host {number} dies with its request"));
                    self.die(number);
                }
            }
            self.now = until;
            self.sea().advance(until);
            self.observe();
        }
    }

    /// A process is gone at once.
    pub fn die(&mut self, number: usize) {
        self.observe();
        self.hosts[number].kill();
        self.tally.deaths += 1;
    }

    /// Hears what the processes have to say.
    fn observe(&mut self) {
        for number in 0..self.hosts.len() {
            let Some(life) = &self.hosts[number].life else { continue };
            if let Some(txid) = life.durable() {
                self.notary.lock().unwrap().reported(life.process, txid);
            }
            if let Some(ended) = life.ended() {
                self.hosts[number].kill();
                self.note(|| format!("host {number} ends: {ended:?}"));
                self.ended(number, ended);
            }
        }
    }

    fn ended(&mut self, number: usize, ended: Ended) {
        let allowed = &mut self.hosts[number].allowed;
        *allowed = Allowed::default();
        match ended {
            Ok(_) => self.tally.releases += 1,
            Err(SessionError::Ship(ShipError::Fenced(_))) => self.tally.fenced += 1,
            Err(SessionError::Replica(ReplicaError::Held { .. })) => {
                allowed.takeover = self.random.once_in(2);
                self.tally.refused += 1;
            }
            Err(SessionError::Replica(ReplicaError::Taken(_))) => self.tally.taken += 1,
            Err(
                SessionError::Replica(ReplicaError::Another(_))
                | SessionError::Follow(FollowError::Establish(EstablishError::Another(_))),
            ) => {
                allowed.new_generation = true;
                self.tally.others += 1;
            }
            Err(error) => panic!("host {number} ends: {}", crate::describe(&error)),
        }
    }

    /// Starts a process on a host that has a database and none, which dies with a request some time if
    /// it is doomed.
    pub fn start(&mut self, number: usize, doom: Option<u64>) {
        if self.hosts[number].life.is_some() || self.hosts[number].database.is_none() {
            return;
        }
        self.processes += 1;
        let process = self.processes;
        self.note(|| format!("host {number} starts process {process}, doomed: {doom:?}"));
        let bell = self.sea().register(process, doom.unwrap_or(u64::MAX));
        let boot = self.hosts[number].boot.0;
        self.sea().boots.insert(process, boot);
        let port = Port::new(Arc::clone(&self.sea), process, self.claims);
        let meanwhile = self.random.once_in(2);
        self.hosts[number].start((process, meanwhile), self.now, (port, &self.notary, bell));
        self.tally.starts += 1;
    }

    /// Commits on a host.
    pub fn commit(&mut self, number: usize) {
        if let Some(database) = self.hosts[number].database.clone() {
            database.lock().unwrap().commit(&mut self.random);
            self.tally.commits += 1;
        }
    }

    /// What the process of a host has recorded.
    pub fn history(&self, number: usize) -> Vec<Recorded> {
        let process = self.hosts[number].life.as_ref().map_or(0, |life| life.process);
        self.notary().history(process)
    }

    /// Records of several commits in one.
    pub fn coarse(&self) -> u64 {
        self.notary().coarse
    }

    /// Bytes that wait in the spool of a host.
    pub fn waiting(&self, number: usize) -> u64 {
        let sizes = self.waiting_in_spool(number).into_iter();
        sizes.map(|path| path.metadata().unwrap().len()).sum()
    }

    fn waiting_in_spool(&self, number: usize) -> Vec<PathBuf> {
        let spool = self.hosts[number].folder.join(".app.db-genesis/spool");
        let (shipped, orphans) = (spool.join("shipped"), spool.join("orphans"));
        let mut waiting = files(&spool);
        waiting.retain(|path| !path.starts_with(&shipped) && !path.starts_with(&orphans));
        waiting
    }

    /// Puts the restored database in the place of a host's.
    pub fn restore_host(&mut self, number: usize, target: Target) {
        let host = &self.hosts[number];
        if host.life.is_some() {
            return;
        }
        let path = host.path();
        let request = request(target, None, path.clone());
        let old = host.folder.join("old.db");
        let had_one = path.exists();
        if had_one {
            crate::durable::rename(&path, &old).unwrap();
        }
        let store = Arc::new(self.sea().objects().clone());
        let done = self.restores.block_on(async {
            let (replica, holdings) = Replica::open_outlined(store).await?;
            restore(&replica, holdings, &request, |_| {}).await
        });
        let pages = match &done {
            Ok(_) => {
                let bytes = std::fs::read(&path).unwrap();
                let pages = bytes.chunks(PAGE).map(|page| Arc::new(page.try_into().unwrap()));
                Some(Arc::new(pages.collect()))
            }
            Err(_) => None,
        };
        self.note(|| format!("host {number} is restored to {target}: {done:?}"));
        match pages {
            Some(pages) => {
                let database = Database::new(pages, &mut self.random);
                self.hosts[number].database = Some(Arc::new(Mutex::new(database)));
                std::fs::remove_file(&old).ok();
                self.tally.restored_hosts += 1;
            }
            None if had_one => crate::durable::rename(&old, &path).unwrap(),
            None => {}
        }
    }

    /// Power is lost: what was not synced is lost with it, as far as chance has it.
    pub fn lose_power(&mut self, number: usize) {
        self.die(number);
        let random = &mut self.random;
        let host = &mut self.hosts[number];
        host.boot.1 += 100;
        if let Some(database) = &host.database {
            let commits = random.one_of(&[0, 1, 3, 20]);
            database.lock().unwrap().lose(commits, random);
        }
        let spool = host.folder.join(".app.db-genesis/spool");
        for path in files(&spool) {
            if random.once_in(3) {
                let len = path.metadata().unwrap().len();
                let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
                file.set_len(random.one_of(&[0, len / 2, random.clone().below(len.max(1))]))
                    .unwrap();
            }
        }
        self.tally.power_losses += 1;
    }
}

fn request(target: Target, generation: Option<Generation>, output: PathBuf) -> Request {
    Request {
        target,
        generation,
        min_txid: None,
        output,
        remove_stale: false,
        parallelism: NonZeroUsize::new(4).unwrap(),
        verify: true,
        check: None,
        state_folder: None,
    }
}

/// All files below a folder, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}
