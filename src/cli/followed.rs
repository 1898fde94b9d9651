//! Databases that are followed together.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{Instrument, Span};

use super::exit::{Code, Failure};
use crate::config::Database;
use crate::replicate::{Allowed, Options, Session, SessionError, SpoolLimits};
use crate::shutdown::Shutdown;
use crate::store::retry::Persistence;

/// Databases that are followed.
#[derive(Debug)]
pub struct Followed {
    sessions: Vec<Named>,
    /// Why others are no longer.
    lost: Vec<Failure>,
}

#[derive(Debug)]
struct Named {
    name: String,
    /// Names the database in the log where there are several.
    span: Span,
    session: Session,
}

impl Followed {
    /// Starts to follow all of these. Those that cannot be are [lost](Self::has_lost).
    pub async fn start(databases: &[Database], allowed: Allowed, persistence: Persistence) -> Self {
        let mut starting = JoinSet::new();
        for database in databases {
            let name = database.path.display().to_string();
            let is_alone = databases.len() == 1;
            let span = if is_alone { Span::none() } else { tracing::error_span!("db", name) };
            let started =
                Session::start(options(database, allowed, persistence)).instrument(span.clone());
            starting.spawn(async move {
                match started.await {
                    Ok(session) => Ok(Named { name, span, session }),
                    Err(error) => Err(of_one(Failure::from(error), name, is_alone)),
                }
            });
        }
        let mut followed = Self { sessions: Vec::new(), lost: Vec::new() };
        while let Some(started) = starting.join_next().await {
            match started.unwrap_or_else(|_died| Err(SessionError::Died.into())) {
                Ok(session) => followed.sessions.push(session),
                Err(failure) => followed.lost.push(failure),
            }
        }
        followed
    }

    /// Whether some are not followed, or no longer.
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Ends what is followed, because not all of it is: why. What is followed is shipped, and left to
    /// whoever wants it.
    pub async fn give_up(mut self, shutdown: &mut Shutdown, limit: Duration) -> Failure {
        let lost = std::mem::take(&mut self.lost);
        if !self.is_over() {
            let reasons: Vec<_> = lost.iter().map(Failure::reason).collect();
            let reason = reasons.join("; ");
            tracing::error!(reason, "not every database can be followed: ending the others");
            if let Err(failure) = self.finish(shutdown, limit).await {
                failure.report(&mut std::io::stderr().lock()).ok();
            }
        }
        Failure::worst(lost).unwrap_or_else(|| SessionError::Died.into())
    }

    /// Whether nothing is followed any more.
    pub fn is_over(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Waits until a database can no longer be followed: which, and why. What is left is followed on.
    pub async fn lose_one(&mut self) -> String {
        let (at, error) = std::future::poll_fn(|context| {
            let ended = |(at, named): (usize, &mut Named)| {
                let mut ended = pin!(named.session.ended());
                match ended.as_mut().poll(context) {
                    Poll::Ready(error) => Some((at, error)),
                    Poll::Pending => None,
                }
            };
            let first = self.sessions.iter_mut().enumerate().find_map(ended);
            first.map_or(Poll::Pending, Poll::Ready)
        })
        .await;
        let Named { name, span, .. } = self.sessions.swap_remove(at);
        let failure = Failure::from(error);
        let reason = format!("{name}: {}", failure.reason());
        self.lost.push(of_one(failure, name, span.is_none()));
        reason
    }

    /// Why nothing is followed any more.
    pub fn why(self) -> Failure {
        Failure::worst(self.lost).unwrap_or_else(|| SessionError::Died.into())
    }

    /// Ships everything committed, within a limit, or until told a second time.
    pub async fn finish(self, shutdown: &mut Shutdown, limit: Duration) -> Result<(), Failure> {
        let (cut, _) = watch::channel(None);
        let mut finishing = JoinSet::new();
        for named in self.sessions {
            let span = named.span.clone();
            finishing.spawn(named.finish(cut.subscribe()).instrument(span));
        }
        let mut failures: Vec<_> = self.lost.into_iter().map(Failure::at_the_end).collect();
        let mut finished = pin!(async {
            while let Some(done) = finishing.join_next().await {
                let died = |_panic| Err(Failure::from(SessionError::Died).at_the_end());
                failures.extend(done.unwrap_or_else(died).err());
            }
            failures
        });
        let why = tokio::select! {
            failures = &mut finished => return Failure::worst(failures).map_or(Ok(()), Err),
            () = tokio::time::sleep(limit) => "the replica did not take it in time",
            () = shutdown.insisted() => "told to end at once",
        };
        cut.send_replace(Some(why));
        Failure::worst(finished.await).map_or(Ok(()), Err)
    }
}

impl Named {
    /// Ships everything committed, unless that is cut short.
    async fn finish(self, mut cut: watch::Receiver<Option<&'static str>>) -> Result<(), Failure> {
        let Self { name, span, session } = self;
        let durable = session.durable();
        let is_alone = span.is_none();
        let why = async { cut.wait_for(Option::is_some).await.ok().and_then(|why| *why) };
        let failure = tokio::select! {
            finished = session.finish() => match finished {
                Ok(report) => {
                    let txid = report.recorded.map(|txid| txid.0);
                    tracing::info!(txid, "everything committed is in the replica");
                    return Ok(());
                }
                Err(error) => Failure::from(error).at_the_end(),
            },
            why = why => {
                let known = match *durable.borrow() {
                    Some(txid) => format!("up to transaction {} it is known to be there", txid.0),
                    None => "nothing of it is known to be there".to_owned(),
                };
                let error = anyhow::anyhow!("{}; {known}", why.unwrap_or("it was given up"));
                Failure::new(Code::UPLOAD_FAILED, error).at_the_end()
            }
        };
        Err(of_one(failure, name, is_alone))
    }
}

/// A failure of one database, which is named where it is not the only one.
fn of_one(failure: Failure, name: String, is_alone: bool) -> Failure {
    if is_alone { failure } else { failure.context(name) }
}

fn options(database: &Database, allowed: Allowed, persistence: Persistence) -> Options {
    let Database { path, replica, settings } = database;
    Options {
        database: path.clone(),
        store: replica.store(),
        sync_interval: settings.sync_interval(replica),
        snapshot_interval: settings.snapshot_interval(),
        audit_interval: Some(settings.audit_interval()).filter(|interval| !interval.is_zero()),
        spool: SpoolLimits {
            keep: settings.spool_keep().as_u64(),
            wait: settings.spool_limit.map(|limit| limit.as_u64()),
        },
        wal_limit: Some(settings.wal_limit().as_u64()).filter(|&limit| limit > 0),
        set_wal: settings.set_wal(),
        allowed,
        state_folder: settings.state_dir.clone(),
        persistence,
    }
}
