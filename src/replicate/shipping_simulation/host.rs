//! A host: its disk, its clocks, its database, and the processes that replicate that, one after another.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use genesis_wal::id::Txid;
use genesis_wal::time::Micros;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until};

use super::database::Database;
use super::follower::Hand;
use super::network::{EPOCH, Port};
use super::notary::Notary;
use crate::replicate::session::{Options, Report, Session, SessionError};
use crate::replicate::{Allowed, SpoolLimits};
use crate::simulated::{self, Machine};
use crate::store::retry::Persistence;

/// A host.
pub struct Host {
    /// Its disk.
    pub folder: PathBuf,
    /// Its database; none before it was restored.
    pub database: Option<Arc<Mutex<Database>>>,
    /// What its wall clock says at the start of the world.
    pub wall: Micros,
    /// What its boot-time clock says then, and how often it was started.
    pub boot: (Duration, u64),
    /// What the operator allows the next process.
    pub allowed: Allowed,
    /// The process that replicates.
    pub life: Option<Life>,
    /// How it is configured.
    pub settings: Settings,
}

/// How a host is configured.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub sync_interval: Duration,
    pub snapshot_interval: Duration,
    pub spool: SpoolLimits,
}

/// How a session ended.
pub type Ended = Result<Report, SessionError>;

/// What is known of a session.
#[derive(Default)]
struct Status {
    durable: Option<watch::Receiver<Option<Txid>>>,
    ended: Option<Ended>,
}

/// A process.
pub struct Life {
    /// Its number.
    pub process: usize,
    /// It is stopped until then.
    pub stopped_until: Duration,
    runtime: Runtime,
    moment: Instant,
    at: Duration,
    status: Arc<Mutex<Status>>,
    finish: Option<oneshot::Sender<()>>,
    bell: Arc<Notify>,
}

impl Host {
    /// Where its database is.
    pub fn path(&self) -> PathBuf {
        self.folder.join("app.db")
    }

    /// Its clocks, for a process that had `moment` on its own at `at`.
    fn machine(&self, moment: Instant, at: Duration) -> Machine {
        let (boot, run) = self.boot;
        Machine { moment, at, wall: self.wall, boot, run }
    }

    /// Sets the wall clock.
    pub fn set_clock(&mut self, offset: i64) {
        self.wall = Micros(EPOCH.0.saturating_add_signed(offset));
    }

    /// Starts a process, which records before the replica has answered or not. The bell is rung at each of
    /// its requests.
    pub fn start(
        &mut self,
        (process, meanwhile): (usize, bool),
        now: Duration,
        (port, notary, bell): (Port, &Arc<Mutex<Notary>>, Arc<Notify>),
    ) {
        let Some(database) = self.database.clone() else { return };
        database.lock().unwrap().held = Some(0);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().unwrap();
        let moment = runtime.block_on(async { Instant::now() });
        let options = Options {
            database: self.path(),
            store: Arc::new(port),
            sync_interval: self.settings.sync_interval,
            snapshot_interval: self.settings.snapshot_interval,
            audit_interval: None,
            wal_limit: None,
            spool: self.settings.spool,
            set_wal: false,
            allowed: self.allowed,
            state_folder: None,
            persistence: Persistence::Always,
        };
        let status = Arc::new(Mutex::new(Status::default()));
        let (finish, told) = oneshot::channel();
        let notary = Arc::clone(notary);
        // Each loss of power is a boot.
        let keeps_all = self.boot.1 < 100;
        let process_is = (process, meanwhile, keeps_all);
        let live = live(options, (database, notary), process_is, told, Arc::clone(&status));
        runtime.spawn(live);
        self.life = Some(Life {
            process,
            stopped_until: Duration::ZERO,
            runtime,
            moment,
            at: now,
            status,
            finish: Some(finish),
            bell,
        });
    }

    /// Lets its process run until then, or until it makes a request; when that is.
    pub fn run_until(&mut self, until: Duration) -> Duration {
        let Some(life) = self.life.as_ref().filter(|life| life.stopped_until <= until) else {
            return until;
        };
        let end = until;
        simulated::enter(Some(self.machine(life.moment, life.at)));
        let until = life.moment + until.saturating_sub(life.at);
        let stopped_until = life.moment + life.stopped_until.saturating_sub(life.at);
        let ran_until = life.runtime.block_on(async {
            let lag = stopped_until.saturating_duration_since(Instant::now());
            if lag > Duration::ZERO {
                tokio::time::advance(lag).await;
            }
            tokio::select! {
                biased;
                () = life.bell.notified() => life.at + life.moment.elapsed(),
                () = sleep_until(until) => end,
            }
        });
        simulated::enter(None);
        ran_until.min(end)
    }

    /// Tells its process to finish.
    pub fn finish(&mut self) {
        if let Some(finish) = self.life.as_mut().and_then(|life| life.finish.take()) {
            finish.send(()).ok();
        }
        if let Some(database) = &self.database {
            database.lock().unwrap().bell.notify_one();
        }
    }

    /// Ends its process at once.
    pub fn kill(&mut self) {
        if let Some(life) = self.life.take() {
            simulated::enter(Some(self.machine(life.moment, life.at)));
            drop(life);
            simulated::enter(None);
        }
        if let Some(database) = &self.database {
            database.lock().unwrap().held = None;
        }
    }
}

impl Life {
    /// What it reports to be durable.
    pub fn durable(&self) -> Option<Txid> {
        let status = self.status.lock().unwrap();
        status.durable.as_ref().and_then(|durable| *durable.borrow())
    }

    /// How it ended, once.
    pub fn ended(&self) -> Option<Ended> {
        self.status.lock().unwrap().ended.take()
    }
}

/// The whole of a process.
async fn live(
    options: Options,
    (database, notary): (Arc<Mutex<Database>>, Arc<Mutex<Notary>>),
    (process, meanwhile, keeps_all): (usize, bool, bool),
    told: oneshot::Receiver<()>,
    status: Arc<Mutex<Status>>,
) {
    let started = Session::start_with(options, |follower| {
        let (sender, following) = oneshot::channel();
        let hand = Hand { follower, database, notary, process, meanwhile, keeps_all, left: None };
        tokio::spawn(async move { sender.send(hand.run().await) });
        Ok(following)
    });
    let ended = match started.await {
        Err(error) => Err(error),
        Ok(mut session) => {
            status.lock().unwrap().durable = Some(session.durable());
            let failed = tokio::select! {
                biased;
                error = session.ended() => Some(error),
                Ok(()) = told => None,
                else => std::future::pending().await,
            };
            match failed {
                Some(error) => Err(error),
                None => session.finish().await,
            }
        }
    };
    status.lock().unwrap().ended = Some(ended);
}
