//! Which objects a restore goes by, and by which others when one of them turns out to be of no use.

use std::fmt;

use genesis_restore::plan::{Plan, PlanError, Restorable, last_before, plan, plan_instead};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Inventory;
use genesis_wal::id::Generation;
use genesis_wal::name::ObjectName;

use super::RestoreError;
use crate::object::ObjectError;
use crate::replica::Replica;

/// The objects that make the state that was asked for.
#[derive(Debug)]
pub struct Route {
    /// What the replica holds, but for what turned out to be of no use.
    pub inventory: Inventory,
    /// The objects.
    pub plan: Plan,
    useless: Vec<ObjectName>,
    listed_again: bool,
}

impl Route {
    /// Finds the objects.
    ///
    /// # Errors
    /// When the replica cannot be listed, or does not hold the state.
    pub async fn find(
        replica: &Replica,
        target: Target,
        generation: Option<Generation>,
    ) -> Result<Self, RestoreError> {
        let inventory = replica.inventory().await?;
        let plan = plan(&inventory, target, generation)?;
        Ok(Self { inventory, plan, useless: Vec::new(), listed_again: false })
    }

    /// Finds others that make the same state: copies, merged segments' originals, an earlier snapshot.
    /// Where an object is missing, it may have been deleted since the listing, and the others may be
    /// newer: the replica is listed once more.
    ///
    /// # Errors
    /// [`RestoreError::Useless`] when there are none.
    pub async fn avoid(
        &mut self,
        replica: &Replica,
        error: ObjectError,
    ) -> Result<(), RestoreError> {
        let Some(name) = error.useless() else {
            return Err(error.into());
        };
        let is_missing = matches!(error, ObjectError::Missing { .. });
        if is_missing && !std::mem::replace(&mut self.listed_again, true) {
            self.list_again(replica).await?;
        } else {
            self.forget(name);
        }
        match plan_instead(&self.inventory, &self.plan) {
            Some(plan) => {
                tracing::warn!(%error, "trying to restore the same state from other objects");
                self.plan = plan;
                Ok(())
            }
            None => Err(self.without(error)),
        }
    }

    async fn list_again(&mut self, replica: &Replica) -> Result<(), RestoreError> {
        self.inventory = replica.inventory().await?;
        for name in &self.useless {
            self.inventory.forget(*name);
        }
        // What was asked for may be out of what is kept by now.
        match plan(&self.inventory, self.plan.target, Some(self.plan.generation)) {
            Err(error @ PlanError::BeforeFirst { .. }) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn forget(&mut self, name: ObjectName) {
        let name = match name {
            // All copies of a pack were tried: it is the snapshot that is of no use.
            ObjectName::Pack(_) => self.plan.manifest.into(),
            other => other,
        };
        self.useless.push(name);
        self.inventory.forget(name);
    }

    fn without(&self, source: ObjectError) -> RestoreError {
        let instead = Instead(last_before(&self.inventory, &self.plan));
        RestoreError::Useless { source: source.into(), instead }
    }
}

/// What can be restored instead of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instead(pub Option<Restorable>);

impl fmt::Display for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(state) => write!(f, "the last one before it that can is {state}"),
            None => f.write_str("no earlier one can"),
        }
    }
}
