//! The page table on disk: complete, as of one transaction.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | `GENTABLE` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | bytes in a page |
//! | 16 | 4 | n: pages in the database |
//! | 20 | 4 | epoch of the generation |
//! | 24 | 8 | random number of the generation |
//! | 32 | 8 | transaction id |
//! | 40 | 8 | commit time of that transaction, in microseconds since 1970 |
//! | 48 | 8 | state hash: the sum of the hashes |
//! | 56 | 8 · n | XXH3-64 of each page, seeded with its number; 0 for the lock page |
//! | 56 + 8 · n | 4 | CRC-32 (ISO-HDLC) of all bytes before |
//!
//! Numbers are little-endian. The file is replaced as a whole. What is found at a start may be from any
//! time: it is used only where the replica's history leads on from it.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::reader::{ReadError, Reader};
use genesis_wal::time::Micros;
use thiserror::Error;

use super::PageTable;
use crate::durable::{self, Temporary};

const MAGIC: &[u8; 8] = b"GENTABLE";
const VERSION: u32 = 1;
const HEAD_LEN: usize = 56;
const ENTRY_LEN: usize = 8;

/// Which recorded state a table describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// The line of history.
    pub generation: Generation,
    /// The transaction.
    pub txid: Txid,
    /// When it was committed.
    pub time: Micros,
}

/// Why there is no table to be had from the disk.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file cannot be read, or there is no room for the table.
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// The file is not what was written.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

impl From<ReadError> for CheckpointError {
    fn from(_short: ReadError) -> Self {
        Self::Damaged("its head is cut off")
    }
}

/// A checkpoint that was written and is not durable yet.
#[derive(Debug)]
pub struct Checkpoint {
    file: Temporary,
}

impl Checkpoint {
    /// Writes `table` into a temporary file in `folder`.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(table: &PageTable, as_of: AsOf, folder: &Path) -> io::Result<Self> {
        let file = Temporary::create(folder)?;
        let head = encode_head(table, as_of);
        let hashes = table.hashes.as_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head);
        crc.update(hashes);
        for bytes in [head.as_slice(), hashes, &crc.finalize().to_le_bytes()] {
            file.file().write_all(bytes)?;
        }
        Ok(Self { file })
    }

    /// Makes it durable, and puts it in the place of the one before.
    ///
    /// # Errors
    /// What the file system says; the one before is still there then.
    pub fn finish(self, target: &Path) -> io::Result<()> {
        self.file.replace(target)
    }

    /// Reads the table at `path`, to be kept in a file in `folder`; `None` when there is none.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn read(path: &Path, folder: &Path) -> Result<Option<(PageTable, AsOf)>, CheckpointError> {
        match File::open(path) {
            Ok(file) => read_table(&mut BufReader::new(file), folder).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn encode_head(table: &PageTable, as_of: AsOf) -> Vec<u8> {
    let AsOf { generation, txid, time } = as_of;
    let mut head = Vec::with_capacity(HEAD_LEN);
    head.extend_from_slice(MAGIC);
    for number in [VERSION, table.page_size.get(), table.pages(), generation.epoch.0] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    for number in [generation.random, txid.0, time.0, table.state.0] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head
}

fn read_table(file: &mut impl Read, folder: &Path) -> Result<(PageTable, AsOf), CheckpointError> {
    let mut head = [0; HEAD_LEN];
    file.read_exact(&mut head).map_err(cut_off)?;
    let mut reader = Reader::new(&head);
    if reader.take(MAGIC.len())? != MAGIC || reader.u32()? != VERSION {
        return Err(CheckpointError::Damaged("it begins like something else"));
    }
    let page_size = PageSize::new(reader.u32()?)
        .map_err(|_bad| CheckpointError::Damaged("it names no page size"))?;
    let (pages, epoch) = (reader.u32()?, Epoch(reader.u32()?));
    let generation = Generation { epoch, random: reader.u64()? };
    let as_of = AsOf { generation, txid: Txid(reader.u64()?), time: Micros(reader.u64()?) };
    let state = StateHash(reader.u64()?);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head);
    let mut table = PageTable::new(page_size, durable::nameless(folder)?);
    for number in 1..=pages {
        let mut entry = [0; ENTRY_LEN];
        file.read_exact(&mut entry).map_err(cut_off)?;
        crc.update(&entry);
        // What the head says of its length is believed page by page: the file may be cut off.
        table.resize(number)?;
        if let Some(page) = PageNumber::new(number) {
            table.set(page, PageHash(u64::from_le_bytes(entry)));
        }
    }
    let mut stored = [0; 4];
    file.read_exact(&mut stored).map_err(cut_off)?;
    if u32::from_le_bytes(stored) != crc.finalize() || table.state != state {
        return Err(CheckpointError::Damaged("its checksum does not fit"));
    }
    Ok((table, as_of))
}

fn cut_off(error: io::Error) -> CheckpointError {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CheckpointError::Damaged("it is cut off"),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_OF: AsOf = AsOf {
        generation: Generation { epoch: Epoch(3), random: 0xfeed },
        txid: Txid(77),
        time: Micros(1_700_000_000_000_000),
    };

    fn written(folder: &Path) -> std::path::PathBuf {
        let mut table = PageTable::new(PageSize::new(512).unwrap(), tempfile::tempfile().unwrap());
        table.resize(5).unwrap();
        for number in 1..=5 {
            table.set(PageNumber::new(number).unwrap(), PageHash(u64::from(number) << 40));
        }
        let target = folder.join("table");
        for _ in 0..2 {
            Checkpoint::write(&table, AS_OF, folder).unwrap().finish(&target).unwrap();
        }
        target
    }

    #[test]
    fn a_table_comes_back_as_of_its_transaction() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let (table, as_of) = Checkpoint::read(&path, folder.path()).unwrap().unwrap();
        assert_eq!(as_of, AS_OF);
        assert_eq!((table.pages(), table.state()), (5, StateHash(15 << 40)));
        assert_eq!(table.hash(PageNumber::new(4).unwrap()), Some(PageHash(4 << 40)));
        let names = || std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
        assert_eq!(names().collect::<Vec<_>>(), ["table"]);
        assert!(Checkpoint::read(&folder.path().join("other"), folder.path()).unwrap().is_none());
    }

    #[test]
    fn a_table_that_is_torn_or_flipped_anywhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = written(folder.path());
        let good = std::fs::read(&path).unwrap();
        let damaged = |bytes: &[u8]| {
            matches!(read_table(&mut &*bytes, folder.path()), Err(CheckpointError::Damaged(_)))
        };
        for at in 0..good.len() {
            assert!(damaged(&good[..at]), "cut off at {at}");
            let mut flipped = good.clone();
            flipped[at] ^= 0x10;
            assert!(damaged(&flipped), "flipped at {at}");
        }
    }
}
