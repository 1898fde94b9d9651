//! The end of what this host recorded, as far as local state tells: without a word of the replica.

use std::io;
use std::path::Path;

use genesis_snapshot::inventory::{Cuts, Inventory};
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::ObjectName;
use genesis_wal::part::Part;
use genesis_wal::reader::Reader;
use genesis_wal::segment::{Reached, Sequence};

use super::rebuild::Roll;
use super::{Checkpoint, PageTable};
use crate::replica::Tip;
use crate::replicate::spool::{PartFile, Spool};

/// The state that was recorded last, the hashes of its pages, and the epoch in which that was; `None`
/// where what is there does not lead to it. It need not be what the replica holds.
///
/// # Errors
/// What the file system says.
pub fn at_local_end(spool: &Spool, folder: &Path) -> io::Result<Option<(Tip, PageTable, Epoch)>> {
    let Ok(Some((table, as_of))) = Checkpoint::read(&folder.join(super::FILE_NAME), folder) else {
        return Ok(None);
    };
    let waiting = spool.sealed()?;
    if waiting.iter().any(|name| name.generation != as_of.generation) {
        return Ok(None);
    }
    let kept = spool.kept_above(as_of.generation, Txid(0));
    let objects = waiting.iter().chain(&kept).map(|name| (ObjectName::from(*name), 0));
    let inventory = Inventory::from_objects(objects);
    let Some(line) = inventory.generation(as_of.generation) else { return Ok(None) };
    // Also what holds the table's transaction, as it tells the place in the WAL.
    let chain = line.chain(Txid(as_of.txid.0.saturating_sub(1)));
    let (Some(last), None) = (chain.segments.last(), chain.gap) else { return Ok(None) };
    let last = last.name;
    let (cuts, page_size) = (Cuts::default(), table.page_size());
    let mut roll = Roll::new(table, as_of.txid, &cuts);
    let mut end = None;
    for name in chain.segments.into_iter().map(|segment| segment.name) {
        let path = spool.kept(&name).unwrap_or_else(|| spool.path(&name));
        end = match rolled(&mut roll, &path) {
            Err(error) if is_damage(&error) => None,
            other => other?,
        };
        if end.is_none() {
            return Ok(None);
        }
    }
    let (table, txid) = roll.into_table();
    let is_here = |end: &Reached| (end.txid, end.state) == (txid, table.state());
    let Some(reached) = end.filter(is_here) else { return Ok(None) };
    Ok(Some((Tip { generation: last.generation, page_size, reached }, table, last.epoch)))
}

/// Takes a table through a segment; the state after that, `None` where the segment does not go on from
/// the table, or is damaged.
fn rolled(roll: &mut Roll<'_>, path: &Path) -> io::Result<Option<Reached>> {
    let (mut parts, mut sequence) = (PartFile::open(path)?, None);
    roll.begin_segment();
    while let Some(bytes) = parts.next_part()? {
        let Ok(part) = Part::decode(&mut Reader::new(&bytes)) else { return Ok(None) };
        let sequence = sequence.get_or_insert_with(|| Sequence::beginning_with(&part.header));
        if sequence.accept(&part).is_err() || !roll.take(&part)? {
            return Ok(None);
        }
    }
    Ok(sequence.and_then(|sequence| sequence.finish().ok()))
}

/// Whether a file is not what was written, or is gone.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | UnexpectedEof | NotFound)
}
