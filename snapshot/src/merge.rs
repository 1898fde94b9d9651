//! Which segments are merged into larger ones, so that no restore needs many, and which are covered by
//! larger ones.
//!
//! A merged segment is its inputs' parts, one after another: nothing in them changes, and no
//! transaction is lost. Its name tells the first and the last transaction, the time and the epoch of
//! the last input, and a level above all of theirs. The epoch is that of the last input's writer, not
//! of who merges: what it says of the last transaction stays true.
//!
//! [`Ladder::choose`] has two reasons to merge:
//!
//! - *Full*: [`Rules::fan_in`] segments of one level stand in a row, and make one of the next. That keeps
//!   each level's rest below that number, and each byte is written once a level. A segment of [`Rules::enough`] bytes stays as it
//!   is: to fetch it takes long enough for its request not to matter. A restore reads a merged segment
//!   from its beginning, and what is before its snapshot in vain; so above [`Rules::spanning_level`]
//!   nothing is merged across a snapshot.
//! - *Crowded*: between two snapshots are more than [`Rules::crowd`] segments all the same, because large
//!   or damaged ones stand between them. Then the most neighbours are merged that make not too much, and
//!   into one of their highest level. How much is too much grows with what stands between the two
//!   snapshots. What is larger than half of that stays as it is, and is not counted: there are fewer of it
//!   than twice [`Rules::crowd_share`], however much there is.
//!
//! Never merged are segments between which a transaction is missing, and those that hold transactions
//! which another segment of the history holds, too: there one writer was cut off by the next, and what
//! the first still wrote is no history.

use std::cmp::Reverse;

use genesis_wal::id::Txid;
use genesis_wal::name::SegmentName;

use self::crowd::Crowd;
use crate::inventory::{Line, Listed};

mod crowd;

/// The highest level that a name can tell.
const HIGHEST_LEVEL: u8 = 99;

/// How much is merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Segments of one level that make one of the next.
    pub fan_in: usize,
    /// The most bytes in a segment merged because a level is full: at least twice [`Self::enough`].
    pub level_bytes: u64,
    /// Bytes from which on a segment is large enough.
    pub enough: u64,
    /// Up to this level, merged segments span snapshots.
    pub spanning_level: u8,
    /// More segments than this between two snapshots are too many.
    pub crowd: usize,
    /// The most bytes in a segment merged for there being too many, unless its share is more. One of more
    /// than half stays as it is.
    pub crowd_bytes: u64,
    /// Its share is one part in so many of all bytes between the two snapshots.
    pub crowd_share: u64,
    /// Bytes for which there is room. What takes more is merged for there being too many only where
    /// nothing takes less.
    pub room: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            fan_in: 32,
            level_bytes: 64 << 20,
            enough: 32 << 20,
            spanning_level: 2,
            crowd: 160,
            crowd_bytes: 1 << 30,
            crowd_share: 20,
            room: u64::MAX,
        }
    }
}

/// What is to be merged next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Several segments into one.
    Merge(Merge),
    /// Nothing.
    Rest,
}

/// Several segments that become one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merge {
    /// The segments, in order; at least two.
    pub inputs: Vec<Listed<SegmentName>>,
    /// What they become.
    pub output: SegmentName,
    /// Why.
    pub because: Because,
}

/// Why segments are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// This level is full.
    Full(u8),
    /// So many segments are between two snapshots.
    Crowded(usize),
}

/// The segments that a line's history lies in, each transaction in as few as there are. Those they were
/// merged from are not in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ladder {
    /// Ascending.
    tops: Vec<Top>,
    /// Ascending.
    snapshots: Vec<Txid>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Top {
    segment: Listed<SegmentName>,
    /// The last of its transactions that is history.
    last: Txid,
    /// Its bytes turned out not to be what they should, or not all of it is history.
    is_useless: bool,
}

impl Ladder {
    /// The segments and snapshots of a line, as they are listed.
    #[must_use]
    pub fn of(line: &Line) -> Self {
        let mut tops = Vec::new();
        let first = line.segments().first().map(|segment| segment.name.first);
        let mut from = first.map(before);
        while let Some(after) = from {
            let chain = line.chain(after);
            let top = |segment: Listed<SegmentName>| {
                let last = line.last_in(&segment.name);
                Top { segment, last, is_useless: last < segment.name.last }
            };
            tops.extend(chain.segments.into_iter().map(top));
            from = chain.gap.map(|gap| before(gap.next));
        }
        let snapshots = line.manifests().iter().map(|manifest| manifest.name.txid).collect();
        Self { tops, snapshots }
    }

    /// The segments, ascending.
    pub fn segments(&self) -> impl Iterator<Item = Listed<SegmentName>> {
        self.tops.iter().map(|top| top.segment)
    }

    /// Takes a segment that is stored now. One that holds nothing new is left out; those that it holds
    /// all of give way.
    pub fn add(&mut self, segment: Listed<SegmentName>) {
        let name = segment.name;
        // None holds another: both their ends ascend.
        let begun = self.tops.partition_point(|top| top.segment.name.first <= name.first);
        let holder = begun.checked_sub(1).and_then(|at| self.tops.get(at));
        if holder.is_some_and(|top| name.last <= top.last) {
            return;
        }
        let from = self.tops.partition_point(|top| top.segment.name.first < name.first);
        let to = self.tops.partition_point(|top| top.last <= name.last);
        self.tops.splice(from..to.max(from), [Top { segment, last: name.last, is_useless: false }]);
    }

    /// Takes a snapshot that is stored now.
    pub fn add_snapshot(&mut self, txid: Txid) {
        let at = self.snapshots.partition_point(|&snapshot| snapshot < txid);
        if self.snapshots.get(at) != Some(&txid) {
            self.snapshots.insert(at, txid);
        }
    }

    /// Leaves a segment as it is from now on: it cannot be read, or not be merged.
    pub fn leave(&mut self, name: SegmentName) {
        for top in self.tops.iter_mut().filter(|top| top.segment.name == name) {
            top.is_useless = true;
        }
    }

    /// What is to be merged next. After that is stored and [added](Self::add), or an input of it
    /// [left](Self::leave), there may be more.
    #[must_use]
    pub fn choose(&self, rules: &Rules) -> Choice {
        let full = self.full(rules);
        let window = full.or_else(|| self.crowded(rules));
        let merge = window.and_then(|(window, because)| Merge::of(window, because));
        merge.map_or(Choice::Rest, Choice::Merge)
    }

    /// The first full row of the lowest level that has one.
    fn full(&self, rules: &Rules) -> Option<(&[Top], Because)> {
        let mut lowest: Option<&[Top]> = None;
        let mut row = 0..0;
        for (at, top) in self.tops.iter().enumerate() {
            let goes_on = at.checked_sub(1).and_then(|before| self.tops.get(before));
            let goes_on = goes_on.is_some_and(|before| self.is_row(before, top, rules));
            if !goes_on {
                row.start = at;
            }
            row.end = at + 1;
            if !self.is_free(at) || top.size() >= rules.enough || self.is_split(top, rules) {
                row.start = row.end;
            }
            if row.len() < rules.fan_in {
                continue;
            }
            let found = self.tops.get(row.clone());
            row.start = row.end;
            if lowest.is_none_or(|lowest| level(lowest) > top.level()) {
                lowest = found;
            }
        }
        let row = lowest?;
        Some((up_to(row, rules.level_bytes), Because::Full(level(row))))
    }

    /// Whether two segments may stand in one row of a level.
    fn is_row(&self, one: &Top, next: &Top, rules: &Rules) -> bool {
        let may_span = next.level() < rules.spanning_level
            || !self.has_snapshot(one.last, next.segment.name.first);
        is_next(one, next) && one.level() == next.level() && may_span
    }

    /// Whether a segment that would be merged above the level that spans snapshots spans one.
    fn is_split(&self, top: &Top, rules: &Rules) -> bool {
        let SegmentName { first, last, level, .. } = top.segment.name;
        level >= rules.spanning_level && self.has_snapshot(first, last)
    }

    /// Whether a snapshot is in `from..to`.
    fn has_snapshot(&self, from: Txid, to: Txid) -> bool {
        let at = self.snapshots.partition_point(|&snapshot| snapshot < from);
        self.snapshots.get(at).is_some_and(|&snapshot| snapshot < to)
    }

    /// Whether a segment is of use, and the only one with each of its transactions.
    fn is_free(&self, at: usize) -> bool {
        let Some(this) = self.tops.get(at) else { return false };
        let before = at.checked_sub(1).and_then(|at| self.tops.get(at));
        let is_apart = |one: &Top, next: &Top| one.last < next.segment.name.first;
        !this.is_useless
            && before.is_none_or(|before| is_apart(before, this))
            && self.tops.get(at + 1).is_none_or(|next| is_apart(this, next))
    }

    /// Neighbours between two snapshots that have too many segments between them.
    fn crowded(&self, rules: &Rules) -> Option<(&[Top], Because)> {
        let ends = self.snapshots.iter().skip(1).copied().chain([Txid(u64::MAX)]);
        self.snapshots.iter().zip(ends).find_map(|(&snapshot, end)| {
            let crowd = Crowd::between(self, snapshot, end, *rules)?;
            Some((crowd.cheapest()?, Because::Crowded(crowd.count())))
        })
    }
}

impl Top {
    fn level(&self) -> u8 {
        self.segment.name.level
    }

    fn size(&self) -> u64 {
        self.segment.size
    }
}

impl Merge {
    fn of(window: &[Top], because: Because) -> Option<Self> {
        let (first, last) = (window.first()?.segment.name, window.get(1..)?.last()?.segment.name);
        let highest = window.iter().map(Top::level).max()?;
        let level = match because {
            Because::Full(level) => level.saturating_add(1).min(HIGHEST_LEVEL),
            Because::Crowded(_) => highest.max(1),
        };
        let output = SegmentName {
            generation: first.generation,
            level,
            first: first.first,
            last: last.last,
            time: last.time,
            epoch: last.epoch,
            repair: 0,
        };
        Some(Self { inputs: window.iter().map(|top| top.segment).collect(), output, because })
    }

    /// Bytes in the result.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.inputs.iter().fold(0, |sum, input| sum.saturating_add(input.size))
    }
}

/// The segments of a line of which every transaction is in one merged segment that holds more, ascending:
/// no restore needs them while those are whole.
#[must_use]
pub fn covered(line: &Line) -> Vec<Listed<SegmentName>> {
    let mut segments = line.segments().to_vec();
    segments.sort_by_key(|s| (s.name.first, Reverse(s.name.last), Reverse(s.name.level)));
    // Merged segments, and the last of their transactions that are history.
    let mut holders: Vec<(SegmentName, Txid)> = Vec::new();
    let is_covered = |Listed { name, .. }: &Listed<SegmentName>| {
        holders.retain(|(_, last)| *last >= name.first);
        // What a writer wrote after it was cut off covers nothing that the next one wrote.
        let is_held = holders.iter().any(|(holder, last)| {
            let is_longer = holder.first < name.first || *last > name.last;
            is_longer && *last >= name.last && holder.epoch >= name.epoch
        });
        if name.level > 0 {
            holders.push((*name, line.last_in(name)));
        }
        is_held
    };
    segments.into_iter().filter(is_covered).collect()
}

fn before(txid: Txid) -> Txid {
    Txid(txid.0.saturating_sub(1))
}

fn is_next(one: &Top, next: &Top) -> bool {
    one.last.next() == Some(next.segment.name.first)
}

fn level(row: &[Top]) -> u8 {
    row.first().map_or(0, Top::level)
}

fn bytes(window: &[Top]) -> u64 {
    window.iter().fold(0, |sum, top| sum.saturating_add(top.size()))
}

/// As many of the first ones as have at most `limit` bytes together.
fn up_to(window: &[Top], limit: u64) -> &[Top] {
    let mut sum = 0u64;
    let fits = |top: &&Top| {
        sum = sum.saturating_add(top.size());
        sum <= limit
    };
    let count = window.iter().take_while(fits).count();
    window.get(..count).unwrap_or_default()
}
