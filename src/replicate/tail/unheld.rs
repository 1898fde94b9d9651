//! What was committed while nobody looked, in a WAL that may be restarted at any time.

use std::time::Duration;

use genesis_wal::index::WalIndex;

use super::{Tail, published};
use crate::clock;
use crate::replicate::cursor::Doubt;
use crate::replicate::record::RecordError;
use crate::sqlite::Source;

/// How long the write lock is tried for, and the pause between.
const PATIENCE: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(1);

impl Tail {
    /// Reads what nothing holds, under the write lock: nobody restarts the WAL then.
    ///
    /// # Errors
    /// [`Doubt::MovedOn`] when somebody did before, or the lock is not to be had, or anything fails that
    /// may pass: nothing holds it until then.
    pub fn read_unheld(&mut self, source: &mut Source, held: &WalIndex) -> Result<(), RecordError> {
        match self.try_to_read_unheld(source, held) {
            Err(error) if error.may_pass() => {
                let error = crate::describe(&error);
                tracing::error!(%error, "cannot read what nothing holds");
                Err(RecordError::Doubt(Doubt::MovedOn))
            }
            other => other,
        }
    }

    fn try_to_read_unheld(
        &mut self,
        source: &mut Source,
        held: &WalIndex,
    ) -> Result<(), RecordError> {
        let deadline = clock::monotonic() + PATIENCE;
        while !source.lock_writes()? {
            if clock::monotonic() > deadline {
                return Err(RecordError::Doubt(Doubt::MovedOn));
            }
            clock::rest(PAUSE);
        }
        self.holds.begin(clock::monotonic());
        let read = match published(source) {
            Ok(now) if now.header == held.header => self.catch_up(source).map(|_| ()),
            Ok(_) => Err(RecordError::Doubt(Doubt::MovedOn)),
            Err(error) => Err(error.into()),
        };
        source.unlock_writes()?;
        self.holds.end(clock::monotonic());
        read
    }
}
