//! What to do when an object of a plan turns out to be of no use: other objects that make the same
//! state, or the last state before it.

use genesis_snapshot::inventory::Inventory;
use genesis_wal::id::{Generation, Txid};
use genesis_wal::time::Millis;

use super::{Plan, is_surely_after, plan};
use crate::target::Target;

/// A state that can be restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restorable {
    /// The line of history.
    pub generation: Generation,
    /// The transaction.
    pub txid: Txid,
    /// When it was committed, rounded up.
    pub time: Millis,
}

/// Other objects that make the state of a plan, from an inventory that has forgotten what is of no use
/// of those in the plan. Without its last objects a line seems to end earlier; such an end is not taken for
/// the state that was asked for, and neither is one of another line.
#[must_use]
pub fn plan_instead(inventory: &Inventory, useless: &Plan) -> Option<Plan> {
    let plan = plan(inventory, useless.target, Some(useless.generation)).ok()?;
    let ends_with = plan.segments.last().filter(|last| plan.cuts.is_whole(last));
    let is_same_state = plan.reaches >= useless.reaches
        || match useless.target {
            Target::Latest => false,
            Target::Txid(_) => true,
            Target::Time(time) => ends_with.is_some_and(|last| is_surely_after(last.time, time)),
        };
    is_same_state.then_some(plan)
}

/// The last state before that of a plan which nothing leads to any more.
#[must_use]
pub fn last_before(inventory: &Inventory, useless: &Plan) -> Option<Restorable> {
    let end = match useless.target {
        Target::Txid(txid) => txid,
        Target::Latest | Target::Time(_) => useless.reaches,
    };
    let lines = inventory.generations().filter(|line| line.generation() <= useless.generation);
    let windows = lines.rev().flat_map(|line| {
        let windows = line.windows().into_iter().rev();
        windows.map(|window| (line.generation(), window))
    });
    let (generation, window) = windows.into_iter().find(|(_, window)| window.first <= end)?;
    Some(Restorable { generation, txid: window.last, time: window.to })
}
