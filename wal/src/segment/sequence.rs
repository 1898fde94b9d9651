//! How the parts of segments follow one another.

use thiserror::Error;

use super::{Fragment, SegmentError, TransactionHeader, fragments};
use crate::id::{Generation, Txid};
use crate::page::{PageNumber, PageSize, StateHash};
use crate::part::{Part, PartHeader};
use crate::position::WalPosition;
use crate::time::Micros;

/// The state after a transaction that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reached {
    /// The transaction.
    pub txid: Txid,
    /// When it was committed.
    pub time: Micros,
    /// The state hash after it.
    pub state: StateHash,
    /// The place in the WAL after it; `None` where no part tells one.
    pub position: Option<WalPosition>,
}

/// Why a part does not follow, or why the last one is not the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SequenceError {
    /// The part holds no valid transactions.
    #[error("a part of a segment is not valid")]
    Segment(#[from] SegmentError),
    /// A part of another line of history.
    #[error("a part belongs to generation {found} instead of {wanted}")]
    OtherGeneration {
        /// The generation of the parts before.
        wanted: Generation,
        /// The part's.
        found: Generation,
    },
    /// A part of a database with other pages.
    #[error("a part has pages of {found} bytes instead of {wanted}")]
    OtherPageSize {
        /// The page size of the parts before.
        wanted: PageSize,
        /// The part's.
        found: PageSize,
    },
    /// The part does not begin with the transaction that comes next.
    #[error("a part begins with transaction {}, where transaction {} was reached", found.0, after.0)]
    NotNext {
        /// The last transaction that is complete.
        after: Txid,
        /// The first one of the part.
        found: Txid,
    },
    /// The state that a part tells is not the one that was reached.
    #[error("the state after transaction {} is {known}, but a part says {said}", txid.0)]
    BrokenChain {
        /// The transaction.
        txid: Txid,
        /// The state that the part tells.
        said: StateHash,
        /// The state that is known.
        known: StateHash,
    },
    /// The fragments of a transaction do not join.
    #[error("the fragments of transaction {} do not join", .0.0)]
    BadFragment(Txid),
    /// The last part ends within a transaction.
    #[error("{missing} page records are missing from transaction {}", txid.0)]
    Unfinished {
        /// The transaction.
        txid: Txid,
        /// Records that have not come.
        missing: u32,
    },
}

/// The rule by which the parts of segments follow one another. Every part begins where the last
/// complete transaction ended: its first transaction is the next one, and its state before is the
/// state reached. That holds within a transaction in fragments too, as each of its parts tells the
/// state before the whole of it; the part with the last fragment may go on with other transactions.
/// The state after the last transaction of a part is the one in its header, complete or not.
///
/// What pages unpack to is not looked at.
///
/// ```
/// # use genesis_wal::id::{Epoch, Generation, Txid};
/// # use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
/// # use genesis_wal::part::{Part, Stamp};
/// # use genesis_wal::reader::Reader;
/// # use genesis_wal::segment::{SegmentEncoder, TransactionHeader, TransactionKind};
/// # use genesis_wal::time::Micros;
/// use genesis_wal::segment::{Reached, Sequence, SequenceError};
///
/// # let page_size = PageSize::new(512)?;
/// # let generation = Generation { epoch: Epoch(1), random: 2 };
/// # let stamp = Stamp { generation, epoch: Epoch(1) };
/// # let mut segment = Vec::new();
/// # let mut encoder = SegmentEncoder::new(page_size, stamp, StateHash(10));
/// # let kind = TransactionKind::Commit;
/// # let (time, since) = (Micros(7), Micros(7));
/// # let (late, commits, pages, records, state) = (false, 1, 2, 2, StateHash(20));
/// # let txid = Txid(3);
/// # encoder.begin(
/// #     TransactionHeader { txid, kind, late, commits, time, since, pages, records, state },
/// #     None,
/// # )?;
/// # for page in [1, 2].into_iter().filter_map(PageNumber::new) {
/// #     encoder.page(page, PageHash(0), &[0; 512], None)?;
/// #     encoder.cut(&mut segment)?;
/// # }
/// // Transaction 2 was reached. The segment holds transaction 3, in two parts.
/// let from = Reached { txid: Txid(2), time: Micros(5), state: StateHash(10), position: None };
/// let mut sequence = Sequence::new(generation, page_size, from);
/// let mut parts = Reader::new(&segment);
///
/// sequence.accept(&Part::decode(&mut parts)?)?;
/// assert_eq!(sequence.reached(), from);
/// let unfinished = SequenceError::Unfinished { txid: Txid(3), missing: 1 };
/// assert_eq!(sequence.finish(), Err(unfinished));
///
/// sequence.accept(&Part::decode(&mut parts)?)?;
/// let reached = sequence.finish()?;
/// assert_eq!((reached.txid, reached.state), (Txid(3), StateHash(20)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    generation: Generation,
    page_size: PageSize,
    reached: Reached,
    open: Option<Open>,
}

/// A transaction of which fragments are still to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    header: TransactionHeader,
    /// Records that have come.
    received: u32,
    last_page: Option<PageNumber>,
}

impl Sequence {
    /// What continues the state `from`.
    #[must_use]
    pub fn new(generation: Generation, page_size: PageSize, from: Reached) -> Self {
        Self { generation, page_size, reached: from, open: None }
    }

    /// What begins with the part that has this header, for a segment that is read alone. When the
    /// state before it was reached, and where, is not known: the time is 0.
    #[must_use]
    pub fn beginning_with(first: &PartHeader) -> Self {
        let from = Reached {
            txid: Txid(first.first.0.saturating_sub(1)),
            time: Micros(0),
            state: first.before,
            position: None,
        };
        Self::new(first.stamp.generation, first.page_size, from)
    }

    /// Takes the next part.
    ///
    /// # Errors
    /// [`SequenceError`] when the part does not follow; it is left out then.
    pub fn accept(&mut self, part: &Part<'_>) -> Result<(), SequenceError> {
        self.accept_until(part, Txid(u64::MAX))
    }

    /// Takes the next part, of which what comes after the transaction `last` is left out.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_until(&mut self, part: &Part<'_>, last: Txid) -> Result<(), SequenceError> {
        let mut next = *self;
        next.take(part, last)?;
        *self = next;
        Ok(())
    }

    /// The last transaction that is complete: the one to continue, as long as none is.
    #[must_use]
    pub fn reached(&self) -> Reached {
        self.reached
    }

    /// The last transaction of the last part.
    ///
    /// # Errors
    /// [`SequenceError::Unfinished`] when a transaction lacks fragments.
    pub fn finish(&self) -> Result<Reached, SequenceError> {
        match self.open {
            None => Ok(self.reached),
            Some(Open { header, received, .. }) => Err(SequenceError::Unfinished {
                txid: header.txid,
                missing: header.records.saturating_sub(received),
            }),
        }
    }

    fn take(&mut self, part: &Part<'_>, until: Txid) -> Result<(), SequenceError> {
        self.check_start(&part.header)?;
        for fragment in fragments(part) {
            let fragment = fragment?;
            if fragment.header.txid > until {
                return Ok(());
            }
            self.take_fragment(&fragment)?;
        }
        let PartHeader { last, position, after, .. } = part.header;
        match self.open {
            None => {
                self.reached.position = position;
                check_chain(last, after, self.reached.state)
            }
            Some(open) => check_chain(last, after, open.header.state),
        }
    }

    fn check_start(&self, header: &PartHeader) -> Result<(), SequenceError> {
        let (wanted, found) = (self.generation, header.stamp.generation);
        if wanted != found {
            return Err(SequenceError::OtherGeneration { wanted, found });
        }
        let (wanted, found) = (self.page_size, header.page_size);
        if wanted != found {
            return Err(SequenceError::OtherPageSize { wanted, found });
        }
        let (after, found) = (self.reached.txid, header.first);
        if after.next() != Some(found) {
            return Err(SequenceError::NotNext { after, found });
        }
        check_chain(after, header.before, self.reached.state)
    }

    fn take_fragment(&mut self, fragment: &Fragment<'_>) -> Result<(), SequenceError> {
        let header = fragment.header;
        let open = self.open.take().unwrap_or(Open { header, received: 0, last_page: None });
        let open = open.join(fragment).ok_or(SequenceError::BadFragment(header.txid))?;
        if fragment.is_last() {
            let TransactionHeader { txid, time, state, .. } = header;
            // Only the last transaction of a part has its position told.
            self.reached = Reached { txid, time, state, position: None };
        } else {
            self.open = Some(open);
        }
        Ok(())
    }
}

impl Open {
    /// The transaction with the next fragment; `None` when that is another one.
    fn join(self, fragment: &Fragment<'_>) -> Option<Self> {
        let first_page = fragment.pages.first().map(|record| record.number);
        let ascends = self.last_page.is_none() || self.last_page < first_page;
        if self.header != fragment.header || self.received != fragment.first_record || !ascends {
            return None;
        }
        let received = self.received.checked_add(u32::try_from(fragment.pages.len()).ok()?)?;
        let last_page = fragment.pages.last().map(|record| record.number);
        Some(Self { received, last_page, ..self })
    }
}

fn check_chain(txid: Txid, said: StateHash, known: StateHash) -> Result<(), SequenceError> {
    if said == known { Ok(()) } else { Err(SequenceError::BrokenChain { txid, said, known }) }
}
