//! How much of the disk the spool may take.

use std::path::Path;

use rustix::fs::statvfs;

/// So much may always wait, whatever is free: less would be no protection.
const LEAST: u64 = 32 << 20;

/// Without a limit of its own, the spool has at most this many bytes.
const MOST: u64 = 1 << 30;

/// So much is left free on the disk, or a twentieth of it where that is more.
const FREE: u64 = 1 << 30;

/// How many bytes may lie in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In shipped segments, which are kept to be merged.
    pub keep: u64,
    /// In segments that wait for upload. Without a limit, 1 GiB or a tenth of what is free, whichever is
    /// less.
    pub wait: Option<u64>,
}

/// The room on a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may be written.
    pub free: u64,
    /// Bytes in the whole file system.
    pub total: u64,
}

impl Room {
    /// The room where a folder is; `None` when nobody can tell.
    pub fn of(folder: &Path) -> Option<Self> {
        let found = statvfs(folder).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Some(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    /// The most bytes in a file that may be added and can be done without.
    pub fn spare(self) -> u64 {
        (self.free / 10).max(self.free.saturating_sub(self.floor()))
    }

    /// Bytes that are left free.
    fn floor(self) -> u64 {
        FREE.max(self.total / 20)
    }
}

impl Limits {
    /// Bytes that may be kept, where so many are.
    #[must_use]
    pub fn kept(self, room: Option<Room>, kept: u64) -> u64 {
        let tenth = room.map(|room| (room.free + kept) / 10);
        self.keep.min(tenth.unwrap_or(u64::MAX))
    }

    /// Bytes that may wait, where so many do and so many are kept.
    fn wait(self, room: Option<Room>, waiting: u64, kept: u64) -> u64 {
        let Some(room) = room else { return self.wait.unwrap_or(MOST) };
        let ours = room.free.saturating_add(waiting).saturating_add(kept);
        let limit = self.wait.unwrap_or(MOST.min(ours / 10));
        let least = LEAST.min(self.wait.unwrap_or(LEAST));
        limit.min(ours.saturating_sub(room.floor())).max(least)
    }

    /// Whether `more` bytes may be written where so many wait, those of the open segment with them: as
    /// long as the floor stays free, or they are the few that may always wait. Where less than the floor
    /// is free at all, a tenth of that is few: a record that is never written protects nothing.
    #[must_use]
    pub fn has_room_for(self, room: Option<Room>, waiting: u64, more: u64) -> bool {
        let Some(room) = room else { return true };
        let least = LEAST.min(self.wait.unwrap_or(LEAST));
        let few = least.max(room.free.saturating_add(waiting) / 10);
        let in_all = waiting.saturating_add(more);
        in_all <= few || more.saturating_add(room.floor()) <= room.free
    }
}

/// What waits for upload.
#[derive(Debug, Default)]
pub struct Waiting {
    bytes: u64,
    /// It came to the limit, and half of that still waits.
    is_full: bool,
}

impl Waiting {
    /// Bytes in all of it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A segment waits.
    pub fn comes(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
    }

    /// A segment waits no longer.
    pub fn leaves(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// Whether so much waits that nothing is to be added, until half of it is gone.
    pub fn is_full(&mut self, limits: Limits, room: Option<Room>, kept: u64) -> bool {
        let limit = limits.wait(room, self.bytes, kept);
        self.is_full = self.bytes >= if self.is_full { limit / 2 } else { limit };
        self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;

    fn room(free: u64, total: u64) -> Room {
        Room { free, total }
    }

    fn limit(wait: Option<u64>, room: impl Into<Option<Room>>, waiting: u64) -> u64 {
        let room = room.into();
        Limits { keep: 0, wait }.wait(room, waiting, 0)
    }

    #[test]
    fn a_tenth_of_what_is_free_may_wait_and_some_of_the_disk_stays_free() {
        assert_eq!(limit(None, room(100 * GIB, 200 * GIB), 0), GIB);
        assert_eq!(limit(None, room(5 * GIB, 10 * GIB), 0), GIB / 2);
        assert_eq!(limit(None, room(4 * GIB, 10 * GIB), GIB), GIB / 2, "what waits was free");
        assert_eq!(limit(Some(8 * GIB), room(5 * GIB, 10 * GIB), 0), 4 * GIB);
        assert_eq!(limit(Some(8 * GIB), room(5 * GIB, 80 * GIB), 0), GIB);
        assert_eq!(limit(None, room(3 * MIB, 3 * MIB), 0), LEAST);
        assert_eq!(limit(Some(MIB), room(3 * MIB, 3 * MIB), 0), MIB);
        assert_eq!(limit(None, None, 0), GIB);
    }

    #[test]
    fn at_the_limit_nothing_is_added_until_half_is_gone() {
        let limits = Limits { keep: 0, wait: Some(100) };
        let mut waiting = Waiting::default();
        waiting.comes(60);
        let mut is_full = |change: i64| {
            if change < 0 {
                waiting.leaves(change.unsigned_abs());
            } else {
                waiting.comes(change.unsigned_abs());
            }
            waiting.is_full(limits, Some(room(100 * GIB, GIB)), 0)
        };
        assert_eq!(
            [39, 1, -30, -20, -1, 50, 1].map(&mut is_full),
            [false, true, true, true, false, false, true]
        );
    }

    #[test]
    fn a_segment_grows_until_the_floor_is_reached() {
        let takes =
            |wait, room, waiting, more| Limits { keep: 0, wait }.has_room_for(room, waiting, more);
        let large = Some(room(GIB + 10 * MIB, 9 * GIB));
        assert!(takes(None, large, 500 * MIB, 10 * MIB));
        assert!(!takes(None, large, 500 * MIB, 11 * MIB));
        let small = Some(room(200 * MIB, 200 * MIB));
        assert!(takes(None, small, 31 * MIB, MIB) && !takes(None, small, 32 * MIB, MIB));
        assert!(!takes(Some(MIB), Some(room(5 * MIB, GIB)), MIB, 1));
        assert!(takes(None, Some(room(500 * MIB, GIB)), 48 * MIB, MIB));
        assert!(takes(None, None, GIB, GIB));
    }

    #[test]
    fn little_is_kept_and_merged_where_little_is_free() {
        let limits = Limits { keep: 64 * MIB, wait: None };
        assert_eq!(limits.kept(Some(room(100 * GIB, 100 * GIB)), 0), 64 * MIB);
        assert_eq!(limits.kept(Some(room(80 * MIB, 100 * MIB)), 20 * MIB), 10 * MIB);
        let small = room(80 * MIB, 100 * MIB);
        assert_eq!((small.spare(), room(3 * GIB, 9 * GIB).spare()), (8 * MIB, 2 * GIB));
    }
}
