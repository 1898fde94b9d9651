//! What the address of a replica means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{FileStore, Store};

/// A place for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A local folder.
    Folder(PathBuf),
}

impl Place {
    /// The same place, where a relative path begins at `folder`.
    #[must_use]
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(folder.join(path)),
        }
    }

    /// The store in this place.
    pub fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Folder(folder) => Arc::new(FileStore::new(folder.clone())),
        }
    }

    /// How long a committed transaction may wait for upload to here, unless something else is said.
    pub fn sync_interval(&self) -> Duration {
        match self {
            Self::Folder(_) => Duration::from_millis(50),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let folder = match text.split_once("://") {
            None if text.is_empty() => {
                return Err("a replica is a folder: a path, or file:///path".into());
            }
            None => text,
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => return Err("a file URL has three slashes: file:///path".into()),
            Some((scheme, _)) => {
                return Err(format!(
                    "{scheme}:// is not supported; a replica is a folder: a path, or file:///path"
                ));
            }
        };
        Ok(Self::Folder(folder.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_file_urls_are_folders_and_the_rest_is_refused() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("backup/app"), Ok(Place::Folder("backup/app".into())));
        assert_eq!(place("file:///backup/app"), Ok(Place::Folder("/backup/app".into())));
        assert!(place("file://host/app").unwrap_err().contains("three slashes"));
        assert!(place("ftp://host/app").unwrap_err().contains("not supported"));
        assert!(place("").is_err());
    }
}
