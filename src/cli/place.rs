//! What the address of a replica means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{CREDENTIAL_VARIABLES, Examine, FileStore, S3Address, S3Store, Store};

/// A place for a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A local folder.
    Folder(PathBuf),
    /// In a bucket of an object store.
    Bucket(S3Address),
}

/// What an address may be.
const KINDS: &str = "a replica is a folder (a path, or file:///path) or in an object store \
                     (s3://bucket/prefix)";

impl Place {
    /// The same place, where a relative path begins at `folder`.
    #[must_use]
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(folder.join(path)),
            Self::Bucket(address) => Self::Bucket(address),
        }
    }

    /// The store in this place.
    pub fn store(&self) -> Arc<dyn Store> {
        self.examined()
    }

    /// The store in this place, to find out what it can do.
    pub fn examined(&self) -> Arc<dyn Examine> {
        match self {
            Self::Folder(folder) => Arc::new(FileStore::new(folder.clone())),
            Self::Bucket(address) => Arc::new(S3Store::new(address.clone())),
        }
    }

    /// The variables of the environment that say with which credentials the store is asked.
    pub fn credential_variables(&self) -> &'static [&'static str] {
        match self {
            Self::Folder(_) => &[],
            Self::Bucket(_) => &CREDENTIAL_VARIABLES,
        }
    }

    /// How long a committed transaction may wait for upload to here, unless something else is said.
    pub fn sync_interval(&self) -> Duration {
        match self {
            Self::Folder(_) => Duration::from_millis(50),
            Self::Bucket(_) => Duration::from_secs(1),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket(address) => address.fmt(f),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let folder = match text.split_once("://") {
            None if text.is_empty() => return Err(KINDS.to_owned()),
            None => text,
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => return Err("a file URL has three slashes: file:///path".into()),
            Some(("s3", _)) => return text.parse().map(Self::Bucket),
            Some((scheme, _)) => return Err(format!("{scheme}:// is not supported; {KINDS}")),
        };
        Ok(Self::Folder(folder.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_folder_or_in_a_bucket() {
        let place = |text: &str| text.parse::<Place>();
        assert_eq!(place("backup/app"), Ok(Place::Folder("backup/app".into())));
        assert_eq!(place("file:///backup/app"), Ok(Place::Folder("/backup/app".into())));
        let bucket = "s3://backups/app?region=eu-central-1";
        assert_eq!(place(bucket), Ok(Place::Bucket(bucket.parse().unwrap())));
        assert!(place("s3://backups/app?regio=x").unwrap_err().contains("region"));
        assert!(place("file://host/app").unwrap_err().contains("three slashes"));
        assert!(place("ftp://host/app").unwrap_err().contains("not supported"));
        assert!(place("").is_err());
    }
}
