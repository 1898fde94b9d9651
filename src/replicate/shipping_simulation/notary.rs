//! Who knows which state every recorded transaction is of, and what was reported durable.

use std::collections::BTreeMap;

use genesis_wal::id::{Generation, Txid};
use genesis_wal::page::StateHash;
use genesis_wal::part::Stamp;
use genesis_wal::time::Micros;

use super::database::{Pages, hash_of};

/// What a process records before the replica has answered is another process's, with a number from here on,
/// until the replica goes on with it.
pub const APART: usize = 1 << 32;

/// Nobody reports what is recorded as this process's.
pub const NOBODY: usize = 0;

/// A transaction of a line.
pub type Place = (Generation, Txid);

/// A state that was recorded.
#[derive(Debug, Clone)]
struct Record {
    process: usize,
    time: Micros,
    commits: usize,
    hash: StateHash,
    pages: Pages,
}

/// What a process has recorded.
#[derive(Debug)]
pub struct Recorded {
    /// Which transaction it is.
    pub place: Place,
    /// After how many commits of its database.
    pub commits: usize,
    /// The state.
    pub pages: Pages,
}

/// The books.
#[derive(Debug, Default)]
pub struct Notary {
    records: BTreeMap<Place, Vec<Record>>,
    /// The lines on which each process has recorded, and how far.
    recorded: BTreeMap<usize, BTreeMap<Generation, Txid>>,
    /// What was reported durable, and its state.
    promised: BTreeMap<Place, (StateHash, Pages)>,
    /// How far the reports of each process went.
    reported: BTreeMap<usize, Txid>,
    /// Records of several commits in one.
    pub coarse: u64,
    /// Processes that recorded before the replica had answered.
    pub meanwhile: u64,
    /// Transactions that were recorded then, and shipped.
    pub adopted: u64,
    /// How often the replica went on with all that a process had recorded then.
    pub confirmed: u64,
}

impl Notary {
    /// A process has recorded a transaction.
    pub fn recorded(
        &mut self,
        process: usize,
        stamp: Stamp,
        (txid, time): (Txid, Micros),
        hash: StateHash,
        (commits, pages): (usize, &Pages),
    ) {
        let place = (stamp.generation, txid);
        let records = self.records.entry(place).or_default();
        if records.iter().any(|record| (record.process, record.hash) == (process, hash)) {
            return;
        }
        assert_eq!(hash, hash_of(pages), "{place:?} is recorded with the hash of another state");
        records.push(Record { process, time, commits, hash, pages: Pages::clone(pages) });
        self.recorded.entry(process).or_default().insert(stamp.generation, txid);
        if self.reported.get(&process).is_some_and(|reported| *reported >= txid) {
            self.promise(process, txid);
        }
    }

    /// A process ships a transaction that it found recorded: whoever recorded it, its state is what that
    /// process stands for from then on.
    pub fn adopted(&mut self, process: usize, place: Place, (state, time): (StateHash, Micros)) {
        let records = self.records.entry(place).or_default();
        let is_it = |record: &&Record| (record.hash, record.time) == (state, time);
        let recorded = records.iter().find(is_it).cloned();
        let Some(recorded) = recorded else {
            panic!("{place:?} is in a spool as nobody has recorded it")
        };
        self.adopted += u64::from(recorded.process >= APART);
        if recorded.process == process {
            return;
        }
        records.push(Record { process, ..recorded });
        self.recorded.entry(process).or_default().insert(place.0, place.1);
    }

    /// A process reports that everything up to a transaction is durable.
    pub fn reported(&mut self, process: usize, txid: Txid) {
        if self.reported.get(&process).is_some_and(|reported| *reported >= txid) {
            return;
        }
        self.reported.insert(process, txid);
        self.promise(process, txid);
    }

    fn promise(&mut self, process: usize, txid: Txid) {
        for (place, records) in &self.records {
            for record in records.iter().filter(|record| record.process == process) {
                if place.1 > txid {
                    continue;
                }
                let promised = self.promised.entry(*place);
                let promised = promised.or_insert((record.hash, Pages::clone(&record.pages)));
                assert_eq!(promised.0, record.hash, "two histories of {place:?} are durable");
            }
        }
    }

    /// What was reported durable.
    pub fn promises(&self) -> impl DoubleEndedIterator<Item = (&Place, &Pages)> {
        self.promised.iter().map(|(place, (_, pages))| (place, pages))
    }

    /// The last that a process has recorded on the line that it is on.
    pub fn last_of(&self, process: usize) -> Option<Place> {
        let lines = self.recorded.get(&process)?;
        lines.last_key_value().map(|(generation, txid)| (*generation, *txid))
    }

    /// The states that a transaction was recorded with, by whoever was to ship it.
    pub fn states(&self, place: Place) -> impl Iterator<Item = (Micros, &Pages)> {
        let records = self.records.get(&place).into_iter().flatten();
        let records = records.filter(|record| record.process < APART);
        records.map(|record| (record.time, &record.pages))
    }

    /// All that a process has recorded.
    pub fn history(&self, process: usize) -> Vec<Recorded> {
        let records = self.records.iter().flat_map(|(place, records)| {
            let its = records.iter().filter(|record| record.process == process);
            its.map(|Record { commits, pages, .. }| Recorded {
                place: *place,
                commits: *commits,
                pages: Pages::clone(pages),
            })
        });
        records.collect()
    }

    /// All that was recorded of a line.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        self.records.keys().copied()
    }
}
