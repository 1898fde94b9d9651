//! One database and its replica: follower, shipper and the replica's answers, started and stopped
//! together.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use genesis_wal::id::Txid;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tracing::{Instrument, Span};

use super::follow::{FollowError, Follower, Stage, Word, Words};
use super::kept::KeptPacks;
use super::merging::Merger;
use super::origin;
use super::ownership::Allowed;
use super::ship::{self, Outbox, ShipError, Shipper};
use super::spool::{Limits, Spool};
use super::state::{StateError, StateFolder};
use super::watch::{Waker, alarm};
use crate::replica::{Fence, Replica, ReplicaError};
use crate::store::Store;
use crate::store::retry::{Persistence, Retrying};

/// What is followed, and where it goes.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database; it need not exist yet.
    pub database: PathBuf,
    /// Where the replica is.
    pub store: Arc<dyn Store>,
    /// How long what was committed may wait for upload.
    pub sync_interval: Duration,
    /// The time between two snapshots.
    pub snapshot_interval: Duration,
    /// The time in which the database is read once more, to be compared with what was recorded; never
    /// without.
    pub audit_interval: Option<Duration>,
    /// With so many bytes in the WAL the write lock may be taken to empty it; never without.
    pub wal_limit: Option<u64>,
    /// How many bytes may lie in the spool.
    pub spool: Limits,
    /// Switch the database to WAL mode if need be.
    pub set_wal: bool,
    /// What the operator allows.
    pub allowed: Allowed,
    /// Where local state lives, if not beside the database.
    pub state_folder: Option<PathBuf>,
    /// What to do when the replica cannot be reached at the start: wait for it, or give up on what
    /// will not pass by itself.
    pub persistence: Persistence,
}

/// Why a session could not start, or ended.
#[derive(Debug, Error)]
pub enum SessionError {
    /// The path of the database leads nowhere.
    #[error("cannot find the folder of {}", path.display())]
    Path {
        /// The database.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The local state.
    #[error(transparent)]
    State(#[from] StateError),
    /// Following the database.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// The replica.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// Shipping.
    #[error(transparent)]
    Ship(#[from] ShipError),
    /// The system gives no descriptor.
    #[error("cannot open another descriptor")]
    Descriptor(#[source] io::Error),
    /// A thread or task of ours died.
    #[error("a part of this program died")]
    Died,
}

/// What a session came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The last transaction recorded; `None` when there was no database.
    pub recorded: Option<Txid>,
}

/// A database that is being followed and shipped.
#[derive(Debug)]
pub struct Session {
    waker: Waker,
    durable: watch::Receiver<Option<Txid>>,
    end: JoinHandle<Result<Report, SessionError>>,
}

impl Session {
    /// Starts to follow, in the current span. Returns when the database is followed, or when there is none yet.
    ///
    /// # Errors
    /// [`SessionError`] when it cannot be followed.
    pub async fn start(options: Options) -> Result<Self, SessionError> {
        Self::start_with(options, spawn_follower).await
    }

    /// The same, with a follower that is to be started in some way.
    pub(super) async fn start_with(
        options: Options,
        spawn: impl FnOnce(Follower) -> Result<Following, SessionError>,
    ) -> Result<Self, SessionError> {
        let path = canonical(&options.database)?;
        let folder = StateFolder::open(&path, options.state_folder.as_deref())?;
        let host = folder.host()?;
        let spool_root = folder.spool();
        let spool = Spool::open(spool_root.clone(), options.spool)
            .map_err(|source| StateError::Io { path: spool_root, source })?;
        let (waker, alarm) = alarm().map_err(SessionError::Descriptor)?;
        let kept = KeptPacks::new(folder.kept_packs());
        let (outbox, shipments) = Outbox::new();
        let (stage_sender, mut stage) = watch::channel(Stage::Starting);
        let (durable_sender, durable) = watch::channel(None);
        let (teller, words) = Words::new(waker.clone());
        let (fence_sender, fence) = oneshot::channel();
        let held = Arc::new(OnceLock::new());
        let database = path.clone();
        let follower = Follower {
            path,
            set_wal: options.set_wal,
            sync_interval: options.sync_interval,
            snapshot_interval: options.snapshot_interval,
            audit_interval: options.audit_interval,
            store: Arc::clone(&options.store),
            folder: folder.path().to_owned(),
            kept: kept.clone(),
            wal_limit: options.wal_limit,
            spool: spool.clone(),
            words,
            allowed: options.allowed,
            outbox,
            stage: stage_sender,
            alarm,
            waker: waker.clone(),
        };
        let following = spawn(follower)?;
        let asked = Arc::new(Retrying::new(Arc::clone(&options.store), options.persistence));
        let store = Arc::new(Retrying::new(options.store, Persistence::Always));
        let merging = Merger::new(Arc::clone(&store) as Arc<dyn Store>, spool.clone());
        let question = Question {
            about: origin::Question {
                store: asked,
                spool: spool.clone(),
                folder: folder.path().to_owned(),
                kept,
                host,
                allowed: options.allowed,
                follower: teller,
                teller: merging.0.clone(),
                database,
            },
            stage: stage.clone(),
            durable: durable_sender.clone(),
            fence: fence_sender,
            held: Arc::clone(&held),
        };
        let asking = tokio::spawn(question.ask().in_current_span());
        let shipper = Shipper { store, spool, shipments, fence, durable: durable_sender, merging };
        let shipping = tokio::spawn(shipper.run().in_current_span());
        let told = durable.clone();
        let parts =
            Parts { following, asking, shipping, held, durable: told, waker: waker.clone() };
        let end = tokio::spawn(async move {
            let _locked_until_the_end = folder;
            parts.end().await
        });
        let started = stage.wait_for(|stage| *stage != Stage::Starting).await.is_ok();
        let mut session = Self { waker, durable, end };
        if started { Ok(session) } else { Err(session.ended().await) }
    }

    /// The last transaction that is known to be in the replica with all before it, as it changes.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<Option<Txid>> {
        self.durable.clone()
    }

    /// Waits until the session ends by itself, which it only does when it fails: then this is its last
    /// word.
    pub async fn ended(&mut self) -> SessionError {
        match (&mut self.end).await {
            Ok(Err(error)) => error,
            Ok(Ok(_)) | Err(_) => SessionError::Died,
        }
    }

    /// Reads and ships everything that is committed now, and ends. There is no limit to how long the
    /// replica is waited for: whoever calls this sets one.
    ///
    /// # Errors
    /// [`SessionError`] when something committed is not in the replica.
    pub async fn finish(self) -> Result<Report, SessionError> {
        self.waker.stop();
        self.end.await.unwrap_or(Err(SessionError::Died))
    }
}

/// How long the replica may take for the last word of all.
const RELEASE: Duration = Duration::from_secs(5);

/// How long the replica may take for what was recorded before following failed.
const LAST_SHIPMENTS: Duration = Duration::from_secs(5);

pub(super) type Following = oneshot::Receiver<Result<Option<Txid>, FollowError>>;

fn spawn_follower(follower: Follower) -> Result<Following, SessionError> {
    let (sender, following) = oneshot::channel();
    let span = Span::current();
    let run = move || {
        let _said_of_this_database = span.entered();
        // Nobody listens only when the whole session is gone.
        sender.send(follower.run()).ok();
    };
    let spawned = std::thread::Builder::new().name("follow".into()).spawn(run);
    spawned
        .map(|_thread| following)
        .map_err(|source| StateError::Io { path: PathBuf::from("thread"), source }.into())
}

/// The pause before local state that cannot be used is tried again. It doubles, up to the longest.
const LOCAL_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_LOCAL_PAUSE: Duration = Duration::from_mins(1);

/// Asks the replica where recording begins.
struct Question {
    about: origin::Question,
    stage: watch::Receiver<Stage>,
    durable: watch::Sender<Option<Txid>>,
    fence: oneshot::Sender<Fence>,
    /// The epoch that this session has, once it has one.
    held: Arc<OnceLock<Fence>>,
}

impl Question {
    /// Asks once there is a database: a replica is not made for one that is refused.
    ///
    /// # Errors
    /// Also when another writer has passed this one meanwhile: what a later base does not know is none of
    /// the history, so nothing that it could store would count.
    async fn ask(mut self) -> Result<(), SessionError> {
        if self.stage.wait_for(|stage| *stage == Stage::Followed).await.is_err() {
            return Ok(());
        }
        let follower = self.about.follower.clone();
        let claimed = patiently(|| origin::claim(self.about.clone())).await?;
        let (reply, settled) = oneshot::channel();
        follower.tell(Word::Settle(reply));
        // One that has ended says why.
        settled.await.ok();
        let origin = patiently(|| claimed.origin()).await?;
        let fence = claimed.fence().clone();
        ship::check(&fence).await?;
        self.durable.send_replace(origin.stored);
        self.held.set(fence.clone()).ok();
        // Shipper and follower may have failed meanwhile; they say why.
        self.fence.send(fence).ok();
        follower.tell(Word::Begin(Box::new(origin)));
        Ok(())
    }
}

/// Tries again, as long as it is the local state that fails.
async fn patiently<T, F>(attempt: impl Fn() -> F) -> Result<T, ReplicaError>
where
    F: Future<Output = Result<T, ReplicaError>>,
{
    let mut pause = LOCAL_PAUSE;
    loop {
        match attempt().await {
            Err(ReplicaError::Local(error)) => {
                tracing::error!(
                    %error,
                    "NOT PROTECTED: the local state cannot be used; trying again"
                );
                tokio::time::sleep(pause).await;
                pause = LONGEST_LOCAL_PAUSE.min(pause * 2);
            }
            other => return other,
        }
    }
}

/// What a session consists of.
struct Parts {
    following: Following,
    asking: JoinHandle<Result<(), SessionError>>,
    shipping: JoinHandle<Result<(), ShipError>>,
    held: Arc<OnceLock<Fence>>,
    durable: watch::Receiver<Option<Txid>>,
    waker: Waker,
}

impl Parts {
    /// Waits for the follower and for what it handed over to be shipped. Of several failures the cause
    /// is reported, not its consequence.
    async fn end(mut self) -> Result<Report, SessionError> {
        let mut shipped = None;
        let followed = tokio::select! {
            followed = &mut self.following => followed,
            // Beside a follower shipping ends only by failing; but it may end a moment before the
            // follower's last word arrives. It is awaited in any case: it has the local state.
            done = &mut self.shipping => {
                shipped = Some(done);
                self.waker.stop();
                (&mut self.following).await
            }
        };
        let is_shipped = shipped.is_some();
        if let Some(done) = shipped {
            done.map_err(|_died| SessionError::Died)??;
        }
        let followed = followed.map_err(|_died| SessionError::Died)?;
        let on_the_replicas_side = match &followed {
            Ok(_) => true,
            Err(error) => error.is_for_want_of_a_replica(),
        };
        if on_the_replicas_side && !matches!(followed, Ok(None)) {
            self.asking.await.map_err(|_died| SessionError::Died)??;
        } else {
            self.asking.abort();
        }
        if on_the_replicas_side && !is_shipped {
            self.shipping.await.map_err(|_died| SessionError::Died)??;
        } else if !is_shipped {
            // What was handed over until then; a replica that does not take it in time leaves it in
            // the spool.
            tokio::time::timeout(LAST_SHIPMENTS, self.shipping).await.ok();
        }
        let recorded = followed?;
        let last = *self.durable.borrow();
        release(&self.held, last).await;
        Ok(Report { recorded })
    }
}

/// Leaves the replica to whoever wants it. Where that fails, others need to be told to take it over.
async fn release(held: &OnceLock<Fence>, last: Option<Txid>) {
    let Some(fence) = held.get() else { return };
    match tokio::time::timeout(RELEASE, Replica::release(fence, last)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(%error, "cannot release the replica: another host has to take it over");
        }
        Err(_elapsed) => tracing::warn!("the replica was not released in time"),
    }
}

/// Links that are followed to a database that does not exist.
const MAX_LINKS: u32 = 40;

/// The database's canonical path, through symbolic links; of one that does not exist, where it will
/// be.
///
/// # Errors
/// [`SessionError::Path`].
pub fn canonical(path: &Path) -> Result<PathBuf, SessionError> {
    let failed = |source| SessionError::Path { path: path.to_owned(), source };
    let mut target = path.to_owned();
    for _ in 0..MAX_LINKS {
        match target.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map_err(failed),
        }
        let folder = target.parent().filter(|p| !p.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().map_err(failed)?;
        match target.read_link() {
            Ok(link) => target = folder.join(link),
            Err(_no_link) => {
                let name =
                    target.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()));
                return Ok(folder.join(name?));
            }
        }
    }
    Err(failed(io::ErrorKind::InvalidInput.into()))
}
