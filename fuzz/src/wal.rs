//! Targets for `genesis-wal`.
//!
//! Checksums keep a fuzzer out of everything behind them. So most inputs begin with a byte whose
//! lowest bit asks for repair: the target then sets the checksums right before it decodes, and the
//! decoder meets arbitrary values in a valid envelope.

use std::collections::HashMap;

use genesis_wal::checksum::{ByteOrder, Checksum};
use genesis_wal::frame::{FrameHeader, frame_len};
use genesis_wal::header::{Salts, WalHeader};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::index::{IndexHeader, WalIndex};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{self, Part, PartHeader, PartKind, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::scan::{ScanEnd, Scanner, Step, Transaction};
use genesis_wal::segment::{
    Fragment, SegmentEncoder, Sequence, TransactionHeader, TransactionKind, fragments,
};
use genesis_wal::time::Micros;

const REPAIR: u8 = 1;

/// A WAL file behind two bytes: repair, and `mxFrame`. What the scan yields must make sense, and be
/// the same when the frames come one by one.
pub fn wal_scan(data: &[u8]) {
    let [flags, max_frame, wal @ ..] = data else {
        return;
    };
    let repair = flags & REPAIR != 0;
    let wal = if repair { repair_wal(wal) } else { wal.to_vec() };
    let Ok(header) = WalHeader::decode(&wal) else {
        return;
    };
    assert_eq!(header.encode(), wal[..WalHeader::LEN]);
    let frames = &wal[WalHeader::LEN..];
    let index = IndexHeader {
        change: 0,
        page_size: Some(header.page_size),
        max_frame: u32::from(*max_frame),
        pages: 0,
        frame_checksum: chain_at(&header, frames, usize::from(*max_frame)),
        salts: header.salts,
    };
    let whole = scan(&header, &index, std::iter::once(frames));
    let size = frame_len(header.page_size);
    assert_eq!(whole, scan(&header, &index, frames.chunks(size)));
    check_scan(&whole.0, whole.1, &index);
}

fn scan<'a>(
    header: &WalHeader,
    index: &IndexHeader,
    pieces: impl Iterator<Item = &'a [u8]>,
) -> (Vec<Transaction>, ScanEnd) {
    let mut scanner = Scanner::new(*header, 0, header.checksum, index);
    let mut commits = Vec::new();
    for piece in pieces.chain([&[][..]]) {
        let mut reader = Reader::new(piece);
        loop {
            match scanner.step(&mut reader) {
                Step::Commit(commit) => commits.push(commit),
                Step::NeedBytes => break,
                Step::End(end) => return (commits, end),
            }
        }
    }
    (commits, scanner.torn())
}

fn check_scan(commits: &[Transaction], end: ScanEnd, index: &IndexHeader) {
    let mut before = 0;
    for commit in commits {
        assert!(commit.frame > before && commit.frame <= index.max_frame);
        assert!(commit.images.is_sorted_by(|a, b| a.page < b.page));
        for image in &commit.images {
            assert!(image.page.get() <= commit.pages);
            assert!(image.frame > before && image.frame <= commit.frame);
        }
        before = commit.frame;
    }
    if end == ScanEnd::Clean {
        assert_eq!(before, index.max_frame);
    }
}

/// Gives a WAL the magic, version, checksums and salts that its header and frames need.
fn repair_wal(wal: &[u8]) -> Vec<u8> {
    let Some((head, frames)) = wal.split_first_chunk::<{ WalHeader::LEN }>() else {
        return wal.to_vec();
    };
    let order = if head[3] & 1 == 0 { ByteOrder::Little } else { ByteOrder::Big };
    let log2 = 9 + head[11] % 8;
    let Ok(page_size) = PageSize::from_log2(log2) else {
        return wal.to_vec();
    };
    let salts = Salts(std::array::from_fn(|at| head[16 + at]));
    let header = WalHeader::new(order, page_size, u32::from(head[15]), salts);
    let mut repaired = header.encode();
    let mut checksum = header.checksum;
    for bytes in frames.chunks(frame_len(page_size)) {
        let (Ok(frame), Some(page)) = (FrameHeader::decode(bytes), bytes.get(FrameHeader::LEN..))
        else {
            repaired.extend(bytes);
            break;
        };
        let frame = if frame.is_unsummed() {
            checksum = Checksum::NONE;
            frame
        } else {
            checksum = frame.chained(order, checksum, page);
            FrameHeader { salts, checksum, ..frame }
        };
        repaired.extend(frame.encode());
        repaired.extend(page);
    }
    repaired
}

/// The checksum that stands in a frame; zero when there is none.
fn chain_at(header: &WalHeader, frames: &[u8], number: usize) -> Checksum {
    let mut frames = frames.chunks_exact(frame_len(header.page_size));
    let frame = number.checked_sub(1).and_then(|before| frames.nth(before));
    let frame = frame.and_then(|bytes| FrameHeader::decode(bytes).ok());
    frame.map_or(Checksum::default(), |frame| frame.checksum)
}

/// The front of a wal-index behind a byte that asks for repair. What decodes was published: two
/// equal copies, whose page size and marks are those in the bytes.
pub fn wal_index(data: &[u8]) {
    let [flags, bytes @ ..] = data else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags & REPAIR != 0 {
        repair_index(&mut bytes);
    }
    let Ok(index) = WalIndex::decode(&bytes) else {
        return;
    };
    assert_eq!(bytes[..48], bytes[48..96]);
    assert_eq!(bytes[16..20], index.header.max_frame.to_ne_bytes());
    assert_eq!(bytes[96..100], index.backfilled.to_ne_bytes());
    let marks = index.read_marks.map(u32::to_ne_bytes);
    assert_eq!(bytes[100..120], *marks.as_flattened());
    assert_eq!(WalIndex::decode(&bytes[..WalIndex::LEN]), Ok(index));
}

fn repair_index(bytes: &mut [u8]) {
    let native = if cfg!(target_endian = "little") { ByteOrder::Little } else { ByteOrder::Big };
    if let Some(copies) = bytes.get_mut(..96) {
        let sums = Checksum::default().extend(native, &copies[..40]);
        copies[40..44].copy_from_slice(&sums.0.to_ne_bytes());
        copies[44..48].copy_from_slice(&sums.1.to_ne_bytes());
        copies.copy_within(..48, 48);
    }
}

/// A part behind a byte that asks for repair. What decodes is read the same after it was encoded
/// again, and after it was stamped anew.
pub fn part_decode(data: &[u8]) {
    let [flags, bytes @ ..] = data else {
        return;
    };
    let mut bytes = bytes.to_vec();
    if flags & REPAIR != 0 {
        repair_part(&mut bytes);
    }
    let mut reader = Reader::new(&bytes);
    let Ok(decoded) = Part::decode(&mut reader) else {
        return;
    };
    let stored = bytes.len() - reader.rest().len();
    assert_eq!(part::stored_len(&bytes), Ok(stored));
    assert_eq!(part::trailing_len(&bytes[..stored]), Ok(stored));

    let mut again = Vec::new();
    assert_eq!(part::encode(&decoded.header, decoded.payload, &mut again), Ok(()));
    assert_eq!(again.len(), stored);
    assert_eq!(Part::decode(&mut Reader::new(&again)), Ok(decoded));

    let stamp = stamp();
    assert_eq!(part::restamp(&mut again, stamp), Ok(()));
    let header = PartHeader { stamp, ..decoded.header };
    assert_eq!(Part::decode(&mut Reader::new(&again)), Ok(Part { header, ..decoded }));
}

/// Sets both lengths and the CRC, as if the bytes were exactly one part.
fn repair_part(bytes: &mut [u8]) {
    let whole = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let stored = if bytes.get(6).is_some_and(|flags| flags & 8 != 0) { 8 } else { 0 };
    let payload = bytes.len().saturating_sub(PartHeader::LEN + stored + part::TRAILER_LEN);
    let Some((summed, crc)) = bytes.split_last_chunk_mut::<4>() else {
        return;
    };
    if let Some(place) = summed.last_chunk_mut::<4>() {
        *place = whole.to_le_bytes();
    }
    if let (Some(place), Ok(len)) = (summed.get_mut(92..96), u32::try_from(payload)) {
        place.copy_from_slice(&len.to_le_bytes());
    }
    *crc = crc32fast::hash(summed).to_le_bytes();
}

fn stamp() -> Stamp {
    let generation = Generation { epoch: Epoch(5), random: 6 };
    Stamp { generation, epoch: Epoch(7) }
}

/// The payload of a segment's part behind two bytes: the page size, and how many transactions the
/// part's header announces after the first. What decodes holds what the format promises, and reads
/// the same after it was encoded again.
pub fn segment_decode(data: &[u8]) {
    let [log2, more, payload @ ..] = data else {
        return;
    };
    let Ok(page_size) = PageSize::from_log2(9 + log2 % 8) else {
        return;
    };
    let first = payload.first_chunk().map_or(1, |id| u64::from_le_bytes(*id));
    let header = PartHeader {
        kind: PartKind::Segment,
        page_size,
        stamp: stamp(),
        first: Txid(first),
        last: Txid(first.saturating_add(u64::from(*more))),
        position: None,
        stored: None,
        before: StateHash(0),
        after: StateHash(0),
    };
    let part = Part { header, payload };
    let (mut history, mut state) = (Vec::new(), State::new(page_size));
    for fragment in fragments(&part) {
        let Ok(fragment) = fragment else {
            return;
        };
        check_fragment(&fragment, page_size);
        match state.unpack(&fragment) {
            Some(pages) if fragment.first_record == 0 && fragment.is_last() => {
                history.push((fragment.header, pages));
            }
            _ => return,
        }
    }
    assert_eq!(history.len() as u64, header.last.0 - header.first.0 + 1);
    let encoded = encode(page_size, &history, usize::MAX);
    assert_eq!(decode(page_size, &encoded), history);
}

type Pages = Vec<(PageNumber, Vec<u8>)>;
type History = Vec<(TransactionHeader, Pages)>;

fn check_fragment(fragment: &Fragment<'_>, page_size: PageSize) {
    assert!(fragment.pages.is_sorted_by(|a, b| a.number < b.number));
    for record in &fragment.pages {
        assert!(record.number.get() <= fragment.header.pages);
        assert_ne!(record.number, page_size.lock_page());
        assert!(record.stored_len() <= page_size.bytes());
    }
}

/// The pages as they are after a transaction. A database that was there before has pages of one
/// pattern: so the first transaction, too, may hold deltas.
struct State {
    pages: HashMap<PageNumber, Vec<u8>>,
    first: Vec<u8>,
}

impl State {
    fn new(page_size: PageSize) -> Self {
        let first = (0..=u8::MAX).cycle().take(page_size.bytes()).collect();
        Self { pages: HashMap::new(), first }
    }

    fn page(&self, number: PageNumber) -> &[u8] {
        self.pages.get(&number).unwrap_or(&self.first)
    }

    fn set(&mut self, number: PageNumber, image: &[u8]) {
        self.pages.insert(number, image.to_vec());
    }

    /// The pages of a fragment; `None` when one does not unpack.
    fn unpack(&mut self, fragment: &Fragment<'_>) -> Option<Pages> {
        let mut pages = Pages::new();
        for record in &fragment.pages {
            let mut image = vec![0; self.first.len()];
            record.unpack(Some(self.page(record.number)), &mut image).ok()?;
            self.set(record.number, &image);
            pages.push((record.number, image));
        }
        Some(pages)
    }
}

/// Bytes as a recipe for a history: page size, where to cut, and transactions. It must be read as
/// it was written, however it was cut into parts.
pub fn segment_roundtrip(data: &[u8]) {
    let mut recipe = Reader::new(data);
    let (Ok(log2), Ok(cut_at)) = (recipe.u8(), recipe.u16()) else {
        return;
    };
    let Ok(page_size) = PageSize::from_log2(9 + log2 % 8) else {
        return;
    };
    let (mut history, mut state) = (History::new(), State::new(page_size));
    while let Some(transaction) = cook(&mut recipe, page_size, history.len(), &mut state) {
        history.push(transaction);
        if history.len() == 8 {
            break;
        }
    }
    let encoded = encode(page_size, &history, usize::from(cut_at));
    assert_eq!(decode(page_size, &encoded), history);
}

/// The next transaction of a recipe; `None` at its end. Its pages are new, or changed in one place.
fn cook(
    recipe: &mut Reader<'_>,
    page_size: PageSize,
    before: usize,
    state: &mut State,
) -> Option<(TransactionHeader, Pages)> {
    let [kind, count, commits] = recipe.array().ok()?;
    let mut number = 0;
    let mut pages = Pages::new();
    for _ in 0..count % 6 {
        let at = recipe.u16().ok()?;
        number += u32::from(at) + 1;
        let pattern = recipe.take(usize::from(recipe.clone().u8().ok()?) + 1).ok()?;
        let Some(page) = PageNumber::new(number).filter(|page| *page != page_size.lock_page())
        else {
            continue;
        };
        let image: Vec<u8> = if count & 0x80 == 0 {
            pattern.iter().copied().cycle().take(page_size.bytes()).collect()
        } else {
            let (kept, changed) = state.page(page).split_at(usize::from(at) % page_size.bytes());
            let rest = changed.iter().skip(pattern.len());
            kept.iter().chain(pattern).chain(rest).copied().take(page_size.bytes()).collect()
        };
        state.set(page, &image);
        pages.push((page, image));
    }
    let txid = Txid(before as u64 + 1);
    let (late, time) = (kind & 0x80 != 0, Micros(txid.0 << 20));
    let (kind, commits) = match kind % 3 {
        0 => (TransactionKind::Commit, 1),
        1 => (TransactionKind::Rebase, 0),
        _ => (TransactionKind::Coarse, u32::from(commits) + 1),
    };
    let header = TransactionHeader {
        txid,
        kind,
        late,
        commits,
        time,
        since: if late { Micros(u64::from(commits)) } else { time },
        pages: number,
        records: u32::try_from(pages.len()).ok()?,
        state: StateHash(txid.0.rotate_right(9)),
    };
    Some((header, pages))
}

fn encode(page_size: PageSize, history: &History, cut_at: usize) -> Vec<u8> {
    let mut encoder = SegmentEncoder::new(page_size, stamp(), StateHash(0));
    let (mut out, mut state) = (Vec::new(), State::new(page_size));
    for (header, pages) in history {
        assert_eq!(encoder.begin(*header, None), Ok(()));
        for (number, image) in pages {
            let hash = PageHash::of(*number, image);
            let is_commit = header.kind == TransactionKind::Commit;
            let base = is_commit.then(|| state.page(*number));
            assert!(encoder.page(*number, hash, image, base).is_ok());
            state.set(*number, image);
            if encoder.len() >= cut_at {
                assert_eq!(encoder.cut(&mut out), Ok(()));
            }
        }
    }
    assert_eq!(encoder.finish(&mut out), Ok(()));
    out
}

/// Decodes a segment that was just encoded, and joins its fragments. Its parts follow one another.
fn decode(page_size: PageSize, bytes: &[u8]) -> History {
    let mut reader = Reader::new(bytes);
    let (mut history, mut state) = (History::new(), State::new(page_size));
    let mut complete = true;
    let mut sequence: Option<Sequence> = None;
    while !reader.rest().is_empty() {
        let part = Part::decode(&mut reader);
        if let Ok(part) = &part {
            let first = || Sequence::beginning_with(&part.header);
            assert_eq!(sequence.get_or_insert_with(first).accept(part), Ok(()));
        }
        let fragments = part.iter().flat_map(fragments);
        for fragment in fragments {
            let Ok(fragment) = fragment else {
                panic!("{fragment:?} was just encoded");
            };
            assert_eq!(complete, fragment.first_record == 0);
            check_fragment(&fragment, page_size);
            complete = fragment.is_last();
            if fragment.first_record == 0 {
                history.push((fragment.header, Pages::new()));
            }
            let pages = state.unpack(&fragment);
            assert!(pages.is_some(), "a page that was just encoded does not unpack");
            if let Some((_, joined)) = history.last_mut() {
                joined.extend(pages.unwrap_or_default());
            }
        }
        assert!(part.is_ok(), "{part:?} was just encoded");
    }
    assert!(complete);
    let reached = sequence.and_then(|sequence| sequence.finish().ok());
    let last = history.last().map(|(header, _)| (header.txid, header.time, header.state));
    assert_eq!(reached.map(|reached| (reached.txid, reached.time, reached.state)), last);
    history
}
