//! Which file was followed last with the state of this folder. However much of it has changed since, it is
//! the same database: most pages of a small and busy one change in a minute in which nobody looks.
//!
//! A file that has come to its place is another one, by its inode and its time of birth.

use std::io::{self, Write};
use std::path::Path;

use super::state::identity;
use crate::durable::Temporary;

/// The name of the record in the folder of local state.
const FILE_NAME: &str = "followed";

/// Whether this database was followed with the state of this folder.
#[must_use]
pub fn was_followed(folder: &Path, database: &Path) -> bool {
    let written = std::fs::read_to_string(folder.join(FILE_NAME)).ok();
    let here = database.metadata().ok().map(|metadata| identity(&metadata));
    written.is_some() && written == here
}

/// Remembers that this database is followed.
///
/// # Errors
/// What the file system says.
pub fn remember(folder: &Path, database: &Path) -> io::Result<()> {
    if was_followed(folder, database) {
        return Ok(());
    }
    let file = Temporary::create(folder)?;
    file.file().write_all(identity(&database.metadata()?).as_bytes())?;
    file.replace(&folder.join(FILE_NAME))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_file_is_known_again_and_one_that_came_to_its_place_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (database, other) = (folder.path().join("app.db"), folder.path().join("other.db"));
        let write = |path: &Path| File::create(path).unwrap().write_all(b"x").unwrap();
        write(&database);
        write(&other);
        assert!(!was_followed(folder.path(), &database));
        remember(folder.path(), &database).unwrap();
        write(&database);
        assert!(was_followed(folder.path(), &database));
        std::fs::remove_file(&database).unwrap();
        crate::durable::rename(&other, &database).unwrap();
        assert!(!was_followed(folder.path(), &database));
        remember(folder.path(), &database).unwrap();
        assert!(was_followed(folder.path(), &database));
    }
}
