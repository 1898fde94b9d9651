//! The lock bytes of the wal-index, seen and taken from beside SQLite.
//!
//! SQLite locks these bytes of the `-shm` file with POSIX locks of the process. The pin is an open file
//! description lock: it belongs to one descriptor, conflicts with SQLite's as any other process's would,
//! and goes with the descriptor. The reservation of the checkpoint is a POSIX lock of this process: the
//! SQLite in it takes the same byte for its own, and gives it up for both.
//!
//! | byte | lock |
//! | --- | --- |
//! | 120 | write |
//! | 121 | checkpoint |
//! | 122 | recover |
//! | 123 … 127 | read marks 0 … 4 |

use std::fs::File;
use std::io;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// A lock byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LockByte(i64);

impl LockByte {
    /// Held by a writer, and by a checkpointer that waits for readers.
    pub(super) const WRITE: Self = Self(120);
    /// Held by a checkpointer.
    pub(super) const CHECKPOINT: Self = Self(121);

    /// Held by the readers on a mark, 0 to 4.
    pub(super) fn read_mark(mark: u8) -> Self {
        Self(123 + i64::from(mark))
    }
}

/// Whether another process than this one holds a byte exclusively. Holders in other PID namespaces
/// have no number here, and count as others.
pub(super) fn is_held_by_another(index: &File, byte: LockByte) -> io::Result<bool> {
    let mut lock = lock(libc::F_WRLCK, byte);
    fcntl(index, FcntlArg::F_OFD_GETLK(&mut lock))?;
    let ours = u32::try_from(lock.l_pid).is_ok_and(|pid| pid == std::process::id());
    Ok(i32::from(lock.l_type) == libc::F_WRLCK && !ours)
}

/// Takes a shared lock on a byte; false when somebody holds it exclusively.
pub(super) fn try_share(index: &File, byte: LockByte) -> io::Result<bool> {
    match fcntl(index, FcntlArg::F_OFD_SETLK(&lock(libc::F_RDLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Takes a byte exclusively, for the whole process; false when another process has it.
pub(super) fn try_reserve(index: &File, byte: LockByte) -> io::Result<bool> {
    match fcntl(index, FcntlArg::F_SETLK(&lock(libc::F_WRLCK, byte))) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives up what the process holds of a byte.
pub(super) fn end_reservation(index: &File, byte: LockByte) -> io::Result<()> {
    fcntl(index, FcntlArg::F_SETLK(&lock(libc::F_UNLCK, byte)))?;
    Ok(())
}

/// Gives up our pin on a byte.
pub(super) fn release(index: &File, byte: LockByte) -> io::Result<()> {
    fcntl(index, FcntlArg::F_OFD_SETLK(&lock(libc::F_UNLCK, byte)))?;
    Ok(())
}

fn lock(kind: i32, byte: LockByte) -> libc::flock {
    let as_short = |n: i32| i16::try_from(n).unwrap_or(i16::MAX);
    libc::flock {
        l_type: as_short(kind),
        l_whence: as_short(libc::SEEK_SET),
        l_start: byte.0,
        l_len: 1,
        l_pid: 0,
    }
}
