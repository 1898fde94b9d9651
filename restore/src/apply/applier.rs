//! The sequence of transactions: what is applied, what is left out, and when it is done.

use std::error::Error;

use genesis_snapshot::inventory::Cuts;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::{PageSize, StateHash};
use genesis_wal::part::{Part, PartHeader};
use genesis_wal::segment::{Fragment, TransactionHeader, fragments};
use genesis_wal::time::Micros;

use super::batch::Batch;
use super::open::Open;
use super::{ApplyError, Base, Flow, PageSink, Restored};
use crate::target::Target;

/// Bytes that wait in a batch, of images as they are stored and of what they take beside, unless asked for
/// otherwise.
pub const BATCH_BYTES: usize = 64 << 20;

/// Applies the transactions of segments, part by part. An error leaves the sink with a mixture of
/// states: begin anew then.
#[derive(Debug)]
pub struct Applier {
    generation: Generation,
    page_size: PageSize,
    target: Target,
    reaches: Txid,
    cuts: Cuts,
    batch: Batch,
    done: Restored,
    open: Option<Open>,
    reached: bool,
    broken: bool,
}

impl Applier {
    /// An applier onto a sink that holds `base`. `reaches` is the last transaction in the objects that
    /// will come, by the plan: input that ends before it and before the target was cut off.
    #[must_use]
    pub fn new(base: Base, target: Target, reaches: Txid) -> Self {
        let done = Restored {
            txid: base.txid,
            time: base.time,
            state: base.state,
            pages: base.pages,
            late: None,
            left_out: None,
        };
        Self {
            generation: base.generation,
            page_size: base.page_size,
            target,
            reaches,
            cuts: Cuts::default(),
            batch: Batch::new(BATCH_BYTES),
            done,
            open: None,
            reached: is_reached(&done, target),
            broken: false,
        }
    }

    /// Leaves out what is not history.
    #[must_use]
    pub fn with_cuts(self, cuts: Cuts) -> Self {
        Self { cuts, ..self }
    }

    /// Lets another number of bytes wait than [`BATCH_BYTES`].
    #[must_use]
    pub fn with_batch_bytes(self, batch_bytes: usize) -> Self {
        Self { batch: Batch::new(batch_bytes), ..self }
    }

    /// The last transaction that is complete. Where it is before the last one that a segment is named
    /// for, and the target is not reached, that segment ended too early.
    #[must_use]
    pub fn txid(&self) -> Txid {
        self.done.txid
    }

    /// When it was committed.
    #[must_use]
    pub fn time(&self) -> Micros {
        self.done.time
    }

    /// Takes the next part of the segments. Transactions that are known already are left out, and so
    /// are those after the target, and those that are not history.
    ///
    /// # Errors
    /// [`ApplyError`] says what does not fit.
    pub fn push<S: PageSink>(
        &mut self,
        part: &Part<'_>,
        sink: &mut S,
    ) -> Result<Flow, ApplyError<S::Error>> {
        if self.broken {
            return Err(ApplyError::Broken);
        }
        let taken = if self.reached { Ok(()) } else { self.take_part(part, sink) };
        self.broken = taken.is_err();
        taken?;
        if self.reached { Ok(Flow::Reached) } else { Ok(Flow::Continue) }
    }

    /// Writes what waits, and gives the file its length.
    ///
    /// # Errors
    /// [`ApplyError::Incomplete`] when a transaction was cut off, [`ApplyError::EndsEarly`] when
    /// others are missing at the end, [`ApplyError::NotReached`] when the target was not met,
    /// [`ApplyError::Broken`] after an error before.
    pub fn finish<S: PageSink>(mut self, sink: &mut S) -> Result<Restored, ApplyError<S::Error>> {
        if self.broken {
            return Err(ApplyError::Broken);
        }
        if let Some(open) = &self.open {
            return Err(open.incomplete());
        }
        self.check_met()?;
        self.batch.flush(self.page_size, sink)?;
        let len = u64::from(self.done.pages) * u64::from(self.page_size.get());
        sink.set_len(len).map_err(ApplyError::Sink)?;
        Ok(self.done)
    }

    fn check_met<E: Error>(&self) -> Result<(), ApplyError<E>> {
        let (target, txid, reaches) = (self.target, self.done.txid, self.reaches);
        let met = match target {
            Target::Latest => true,
            Target::Txid(wanted) => txid == wanted,
            Target::Time(time) => self.done.time <= time,
        };
        if !met {
            return Err(ApplyError::NotReached { target, txid });
        }
        if txid < reaches && !self.reached {
            return Err(ApplyError::EndsEarly { txid, reaches });
        }
        Ok(())
    }

    fn take_part<S: PageSink>(
        &mut self,
        part: &Part<'_>,
        sink: &mut S,
    ) -> Result<(), ApplyError<S::Error>> {
        let last = self.cuts.last_of(part.header.stamp.epoch);
        if part.header.first > last {
            return Ok(());
        }
        self.check_envelope(&part.header, last)?;
        if part.header.last <= self.done.txid {
            return Ok(());
        }
        for fragment in fragments(part) {
            let fragment = fragment?;
            if fragment.header.txid > last {
                return Ok(());
            }
            if fragment.header.txid <= self.done.txid {
                self.check_known(&fragment.header)?;
            } else if self.is_next_after_target(&fragment.header) {
                self.leave_out(&fragment.header);
                return Ok(());
            } else {
                self.take_fragment(&fragment, sink)?;
            }
            if self.reached {
                return Ok(());
            }
        }
        let state = self.open.as_ref().map_or(self.done.state, Open::state);
        check_chain(part.header.last, part.header.after, state)
    }

    /// Checks a part's header; `last` is its last transaction that is history.
    fn check_envelope<E: Error>(
        &self,
        header: &PartHeader,
        last: Txid,
    ) -> Result<(), ApplyError<E>> {
        let found = header.stamp.generation;
        if found != self.generation {
            let wanted = self.generation;
            return Err(ApplyError::OtherGeneration { wanted, found });
        }
        if header.page_size != self.page_size {
            return Err(ApplyError::OtherPageSize {
                wanted: self.page_size,
                found: header.page_size,
            });
        }
        if header.last == self.done.txid && header.last <= last {
            check_chain(header.last, header.after, self.done.state)?;
        }
        if self.done.txid.next() == Some(header.first) {
            check_chain(self.done.txid, header.before, self.done.state)?;
        }
        Ok(())
    }

    /// Checks a transaction that is applied already, where it tells the state that was reached.
    fn check_known<E: Error>(&self, header: &TransactionHeader) -> Result<(), ApplyError<E>> {
        if header.txid == self.done.txid {
            check_chain(header.txid, header.state, self.done.state)
        } else {
            Ok(())
        }
    }

    fn take_fragment<S: PageSink>(
        &mut self,
        fragment: &Fragment<'_>,
        sink: &mut S,
    ) -> Result<(), ApplyError<S::Error>> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin(fragment.header)?,
        };
        open.join(fragment)?;
        for record in &fragment.pages {
            open.place(record)?;
            self.batch.insert(fragment.header.txid, record);
            if self.batch.is_full() {
                self.batch.flush(self.page_size, sink)?;
            }
        }
        if fragment.is_last() {
            open.end()?;
            self.end(&fragment.header);
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    fn begin<E: Error>(&mut self, header: TransactionHeader) -> Result<Open, ApplyError<E>> {
        let (after, found) = (self.done.txid, header.txid);
        if after.next() != Some(found) {
            return Err(ApplyError::Missing { after, found });
        }
        if header.pages < self.done.pages {
            self.batch.truncate(header.pages);
        }
        Ok(Open::new(header, self.done.pages, self.page_size))
    }

    fn end(&mut self, header: &TransactionHeader) {
        self.done = Restored {
            txid: header.txid,
            time: header.time,
            state: header.state,
            pages: header.pages,
            late: header.late.then_some((header.since, header.time)),
            left_out: None,
        };
        self.reached = is_reached(&self.done, self.target);
    }

    /// Whether a transaction is after the target, and nothing is missing before it.
    fn is_next_after_target(&self, header: &TransactionHeader) -> bool {
        let is_after = match self.target {
            Target::Latest => false,
            Target::Txid(txid) => header.txid > txid,
            Target::Time(time) => header.time > time,
        };
        is_after && self.done.txid.next() == Some(header.txid)
    }

    /// Stops before a transaction that is after the target.
    fn leave_out(&mut self, header: &TransactionHeader) {
        self.reached = true;
        let may_belong = match self.target {
            Target::Time(time) => header.late && header.since <= time,
            Target::Latest | Target::Txid(_) => false,
        };
        self.done.left_out = may_belong.then_some((header.since, header.time));
    }
}

/// Whether nothing more can belong to the target. At a time, other transactions may follow.
fn is_reached(done: &Restored, target: Target) -> bool {
    matches!(target, Target::Txid(txid) if done.txid >= txid)
}

/// Compares what a segment says of the state after a transaction with what is known of it.
fn check_chain<E: Error>(
    txid: Txid,
    said: StateHash,
    known: StateHash,
) -> Result<(), ApplyError<E>> {
    if said == known { Ok(()) } else { Err(ApplyError::BrokenChain { txid, said, known }) }
}
