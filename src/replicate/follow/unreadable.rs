//! A WAL that is not what the wal-index says, which SQLite itself goes by: once all of it is backfilled, the
//! database file alone is the state.

use std::time::Duration;

use genesis_wal::scan::ScanEnd;

use super::unanswered::move_lock;
use super::{Follower, let_others_go_on};
use crate::clock;
use crate::replicate::establish::EstablishError;
use crate::replicate::holds::HoldBook;
use crate::replicate::ratchet::Procedure;
use crate::replicate::scan::Overlay;
use crate::sqlite::{Held, Source, SourceError};

/// How long everything is tried to be backfilled before that is told, and the pause between.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

impl Follower {
    /// Makes sure that what is held can be read. Where it cannot, it is backfilled, as any WAL is:
    /// writers are held for it only where they may be, and only for what is left in the end.
    ///
    /// # Errors
    /// When SQLite fails. [`EstablishError::Wal`] while others stand in the way, or commits come in faster
    /// than they can be checkpointed: that may pass.
    pub(super) fn make_readable(
        &self,
        source: &mut Source,
        held: &mut Held,
        holds: &mut HoldBook,
    ) -> Result<(), EstablishError> {
        let deadline = clock::monotonic() + PATIENCE;
        let procedure = if self.wal_limit.is_some() { Procedure::Force } else { Procedure::Drain };
        let mut seen = None;
        while let Err(end) = is_readable(source, held)? {
            if clock::monotonic() > deadline {
                return Err(EstablishError::Wal(end));
            }
            if seen.replace(end).is_some() {
                clock::rest(PAUSE);
            }
            let moved = move_lock(source, procedure, holds);
            if moved.is_err() {
                let_others_go_on(source);
                holds.end(clock::monotonic());
            }
            // Where it is not parked, it is held all the same, and nothing was copied yet.
            *held = match moved? {
                Some(parked) => parked,
                None => self.hold_again(source)?,
            };
        }
        if let Some(reason) = seen {
            tracing::error!(
                %reason,
                "the application's SQLite left a WAL that no recovery could read; it is backfilled now"
            );
        }
        Ok(())
    }
}

/// Whether the WAL that is held can be read to its end.
fn is_readable(source: &Source, held: &Held) -> Result<Result<(), ScanEnd>, SourceError> {
    Ok(Overlay::of_held(source, held)?.map(|_overlay| ()))
}
