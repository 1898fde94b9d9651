//! How much of what each writer left is history.
//!
//! A writer begins under an epoch of its own, looks at what is there, and says which transaction it
//! continues: its *base*. From then on nothing that an earlier writer adds after that transaction is
//! history, whenever it arrives. Each base also names the earlier ones that its writer knew of. An epoch
//! that the newest base does not lead to was never known to anybody who went on: all that its
//! writer left is void.

use std::collections::BTreeMap;

use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::SegmentName;

/// The last transaction of each writer that is history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cuts {
    /// The lowest base after each epoch that has one; none after the newest.
    lasts: BTreeMap<Epoch, Txid>,
    /// The lowest base of all.
    lowest: Option<Txid>,
    /// What the newest writer tells of: all up to this transaction was there.
    known: Option<Txid>,
}

impl Cuts {
    /// The cuts that these bases make: those that the newest leads to, in any order. Without any,
    /// everything is history.
    #[must_use]
    pub fn new(bases: impl IntoIterator<Item = (Epoch, Txid)>) -> Self {
        let bases: BTreeMap<Epoch, Txid> = bases.into_iter().collect();
        let known = bases.last_key_value().map(|(_, base)| *base);
        let (mut lasts, mut lowest) = (BTreeMap::new(), None);
        for (epoch, base) in bases.into_iter().rev() {
            lasts.insert(epoch, lowest.unwrap_or(Txid(u64::MAX)));
            lowest = Some(lowest.map_or(base, |lowest: Txid| lowest.min(base)));
        }
        Self { lasts, lowest, known }
    }

    /// The same, where the newest writer has ended, and tells how far everything is stored.
    #[must_use]
    pub fn ended_with(self, last: Option<Txid>) -> Self {
        Self { known: self.known.max(last), ..self }
    }

    /// What the newest writer found when it began, or left when it ended: all up to this transaction was
    /// there. Ids only rise, so this is true of the latest state whatever its generation.
    #[must_use]
    pub fn known(&self) -> Option<Txid> {
        self.known
    }

    /// The last transaction that a writer left as history; 0 when there is none.
    #[must_use]
    pub fn last_of(&self, writer: Epoch) -> Txid {
        let (Some(lowest), Some((newest, _))) = (self.lowest, self.lasts.last_key_value()) else {
            return Txid(u64::MAX);
        };
        let is_oldest = self.lasts.first_key_value().is_some_and(|(oldest, _)| writer < *oldest);
        match self.lasts.get(&writer) {
            Some(last) => *last,
            None if writer > *newest => Txid(u64::MAX),
            None if is_oldest => lowest,
            None => Txid(0),
        }
    }

    /// The last transaction of a segment that is history; before its first when none is.
    #[must_use]
    pub fn last_in(&self, segment: &SegmentName) -> Txid {
        segment.last.min(self.last_of(segment.epoch))
    }

    /// Whether all of a segment is history.
    #[must_use]
    pub fn is_whole(&self, segment: &SegmentName) -> bool {
        self.last_in(segment) == segment.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lasts(bases: &[(u32, u64)], writers: std::ops::RangeInclusive<u32>) -> Vec<u64> {
        let cuts = Cuts::new(bases.iter().map(|&(epoch, base)| (Epoch(epoch), Txid(base))));
        writers.map(|writer| cuts.last_of(Epoch(writer)).0).collect()
    }

    #[test]
    fn each_writer_ends_where_the_next_began() {
        assert_eq!(lasts(&[(1, 0), (2, 10), (4, 25)], 1..=5), [10, 25, 0, u64::MAX, u64::MAX]);
        assert_eq!(lasts(&[(3, 7), (5, 9)], 1..=3), [7, 7, 9]);
        let known = |bases: &[(u32, u64)], last| {
            let cuts = Cuts::new(bases.iter().map(|&(epoch, base)| (Epoch(epoch), Txid(base))));
            cuts.ended_with(last).known()
        };
        assert_eq!((known(&[(4, 5), (2, 10)], None), known(&[], None)), (Some(Txid(5)), None));
        assert_eq!(known(&[(4, 5)], Some(Txid(7))), Some(Txid(7)));
        assert_eq!(lasts(&[], 1..=2), [u64::MAX; 2]);
    }

    /// A writer that found less than the one before had: what was lost then does not come back.
    #[test]
    fn a_lower_base_later_cuts_all_before_it() {
        assert_eq!(lasts(&[(1, 0), (2, 10), (3, 6)], 1..=3), [6, 6, u64::MAX]);
    }
}
