//! The names of a replica's objects, relative to the replica's place. This is the only code that
//! formats or parses them, and it takes exactly what it writes.
//!
//! | name | object |
//! | --- | --- |
//! | `genesis.json` | format version and replica id, written once |
//! | `epochs/<epoch>` | a writer's claim; `epochs/<epoch>-<nonce>` where names can't be claimed |
//! | `epochs/<epoch>.base` | what that epoch continues |
//! | `checks/<nonce>` | nothing: whoever tries the place stores it, and removes it |
//! | `epochs/<epoch>.release` | that its writer has ended, with everything stored |
//! | `<generation>/snapshots/<txid>-<time>-<epoch>-<attempt>.manifest` | a snapshot |
//! | `<generation>/packs/<epoch>-<attempt>-<part>.pack` | page blocks of snapshots |
//! | `<generation>/wal/<level>/<first>-<last>-<time>-<epoch>.seg` | transactions |
//!
//! Transaction ids have 20 digits, times (milliseconds, rounded up) 14, epochs, attempts and parts
//! 10, levels 2; a generation is `<epoch>-<16 hex digits>`, and a nonce has 16 hex digits. So names
//! sort as their numbers do.
//!
//! Nothing is ever overwritten. A good copy of a damaged manifest, pack or segment goes up under its
//! name with `-r<repair>`, five digits from 1, before the extension, and readers take the highest.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::id::{BackupId, Epoch, Generation, Txid, parse_digits};
use crate::time::Millis;

/// The name of one object of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectName {
    /// The replica's own description.
    Genesis,
    /// A writer's claim of an epoch.
    Claim(ClaimName),
    /// What an epoch continues.
    Base(Epoch),
    /// What is stored to try the place.
    Marker(u64),
    /// That an epoch has ended.
    Release(Epoch),
    /// A snapshot.
    Manifest(ManifestName),
    /// Page blocks of snapshots.
    Pack(PackName),
    /// Transactions.
    Segment(SegmentName),
}

/// The name of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClaimName {
    /// The epoch that is claimed.
    pub epoch: Epoch,
    /// Tells claims of one epoch apart in a store that lets several writers create one name.
    pub nonce: Option<u64>,
}

/// The name of a snapshot's manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ManifestName {
    /// The line of history.
    pub generation: Generation,
    /// The state that the snapshot holds.
    pub txid: Txid,
    /// When that state was committed, rounded up.
    pub time: Millis,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Which of that writer's snapshots it is.
    pub attempt: u32,
    /// Which copy it is: 0 the first, the highest one is read.
    pub repair: u16,
}

impl ManifestName {
    /// The id by which people name the snapshot.
    #[must_use]
    pub fn backup(&self) -> BackupId {
        BackupId { epoch: self.epoch, attempt: self.attempt }
    }
}

/// The name of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// The line of history that it was written for.
    pub generation: Generation,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Which of that writer's snapshots it was written for.
    pub attempt: u32,
    /// Its place among the packs of that snapshot, from 0.
    pub part: u32,
    /// Which copy it is: 0 the first, the highest one is read.
    pub repair: u16,
}

/// The name of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The line of history.
    pub generation: Generation,
    /// How often it was merged: 0 as it was shipped first.
    pub level: u8,
    /// Its first transaction.
    pub first: Txid,
    /// Its last transaction.
    pub last: Txid,
    /// When the last transaction was committed, rounded up.
    pub time: Millis,
    /// Who wrote it.
    pub epoch: Epoch,
    /// Which copy it is: 0 the first, the highest one is read.
    pub repair: u16,
}

impl SegmentName {
    /// The prefix of all segments of a generation.
    #[must_use]
    pub fn prefix(generation: Generation) -> String {
        format!("{generation}/wal/")
    }

    /// The prefix of those of one level.
    #[must_use]
    pub fn prefix_of_level(generation: Generation, level: u8) -> String {
        format!("{generation}/wal/{level:02}/")
    }

    /// A key that stands before the segments of a level that begin with `first` or later, and those of
    /// higher levels; and behind all others of the generation.
    #[must_use]
    pub fn start(generation: Generation, level: u8, first: Txid) -> String {
        format!("{generation}/wal/{level:02}/{first}")
    }

    /// A key that stands behind all segments of a generation, and before everything of later ones.
    #[must_use]
    pub fn behind(generation: Generation) -> String {
        // The character after the slash.
        format!("{generation}/wal0")
    }
}

/// A key that names no object of a replica.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no object name of a replica")]
pub struct BadName(pub String);

/// The prefix of every claim.
pub const EPOCHS_PREFIX: &str = "epochs/";

/// The prefix of every marker.
pub const MARKERS_PREFIX: &str = "checks/";

impl From<ClaimName> for ObjectName {
    fn from(name: ClaimName) -> Self {
        Self::Claim(name)
    }
}

impl From<ManifestName> for ObjectName {
    fn from(name: ManifestName) -> Self {
        Self::Manifest(name)
    }
}

impl From<PackName> for ObjectName {
    fn from(name: PackName) -> Self {
        Self::Pack(name)
    }
}

impl From<SegmentName> for ObjectName {
    fn from(name: SegmentName) -> Self {
        Self::Segment(name)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis => f.write_str("genesis.json"),
            Self::Claim(name) => name.fmt(f),
            Self::Base(epoch) => write!(f, "{EPOCHS_PREFIX}{epoch}.base"),
            Self::Marker(nonce) => write!(f, "{MARKERS_PREFIX}{nonce:016x}"),
            Self::Release(epoch) => write!(f, "{EPOCHS_PREFIX}{epoch}.release"),
            Self::Manifest(name) => name.fmt(f),
            Self::Pack(name) => name.fmt(f),
            Self::Segment(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{EPOCHS_PREFIX}{}", self.epoch)?;
        match self.nonce {
            Some(nonce) => write!(f, "-{nonce:016x}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ManifestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, txid, time, epoch, attempt, repair } = self;
        let repair = Repair(*repair);
        write!(f, "{generation}/snapshots/{txid}-{time}-{epoch}-{attempt:010}{repair}.manifest")
    }
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, epoch, attempt, part, repair } = self;
        let repair = Repair(*repair);
        write!(f, "{generation}/packs/{epoch}-{attempt:010}-{part:010}{repair}.pack")
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, level, first, last, time, epoch, repair } = self;
        let repair = Repair(*repair);
        write!(f, "{generation}/wal/{level:02}/{first}-{last}-{time}-{epoch}{repair}.seg")
    }
}

/// What a name says of its copy: nothing of the first.
struct Repair(u16);

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            number => write!(f, "-r{number:05}"),
        }
    }
}

impl FromStr for ObjectName {
    type Err = BadName;

    fn from_str(key: &str) -> Result<Self, BadName> {
        parse(key).ok_or_else(|| BadName(key.to_owned()))
    }
}

fn parse(key: &str) -> Option<ObjectName> {
    if key == "genesis.json" {
        return Some(ObjectName::Genesis);
    }
    let (folder, rest) = key.split_once('/')?;
    if folder == "epochs" {
        return Some(match rest.split_once('.') {
            Some((epoch, "base")) => ObjectName::Base(epoch.parse().ok()?),
            Some((epoch, "release")) => ObjectName::Release(epoch.parse().ok()?),
            Some(_) => return None,
            None => ObjectName::Claim(parse_claim(rest)?),
        });
    }
    if folder == "checks" {
        return parse_digits(rest, 16, 16, "nonce").ok().map(ObjectName::Marker);
    }
    let generation = folder.parse().ok()?;
    match rest.split_once('/')? {
        ("snapshots", file) => parse_manifest(generation, file).map(ObjectName::Manifest),
        ("packs", file) => parse_pack(generation, file).map(ObjectName::Pack),
        ("wal", file) => parse_segment(generation, file).map(ObjectName::Segment),
        _ => None,
    }
}

fn parse_claim(file: &str) -> Option<ClaimName> {
    let (epoch, nonce) = match file.split_once('-') {
        Some((epoch, nonce)) => (epoch, Some(parse_digits(nonce, 16, 16, "nonce").ok()?)),
        None => (file, None),
    };
    Some(ClaimName { epoch: epoch.parse().ok()?, nonce })
}

fn parse_manifest(generation: Generation, file: &str) -> Option<ManifestName> {
    let (file, repair) = split_repair(file.strip_suffix(".manifest")?)?;
    let [txid, time, epoch, attempt] = fields(file)?;
    Some(ManifestName {
        generation,
        txid: txid.parse().ok()?,
        time: time.parse().ok()?,
        epoch: epoch.parse().ok()?,
        attempt: parse_number(attempt)?,
        repair,
    })
}

fn parse_pack(generation: Generation, file: &str) -> Option<PackName> {
    let (file, repair) = split_repair(file.strip_suffix(".pack")?)?;
    let [epoch, attempt, part] = fields(file)?;
    Some(PackName {
        generation,
        epoch: epoch.parse().ok()?,
        attempt: parse_number(attempt)?,
        part: parse_number(part)?,
        repair,
    })
}

fn parse_segment(generation: Generation, file: &str) -> Option<SegmentName> {
    let (level, file) = file.split_once('/')?;
    let (file, repair) = split_repair(file.strip_suffix(".seg")?)?;
    let [first, last, time, epoch] = fields(file)?;
    let level = parse_digits(level, 2, 10, "level").ok()?;
    let name = SegmentName {
        generation,
        level: u8::try_from(level).ok()?,
        first: first.parse().ok()?,
        last: last.parse().ok()?,
        time: time.parse().ok()?,
        epoch: epoch.parse().ok()?,
        repair,
    };
    (name.first <= name.last && name.first > Txid(0)).then_some(name)
}

fn parse_number(text: &str) -> Option<u32> {
    u32::try_from(parse_digits(text, 10, 10, "number").ok()?).ok()
}

/// A name without its extension as what every copy is named, and which copy it is.
fn split_repair(stem: &str) -> Option<(&str, u16)> {
    let Some((stem, number)) = stem.split_once("-r") else {
        return Some((stem, 0));
    };
    let number = u16::try_from(parse_digits(number, 5, 10, "repair").ok()?).ok()?;
    (number > 0).then_some((stem, number))
}

/// Exactly `N` texts between hyphens.
fn fields<const N: usize>(text: &str) -> Option<[&str; N]> {
    let fields: Vec<&str> = text.splitn(N + 1, '-').collect();
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<ObjectName> {
        let generation = Generation { epoch: Epoch(3), random: 0xabc };
        let (epoch, time) = (Epoch(4), Millis(1_700_000_000_123));
        let (first, last) = (Txid(18), Txid(20));
        let manifest =
            ManifestName { generation, txid: Txid(17), time, epoch, attempt: 5, repair: 0 };
        let pack = PackName { generation, epoch, attempt: 2, part: 9, repair: 0 };
        let segment = SegmentName { generation, level: 1, first, last, time, epoch, repair: 0 };
        vec![
            ObjectName::Genesis,
            ClaimName { epoch, nonce: None }.into(),
            ClaimName { epoch, nonce: Some(0xdef) }.into(),
            ObjectName::Base(epoch),
            ObjectName::Marker(0xdef),
            ObjectName::Release(epoch),
            manifest.into(),
            ManifestName { repair: 1, ..manifest }.into(),
            pack.into(),
            PackName { repair: 12, ..pack }.into(),
            segment.into(),
            SegmentName { repair: u16::MAX, ..segment }.into(),
        ]
    }

    #[test]
    fn names_are_written_as_documented_and_round_trip() {
        let texts: Vec<String> = names().iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "genesis.json",
                "epochs/0000000004",
                "epochs/0000000004-0000000000000def",
                "epochs/0000000004.base",
                "checks/0000000000000def",
                "epochs/0000000004.release",
                "0000000003-0000000000000abc/snapshots/00000000000000000017-01700000000123-0000000004-0000000005.manifest",
                "0000000003-0000000000000abc/snapshots/00000000000000000017-01700000000123-0000000004-0000000005-r00001.manifest",
                "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009.pack",
                "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r00012.pack",
                "0000000003-0000000000000abc/wal/01/00000000000000000018-00000000000000000020-01700000000123-0000000004.seg",
                "0000000003-0000000000000abc/wal/01/00000000000000000018-00000000000000000020-01700000000123-0000000004-r65535.seg",
            ]
        );
        for (name, text) in names().into_iter().zip(&texts) {
            assert_eq!(text.parse(), Ok(name));
        }
    }

    #[test]
    fn keys_stand_between_names() {
        let generation = Generation { epoch: Epoch(3), random: 0xabc };
        let later = Generation { epoch: Epoch(3), random: 0xabd };
        let segment = |level, first| {
            let (time, epoch) = (Millis(0), Epoch(0));
            let last = Txid(u64::MAX);
            let first = Txid(first);
            SegmentName { generation, level, first, last, time, epoch, repair: 0 }.to_string()
        };
        let pack = PackName { generation: later, epoch: Epoch(0), attempt: 0, part: 0, repair: 0 };
        let keys = [
            SegmentName::prefix(generation),
            SegmentName::prefix_of_level(generation, 0),
            SegmentName::start(generation, 0, Txid(1)),
            segment(0, 1),
            segment(0, 16),
            SegmentName::start(generation, 0, Txid(17)),
            segment(0, 17),
            segment(0, u64::MAX),
            SegmentName::prefix_of_level(generation, 1),
            SegmentName::start(generation, 1, Txid(0)),
            segment(1, 1),
            segment(99, 1),
            SegmentName::behind(generation),
            pack.to_string(),
        ];
        assert!(keys.is_sorted_by(|one, next| one < next), "{keys:#?}");
        assert!(segment(0, 1).starts_with(&keys[1]) && segment(99, 1).starts_with(&keys[0]));
    }

    #[test]
    fn no_changed_character_is_taken_for_the_same_name() {
        for name in names() {
            let text = name.to_string();
            for at in 0..text.len() {
                for with in ["", "-", "/", ".", "x", "00", "\n", "\0", "é"] {
                    let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
                    if changed != text {
                        assert_ne!(changed.parse(), Ok(name), "{changed:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn other_spellings_of_copies_and_claims_are_refused() {
        for text in [
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r00000.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r65536.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r1.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-r00001-r00002.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-0000000009-00001.pack",
            "0000000003-0000000000000abc/packs/0000000004-0000000002-r00001.pack",
            "0000000003-0000000000000abc/snapshots/00000000000000000017-01700000000123-0000000004.manifest",
            "epochs/0000000004-0000000000000DEF",
            "epochs/0000000004-def",
            "epochs/0000000004-",
            "epochs/0000000004-r00001",
            "checks/def",
            "checks/0000000000000DEF",
            "checks/0000000000000def-r00001",
            "epochs/0000000004-0000000000000def.base",
            "epochs/0000000004-0000000000000def.release",
            "epochs/0000000004.released",
            "epochs/0000000004.base.release",
            "epochs/0000000004.",
        ] {
            assert_eq!(text.parse::<ObjectName>(), Err(BadName(text.to_owned())));
        }
    }

    #[test]
    fn paths_out_of_the_replica_are_refused() {
        for text in
            ["../genesis.json", "/genesis.json", "epochs/../genesis.json", "", "epochs/", "//"]
        {
            assert_eq!(text.parse::<ObjectName>(), Err(BadName(text.to_owned())));
        }
    }
}
