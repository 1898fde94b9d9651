//! Keeps the page table on the disk up to date enough that a start has little to catch up with.

use std::io;
use std::path::PathBuf;
use std::thread::{self, JoinHandle};

use super::{AsOf, Checkpoint, PageTable};

/// The least bytes of segments between two checkpoints.
const LEAST_BYTES: u64 = 64 << 20;

/// And as many times the table's own.
const TIMES_TABLE: u64 = 4;

/// Writes checkpoints of the page table.
#[derive(Debug)]
pub struct Keeper {
    folder: PathBuf,
    /// Bytes of segments since the last checkpoint; `None` before the first.
    since: Option<u64>,
    last: Option<AsOf>,
    /// The checkpoint that is being made durable.
    finishing: Option<JoinHandle<()>>,
}

impl Keeper {
    /// A keeper of the table in `folder`.
    #[must_use]
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, since: None, last: None, finishing: None }
    }

    /// Notes that a segment of `bytes` bytes was sealed, which ends with what `table` describes, and
    /// writes a checkpoint when there is much to catch up with. It is made durable beside the caller.
    pub fn sealed(&mut self, bytes: u64, table: &PageTable, as_of: AsOf) {
        let since = self.since.map(|since| since + bytes);
        let due = LEAST_BYTES.max(TIMES_TABLE * 8 * u64::from(table.pages()));
        let is_busy = self.finishing.as_ref().is_some_and(|finishing| !finishing.is_finished());
        if is_busy || since.is_some_and(|since| since < due) {
            self.since = since;
        } else {
            self.write(table, as_of);
        }
    }

    /// Writes a last checkpoint, and waits until it is durable.
    pub fn finish(mut self, table: &PageTable, as_of: Option<AsOf>) {
        if let Some(as_of) = as_of.filter(|as_of| self.last != Some(*as_of)) {
            self.write(table, as_of);
        }
        self.wait();
    }

    /// That no checkpoint can be written costs time at the next start, and nothing else.
    fn write(&mut self, table: &PageTable, as_of: AsOf) {
        self.wait();
        self.since = Some(0);
        let target = self.folder.join(super::FILE_NAME);
        let written = Checkpoint::write(table, as_of, &self.folder);
        let started = written.and_then(|checkpoint| {
            let span = tracing::Span::current();
            let finish = move || span.in_scope(|| report(checkpoint.finish(&target)));
            thread::Builder::new().name("keep-table".into()).spawn(finish)
        });
        match started {
            Ok(finishing) => (self.finishing, self.last) = (Some(finishing), Some(as_of)),
            Err(error) => report(Err(error)),
        }
    }

    fn wait(&mut self) {
        if let Some(finishing) = self.finishing.take()
            && finishing.join().is_err()
        {
            tracing::error!("writing the page table died");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.wait();
    }
}

fn report(result: io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "cannot write the page table; the next start reads more");
    }
}
