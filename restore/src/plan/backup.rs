//! Which state a snapshot holds that is named by its id.

use genesis_snapshot::inventory::{Inventory, Line};
use genesis_wal::id::{BackupId, Generation};

use super::{PlanError, Restorable};

/// Finds the snapshot with this id, in all generations or in the one that is named: its state, which
/// other objects may make, too.
///
/// # Errors
/// [`PlanError::UnknownBackup`] when there is none, [`PlanError::UnknownGeneration`].
pub fn backup(
    inventory: &Inventory,
    id: BackupId,
    generation: Option<Generation>,
) -> Result<Restorable, PlanError> {
    if let Some(generation) = generation {
        inventory.generation(generation).ok_or(PlanError::UnknownGeneration(generation))?;
    }
    let is_looked_at = |line: &&Line| generation.is_none_or(|wanted| line.generation() == wanted);
    let mut manifests = inventory.generations().filter(is_looked_at).flat_map(Line::manifests);
    let found = manifests.find(|manifest| manifest.name.backup() == id);
    let name = found.ok_or(PlanError::UnknownBackup(id))?.name;
    Ok(Restorable { generation: name.generation, txid: name.txid, time: name.time })
}
