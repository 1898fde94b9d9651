//! What the spool holds is adopted by a start: shipped where it continues the replica, else put aside.

use std::collections::BTreeSet;
use std::io;

use genesis_snapshot::inventory::Line;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::SegmentName;
use genesis_wal::part::{Part, Stamp};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{Reached, Sequence};

use crate::replica::Tip;
use crate::replicate::spool::{PartFile, Spool};

/// What became of the spool.
#[derive(Debug, Default)]
pub struct Adopted {
    /// The newest state of replica and spool together.
    pub tip: Option<Tip>,
    /// What must be shipped for it, in this order.
    pub unshipped: BTreeSet<SegmentName>,
    /// The highest transaction that a segment in the spool was named for.
    pub highest: Option<Txid>,
}

impl Adopted {
    /// Whether a segment is one that was adopted with another stamp: a start was killed after it had put
    /// that on it, and before the one without was removed.
    fn has(&self, spool: &Spool, name: &SegmentName, epoch: Epoch) -> io::Result<bool> {
        let adopted = self.tip.map(|tip| {
            let generation = tip.generation;
            SegmentName { generation, epoch, ..*name }
        });
        Ok(match adopted.filter(|adopted| self.unshipped.contains(adopted)) {
            Some(adopted) => whole(spool.is_same(name, &adopted))?.unwrap_or(false),
            None => false,
        })
    }
}

/// Moves the tip over the sealed segments that continue it, which are stamped with the new epoch.
/// Those that its line lists are dropped, and those from before a snapshot that overtook them are
/// shipped. All others are put aside: what they hold may be nowhere else. So are those that were sealed when
/// another writer had gone on without them. What this start puts aside stays, whatever its size; what
/// earlier ones did goes when it is too much.
///
/// What was shipped, and is not there any more, is shipped again as far as it is kept.
///
/// After an error it can be called again: what has the epoch's stamp is left as it is.
pub fn adopt_spool(
    spool: &Spool,
    tip: Option<Tip>,
    line: Option<&Line>,
    epoch: Epoch,
) -> io::Result<Adopted> {
    let mut adopted = Adopted { tip, ..Adopted::default() };
    if let (Some(tip), Some(line)) = (tip, line) {
        ship_again(spool, &tip, line)?;
    }
    for name in spool.sealed()? {
        adopted.highest = adopted.highest.max(Some(name.last));
        if adopted.unshipped.contains(&name) {
            continue;
        }
        let is_past =
            |tip: &Tip| tip.generation == name.generation && name.last <= tip.reached.txid;
        let is_history = line.is_some_and(|line| line.last_in(&name) == name.last);
        if let Some(tip) = tip.filter(|tip| is_history && is_past(tip)) {
            if line.is_some_and(|line| line.lists(&name)) {
                spool.remove(&name)?;
                continue;
            }
            // Others hold the same transactions, whatever is in them.
            let is_held = line.is_some_and(|line| line.holds(&name));
            if !is_held && read_through(spool, &name, None)?.is_some() {
                let stamp = Stamp { generation: tip.generation, epoch };
                adopted.unshipped.insert(spool.restamp(&name, stamp)?);
                continue;
            }
        }
        if adopted.has(spool, &name, epoch)? {
            spool.remove(&name)?;
            continue;
        }
        let continued = match &adopted.tip {
            Some(tip) if tip.reached.txid.next() == Some(name.first) => {
                continuation(spool, &name, tip)?
            }
            _ => None,
        };
        if let Some(tip) = continued {
            let stamp = Stamp { generation: tip.generation, epoch };
            adopted.unshipped.insert(spool.restamp(&name, stamp)?);
            adopted.tip = Some(tip);
        } else {
            let aside = spool.set_aside(&name)?;
            let aside = aside.display();
            tracing::error!(%name, %aside, "a segment in the spool continues nothing: put aside");
        }
    }
    Ok(adopted)
}

/// Lets what is kept of the tip's line, and is above the tip, wait for upload once more: only what was
/// durable is kept, so the replica has lost it.
fn ship_again(spool: &Spool, tip: &Tip, line: &Line) -> io::Result<()> {
    let mut reached = tip.reached.txid;
    for name in spool.kept_above(tip.generation, reached) {
        if line.last_in(&name) < name.last {
            continue;
        }
        let (transaction, continues) = (name.first.0, reached.next() == Some(name.first));
        tracing::error!(
            %name,
            transaction,
            again = continues && name.level == 0,
            "what was durable is missing in the replica: it is shipped again where it continues the rest"
        );
        if continues && name.level == 0 {
            spool.ship_again(&name)?;
            reached = name.last;
        }
    }
    Ok(())
}

/// The state after a sealed segment; `None` when it is damaged or does not continue `tip`.
fn continuation(spool: &Spool, name: &SegmentName, tip: &Tip) -> io::Result<Option<Tip>> {
    let sequence = Sequence::new(tip.generation, tip.page_size, tip.reached);
    let reached = read_through(spool, name, Some(sequence))?;
    Ok(reached.map(|reached| Tip { reached, ..*tip }))
}

/// The state after a sealed segment that holds the transactions of its name and continues `sequence`, or
/// itself where that is not known; `None` where it does not.
fn read_through(
    spool: &Spool,
    name: &SegmentName,
    mut sequence: Option<Sequence>,
) -> io::Result<Option<Reached>> {
    let mut parts = PartFile::open(&spool.path(name))?;
    let mut first = None;
    loop {
        let Some(part) = whole(parts.next_part())? else { return Ok(None) };
        let Some(bytes) = part else { break };
        let Ok(part) = Part::decode(&mut Reader::new(&bytes)) else { return Ok(None) };
        first = first.or(Some(part.header.first));
        let sequence = sequence.get_or_insert_with(|| Sequence::beginning_with(&part.header));
        if sequence.accept(&part).is_err() {
            return Ok(None);
        }
    }
    let reached = sequence.and_then(|sequence| sequence.finish().ok());
    Ok(reached.filter(|reached| (first, reached.txid) == (Some(name.first), name.last)))
}

/// What was read of a segment; `None` when that is damaged. A disk that fails says nothing of it.
fn whole<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Ok(None)
        }
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use genesis_snapshot::inventory::Inventory;
    use genesis_wal::id::Generation;
    use genesis_wal::name::{ManifestName, ObjectName};
    use genesis_wal::page::{PageSize, StateHash};
    use genesis_wal::time::{Micros, Millis};

    use super::*;
    use crate::replicate::spool::Limits;

    #[test]
    fn a_disk_that_fails_is_no_damage() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert_eq!(whole::<()>(Err(kind.into())).unwrap_err().kind(), kind);
        }
        let failing = io::Error::from(rustix::io::Errno::IO);
        assert!(whole::<()>(Err(failing)).is_err());
        assert_eq!(whole::<()>(Err(io::ErrorKind::UnexpectedEof.into())).unwrap(), None);
    }

    #[test]
    fn a_damaged_segment_from_before_a_snapshot_is_put_aside() {
        // A power failure leaves one empty, too.
        for content in [&[0x5a; 500][..], &[]] {
            assert_put_aside(content);
        }
    }

    /// After a disk has forgotten what it had, other commits may have got the same numbers.
    #[test]
    fn what_others_hold_by_the_same_numbers_is_put_aside_and_what_is_stored_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().into(), Limits { keep: 0, wait: None }).unwrap();
        let (generation, epoch) = (Generation { epoch: Epoch(1), random: 7 }, Epoch(1));
        let name = |first, last, time| {
            let (first, last, time) = (Txid(first), Txid(last), Millis(time));
            SegmentName { generation, level: 0, first, last, time, epoch, repair: 0 }
        };
        let (stored, other) = (name(2, 3, 10), name(4, 5, 20));
        for name in [&stored, &other] {
            let mut segment = spool.begin().unwrap();
            segment.append(b"whatever").unwrap();
            segment.seal(name).unwrap();
        }
        let listed = [stored, name(4, 5, 21)].map(|name| (ObjectName::from(name), 1));
        let inventory = Inventory::from_objects(listed);
        let reached =
            Reached { txid: Txid(5), time: Micros(1), state: StateHash(0), position: None };
        let tip = Tip { generation, page_size: PageSize::new(4096).unwrap(), reached };
        let line = inventory.generation(generation);
        let adopted = adopt_spool(&spool, Some(tip), line, Epoch(2)).unwrap();
        assert_eq!(adopted.unshipped, BTreeSet::new());
        let aside = |name: &SegmentName| folder.path().join("orphans").join(name.to_string());
        assert!(aside(&other).exists() && !aside(&stored).exists());
        assert_eq!(spool.sealed().unwrap(), []);
    }

    fn assert_put_aside(content: &[u8]) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path().into(), Limits { keep: 0, wait: None }).unwrap();
        let (generation, time) = (Generation { epoch: Epoch(1), random: 7 }, Millis(1));
        let (first, last, epoch) = (Txid(2), Txid(3), Epoch(1));
        let name = SegmentName { generation, level: 0, first, last, time, epoch, repair: 0 };
        let mut segment = spool.begin().unwrap();
        segment.append(content).unwrap();
        segment.seal(&name).unwrap();
        let snapshot =
            ManifestName { generation, txid: Txid(5), time, epoch, attempt: 0, repair: 0 };
        let inventory = Inventory::from_objects([(ObjectName::from(snapshot), 1)]);
        let (state, page_size) = (StateHash(0), PageSize::new(4096).unwrap());
        let reached = Reached { txid: Txid(5), time: Micros(1), state, position: None };
        let tip = Tip { generation, page_size, reached };
        let line = inventory.generation(generation);
        let adopted = adopt_spool(&spool, Some(tip), line, Epoch(2)).unwrap();
        assert_eq!((adopted.unshipped, adopted.highest), (BTreeSet::new(), Some(last)));
        assert!(folder.path().join("orphans").join(name.to_string()).exists());
    }
}
