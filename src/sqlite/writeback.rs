//! The WAL is on its way to the disk while it grows. A checkpoint begins with a sync of it, and writers may
//! be held for one: what that finds to write is little then.

use std::fs::File;
use std::io::ErrorKind::{PermissionDenied, Unsupported};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;

use genesis_wal::position::WalIdentity;

use super::Source;
use super::file_system::lets_writers_write_on;
use crate::durable;

/// Bytes that are sent to the disk at once, at least.
const STEP: u64 = 2 << 20;

/// Bytes at the end that stay. The next frame shares a page of memory with the last one, which nobody can
/// write to while it is on its way, where the disk wants it to be stable.
const BEHIND: u64 = 64 << 10;

/// How much of a WAL was sent to the disk.
#[derive(Debug, Default)]
pub struct Writeback {
    wal: Option<WalIdentity>,
    begun: u64,
    sender: Sender,
}

/// Who sends it: a thread of its own, as one that has much to send waits for the disk.
#[derive(Debug, Default)]
enum Sender {
    #[default]
    NotYet,
    Thread(SyncSender<Range<u64>>),
    Nobody,
}

impl Writeback {
    /// Learns that a WAL was read up to byte `end`. What is due is sent, but where the disk has not taken
    /// what was sent before: it may go together with what comes.
    pub fn read_to(&mut self, source: &Source, wal: WalIdentity, end: u64) {
        if let Some(range) = self.due(wal, end)
            && self.send(source, range.clone())
        {
            self.begun = range.end;
        }
    }

    fn due(&mut self, wal: WalIdentity, end: u64) -> Option<Range<u64>> {
        if self.wal.replace(wal) != Some(wal) {
            self.begun = 0;
        }
        let end = end.saturating_sub(BEHIND);
        (end >= self.begun + STEP).then_some(self.begun..end)
    }

    fn send(&mut self, source: &Source, range: Range<u64>) -> bool {
        if matches!(self.sender, Sender::NotYet) {
            self.sender = begin(source.shared_wal());
        }
        let Sender::Thread(thread) = &self.sender else { return false };
        let sent = thread.try_send(range);
        if matches!(sent, Err(TrySendError::Disconnected(_))) {
            self.sender = Sender::Nobody;
        }
        sent.is_ok()
    }
}

/// Begins a thread that ends with who sends to it.
fn begin(wal: Arc<File>) -> Sender {
    if !lets_writers_write_on(&wal) {
        return Sender::Nobody;
    }
    let (sender, ranges) = sync_channel(1);
    let begun = thread::Builder::new().name("writeback".into()).spawn(move || run(&wal, &ranges));
    match begun {
        Ok(_thread) => Sender::Thread(sender),
        Err(error) => {
            tracing::debug!(%error, "no thread to send the WAL to the disk");
            Sender::Nobody
        }
    }
}

fn run(wal: &File, ranges: &Receiver<Range<u64>>) {
    for range in ranges {
        match durable::begin_writeback(wal, range) {
            Ok(()) => {}
            // A sandbox may allow it to nobody.
            Err(error) if matches!(error.kind(), Unsupported | PermissionDenied) => return,
            // A file system that drops what it has no room for may tell nobody else.
            Err(error) => {
                tracing::error!(
                    %error,
                    "the system cannot write the WAL to the disk: look at its log. What was committed is \
                     recorded, and what a checkpoint copies is compared with that"
                );
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use genesis_wal::checksum::Checksum;
    use genesis_wal::header::Salts;

    use super::*;

    #[test]
    fn a_wal_is_due_from_its_beginning_but_for_its_end() {
        let wal =
            |salt| WalIdentity { salts: Salts([salt; 8]), header_checksum: Checksum::default() };
        let mut writeback = Writeback::default();
        let least = STEP + BEHIND;
        assert_eq!(writeback.due(wal(1), least - 1), None);
        assert_eq!(writeback.due(wal(1), least), Some(0..STEP));
        // It was not sent.
        assert_eq!(writeback.due(wal(1), least + 3 * STEP), Some(0..4 * STEP));
        writeback.begun = 4 * STEP;
        assert_eq!(writeback.due(wal(1), least + 4 * STEP - 1), None);
        assert_eq!(writeback.due(wal(1), least + 4 * STEP), Some(4 * STEP..5 * STEP));
        assert_eq!(writeback.due(wal(2), 10), None);
        assert_eq!(writeback.due(wal(2), least + 5), Some(0..STEP + 5));
    }
}
