//! The locks on the shared memory.

use std::ops::Range;

use super::{OURS, Owner, World};

/// The lock bytes.
pub const WRITE: usize = 0;
pub const CHECKPOINT: usize = 1;
pub const RECOVER: usize = 2;
/// The lock of a read mark.
pub const fn read_lock(mark: usize) -> usize {
    3 + mark
}
/// The locks of all the marks that let readers read the WAL.
pub const READ_MARKS: Range<usize> = 4..8;

/// The locks on one byte, each with the step at which it was taken.
#[derive(Debug, Default)]
pub struct Lock {
    shared: Vec<(Owner, u64)>,
    exclusive: Option<(Owner, u64)>,
}

/// The locks on all bytes.
pub type Locks = [Lock; 8];

/// The holder of what is reserved for a whole process.
const RESERVED: u8 = 8;

impl World {
    /// Tries to share a lock.
    pub fn share(&mut self, owner: Owner, byte: usize) -> bool {
        let (lock, step) = (&mut self.locks[byte], self.step);
        let free = lock.exclusive.is_none();
        if free {
            lock.shared.push((owner, step));
        }
        self.note(owner, || format!("share {} {free}", name(byte)));
        free
    }

    /// Gives a shared lock back.
    pub fn unshare(&mut self, owner: Owner, byte: usize) {
        self.locks[byte].shared.retain(|(holder, _)| *holder != owner);
        self.note(owner, || format!("unshare {}", name(byte)));
    }

    /// Tries to have all of several locks alone.
    pub fn exclude(&mut self, owner: Owner, bytes: Range<usize>) -> bool {
        let step = self.step;
        let locks = &mut self.locks[bytes.clone()];
        let others = |lock: &Lock| lock.shared.iter().any(|(holder, _)| *holder != owner);
        let reserved = Owner { connection: RESERVED, ..owner };
        let taken = |lock: &Lock| lock.exclusive.is_some_and(|(holder, _)| holder != reserved);
        let free = locks.iter().all(|lock| !taken(lock) && !others(lock));
        if free {
            for lock in locks {
                lock.exclusive = Some((owner, step));
            }
        }
        self.note(owner, || format!("exclude {}.. {free}", name(bytes.start)));
        free
    }

    /// Gives locks back that were held alone.
    pub fn unexclude(&mut self, owner: Owner, bytes: Range<usize>) {
        for lock in &mut self.locks[bytes.clone()] {
            assert_eq!(lock.exclusive.map(|(holder, _)| holder), Some(owner), "not its lock");
            lock.exclusive = None;
        }
        self.note(owner, || format!("unexclude {}..", name(bytes.start)));
    }

    /// Tries to have a lock alone for the whole of our process: its SQLite takes it for its own, and
    /// gives it back for both.
    pub fn reserve(&mut self, byte: usize) -> bool {
        let lock = &mut self.locks[byte];
        let others = lock.shared.iter().any(|(holder, _)| holder.process != OURS);
        let free = !others && lock.exclusive.is_none_or(|(holder, _)| holder.process == OURS);
        let owner = Owner { process: OURS, connection: RESERVED };
        if free {
            lock.exclusive = Some((owner, self.step));
        }
        self.note(owner, || format!("reserve {} {free}", name(byte)));
        free
    }

    /// Gives back what our process has of a lock.
    pub fn end_reservation(&mut self, byte: usize) {
        let lock = &mut self.locks[byte];
        lock.exclusive = lock.exclusive.filter(|(holder, _)| holder.process != OURS);
        let owner = Owner { process: OURS, connection: RESERVED };
        self.note(owner, || format!("end the reservation of {}", name(byte)));
    }

    /// Whether another process than ours has a lock alone.
    pub fn is_held_by_another(&self, byte: usize) -> bool {
        self.locks[byte].exclusive.is_some_and(|(holder, _)| holder.process != OURS)
    }

    /// Whether our process has a lock alone.
    pub fn is_held_by_us(&self, byte: usize) -> bool {
        self.locks[byte].exclusive.is_some_and(|(holder, _)| holder.process == OURS)
    }

    /// Whether a process shares a lock.
    pub fn is_shared_by(&self, process: usize, byte: usize) -> bool {
        self.locks[byte].shared.iter().any(|(holder, _)| holder.process == process)
    }

    /// Takes all locks of a process away.
    pub fn drop_locks_of(&mut self, process: usize) {
        for lock in &mut self.locks {
            lock.shared.retain(|(holder, _)| holder.process != process);
            lock.exclusive = lock.exclusive.filter(|(holder, _)| holder.process != process);
        }
    }

    /// Whether our process holds something since that step or longer that keeps the WAL.
    pub fn is_kept_since(&self, step: u64) -> bool {
        let proven = |(owner, since): &(Owner, u64)| owner.process == OURS && *since <= step;
        let reads = self.locks[read_lock(0)..].iter().any(|lock| lock.shared.iter().any(proven));
        reads || self.locks[WRITE].exclusive.iter().any(proven)
    }
}

fn name(byte: usize) -> &'static str {
    ["WRITE", "CKPT", "RECOVER", "READ0", "READ1", "READ2", "READ3", "READ4"][byte]
}
