//! Targets for what the writers of a replica tell of themselves.

use std::collections::BTreeMap;

use genesis_snapshot::inventory::Cuts;
use genesis_wal::id::{Epoch, Txid};
use genesis_wal::name::{EPOCHS_PREFIX, ObjectName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::listing::Epochs;
use super::records::{BaseRecord, ClaimRecord, NAMED, ReleaseRecord};
use super::sealed::{seal, unseal};

const REPAIR: u8 = 1;

/// A claim, a release or a base, behind a byte that tells which, and asks for repair: then the bytes
/// are the JSON of a record, which is sealed as a writer does. What is read is what a writer writes, and
/// nothing else is; a base cuts off what every later writer left.
pub fn epoch_record(data: &[u8]) {
    let [kind, bytes @ ..] = data else {
        return;
    };
    let repair = kind & REPAIR != 0;
    match kind >> 1 {
        0 => drop(sealed::<ClaimRecord>(bytes, repair)),
        1 => {
            if let Some((release, bytes)) = sealed::<ReleaseRecord>(bytes, repair) {
                assert!(ReleaseRecord::decode(Epoch(release.epoch ^ 1), &bytes).is_err());
                let read = ReleaseRecord::decode(Epoch(release.epoch), &bytes);
                assert_eq!(read.ok(), Some(release));
            }
        }
        _ => {
            if let Some((base, bytes)) = sealed::<BaseRecord>(bytes, repair) {
                check_base(&base, &bytes);
            }
        }
    }
}

/// A record that can be read, and its bytes.
fn sealed<T: Serialize + DeserializeOwned>(bytes: &[u8], repair: bool) -> Option<(T, Vec<u8>)> {
    let bytes = if repair {
        let record = serde_json::from_slice::<T>(bytes).ok()?;
        seal(&record).ok()?.to_vec()
    } else {
        bytes.to_vec()
    };
    let read = unseal::<T>(&bytes);
    assert!(read.is_ok() || !repair, "what was just written cannot be read");
    let record = read.ok()?;
    assert_eq!(seal(&record).ok().as_deref(), Some(&bytes[..]));
    for at in [0, bytes.len() / 2, bytes.len() - 1] {
        assert!(unseal::<T>(&bytes[..at]).is_err());
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(unseal::<T>(&bad).is_err());
    }
    Some((record, bytes))
}

fn check_base(record: &BaseRecord, bytes: &[u8]) {
    let epoch = Epoch(record.epoch);
    assert!(BaseRecord::decode(Epoch(record.epoch ^ 1), bytes).is_err());
    let Ok(base) = BaseRecord::decode(epoch, bytes) else {
        return;
    };
    assert_eq!(base, *record);
    assert!(base.before.len() <= NAMED);
    let before = base.before.iter().map(|&(epoch, base)| (Epoch(epoch), Txid(base)));
    let bases: BTreeMap<Epoch, Txid> = before.chain([(epoch, Txid(base.txid))]).collect();
    assert_eq!(bases.len(), base.before.len() + 1, "an epoch is named once");
    let cuts = Cuts::new(bases.clone());
    let around = |epoch: &Epoch| [epoch.0.saturating_sub(1), epoch.0, epoch.0.saturating_add(1)];
    for writer in bases.keys().flat_map(around).map(Epoch) {
        let later = bases.iter().filter(|(epoch, _)| **epoch > writer).map(|(_, base)| *base);
        let is_known = bases.contains_key(&writer) || bases.keys().all(|epoch| *epoch > writer);
        let last = later.min().unwrap_or(Txid(u64::MAX));
        let expected = if is_known || last == Txid(u64::MAX) { last } else { Txid(0) };
        assert_eq!(cuts.last_of(writer), expected, "{writer} of {bases:?}");
    }
}

/// Lines of text as the keys of a listing. Every claim is one of its epoch, and the order of the listing
/// does not matter.
pub fn epoch_list(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let names: Vec<ObjectName> = lines.filter_map(|key| key.parse().ok()).collect();
    let epochs = Epochs::of(names.iter().copied());
    let backward = Epochs::of(names.iter().rev().copied());
    assert_eq!(epochs.highest(), backward.highest());
    assert!(epochs.claimed().eq(backward.claimed()));
    for name in &names {
        let is_of_epochs = name.to_string().starts_with(EPOCHS_PREFIX);
        match *name {
            ObjectName::Claim(claim) => assert!(epochs.claims().contains(&claim)),
            ObjectName::Base(epoch) => assert!(epochs.is_begun(epoch)),
            ObjectName::Release(epoch) => assert!(epochs.is_released(epoch)),
            _ => assert!(!is_of_epochs),
        }
    }
    assert_eq!(epochs.highest(), epochs.claimed().next());
    assert_eq!(epochs.highest().is_some(), !epochs.claims().is_empty());
    assert_eq!(epochs.highest().is_some(), epochs.highest_is(true) || epochs.highest_is(false));
    for epoch in epochs.claimed() {
        let claims = epochs.claims_of(epoch);
        assert_eq!(claims, backward.claims_of(epoch));
        assert!(!claims.is_empty() && claims.iter().all(|claim| claim.epoch == epoch));
        // A plain name comes before those with a nonce.
        assert!(claims.iter().skip(1).all(|claim| claim.nonce.is_some() || *claim == claims[0]));
    }
}
