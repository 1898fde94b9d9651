//! The file that a time outlasts the process in. It holds for one run of the machine, so that it need
//! not outlast a power loss, and is never synced.
//!
//! One line: the id of the machine's run, the boot-time clock and the time given, both in microseconds
//! of 20 digits.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::fs::OFlags;

use super::Given;
use crate::clock;

const FILE_NAME: &str = "clock";

/// Longer than any line.
const MOST_BYTES: u64 = 256;

/// The file.
#[derive(Debug)]
pub struct Kept {
    file: File,
    boot_id: String,
}

impl Kept {
    /// The file in `folder`, and what an earlier process of this run of the machine wrote into it.
    /// `None` where nothing can be kept.
    #[must_use]
    pub fn open(folder: &Path) -> Option<(Self, Option<Given>)> {
        let opened = open(folder).and_then(|mut file| {
            let mut line = String::new();
            file.by_ref().take(MOST_BYTES).read_to_string(&mut line)?;
            Ok((Self { file, boot_id: clock::boot_id()? }, line))
        });
        match opened {
            Ok((kept, line)) => {
                let given = parse(&line, &kept.boot_id);
                Some((kept, given))
            }
            Err(error) => {
                tracing::warn!(%error, "cannot keep the time: the next start believes the wall clock");
                None
            }
        }
    }

    /// Writes a time that was given.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, given: Given) -> io::Result<()> {
        self.file.write_all_at(line(&self.boot_id, given).as_bytes(), 0)
    }
}

fn open(folder: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
        .open(folder.join(FILE_NAME))
}

/// All lines are of one length: a write leaves nothing of the one before.
fn line(boot_id: &str, given: Given) -> String {
    format!("{boot_id} {:020} {:020}\n", given.boot.as_micros(), given.time.as_micros())
}

fn parse(text: &str, boot_id: &str) -> Option<Given> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    words.next().filter(|id| *id == boot_id)?;
    let mut micros = || words.next()?.parse().ok().map(Duration::from_micros);
    let given = Given { boot: micros()?, time: micros()? };
    (line(boot_id, given) == text).then_some(given)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIVEN: Given =
        Given { boot: Duration::from_micros(70_000_001), time: Duration::from_micros(1 << 50) };

    #[test]
    fn a_time_outlasts_the_process_and_not_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let (kept, given) = Kept::open(folder.path()).unwrap();
        assert_eq!(given, None);
        for given in [GIVEN, Given { boot: Duration::ZERO, ..GIVEN }, GIVEN] {
            kept.write(given).unwrap();
            assert_eq!(Kept::open(folder.path()).unwrap().1, Some(given));
        }
        assert_eq!(parse(&line("another", GIVEN), &kept.boot_id), None);
    }

    #[test]
    fn a_damaged_line_tells_nothing() {
        let whole = line("id", GIVEN);
        assert_eq!(parse(&whole, "id"), Some(GIVEN));
        for len in 0..whole.len() {
            assert_eq!(parse(&whole[..len], "id"), None);
        }
        for damaged in [whole.repeat(2), whole.replace(' ', "  "), whole.replace('7', "+")] {
            assert_eq!(parse(&damaged, "id"), None, "{damaged}");
        }
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        File::create(&victim).unwrap();
        std::os::unix::fs::symlink(&victim, folder.path().join(FILE_NAME)).unwrap();
        assert!(Kept::open(folder.path()).is_none());
        assert_eq!(victim.metadata().unwrap().len(), 0);
    }
}
