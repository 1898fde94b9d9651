//! Whether somebody writes into the database file past SQLite: `cp` over it, `rsync --inplace`, an
//! editor. A value without I/O.
//!
//! Only checkpoints write into the file of a database in WAL mode, and they tell how far they have come.
//! A file that was written to while none of them has come any further, nor is running, was written to by
//! somebody else. (Or a checkpoint died half way: then a comparison of the pages finds nothing.)

use std::time::SystemTime;

use genesis_wal::header::Salts;
use genesis_wal::index::WalIndex;

/// So many looks in a row must agree: a checkpoint writes first and tells after.
const LOOKS: u32 = 2;

/// What is seen of the file at one look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// When the file was last written to.
    pub written: SystemTime,
    /// How far checkpoints have come, of which WAL, and how many we have made.
    pub progress: (u32, Salts, u64),
    /// Whether another process is making one.
    pub is_checkpointing: bool,
}

impl Look {
    /// A look at a file that was last written to at `written`.
    #[must_use]
    pub fn new(written: SystemTime, index: &WalIndex, ours: u64, is_checkpointing: bool) -> Self {
        let progress = (index.backfilled, index.header.salts, ours);
        Self { written, progress, is_checkpointing }
    }
}

/// Watches the file.
#[derive(Debug, Default)]
pub struct Watchman {
    last: Option<Look>,
    suspicious: u32,
}

impl Watchman {
    /// Takes a look; whether somebody else has written into the file.
    pub fn look(&mut self, look: Look) -> bool {
        let known = self.last.get_or_insert(look);
        if known.written == look.written || known.progress != look.progress {
            *known = look;
            self.suspicious = 0;
        } else if !look.is_checkpointing {
            self.suspicious += 1;
        }
        if self.suspicious < LOOKS {
            return false;
        }
        *self = Self::default();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn look(written: u64, backfilled: u32, is_checkpointing: bool) -> Look {
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
        Look { written, progress: (backfilled, Salts([1; 8]), 0), is_checkpointing }
    }

    fn finds(looks: &[Look]) -> Vec<bool> {
        let mut watchman = Watchman::default();
        looks.iter().map(|look| watchman.look(*look)).collect()
    }

    #[test]
    fn a_checkpoint_tells_after_it_has_written() {
        let slow = [look(1, 5, false), look(2, 5, true), look(3, 5, true), look(3, 9, false)];
        assert_eq!(finds(&slow), [false; 4]);
        let quick = [look(1, 5, false), look(2, 5, false), look(2, 9, false), look(2, 9, false)];
        assert_eq!(finds(&quick), [false; 4]);
    }

    #[test]
    fn a_write_that_no_checkpoint_tells_of_is_found_once() {
        let strange = [look(1, 5, false), look(2, 5, false), look(2, 5, false), look(2, 5, false)];
        assert_eq!(finds(&strange), [false, false, true, false]);
    }
}
