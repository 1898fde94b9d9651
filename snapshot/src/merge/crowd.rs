//! Too many segments between two snapshots.

use std::cmp::Reverse;
use std::ops::Range;

use genesis_wal::id::Txid;

use super::{Ladder, Rules, Top, bytes, is_next, up_to};

/// What stands between two snapshots, where that is too much.
#[derive(Debug)]
pub struct Crowd<'a> {
    ladder: &'a Ladder,
    rules: Rules,
    /// Those within. One that spans a snapshot is read in vain up to there by who begins with that: it
    /// is not made larger.
    within: Range<usize>,
    /// How many there are, but for large ones.
    count: usize,
    /// The most bytes in one that is merged.
    limit: u64,
}

impl<'a> Crowd<'a> {
    /// The segments that continue the snapshot `from` up to the next one, if there are too many.
    pub fn between(ladder: &'a Ladder, from: Txid, to: Txid, rules: Rules) -> Option<Self> {
        let tops = &ladder.tops;
        let start = tops.partition_point(|top| top.last <= from);
        let end = tops.partition_point(|top| top.segment.name.first <= to);
        let all = tops.get(start..end)?;
        let share = bytes(all).checked_div(rules.crowd_share).unwrap_or(0);
        let limit = rules.crowd_bytes.max(share);
        let count = all.iter().filter(|top| !is_large(top, limit)).count();
        let spans_start = |top: &&Top| top.segment.name.first <= from;
        let spans_end = |top: &&Top| top.last > to;
        let within = start + all.iter().take_while(spans_start).count()
            ..end - all.iter().rev().take_while(spans_end).count();
        (count > rules.crowd).then_some(Self { ladder, rules, within, count, limit })
    }

    /// How many there are, but for large ones.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of the most neighbours that may be merged those with the fewest bytes; of those for which there is
    /// room, if there are any. Rather fewer than such of which one alone makes much of the result: it
    /// would be written again each time that a few small ones are added. (A terabyte in segments of 40 MiB
    /// is written 2.1 times so, and 5.7 times otherwise.)
    pub fn cheapest(&self) -> Option<&'a [Top]> {
        [self.limit.min(self.rules.room), self.limit].into_iter().find_map(|limit| {
            let windows = self.within.clone().filter_map(|at| self.window(at, limit));
            windows.min_by_key(|window| (is_uneven(window), Reverse(window.len()), bytes(window)))
        })
    }

    /// The most neighbours from `at` on that may be merged, of at most `limit` bytes.
    fn window(&self, at: usize, limit: u64) -> Option<&'a [Top]> {
        let tops = self.ladder.tops.get(at..self.within.end)?;
        let may_stand = |&(n, top): &(usize, &Top)| {
            let before = n.checked_sub(1).and_then(|before| tops.get(before));
            before.is_none_or(|before| is_next(before, top))
                && self.ladder.is_free(at + n)
                && !is_large(top, self.limit)
        };
        let fan = tops.iter().take(self.rules.fan_in).enumerate();
        let count = fan.take_while(may_stand).count();
        let window = up_to(tops.get(..count)?, limit);
        (window.len() > 1).then_some(window)
    }
}

/// Whether a segment is so large that it is never merged.
fn is_large(top: &Top, limit: u64) -> bool {
    top.size() > limit / 2
}

fn is_uneven(window: &[Top]) -> bool {
    window.iter().any(|top| top.size() > bytes(window) / 4)
}
