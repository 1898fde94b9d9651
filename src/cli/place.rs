//! What the address of a replica means.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{CREDENTIAL_VARIABLES, Examine, FileStore, S3Address, S3Store, Store, decoded};

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

/// What begins an address that is no path.
const SCHEMES: [&str; 2] = ["s3", "file"];

impl Place {
    /// The same place, where a relative path begins at `folder`.
    #[must_use]
    pub fn relative_to(self, folder: &Path) -> Self {
        match self {
            Self::Folder(path) => Self::Folder(folder.join(path)),
            Self::Bucket(address) => Self::Bucket(address),
        }
    }

    /// Whether it is where the other is, however each is reached.
    #[must_use]
    pub fn is_where(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bucket(one), Self::Bucket(other)) => {
                (&one.bucket, &one.prefix, &one.endpoint)
                    == (&other.bucket, &other.prefix, &other.endpoint)
            }
            _ => self == other,
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
            Self::Folder(_) => Duration::from_millis(80),
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
            None => match text.split_once(':') {
                Some((scheme, _)) if SCHEMES.iter().any(|s| s.eq_ignore_ascii_case(scheme)) => {
                    let scheme = scheme.to_ascii_lowercase();
                    return Err(format!(
                        "{scheme}: is followed by two slashes; {KINDS}; a folder of such a name is \
                         written ./{scheme}:…"
                    ));
                }
                _ => text.to_owned(),
            },
            Some(("file", path)) if path.starts_with('/') => decoded(path)?,
            Some(("file", _)) => return Err("a file URL has three slashes: file:///path".into()),
            Some(("s3", _)) => return text.parse().map(Self::Bucket),
            // What stands before it may be anything, secrets too.
            Some(_) => return Err(format!("no other URL is supported; {KINDS}")),
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
        let decoded = Place::Folder("/back up/50%/ü".into());
        assert_eq!(place("file:///back%20up/50%25/%c3%bc"), Ok(decoded));
        assert!(place("file:///50%").unwrap_err().contains("two hex digits"));
        assert!(place("").is_err());
    }

    #[test]
    fn what_looks_like_another_address_is_no_folder() {
        for text in
            ["s3:/backups", "s3:backups/app", "S3:/backups", "file:/abs", "file:rel", "File:/x"]
        {
            let error = text.parse::<Place>().unwrap_err();
            assert!(
                error.contains("two slashes") && error.contains("written ./"),
                "{text}: {error}"
            );
        }
        for text in ["ftp://host/app", "S3://backups", "id:hunter2@s3://backups"] {
            let error = text.parse::<Place>().unwrap_err();
            assert!(
                error.contains("no other URL") && !error.contains("hunter2"),
                "{text}: {error}"
            );
        }
        assert_eq!("./s3:x".parse(), Ok(Place::Folder("./s3:x".into())));
        assert_eq!("a:b/c".parse(), Ok(Place::Folder("a:b/c".into())));
    }
}
