//! Finds the point from which the source's WAL is recorded: the tip of the replica where it is proven
//! that the source continues it, else a new generation with a snapshot.

use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::SegmentName;
use genesis_wal::part::Stamp;
use genesis_wal::position::WalIdentity;
use genesis_wal::scan::ScanEnd;
use genesis_wal::time::Micros;
use thiserror::Error;
use tokio::sync::mpsc::UnboundedSender;

use super::capture::{self, CaptureError, Snapshot};
use super::cursor::Cursor;
use super::record::Recorder;
use super::scan::Overlay;
use super::ship::Shipment;
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
    Random(#[from] std::io::Error),
}

/// Where recording begins.
#[derive(Debug)]
pub struct Established {
    /// The recorder, behind the state that is recorded.
    pub recorder: Recorder,
    /// The place in the WAL behind that state.
    pub cursor: Cursor,
    /// What is read first may have been committed while nobody looked, since this time.
    pub absent_since: Option<Micros>,
}

/// Continues the tip where that is proven: the source, as of the recorded place in its WAL or as of
/// now, has the state hash that the tip has.
///
/// # Errors
/// When the source cannot be read. `None` when continuity is not proven.
pub fn resume(
    source: &Source,
    held: &Held,
    tip: &Tip,
    epoch: Epoch,
    spool: &Spool,
) -> Result<Option<Established>, EstablishError> {
    if tip.page_size != source.page_size() {
        return Ok(None);
    }
    let proven = match at_recorded_place(source, held, tip)? {
        Some(proven) => Some(proven),
        None => as_of_now(source, held, tip)?,
    };
    let Some((table, cursor)) = proven else {
        return Ok(None);
    };
    let stamp = Stamp { generation: tip.generation, epoch };
    let spool = spool.clone();
    let recorder = Recorder::new(spool, stamp, tip.page_size, table, tip.txid, tip.time);
    Ok(Some(Established { recorder, cursor, absent_since: Some(tip.time) }))
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
    queue: &UnboundedSender<Shipment>,
) -> Result<Established, EstablishError> {
    let Numbers { epoch, attempt, txid, not_before } = number;
    let pages = source.pages(&held.index)?;
    let cursor = Cursor::at(source.page_size(), &held.index.header, source.wal_header()?, pages);
    let images = held_overlay(source, held)?.into_images(pages);
    let mut state = StateReader::new(source, images, pages);
    let stamp = Stamp { generation: Generation { epoch, random: durable::random()? }, epoch };
    let time = clock::wall().max(not_before);
    let snapshot = Snapshot { stamp, attempt, txid, time, position: cursor.position() };
    let table = capture::ship_snapshot(&mut state, snapshot, queue)?;
    tracing::info!(generation = %stamp.generation, txid = txid.0, pages, "a new generation begins");
    let spool = spool.clone();
    let recorder = Recorder::new(spool, stamp, source.page_size(), table, txid, time);
    Ok(Established { recorder, cursor, absent_since: None })
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
fn at_recorded_place(
    source: &Source,
    held: &Held,
    tip: &Tip,
) -> Result<Option<(PageTable, Cursor)>, EstablishError> {
    let Some(position) = tip.position else {
        return Ok(None);
    };
    let header = source.wal_header()?;
    if header.as_ref().map(WalIdentity::from) != Some(position.identity) {
        return Ok(None);
    }
    let Ok(overlay) = Overlay::read(source, &held.index.header, position.frame)? else {
        return Ok(None);
    };
    if overlay.end() != Some((position.frame, position.checksum)) {
        return Ok(None);
    }
    let pages = overlay.pages();
    let cursor = Cursor::at_position(source.page_size(), &position);
    let state = StateReader::new(source, overlay.into_images(pages), pages);
    Ok(table_of(state, tip)?.map(|table| (table, cursor)))
}

/// The state as of now: nothing was committed since, whatever became of the WAL.
fn as_of_now(
    source: &Source,
    held: &Held,
    tip: &Tip,
) -> Result<Option<(PageTable, Cursor)>, EstablishError> {
    let pages = source.pages(&held.index)?;
    let cursor = Cursor::at(source.page_size(), &held.index.header, source.wal_header()?, pages);
    let images = held_overlay(source, held)?.into_images(pages);
    let state = StateReader::new(source, images, pages);
    Ok(table_of(state, tip)?.map(|table| (table, cursor)))
}

fn held_overlay(source: &Source, held: &Held) -> Result<Overlay, EstablishError> {
    Overlay::of_held(source, held)?.map_err(EstablishError::Wal)
}

fn table_of(mut state: StateReader<'_>, tip: &Tip) -> Result<Option<PageTable>, SourceError> {
    match capture::hash_pages(&mut state) {
        Ok(table) => Ok(Some(table).filter(|table| table.state() == tip.state)),
        // Where the file alone is the state, the WAL may be restarted and cut under this reading.
        Err(SourceError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::UnexpectedEof =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
