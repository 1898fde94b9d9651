//! The target for applying segments, merged ones above all.

use std::io;

use genesis_restore::apply::{Applier, Base, PageSink, Restored};
use genesis_restore::target::Target;
use genesis_snapshot::inventory::Cuts;
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::page::{PageHash, PageNumber, PageSize, StateHash};
use genesis_wal::part::{self, Part, Stamp};
use genesis_wal::reader::{ReadError, Reader};
use genesis_wal::segment::{SegmentEncoder, Sequence, TransactionHeader, TransactionKind};
use genesis_wal::time::Micros;

const PAGE: usize = 512;

/// The transaction of the first state: a snapshot's.
const FIRST: u64 = 3;

/// Bytes as a recipe: a history of small pages, the segments that it was shipped in, put one after
/// another as merging does, then what became of their parts, and what is asked for. What is restored is
/// the state that was asked for; whatever was lost, doubled or turned around, it is a state of the
/// history; and so it is after bits have changed behind the checksums, once its state hash is
/// proven.
pub fn segment_apply(data: &[u8]) {
    let mut recipe = Reader::new(data);
    let Ok([from, wanted, batch_bytes, cut]) = recipe.array() else {
        return;
    };
    let Ok(history) = History::cook(&mut recipe) else {
        return;
    };
    let Ok(mut parts) = history.segments(&mut recipe) else {
        return;
    };
    check_sequence(&history, &parts);
    let harm = harm(&mut recipe, &mut parts).unwrap_or(Harm::Bits);
    let from = FIRST + u64::from(from) % history.files.len() as u64;
    let target = history.target(wanted);
    let cuts = match cut {
        0 => Cuts::default(),
        cut => Cuts::new([(Epoch(2), Txid(FIRST + u64::from(cut) % 8))]),
    };
    let file = history.file(Txid(from)).unwrap_or_default().to_vec();
    let applier = Applier::new(history.base(from), target, history.last())
        .with_batch_bytes(usize::from(batch_bytes) << 4)
        .with_cuts(cuts);
    let mut sink = Sink(file);
    let restored = apply(applier, &parts, &mut sink);
    if harm == Harm::None && cut == 0 && history.holds(target, Txid(from)) {
        assert!(restored.is_some(), "{target} after {from} of {history:?}");
    }
    if let Some(restored) = restored {
        let harm = if cut == 0 { harm } else { harm.max(Harm::Parts) };
        history.check(restored, &sink.0, target, harm);
    }
}

/// What became of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Harm {
    /// Nothing.
    None,
    /// Some are missing, doubled, another writer's, or in another order.
    Parts,
    /// Bytes are not those that were written, and the checksums fit.
    Bits,
}

#[derive(Debug)]
struct History {
    /// The first one is the snapshot's.
    files: Vec<Vec<u8>>,
    headers: Vec<TransactionHeader>,
    /// The pages that each transaction changes.
    changed: Vec<Vec<u32>>,
}

impl History {
    fn cook(recipe: &mut Reader<'_>) -> Result<Self, ReadError> {
        let [pages, count] = recipe.array()?;
        let file =
            (0..=usize::from(pages % 6)).flat_map(|page| [small(page).to_le_bytes()[0]; PAGE]);
        let mut history =
            Self { files: vec![file.collect()], headers: Vec::new(), changed: Vec::new() };
        for _ in 0..count % 9 {
            history.commit(recipe)?;
        }
        Ok(history)
    }

    fn commit(&mut self, recipe: &mut Reader<'_>) -> Result<(), ReadError> {
        let [pages, count, late] = recipe.array()?;
        let mut file = self.files.last().cloned().unwrap_or_default();
        let before = file.len() / PAGE;
        let pages = usize::from(pages % 6) + 1;
        file.resize(pages * PAGE, 0);
        let mut changed: Vec<usize> = (before..pages).collect();
        for _ in 0..count % 5 {
            let [page, at, byte, run] = recipe.array()?;
            let page = usize::from(page) % pages;
            let start = page * PAGE + usize::from(at);
            let run = if run & 0x80 == 0 { 1 } else { usize::from(run) };
            for place in file.iter_mut().skip(start).take(run).take(PAGE - usize::from(at)) {
                *place = place.wrapping_mul(7) ^ byte;
            }
            changed.push(page);
        }
        changed.sort_unstable();
        changed.dedup();
        let txid = FIRST + self.files.len() as u64;
        let (late, time) = (late & 1 == 1, Micros(txid * 10));
        self.headers.push(TransactionHeader {
            txid: Txid(txid),
            kind: TransactionKind::Commit,
            late,
            commits: 1,
            time,
            since: if late { Micros(txid * 10 - 5) } else { time },
            pages: small(pages),
            records: small(changed.len()),
            state: state_of(&file),
        });
        self.changed.push(changed.into_iter().map(small).collect());
        self.files.push(file);
        Ok(())
    }

    /// All transactions as segments, one after another, in parts.
    fn segments(&self, recipe: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, ReadError> {
        let [ends, cuts] = recipe.array()?;
        let (mut out, mut epoch) = (Vec::new(), 1);
        let mut encoder = self.encoder(epoch, FIRST);
        for (n, (header, changed)) in self.headers.iter().zip(&self.changed).enumerate() {
            assert_eq!(encoder.begin(*header, None), Ok(()));
            for &page in changed {
                let image = page_of(&self.files[n + 1], page).unwrap_or_default();
                let number = number(page);
                let hash = PageHash::of(number, image);
                let stored = encoder.page(number, hash, image, page_of(&self.files[n], page));
                assert!(stored.is_ok(), "{stored:?}");
                if cuts >> (page % 8) & 1 == 1 {
                    assert_eq!(encoder.cut(&mut out), Ok(()));
                }
            }
            if ends >> n & 1 == 1 {
                epoch += 1;
                let next = self.encoder(epoch, header.txid.0);
                assert_eq!(std::mem::replace(&mut encoder, next).finish(&mut out), Ok(()));
            }
        }
        // What ends with nothing open is no segment.
        if ends >> (self.headers.len().max(1) - 1) & 1 == 0 && !self.headers.is_empty() {
            assert_eq!(encoder.finish(&mut out), Ok(()));
        }
        Ok(split(&out))
    }

    fn encoder(&self, epoch: u32, after: u64) -> SegmentEncoder {
        let state = self.file(Txid(after)).map(state_of).unwrap_or_default();
        SegmentEncoder::new(page_size(), stamp(epoch), state)
    }

    fn last(&self) -> Txid {
        self.headers.last().map_or(Txid(FIRST), |header| header.txid)
    }

    fn file(&self, txid: Txid) -> Option<&[u8]> {
        let at = txid.0.checked_sub(FIRST)?;
        self.files.get(usize::try_from(at).ok()?).map(Vec::as_slice)
    }

    fn base(&self, txid: u64) -> Base {
        let file = self.file(Txid(txid)).unwrap_or_default();
        Base {
            generation: stamp(1).generation,
            txid: Txid(txid),
            state: state_of(file),
            page_size: page_size(),
            pages: small(file.len() / PAGE),
            time: Micros(txid * 10),
        }
    }

    fn target(&self, wanted: u8) -> Target {
        let at = FIRST + u64::from(wanted / 3) % (self.files.len() as u64 + 2);
        match wanted % 3 {
            0 => Target::Latest,
            1 => Target::Txid(Txid(at)),
            _ => Target::Time(Micros(at * 10 - u64::from(wanted) % 7)),
        }
    }

    /// Whether a target can be reached from a snapshot.
    fn holds(&self, target: Target, from: Txid) -> bool {
        match target {
            Target::Latest => true,
            Target::Txid(txid) => from <= txid && txid <= self.last(),
            Target::Time(time) => from.0 * 10 <= time.0,
        }
    }

    fn check(&self, restored: Restored, file: &[u8], target: Target, harm: Harm) {
        if let Target::Txid(txid) = target {
            assert_eq!(restored.txid, txid);
        }
        if harm == Harm::Bits {
            // What bits have changed in is not proven before its state hash is.
            let is_proven = state_of(file) == restored.state;
            assert!(!is_proven || self.files.iter().any(|known| known == file));
            return;
        }
        assert!(self.file(restored.txid) == Some(file), "transaction {}", restored.txid.0);
        assert_eq!(restored.state, state_of(file));
        match target {
            Target::Time(time) => {
                assert!(restored.time <= time);
                let next = self.headers.iter().find(|header| header.txid > restored.txid);
                assert!(harm != Harm::None || next.is_none_or(|next| next.time > time));
            }
            Target::Latest | Target::Txid(_) => {}
        }
    }
}

/// The parts of what nothing happened to follow one another.
fn check_sequence(history: &History, parts: &[Vec<u8>]) {
    let mut sequence: Option<Sequence> = None;
    for bytes in parts {
        let Ok(part) = Part::decode(&mut Reader::new(bytes)) else {
            panic!("a part that was just encoded");
        };
        let first = || Sequence::beginning_with(&part.header);
        assert_eq!(sequence.get_or_insert_with(first).accept(&part), Ok(()));
    }
    let reached = sequence.and_then(|sequence| sequence.finish().ok());
    assert!(reached.is_none_or(|reached| reached.txid == history.last()));
    assert_eq!(reached.is_some(), !parts.is_empty());
}

/// Does to parts what the rest of the recipe says.
fn harm(recipe: &mut Reader<'_>, parts: &mut Vec<Vec<u8>>) -> Result<Harm, ReadError> {
    let mut harm = Harm::None;
    while !recipe.rest().is_empty() && !parts.is_empty() {
        let [what, which, more] = recipe.array()?;
        let at = usize::from(which) % parts.len();
        let done = match what % 6 {
            0 => {
                parts.remove(at);
                Harm::Parts
            }
            1 if parts.len() < 64 => {
                parts.insert(at, parts[at].clone());
                Harm::Parts
            }
            2 => {
                let other = usize::from(more) % parts.len();
                parts.swap(at, other);
                Harm::Parts
            }
            3 => {
                let restamped = part::restamp(&mut parts[at], stamp(u32::from(more % 4)));
                assert!(restamped.is_ok() || harm == Harm::Bits);
                Harm::Parts
            }
            _ => {
                let place = u16::from_le_bytes([more, what / 6]);
                change_bits(&mut parts[at], usize::from(place));
                Harm::Bits
            }
        };
        harm = harm.max(done);
    }
    Ok(harm)
}

/// Changes a byte of a part's payload, and sets the CRC right.
fn change_bits(part: &mut Vec<u8>, at: usize) {
    let Ok(Part { header, payload }) = Part::decode(&mut Reader::new(part)) else {
        return;
    };
    let mut payload = payload.to_vec();
    let at = at % payload.len().max(1);
    if let Some(place) = payload.get_mut(at) {
        *place = place.wrapping_add(1);
    }
    let mut changed = Vec::new();
    assert_eq!(part::encode(&header, &payload, &mut changed), Ok(()));
    *part = changed;
}

fn apply(mut applier: Applier, parts: &[Vec<u8>], sink: &mut Sink) -> Option<Restored> {
    for bytes in parts {
        let part = Part::decode(&mut Reader::new(bytes)).ok()?;
        applier.push(&part, sink).ok()?;
    }
    applier.finish(sink).ok()
}

/// A file in memory, which does not grow without bounds.
struct Sink(Vec<u8>);

impl Sink {
    fn place(offset: u64, len: usize) -> io::Result<usize> {
        let end = usize::try_from(offset).ok().and_then(|start| start.checked_add(len));
        end.filter(|end| *end <= 1 << 24).ok_or_else(|| io::ErrorKind::FileTooLarge.into())
    }
}

impl PageSink for Sink {
    type Error = io::Error;

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = Self::place(offset, buffer.len())?;
        let bytes = self.0.get(end - buffer.len()..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = Self::place(offset, bytes.len())?;
        self.0.resize(self.0.len().max(end), 0);
        self.0[end - bytes.len()..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.0.resize(Self::place(len, 0)?, 0);
        Ok(())
    }
}

fn split(segment: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = segment;
    let mut parts = Vec::new();
    while let Ok(len) = part::stored_len(rest) {
        let (one, others) = rest.split_at(len.min(rest.len()));
        parts.push(one.to_vec());
        rest = others;
    }
    assert!(rest.is_empty());
    parts
}

fn page_of(file: &[u8], page: u32) -> Option<&[u8]> {
    file.chunks_exact(PAGE).nth(page as usize)
}

fn state_of(file: &[u8]) -> StateHash {
    let pages = (0..).zip(file.chunks_exact(PAGE));
    pages.fold(StateHash(0), |sum, (n, image)| sum.with(PageHash::of(number(n), image)))
}

fn number(page: u32) -> PageNumber {
    match PageNumber::new(page + 1) {
        Some(number) => number,
        None => panic!("page {page}"),
    }
}

fn page_size() -> PageSize {
    match PageSize::from_log2(9) {
        Ok(page_size) => page_size,
        Err(error) => panic!("{error}"),
    }
}

fn stamp(epoch: u32) -> Stamp {
    Stamp { generation: Generation { epoch: Epoch(1), random: 2 }, epoch: Epoch(epoch) }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
