//! What goes through the page cache and does not stay there, as nobody reads it soon: the room is the
//! application's.

use std::fs::File;
use std::io::{self, IoSlice, Write};

use rustix::io::{ReadWriteFlags, pwritev2};

/// `RWF_DONTCACHE`, since Linux 6.14: what is not cached does not come to be.
pub const DONTCACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);

/// Bytes that are written at once: the disk works on them while the next are copied.
const CHUNK: usize = 1 << 20;

/// The place of a file at which it is written on.
const WHERE_IT_STANDS: u64 = u64::MAX;

/// Appends bytes to an open file; each chunk is on its way to the disk at once, and no longer cached when
/// it is there. Where that cannot be had, as usual.
///
/// # Errors
/// What the file system says.
pub fn append(mut file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while let Some(next) = rest.chunks(CHUNK).next() {
        match pwritev2(file, &[IoSlice::new(next)], WHERE_IT_STANDS, DONTCACHE) {
            Ok(written) if written > 0 => rest = rest.get(written..).unwrap_or_default(),
            // A failure that is not for the sake of the flag comes again.
            Ok(_) | Err(_) => return file.write_all(rest),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::unix::fs::FileExt;

    use rustix::io::{Errno, preadv2};

    use super::*;

    /// Whether what is written here can be kept out of the page cache.
    fn is_possible() -> bool {
        let file = tempfile::tempfile().unwrap();
        pwritev2(file, &[IoSlice::new(b"x")], 0, DONTCACHE).is_ok()
    }

    #[test]
    fn what_is_appended_is_all_there_and_does_not_stay_in_the_page_cache() {
        let content: Vec<u8> = (0..=250u8).cycle().take(3 * CHUNK + 12_345).collect();
        let file = tempfile::tempfile().unwrap();
        append(&file, &content[..5000]).unwrap();
        append(&file, &content[5000..]).unwrap();
        file.sync_all().unwrap();
        let mut byte = [0];
        let place = 2 * CHUNK as u64;
        let cached =
            preadv2(&file, &mut [IoSliceMut::new(&mut byte)], place, ReadWriteFlags::NOWAIT);
        assert_eq!(cached == Err(Errno::AGAIN), is_possible(), "{cached:?}");
        let mut read = vec![0; content.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == content && file.metadata().unwrap().len() == content.len() as u64);
    }

    #[test]
    fn where_it_cannot_be_had_it_is_written_as_usual() {
        let file = File::from(
            rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::empty()).unwrap(),
        );
        append(&file, &[7; 3000]).unwrap();
        append(&file, &[8; 3000]).unwrap();
        let mut read = vec![0; 6000];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read[..3000] == [7; 3000] && read[3000..] == [8; 3000]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let error = append(&full, &[7; 3000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
