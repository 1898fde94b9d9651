//! The WAL is on its way to the disk while it grows. A checkpoint begins with a sync of it, and writers may
//! be held for one: what that finds to write is little then.

use std::ops::Range;

use genesis_wal::position::WalIdentity;

/// Bytes that are sent to the disk at once.
const STEP: u64 = 1 << 20;

/// Bytes at the end that stay. The next frame shares a page of memory with the last one, and some file
/// systems let nobody write to a page that is on its way.
const BEHIND: u64 = 64 << 10;

/// How much of a WAL was sent to the disk.
#[derive(Debug, Default)]
pub(super) struct Writeback {
    wal: Option<WalIdentity>,
    begun: u64,
}

impl Writeback {
    /// What is to be sent now that a WAL was read up to byte `end`.
    pub(super) fn due(&mut self, wal: WalIdentity, end: u64) -> Option<Range<u64>> {
        if self.wal.replace(wal) != Some(wal) {
            self.begun = 0;
        }
        let end = end.saturating_sub(BEHIND);
        (end >= self.begun + STEP).then(|| std::mem::replace(&mut self.begun, end)..end)
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::checksum::Checksum;
    use genesis_wal::header::Salts;

    use super::*;

    #[test]
    fn every_wal_is_sent_from_its_beginning_once_and_but_for_its_end() {
        let wal =
            |salt| WalIdentity { salts: Salts([salt; 8]), header_checksum: Checksum::default() };
        let mut writeback = Writeback::default();
        let least = STEP + BEHIND;
        assert_eq!(writeback.due(wal(1), least - 1), None);
        assert_eq!(writeback.due(wal(1), least), Some(0..STEP));
        assert_eq!(writeback.due(wal(1), least + STEP - 1), None);
        assert_eq!(writeback.due(wal(1), least + 3 * STEP), Some(STEP..4 * STEP));
        assert_eq!(writeback.due(wal(2), 10), None);
        assert_eq!(writeback.due(wal(2), least + 5), Some(0..STEP + 5));
    }
}
