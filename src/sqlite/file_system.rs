//! Which file systems do not keep the promises that SQLite's WAL mode is built on.

use std::fs::File;
use std::path::Path;

use rustix::fs::{StatFs, fstatfs, statfs};
use rustix::io::Errno;

use super::SourceError;

/// Refuses a database on a file system that is shared over a network, or may be.
pub(super) fn check_file_system(path: &Path) -> Result<(), SourceError> {
    let magic = magic_of(path).map_err(|error| SourceError::Io {
        action: "look at the file system of",
        path: path.to_owned(),
        source: error.into(),
    })?;
    match shared_file_system(magic) {
        Some(kind) => Err(SourceError::NetworkFileSystem { path: path.to_owned(), kind }),
        None => Ok(()),
    }
}

/// Whether a place is on a file system that others may use at the same time who do not see the locks of
/// this machine. Where nobody can tell, it is taken to be.
#[must_use]
pub fn may_be_shared(path: &Path) -> bool {
    magic_of(path).map_or(true, |magic| shared_file_system(magic).is_some())
}

/// Whether writers of a file go on beside parts of it that are on their way to the disk, but for the very
/// page of memory: known of ext2, ext3 and ext4, which have one number. (Btrfs takes the end of a file that
/// grows with it, and has who appends wait.)
pub(super) fn lets_writers_write_on(file: &File) -> bool {
    fstatfs(file).is_ok_and(|found| magic_in(&found) == 0xef53)
}

/// The number that tells the kind of the file system at a place.
fn magic_of(path: &Path) -> Result<u32, Errno> {
    statfs(path).map(|found| magic_in(&found))
}

fn magic_in(found: &StatFs) -> u32 {
    // Some platforms have it signed, and not all of the same width.
    #[allow(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "32 bits are meant")]
    let magic = found.f_type as u32;
    magic
}

/// The name of the file system with this magic number, if it is one that is shared or emulated.
///
/// Source: statfs(2).
fn shared_file_system(magic: u32) -> Option<&'static str> {
    match magic {
        0x6969 => Some("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => Some("SMB"),
        0x0102_1997 => Some("9p"),
        0x6573_5546 => Some("FUSE"),
        0x00c3_6400 => Some("Ceph"),
        0x5346_414f => Some("AFS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most of these need a server, or a module of the kernel: only FUSE is really mounted by a test,
    /// and for the others the kernel's own numbers (`linux/magic.h`) must do.
    #[test]
    fn the_kernels_numbers_of_shared_file_systems_are_known() {
        let shared = [
            (0x6969, "NFS"),       // NFS_SUPER_MAGIC
            (0x517b, "SMB"),       // SMB_SUPER_MAGIC
            (0xff53_4d42, "SMB"),  // CIFS_SUPER_MAGIC
            (0xfe53_4d42, "SMB"),  // SMB2_SUPER_MAGIC
            (0x0102_1997, "9p"),   // V9FS_MAGIC
            (0x6573_5546, "FUSE"), // FUSE_SUPER_MAGIC, in libfuse
            (0x00c3_6400, "Ceph"), // CEPH_SUPER_MAGIC
            (0x5346_414f, "AFS"),  // AFS_SUPER_MAGIC
        ];
        for (magic, name) in shared {
            assert_eq!(shared_file_system(magic), Some(name), "{magic:#x}");
        }
    }

    #[test]
    fn what_is_local_is_none_of_them() {
        let local = [
            0xef53,      // ext2, ext3, ext4
            0x5846_5342, // XFS
            0x9123_683e, // Btrfs
            0x2fc1_2fc1, // ZFS
            0x0102_1994, // tmpfs
            0x794c_7630, // overlayfs
            0xf2f5_2010, // F2FS
        ];
        for magic in local {
            assert_eq!(shared_file_system(magic), None, "{magic:#x}");
        }
    }
}
