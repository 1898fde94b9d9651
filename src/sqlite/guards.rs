//! The locks that keep the WAL: read transactions on two connections, the write lock, and a pin on a
//! read slot. Which of them is moved when is the ratchet's to say; here they are taken and given up.

use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use genesis_wal::index::WalIndex;
use rusqlite::Connection;

use super::SourceError;
use super::connection::{begin, sqlite};
use super::locks::{self, LockByte};
use super::source::{Held, Source};

/// How often a read transaction is begun again until it is clear where its mark stands.
const ACQUIRE_RETRIES: u32 = 10_000;

/// How often a lock is tried at once: a writer that commits without a pause leaves the write lock and,
/// after each commit, the checkpoint lock for microseconds.
const TRIES: u32 = 100;

/// The rest of who has nothing to do beside a checkpoint that is being made.
const BESIDE_PAUSE: Duration = Duration::from_millis(1);

/// Which locks are held, as SQLite and the system see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is one lock")]
pub struct Guards {
    /// The older read transaction.
    pub older: bool,
    /// The newer read transaction.
    pub newer: bool,
    /// The pin on a read slot.
    pub pin: bool,
    /// The write lock.
    pub write: bool,
}

impl Source {
    /// The locks that are held.
    #[must_use]
    pub fn guards(&self) -> Guards {
        let active = |connection: &Connection| !connection.is_autocommit();
        Guards {
            older: active(&self.reader),
            newer: self.spare.as_ref().is_some_and(active),
            pin: self.pinned.is_some(),
            write: self.is_write_locked,
        }
    }

    /// Begins a second read transaction, on the other connection, at a moment at which it is clear
    /// what protects it. The first is still held: it may be given up with [`Self::end_older`] once
    /// everything up to `held.index` has been read.
    ///
    /// # Errors
    /// When no transaction can be begun; the first is held on.
    pub fn leap(&mut self) -> Result<Held, SourceError> {
        let spare = self.take_spare()?;
        let held = self.acquire(&spare);
        self.spare = Some(spare);
        held
    }

    /// Begins a read transaction: the only one, or the newer of two. False when somebody else is in
    /// the way.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn begin(&mut self) -> Result<bool, SourceError> {
        if self.reader.is_autocommit() {
            return passed(begin(&self.reader, &self.path));
        }
        let spare = self.take_spare()?;
        let begun = begin(&spare, &self.path);
        self.spare = Some(spare);
        passed(begun)
    }

    /// Ends the older of two read transactions, or the only one.
    ///
    /// # Errors
    /// When SQLite refuses.
    pub fn end_older(&mut self) -> Result<(), SourceError> {
        self.end(&self.reader)?;
        if let Some(newer) = self.spare.as_mut().filter(|spare| !spare.is_autocommit()) {
            std::mem::swap(&mut self.reader, newer);
        }
        Ok(())
    }

    /// Keeps other processes from checkpointing until our next checkpoint ends, or the reservation does,
    /// or [`recover_index`](Self::recover_index) has rebuilt the wal-index. False when one of them is at it.
    ///
    /// # Errors
    /// What the system says.
    pub fn reserve_checkpoint(&self) -> Result<bool, SourceError> {
        self.take(LockByte::CHECKPOINT)
    }

    /// Takes a lock that others may hold for microseconds.
    fn take(&self, byte: LockByte) -> Result<bool, SourceError> {
        for _ in 0..TRIES {
            let taken = locks::try_reserve(&self.shm, byte);
            if taken.map_err(|error| self.io("lock", error))? {
                return Ok(true);
            }
            std::hint::spin_loop();
        }
        Ok(false)
    }

    /// Ends the reservation, if there is one.
    ///
    /// # Errors
    /// What the system says.
    pub fn end_reservation(&self) -> Result<(), SourceError> {
        let ended = locks::end_reservation(&self.shm, LockByte::CHECKPOINT);
        ended.map_err(|error| self.io("end the reservation of", error))
    }

    /// Copies into the database what no reader stands in the way of, and ends the reservation of the
    /// checkpoint. False when another checkpoint is running.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn checkpoint(&mut self) -> Result<bool, SourceError> {
        let spare = self.take_spare()?;
        let done = checkpoint(&spare, &self.path);
        self.spare = Some(spare);
        done
    }

    /// The same on a thread of its own, as most of it is to wait for the disk. Until it has ended,
    /// `meanwhile` is done again and again; after a rest, where that says that there was nothing to do.
    ///
    /// # Errors
    /// When SQLite fails, or from `meanwhile`.
    pub fn checkpoint_beside<E: From<SourceError>>(
        &mut self,
        meanwhile: impl FnMut(&mut Self) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let mut spare = self.take_spare()?;
        let path = self.path.clone();
        let connection = &mut spare;
        let done = self.beside(move || checkpoint(connection, &path), meanwhile);
        self.spare = Some(spare);
        Ok(done??)
    }

    /// Does what waits for the disk on a thread of its own, and `meanwhile` beside it. Where there is no
    /// thread to be had, it is done here.
    fn beside<T: Send, E>(
        &mut self,
        mut work: impl FnMut() -> T + Send,
        mut meanwhile: impl FnMut(&mut Self) -> Result<bool, E>,
    ) -> Result<T, E> {
        let (ended, end) = mpsc::channel();
        let on_a_thread = thread::scope(|scope| {
            let work = &mut work;
            let run = move || {
                let done = work();
                // Nobody has stopped to listen.
                ended.send(()).ok();
                done
            };
            let thread = thread::Builder::new().name("checkpoint".into());
            let running = thread.spawn_scoped(scope, run)?;
            let mut beside = Ok(());
            while !running.is_finished() {
                match beside.is_ok().then(|| meanwhile(self)) {
                    Some(Ok(true)) => {}
                    Some(Ok(false)) => drop(end.recv_timeout(BESIDE_PAUSE)),
                    Some(Err(error)) => beside = Err(error),
                    None => drop(end.recv()),
                }
            }
            let done = running.join().unwrap_or_else(|panic| resume_unwind(panic));
            Ok::<_, io::Error>(beside.map(|()| done))
        });
        on_a_thread.unwrap_or_else(|error| {
            tracing::debug!(%error, "no thread to wait for the disk");
            Ok(work())
        })
    }

    /// Takes the write lock, without waiting for long. False when somebody else has it, or has left the
    /// wal-index torn: SQLite needs the lock to rebuild it, and would give it up behind our back.
    ///
    /// It is the lock of SQLite's writers, without a transaction: one of those would have to begin to
    /// read first, and starts in vain whenever somebody commits before it has the lock.
    ///
    /// # Errors
    /// What the system says.
    pub fn lock_writes(&mut self) -> Result<bool, SourceError> {
        if !self.take(LockByte::WRITE)? {
            return Ok(false);
        }
        self.is_write_locked = true;
        let index = self.index();
        if !matches!(index, Ok(Some(_))) {
            self.unlock_writes()?;
        }
        Ok(index?.is_some())
    }

    /// Gives the write lock back; nothing was written under it.
    ///
    /// # Errors
    /// What the system says.
    pub fn unlock_writes(&mut self) -> Result<(), SourceError> {
        if self.is_write_locked {
            let ended = locks::end_reservation(&self.shm, LockByte::WRITE);
            ended.map_err(|error| self.io("unlock", error))?;
            self.is_write_locked = false;
        }
        Ok(())
    }

    /// Gives up what keeps others from writing and from checkpointing.
    ///
    /// # Errors
    /// What the system says; the other lock is given up all the same.
    pub fn let_others_go_on(&mut self) -> Result<(), SourceError> {
        let unlocked = self.unlock_writes();
        self.end_reservation().and(unlocked)
    }

    /// Makes the database file and the WAL durable, as
    /// [`checkpoint_beside`](Self::checkpoint_beside) checkpoints.
    ///
    /// # Errors
    /// What the system says, or from `meanwhile`.
    pub fn sync_beside<E: From<SourceError>>(
        &mut self,
        meanwhile: impl FnMut(&mut Self) -> Result<bool, E>,
    ) -> Result<(), E> {
        let (database, wal) = (self.page_file(), self.shared_wal());
        let sync = move || database.file.sync_data().and_then(|()| wal.sync_data());
        let synced = self.beside(sync, meanwhile)?;
        Ok(synced.map_err(|source| self.io("sync", source))?)
    }

    /// Pins the WAL: shares a read slot that no reader limits the backfill by. Nobody restarts the
    /// WAL while it is pinned. False when no slot is free. Unused slots come first, and of the others
    /// the lowest: SQLite's readers take the highest, and a checkpointer waits for the one that it
    /// found in use.
    ///
    /// # Errors
    /// What the system says.
    pub fn pin(&mut self) -> Result<bool, SourceError> {
        for (unused, mark) in [true, false].into_iter().flat_map(|u| (1..=4).map(move |m| (u, m))) {
            let byte = LockByte::read_mark(mark);
            let usable = |index: &WalIndex| {
                let limit = index.read_marks.get(usize::from(mark)).copied();
                let least = if unused { u32::MAX } else { index.header.max_frame };
                limit.is_some_and(|limit| limit >= least)
            };
            if !self.index()?.is_some_and(|index| usable(&index)) {
                continue;
            }
            if !locks::try_share(&self.shm, byte).map_err(|e| self.io("pin", e))? {
                continue;
            }
            self.pinned = Some(mark);
            // The mark may have moved before the lock was ours; now it cannot.
            if self.index()?.is_some_and(|index| usable(&index)) {
                return Ok(true);
            }
            self.unpin()?;
        }
        Ok(false)
    }

    /// Gives the pin up.
    ///
    /// # Errors
    /// What the system says.
    pub fn unpin(&mut self) -> Result<(), SourceError> {
        if let Some(mark) = self.pinned {
            let released = locks::release(&self.shm, LockByte::read_mark(mark));
            released.map_err(|error| self.io("unpin", error))?;
            self.pinned = None;
        }
        Ok(())
    }

    /// Whether another process holds both the checkpoint and the write lock: a checkpointer that
    /// waits for readers does, and so does a process whose threads write and checkpoint at once.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_waited_for(&self) -> Result<bool, SourceError> {
        let held = |byte| locks::is_held_by_another(&self.shm, byte);
        let both =
            held(LockByte::CHECKPOINT).and_then(|held_one| Ok(held_one && held(LockByte::WRITE)?));
        both.map_err(|error| self.io("look at the locks of", error))
    }

    /// Whether another process is making a checkpoint.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_being_checkpointed(&self) -> Result<bool, SourceError> {
        let held = locks::is_held_by_another(&self.shm, LockByte::CHECKPOINT);
        held.map_err(|error| self.io("look at the locks of", error))
    }

    /// Gives up every lock but one read transaction: for a beginning anew, when nothing that was
    /// guarded is believed any more.
    ///
    /// # Errors
    /// When SQLite or the system fails.
    pub fn keep_one_reader(&mut self) -> Result<(), SourceError> {
        self.let_others_go_on()?;
        let newer = self.spare.as_ref().is_some_and(|spare| !spare.is_autocommit());
        if newer && !self.reader.is_autocommit() {
            self.end_older()?;
        } else if self.reader.is_autocommit() {
            begin(&self.reader, &self.path)?;
        }
        self.unpin()
    }

    /// Begins a read transaction at a moment at which it is clear what protects it.
    pub(super) fn acquire(&self, connection: &Connection) -> Result<Held, SourceError> {
        for _ in 0..ACQUIRE_RETRIES {
            let before = self.index()?;
            begin(connection, &self.path)?;
            let held = self.index().map(|after| {
                before.zip(after).and_then(|(before, after)| classify(&before, &after))
            });
            if let Ok(Some(held)) = held {
                return Ok(held);
            }
            self.end(connection)?;
            held?;
        }
        Err(SourceError::Locked { path: self.path.clone() })
    }
}

/// Checkpoints passively. False when another checkpoint is running.
fn checkpoint(connection: &Connection, path: &Path) -> Result<bool, SourceError> {
    let sql = "PRAGMA wal_checkpoint(PASSIVE)";
    let busy = connection.query_row(sql, [], |row| row.get::<_, i32>(0));
    passed(busy.map_err(|error| sqlite("checkpoint", path, error)).and_then(|busy| {
        if busy == 0 { Ok(()) } else { Err(SourceError::Locked { path: path.to_owned() }) }
    }))
}

/// That somebody else is in the way is an answer.
fn passed(result: Result<(), SourceError>) -> Result<bool, SourceError> {
    match result {
        Ok(()) => Ok(true),
        Err(SourceError::Locked { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Decides what a transaction begun between two looks at the wal-index holds.
///
/// Unchanged and fully backfilled: SQLite gave it read mark 0, or, where the checkpointer that had just
/// done that still held this, a mark at the end; the file alone is the state, and stays it. A backlog
/// that stood all the while, in one and the same WAL: it sits on a mark of its own, somewhere
/// between the two ends, and nothing after the second end can reach the file. Anything else could be
/// either.
fn classify(before: &WalIndex, after: &WalIndex) -> Option<Held> {
    let same_wal = before.header.salts == after.header.salts;
    if before.header == after.header && before.backfilled == before.header.max_frame {
        Some(Held { index: *after, overlay: false })
    } else if same_wal && after.backfilled < before.header.max_frame {
        Some(Held { index: *after, overlay: true })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use genesis_wal::checksum::Checksum;
    use genesis_wal::header::Salts;
    use genesis_wal::index::IndexHeader;

    use super::*;

    fn index(salt: u8, max_frame: u32, backfilled: u32) -> WalIndex {
        let header = IndexHeader {
            change: max_frame,
            page_size: None,
            max_frame,
            pages: 1,
            frame_checksum: Checksum(max_frame, 0),
            salts: Salts([salt; 8]),
        };
        WalIndex { header, backfilled, read_marks: [0; 5], backfill_attempted: backfilled }
    }

    /// What another process, with Debian's shell, is told.
    fn shell(path: &Path, sql: &str) -> String {
        let output = Command::new("sqlite3").arg(path).arg(sql).output().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap().trim().to_owned()
    }

    #[test]
    fn what_is_taken_for_the_process_keeps_others_out_until_it_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        let create = "PRAGMA journal_mode=WAL; CREATE TABLE t(x);";
        let keeper = Connection::open(&path).unwrap();
        keeper.execute_batch(create).unwrap();
        let (mut source, _held) = Source::open(&path, false).unwrap();
        let checkpoint = || shell(&path, "PRAGMA wal_checkpoint(PASSIVE)");
        let is_locked = || shell(&path, "INSERT INTO t VALUES (1)").contains("locked");

        assert!(source.reserve_checkpoint().unwrap());
        assert_eq!(checkpoint(), "1|-1|-1");
        assert!(!is_locked());
        assert!(source.checkpoint().unwrap());
        assert!(checkpoint().starts_with("0|"), "our own checkpoint ends the reservation");

        assert!(source.lock_writes().unwrap());
        assert!(is_locked());
        source.let_others_go_on().unwrap();
        assert!(!is_locked());

        assert!(source.reserve_checkpoint().unwrap() && source.lock_writes().unwrap());
        source.let_others_go_on().unwrap();
        assert!(checkpoint().starts_with("0|"));
        assert!(!is_locked());
    }

    #[test]
    fn a_database_has_one_follower_in_a_process_whatever_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("app.db");
        let other = path.with_file_name("other.db");
        Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(x);")
            .unwrap();
        std::os::unix::fs::symlink(&path, &other).unwrap();
        let (first, _held) = Source::open(&path, false).unwrap();
        let second = Source::open(&other, false);
        assert!(matches!(second, Err(SourceError::FollowedTwice { .. })), "{second:?}");
        drop(first);
        let third = Source::open(&path, false);
        assert!(third.is_ok(), "{third:?}");
    }

    #[test]
    fn only_a_clear_moment_is_classified() {
        let held = |before, after| classify(&before, &after).map(|h| (h.overlay, h.index));
        // Nothing moved and all is backfilled: the file alone.
        assert_eq!(held(index(1, 9, 9), index(1, 9, 9)), Some((false, index(1, 9, 9))));
        assert_eq!(held(index(1, 0, 0), index(1, 0, 0)), Some((false, index(1, 0, 0))));
        // A backlog all the while: a mark, wherever commits have gone on to.
        assert_eq!(held(index(1, 9, 3), index(1, 12, 4)), Some((true, index(1, 12, 4))));
        // The backlog was checkpointed meanwhile, a commit came in, or the WAL was restarted.
        assert_eq!(held(index(1, 9, 3), index(1, 9, 9)), None);
        assert_eq!(held(index(1, 9, 9), index(1, 12, 9)), None);
        assert_eq!(held(index(1, 9, 3), index(2, 1, 0)), None);
    }
}
