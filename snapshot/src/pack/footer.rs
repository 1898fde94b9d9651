//! The decoder of a pack's footer.

use genesis_wal::page::{PageHash, StateHash};
use genesis_wal::part::{Part, PartHeader, PartKind};
use genesis_wal::reader::Reader;

use super::entry::{BlockEncoding, BlockEntry};
use super::{DIRECTORY_ENTRY_LEN, HASH_LEN, PackError};
use crate::block::{BlockLayout, sum_of};

/// What a pack holds: each block's place and the hash of each of its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackFooter {
    /// The header of the footer's part.
    pub header: PartHeader,
    /// How the pages lie in blocks.
    pub layout: BlockLayout,
    /// The blocks, ascending.
    entries: Vec<BlockEntry>,
    /// The hashes of their pages, one block after another.
    hashes: Vec<PageHash>,
}

impl PackFooter {
    /// Reads and proves a footer from exactly its bytes: the last part of a pack, which is as long as
    /// [`trailing_len`](genesis_wal::part::trailing_len) tells from the pack's end.
    ///
    /// # Errors
    /// [`PackError`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, PackError> {
        let mut reader = Reader::new(bytes);
        let part = Part::decode(&mut reader)?;
        reader.finish()?;
        if part.header.kind != PartKind::PackFooter {
            return Err(PackError::WrongKind);
        }
        let mut reader = Reader::new(part.payload);
        let layout = BlockLayout { page_size: part.header.page_size, pages: reader.u32()? };
        let mut entries = decode_directory(&mut reader, layout)?;
        let hashes = decode_hashes(&mut reader, layout, &mut entries)?;
        reader.finish()?;
        let total = sum_of(&hashes);
        if total != part.header.after {
            return Err(PackError::BadTotal);
        }
        Ok(Self { header: part.header, layout, entries, hashes })
    }

    /// The blocks, ascending, each with the hashes of its pages (0 for the lock page).
    pub fn blocks(&self) -> impl Iterator<Item = (&BlockEntry, &[PageHash])> {
        let mut rest = self.hashes.as_slice();
        self.entries.iter().map(move |entry| {
            let count = self.layout.page_count(entry.block) as usize;
            let (hashes, others) = rest.split_at_checked(count).unwrap_or_default();
            rest = others;
            (entry, hashes)
        })
    }
}

fn decode_directory(
    reader: &mut Reader<'_>,
    layout: BlockLayout,
) -> Result<Vec<BlockEntry>, PackError> {
    let count = reader.u32()? as usize;
    if reader.rest().len() / DIRECTORY_ENTRY_LEN < count {
        return Err(PackError::BadCount);
    }
    let mut end = PartHeader::LEN as u64;
    let mut entries: Vec<BlockEntry> = Vec::with_capacity(count);
    for _ in 0..count {
        let (block, offset) = (reader.u32()?, u64::from(reader.u32()?));
        let (stored_len, crc) = (reader.u32()?, reader.u32()?);
        let encoding = reader.u8()?;
        let entry = BlockEntry {
            block,
            offset,
            stored_len,
            encoding: BlockEncoding::from_code(encoding)
                .ok_or(PackError::UnknownEncoding(encoding))?,
            crc,
            sum: StateHash::default(),
        };
        let ascends = entries.last().is_none_or(|last| last.block < block) && end <= offset;
        let fits = entry.end().filter(|_| ascends && entry.fits(layout));
        end = fits.ok_or(PackError::OutOfOrder(block))?;
        entries.push(entry);
    }
    Ok(entries)
}

/// Reads the page hashes, and gives each entry the sum of its own.
fn decode_hashes(
    reader: &mut Reader<'_>,
    layout: BlockLayout,
    entries: &mut [BlockEntry],
) -> Result<Vec<PageHash>, PackError> {
    let mut hashes = Vec::with_capacity(reader.rest().len() / HASH_LEN);
    for entry in entries {
        let start = hashes.len();
        for (page, _) in layout.pages_of(entry.block) {
            let hash = PageHash(reader.u64()?);
            if page == layout.page_size.lock_page() && hash != PageHash(0) {
                return Err(PackError::BadSum(entry.block));
            }
            hashes.push(hash);
        }
        entry.sum = sum_of(hashes.get(start..).unwrap_or_default());
    }
    Ok(hashes)
}
