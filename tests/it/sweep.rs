//! Every way of damaging every object of a small replica: a flipped byte at every place, a cut at every
//! length, objects missing, exchanged, doubled, of another database and of another line. What comes of it
//! is the very database, or an error that names the object and the last state that can still be restored.

use bytes::Bytes;
use genesis_replicate::restore::RestoreError;
use genesis_replicate::store::Objects;
use genesis_restore::target::Target;
use genesis_wal::id::Txid;
use genesis_wal::name::{ObjectName, PackName, SegmentName};
use genesis_wal::part::{Part, restamp};
use genesis_wal::reader::Reader;

use crate::routes::{try_restore, useless};
use crate::support::{FaultyStore, Past};

/// The transactions of each segment, of several parts each.
const SEGMENTS: [(u64, u64); 3] = [(2, 3), (4, 4), (5, 7)];
const LAST: u64 = 7;

struct Replica {
    past: Past,
    objects: Objects,
    /// Pack, manifest, segments.
    names: Vec<ObjectName>,
}

impl Replica {
    fn new(epoch: u32, seed: u8) -> Self {
        let past = Past::new(epoch, seed, LAST);
        let mut objects = Objects::new();
        let mut names = past.add_snapshot(1, &mut objects).to_vec();
        names.extend(SEGMENTS.map(|(first, last)| past.add_segment(0, first, last, &mut objects)));
        Self { past, objects, names }
    }

    fn object(&self, name: ObjectName) -> &Bytes {
        &self.objects[&name.to_string()]
    }

    async fn restore(&self, changed: &[(ObjectName, Bytes)]) -> Result<Vec<u8>, RestoreError> {
        let mut objects = self.objects.clone();
        objects.extend(changed.iter().map(|(name, bytes)| (name.to_string(), bytes.clone())));
        let replica = FaultyStore::new(objects).replica().await;
        try_restore(&replica, Target::Latest).await
    }

    /// Restores with another object in the place of one: whether that made no difference.
    async fn is_harmless(&self, name: ObjectName, bytes: Bytes, what: &str) -> bool {
        let restored = self.restore(&[(name, bytes)]).await;
        if let Ok(restored) = &restored {
            assert!(restored == self.past.state(LAST), "{what} of {name}");
            return true;
        }
        let (named, last) = useless(restored);
        // A sound manifest of another database asks the packs for what they do not hold.
        let is_of_manifest = name == self.names[1] && matches!(named, ObjectName::Pack(_));
        assert!(named == name || is_of_manifest, "{what} of {name}: {named}");
        assert_eq!(last, instead(named), "{what} of {name}");
        false
    }
}

/// Without an object, the last transaction that can be restored.
fn instead(name: ObjectName) -> Option<u64> {
    match name {
        ObjectName::Segment(name) => Some(name.first.0 - 1),
        _ => None,
    }
}

/// Whether a byte of a pack is read by a restore: it is one of a block.
fn is_read(pack: &[u8], at: usize) -> bool {
    let mut reader = Reader::new(pack);
    let blocks = Part::decode(&mut reader).unwrap().payload.len();
    (96..96 + blocks).contains(&at)
}

#[tokio::test]
async fn a_flipped_byte_at_every_place() {
    let replica = Replica::new(1, 9);
    for name in &replica.names {
        let good = replica.object(*name);
        for at in 0..good.len() {
            let mut bad = good.to_vec();
            bad[at] ^= 1 << (at % 8);
            let harmless = replica.is_harmless(*name, bad.into(), &format!("byte {at}")).await;
            let is_read = !matches!(name, ObjectName::Pack(_)) || is_read(good, at);
            assert_eq!(harmless, !is_read, "byte {at} of {name}");
        }
    }
}

#[tokio::test]
async fn a_cut_at_every_length() {
    let replica = Replica::new(1, 9);
    for name in &replica.names {
        let good = replica.object(*name);
        for len in 0..good.len() {
            let harmless =
                replica.is_harmless(*name, good.slice(..len), &format!("cut {len}")).await;
            let is_whole = matches!(name, ObjectName::Pack(_)) && !is_read(good, len);
            assert_eq!(harmless, is_whole && len > 96, "cut of {name} at {len}");
        }
        let longer = [good, &b"more"[..]].concat();
        let harmless = replica.is_harmless(*name, longer.into(), "something behind the end").await;
        assert_eq!(harmless, matches!(name, ObjectName::Pack(_)));
    }
}

#[tokio::test]
async fn exchanged_objects() {
    let replica = Replica::new(1, 9);
    for (n, one) in replica.names.iter().enumerate() {
        for other in &replica.names[..n] {
            let swapped =
                [(*one, replica.object(*other).clone()), (*other, replica.object(*one).clone())];
            let (named, last) = useless(replica.restore(&swapped).await);
            assert!([*one, *other].contains(&named), "{named}");
            assert_eq!(last, instead(named));
            assert!(!replica.is_harmless(*one, swapped[0].1.clone(), "another object").await);
            assert!(!replica.is_harmless(*other, swapped[1].1.clone(), "another object").await);
        }
    }
}

#[tokio::test]
async fn objects_of_other_databases_and_lines() {
    let replica = Replica::new(1, 9);
    let others = [Replica::new(1, 8), Replica::new(2, 9), Replica::new(2, 8)];
    for other in &others {
        for (name, others) in replica.names.iter().zip(&other.names) {
            let theirs = other.object(*others).clone();
            let harmless = replica.is_harmless(*name, theirs.clone(), "another's").await;
            // The blocks of a pack are the same wherever the database is.
            let same =
                matches!(name, ObjectName::Pack(_)) && other.past.state(1) == replica.past.state(1);
            assert_eq!(harmless, same, "{name}");

            // A stamp does not make it fit.
            let mut stamped = Vec::new();
            let mut reader = Reader::new(&theirs);
            while !reader.rest().is_empty() {
                let len = reader.rest().len();
                Part::decode(&mut reader).unwrap();
                let start = theirs.len() - len;
                let mut part = theirs[start..theirs.len() - reader.rest().len()].to_vec();
                restamp(&mut part, replica.past.stamp).unwrap();
                stamped.extend(part);
            }
            let is_same = stamped == replica.object(*name)[..];
            let harmless = replica.is_harmless(*name, stamped.into(), "another's, stamped").await;
            assert_eq!(harmless, same || is_same, "{name}");
        }
    }
}

/// What is there twice makes the same state, and what names a larger range than it holds makes none.
#[tokio::test]
async fn doubled_objects() {
    let replica = Replica::new(1, 9);
    for name in &replica.names {
        let bytes = replica.object(*name).clone();
        let doubled = [&bytes[..], &bytes[..]].concat();
        replica.is_harmless(*name, doubled.into(), "itself behind it").await;
        let twins: Vec<ObjectName> = match *name {
            ObjectName::Segment(name) => vec![
                SegmentName { level: 1, ..name }.into(),
                SegmentName { last: Txid(name.last.0 + 1), level: 1, ..name }.into(),
                SegmentName { first: Txid(name.first.0 - 1), ..name }.into(),
            ],
            ObjectName::Pack(name) => vec![PackName { part: 1, ..name }.into()],
            _ => vec![],
        };
        for twin in twins {
            let restored = replica.restore(&[(twin, bytes.clone())]).await;
            // It may reach farther by its name than anything does.
            match (restored, twin) {
                (Ok(restored), _) => assert!(restored == replica.past.state(LAST), "{twin}"),
                (failed, ObjectName::Segment(segment)) if segment.last.0 > LAST => {
                    assert_eq!(useless(failed), (twin, Some(LAST)));
                }
                (Err(error), _) => panic!("{twin}: {error}"),
            }
        }
    }
}

/// Lengths, counts and places that nothing has, behind a CRC that fits, are refused; so much is never
/// allocated.
#[tokio::test]
async fn absurd_lengths() {
    let (replica, mut refused) = (Replica::new(1, 9), 0);
    for name in replica.names.iter().filter(|name| !matches!(name, ObjectName::Pack(_))) {
        let good = replica.object(*name);
        let len = first_part(good);
        for at in (0..len - 8).step_by(4) {
            let mut bad = good.to_vec();
            bad[at..at + 4].fill(0xff);
            let crc = crc32fast::hash(&bad[..len - 4]).to_le_bytes();
            bad[len - 4..len].copy_from_slice(&crc);
            // Harmless is who wrote it, and the hash of a page that is written again.
            let harmless = replica.is_harmless(*name, bad.into(), &format!("number at {at}")).await;
            refused += u32::from(!harmless);
        }
    }
    assert!(refused > 60, "{refused}");
}

/// Bytes in the first part of an object.
fn first_part(object: &[u8]) -> usize {
    let mut reader = Reader::new(object);
    Part::decode(&mut reader).unwrap();
    object.len() - reader.rest().len()
}
