//! Finds the point from which the source's WAL is recorded: the tip of the replica where it is proven
//! that the source continues it, else a new generation with a snapshot.

use std::io;

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::SegmentName;
use genesis_wal::part::Stamp;
use genesis_wal::position::{WalIdentity, WalPosition};
use genesis_wal::scan::ScanEnd;
use genesis_wal::time::Micros;
use thiserror::Error;

use super::capture::{self, CaptureError, Snapshot};
use super::cursor::Cursor;
use super::record::Recorder;
use super::scan::Overlay;
use super::ship::Outbox;
use super::spool::Spool;
use super::table::PageTable;
use crate::replica::Tip;
use crate::sqlite::{Held, Source, SourceError, StateReader};
use crate::{clock, durable};

/// What the replica told about where to begin.
#[derive(Debug)]
pub struct Origin {
    /// The epoch of this process.
    pub epoch: Epoch,
    /// The newest state that the replica and the spool hold, with what must still be shipped for it.
    pub tip: Option<(Tip, Vec<SegmentName>)>,
    /// The last transaction that is in the replica.
    pub stored: Option<Txid>,
    /// The first transaction id that nothing in the replica or the spool is named for.
    pub free: Txid,
}

/// Why nothing could be established.
#[derive(Debug, Error)]
pub enum EstablishError {
    /// The source cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The snapshot failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The WAL is not what its index says, under a lock that keeps both.
    #[error("the WAL cannot be read: {0}")]
    Wal(ScanEnd),
    /// The kernel gives no random numbers.
    #[error("cannot draw a random number")]
    Random(#[from] io::Error),
}

/// Where recording begins.
#[derive(Debug)]
pub struct Established {
    /// The recorder, at the state that is recorded.
    pub recorder: Recorder,
    /// The place in the WAL after that state.
    pub cursor: Cursor,
    /// What is read first may have been committed while nobody looked, since this time.
    pub absent_since: Option<Micros>,
}

/// Whether the source continues what the replica holds.
#[derive(Debug)]
pub enum Continuity {
    /// It does: by its state hash.
    Proven(Box<Established>),
    /// Nothing proves it.
    Unproven(Why),
}

/// What is missing for a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Why {
    /// The database has pages of another size.
    #[error("the page size changed")]
    PageSize,
    /// The WAL reaches back to what was recorded, but the database is not what it was then: parts of
    /// it were overwritten since.
    #[error("the database has moved on from the recorded place in its WAL")]
    MovedOn,
    /// The WAL of the recorded place is gone, and the database has changed.
    #[error("the database changed while nobody looked, and its WAL is another")]
    Changed,
}

/// Continues the tip where that is proven: the source, as of the recorded place in its WAL or as of
/// now, has the state hash that the tip has.
///
/// # Errors
/// When the source cannot be read.
pub fn resume(
    source: &Source,
    held: &Held,
    tip: &Tip,
    epoch: Epoch,
    spool: &Spool,
) -> Result<Continuity, EstablishError> {
    if tip.page_size != source.page_size() {
        return Ok(Continuity::Unproven(Why::PageSize));
    }
    let (proven, otherwise) = match at_recorded_place(source, held, tip)? {
        Place::Proven(place) => (Some(place), Why::MovedOn),
        Place::OtherState => (as_of_now(source, held, tip)?, Why::MovedOn),
        Place::Gone => (as_of_now(source, held, tip)?, Why::Changed),
    };
    let Some((table, cursor)) = proven else { return Ok(Continuity::Unproven(otherwise)) };
    let stamp = Stamp { generation: tip.generation, epoch };
    let spool = spool.clone();
    let recorder =
        Recorder::new(spool, stamp, tip.page_size, table, tip.reached.txid, tip.reached.time);
    let established = Established { recorder, cursor, absent_since: Some(tip.reached.time) };
    Ok(Continuity::Proven(Box::new(established)))
}

/// What stands at the recorded place in the WAL.
enum Place {
    /// The recorded state.
    Proven((PageTable, Cursor)),
    /// Another state.
    OtherState,
    /// Nothing: the WAL is another, or does not reach it.
    Gone,
}

/// Begins a new generation with a snapshot of the held state.
///
/// # Errors
/// [`EstablishError`].
pub fn begin_generation(
    source: &Source,
    held: &Held,
    number: Numbers,
    spool: &Spool,
    outbox: &Outbox,
) -> Result<Established, EstablishError> {
    let Numbers { epoch, attempt, txid, not_before } = number;
    let pages = source.pages(&held.index)?;
    let cursor = Cursor::at(source.page_size(), &held.index.header, source.wal_header()?, pages);
    let overlay = Overlay::of_held(source, held)?.map_err(EstablishError::Wal)?;
    let images = overlay.into_images(pages);
    let mut state = StateReader::new(source, images, pages);
    let stamp = Stamp { generation: generation(epoch, attempt)?, epoch };
    // A whole millisecond, as in the snapshot's name: what is told of it can be asked for.
    let time = clock::wall().max(not_before).ceil_millis().micros();
    let snapshot = Snapshot { stamp, attempt, txid, time, position: cursor.position() };
    let table = capture::ship_snapshot(&mut state, snapshot, outbox)?;
    tracing::info!(generation = %stamp.generation, txid = txid.0, pages, "a new generation begins");
    let spool = spool.clone();
    let recorder = Recorder::new(spool, stamp, source.page_size(), table, txid, time);
    Ok(Established { recorder, cursor, absent_since: None })
}

/// A generation of this process. Of several under one epoch a later one is greater.
fn generation(epoch: Epoch, attempt: u32) -> io::Result<Generation> {
    let random = (u64::from(attempt) << 32) | (durable::random()? >> 32);
    Ok(Generation { epoch, random })
}

/// The numbers of a new generation's snapshot.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// The epoch of this process.
    pub epoch: Epoch,
    /// Which snapshot of this process it is.
    pub attempt: u32,
    /// The transaction id of its state.
    pub txid: Txid,
    /// Recorded times never go back: none is before this.
    pub not_before: Micros,
}

/// The state at the tip's place in the WAL, where that WAL is still there and reaches it.
fn at_recorded_place(source: &Source, held: &Held, tip: &Tip) -> Result<Place, EstablishError> {
    let Some(position) = tip.reached.position else { return Ok(Place::Gone) };
    let header = source.wal_header()?;
    if header.as_ref().map(WalIdentity::from) != Some(position.identity) {
        return Ok(Place::Gone);
    }
    let Ok(overlay) = Overlay::read(source, &held.index.header, position.frame)? else {
        return Ok(Place::Gone);
    };
    if overlay.end() != Some((position.frame, position.checksum)) {
        return Ok(Place::Gone);
    }
    // On read mark 0 what was committed since is in the file, and its frames may go at any time.
    if !held.overlay && position.frame != held.index.header.max_frame {
        return Ok(Place::OtherState);
    }
    let pages = overlay.pages();
    // The index may have been rebuilt since: only its own count continues.
    let change = held.index.header.change.wrapping_sub(overlay.commits_after());
    let cursor = Cursor::at_position(source.page_size(), &WalPosition { change, ..position });
    let state = StateReader::new(source, overlay.into_images(pages), pages);
    Ok(match table_of(state, tip)? {
        Some(table) => Place::Proven((table, cursor)),
        None => Place::OtherState,
    })
}

/// The state as of now: nothing was committed since, whatever became of the WAL.
fn as_of_now(
    source: &Source,
    held: &Held,
    tip: &Tip,
) -> Result<Option<(PageTable, Cursor)>, EstablishError> {
    let pages = source.pages(&held.index)?;
    let cursor = Cursor::at(source.page_size(), &held.index.header, source.wal_header()?, pages);
    let Ok(overlay) = Overlay::of_held(source, held)? else { return Ok(None) };
    let state = StateReader::new(source, overlay.into_images(pages), pages);
    Ok(table_of(state, tip)?.map(|table| (table, cursor)))
}

fn table_of(mut state: StateReader<'_>, tip: &Tip) -> Result<Option<PageTable>, SourceError> {
    match capture::hash_pages(&mut state) {
        Ok(table) => Ok(Some(table).filter(|table| table.state() == tip.reached.state)),
        // Where the file alone is the state, the WAL may be restarted and cut under this reading.
        Err(SourceError::Io { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_generations_under_one_epoch_the_later_is_the_newer() {
        for _ in 0..100 {
            let begun = |attempt| generation(Epoch(7), attempt).unwrap();
            assert!(begun(0) < begun(1) && begun(1) < begun(2));
            assert!(begun(2) < generation(Epoch(8), 0).unwrap());
        }
    }
}
