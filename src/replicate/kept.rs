//! What the packs of an unfinished snapshot hold, kept on the local disk: a snapshot that is
//! interrupted goes on with them. Each file is the footer of a pack, which proves itself.

use std::io;
use std::path::PathBuf;

use genesis_snapshot::inventory::Inventory;
use genesis_snapshot::manifest::PackRef;
use genesis_snapshot::pack::PackFooter;
use genesis_wal::name::{ObjectName, PackName};

use super::capture::Known;
use crate::durable::{self, Temporary};
use crate::store::FileStore;

/// The folder of footers.
#[derive(Debug, Clone)]
pub struct KeptPacks {
    root: PathBuf,
}

impl KeptPacks {
    /// The footers in `root`, which need not exist.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Keeps the footer of a pack that was stored. That it cannot be kept costs a second upload after
    /// an interruption, and nothing else.
    pub fn keep(&self, name: &PackName, footer: &[u8]) {
        if let Err(error) = self.write(name, footer) {
            tracing::warn!(%name, %error, "cannot keep in mind that a pack was stored");
        }
    }

    /// Forgets all of them: the snapshot is complete.
    pub fn forget_all(&self) {
        match std::fs::remove_dir_all(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot clear what is left of a snapshot");
            }
            _ => {}
        }
    }

    /// Adds the blocks of those packs that the replica still holds to what is known. One that cannot
    /// be read is as good as none.
    pub fn recall(&self, inventory: &Inventory, known: &mut Known) {
        let listed = FileStore::list_folder(&self.root, "").unwrap_or_default();
        for listed in listed {
            let ObjectName::Pack(name) = listed.name else { continue };
            let Some(stored) = inventory.pack(name) else { continue };
            let bytes = std::fs::read(self.root.join(listed.name.to_string())).unwrap_or_default();
            if let Ok(footer) = PackFooter::decode(&bytes) {
                known.add_footer(PackRef { name, size: stored.size }, &footer);
            }
        }
    }

    fn write(&self, name: &PackName, footer: &[u8]) -> io::Result<()> {
        let target = self.root.join(ObjectName::from(*name).to_string());
        let folder = target.parent().unwrap_or(&self.root);
        durable::create_folders_unsynced(folder, 0o700)?;
        let file = Temporary::create(folder)?;
        io::Write::write_all(&mut file.file(), footer)?;
        file.place_unsynced(&target).map_err(|(_removed, error)| error)
    }
}
