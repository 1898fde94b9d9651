//! The promises of [`Store`], one function each. Every site is empty before.

use std::sync::Arc;

use bytes::Bytes;
use genesis_replicate::store::retry::{Persistence, Retrying};
use genesis_replicate::store::{Body, Claims, SMALL_BYTES, Store, StoreErrorKind};
use genesis_wal::id::{Epoch, Generation, Txid};
use genesis_wal::name::{ClaimName, ObjectName, SegmentName};
use genesis_wal::time::Millis;
use tokio::task::JoinSet;

use super::Site;

pub const MIB: usize = 1 << 20;

/// More than any object store lists at once.
const MANY: u64 = 1100;

pub fn segment(n: u64) -> ObjectName {
    let generation = Generation { epoch: Epoch(1), random: 7 };
    let (first, last, time, epoch) = (Txid(n), Txid(n), Millis(n), Epoch(1));
    SegmentName { generation, level: 0, first, last, time, epoch, repair: 0 }.into()
}

/// Bytes in which no stretch is like another.
pub fn noise(len: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes.into()
}

async fn begin(site: &Site) {
    let description = Body::Bytes(Bytes::from_static(b"{}"));
    site.store.create(&ObjectName::Genesis, description).await.unwrap();
}

async fn create(site: &Site, name: &ObjectName, bytes: &Bytes) {
    site.store.create(name, Body::Bytes(bytes.clone())).await.unwrap();
}

pub async fn what_is_stored_is_read(site: &Site) {
    begin(site).await;
    let bytes = noise(100_000, 1);
    create(site, &segment(1), &bytes).await;
    let path = site.file("body", &bytes);
    site.store.create(&segment(2), Body::File(path)).await.unwrap();
    for name in [segment(1), segment(2)] {
        assert_eq!(site.store.get(&name).await.unwrap(), bytes);
        assert!(site.store.exists(&name).await.unwrap());
    }
}

pub async fn large_and_odd_sizes(site: &Site) {
    begin(site).await;
    for (n, len) in (1..).zip([0, 1, 16 * MIB - 1, 16 * MIB, 16 * MIB + 1, 33 * MIB]) {
        let (name, bytes) = (segment(n), noise(len, n));
        let body = match n % 2 {
            0 => Body::Bytes(bytes.clone()),
            _ => Body::File(site.file("body", &bytes)),
        };
        // A second time as after a lost answer.
        for _ in 0..2 {
            site.store.create(&name, body.clone()).await.unwrap();
        }
        assert!(whole(site, &name).await == bytes, "{len} bytes");
        let listed = site.store.list(&name.to_string()).await.unwrap();
        assert_eq!(listed[0].size, len as u64);
    }
}

/// All of an object, whatever its size.
async fn whole(site: &Site, name: &ObjectName) -> Bytes {
    site.store.get_range(name, 0..1 << 40).await.unwrap()
}

/// An object that is small by its kind and is not has been planted.
pub async fn a_small_object_is_small(site: &Site) {
    begin(site).await;
    let most = usize::try_from(SMALL_BYTES).unwrap();
    create(site, &segment(1), &noise(most, 1)).await;
    create(site, &segment(2), &noise(most + 1, 2)).await;
    assert_eq!(site.store.get(&segment(1)).await.unwrap().len(), most);
    let refused = site.store.get(&segment(2)).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Permanent);
}

pub async fn nothing_is_replaced(site: &Site) {
    begin(site).await;
    for (n, len) in [(1, 10), (2, 17 * MIB)] {
        let (name, first) = (segment(n), noise(len, 1));
        create(site, &name, &first).await;
        create(site, &name, &first).await;
        for other in [noise(len, 2), noise(len - 1, 1), noise(len + 1, 1), noise(0, 1)] {
            let refused = site.store.create(&name, Body::Bytes(other)).await.unwrap_err();
            assert_eq!(refused.kind, StoreErrorKind::AlreadyExists, "{refused:?}");
        }
        assert!(whole(site, &name).await == first);
    }
    assert_eq!(site.store.claims(&segment(1)).await.unwrap(), site.claims);
    assert_eq!(site.store.get(&segment(1)).await.unwrap(), noise(10, 1));
}

pub async fn ranges_end_where_the_object_does(site: &Site) {
    begin(site).await;
    let bytes = noise(1000, 3);
    create(site, &segment(1), &bytes).await;
    create(site, &segment(2), &Bytes::new()).await;
    let ranges =
        [(0, 1000), (0, 1), (999, 1000), (10, 20), (990, 2000), (1000, 1001), (5000, 6000)];
    for (start, end) in ranges {
        let found = site.store.get_range(&segment(1), start..end).await.unwrap();
        let cut = |at: u64| usize::try_from(at).unwrap().min(1000);
        assert_eq!(found, bytes.slice(cut(start)..cut(end)), "{start}..{end}");
    }
    assert!(site.store.get_range(&segment(1), 10..10).await.unwrap().is_empty());
    assert!(site.store.get_range(&segment(2), 0..10).await.unwrap().is_empty());
}

pub async fn what_is_not_there(site: &Site) {
    assert!(site.store.list("").await.unwrap().is_empty());
    for _ in 0..2 {
        let missing = [
            site.store.get(&segment(1)).await.map(|_| ()),
            site.store.get_range(&segment(1), 0..10).await.map(|_| ()),
        ];
        for answer in missing {
            assert_eq!(answer.unwrap_err().kind, StoreErrorKind::NotFound);
        }
        let is_begun = site.store.exists(&ObjectName::Genesis).await.unwrap();
        match site.store.exists(&segment(1)).await {
            // A folder that may come back.
            Err(error) if !is_begun => assert_eq!(error.kind, StoreErrorKind::Passing),
            answer => assert!(!answer.unwrap()),
        }
        // A second time beside other objects.
        if !is_begun {
            begin(site).await;
        }
    }
}

pub async fn listings_are_whole_and_in_order(site: &Site) {
    begin(site).await;
    let mut creators = JoinSet::new();
    let limit = Arc::new(tokio::sync::Semaphore::new(16));
    for n in 1..=MANY {
        let (store, limit) = (Arc::clone(&site.store), Arc::clone(&limit));
        creators.spawn(async move {
            let _permit = limit.acquire().await.unwrap();
            // In another order than that of their names.
            let n = n * 7 % (MANY + 1);
            store.create(&segment(n), Body::Bytes(noise(usize::try_from(n).unwrap(), n))).await
        });
    }
    while let Some(done) = creators.join_next().await {
        done.unwrap().unwrap();
    }
    for key in ["notes.txt", "epochs/not-a-number", "epochs/0000000001.tmp"] {
        (site.litter)(key);
    }
    let claim = ClaimName { epoch: Epoch(1), nonce: None }.into();
    create(site, &claim, &Bytes::from_static(b"me")).await;

    let found = site.store.list("").await.unwrap();
    let segments: Vec<_> = (1..=MANY).map(|n| (segment(n), n)).collect();
    let mut all = segments.clone();
    all.extend([(claim, 2), (ObjectName::Genesis, 2)]);
    let found: Vec<_> = found.iter().map(|listed| (listed.name, listed.size)).collect();
    assert!(found == all, "{} objects: {:?}", found.len(), found.last());

    let by_pages = pages(site, "", "").await;
    assert!(by_pages == all.iter().map(|(name, _)| name.to_string()).collect::<Vec<_>>());

    let of_epochs = site.store.list("epochs/").await.unwrap();
    assert_eq!(of_epochs.iter().map(|listed| listed.name).collect::<Vec<_>>(), [claim]);
    let name = segment(3).to_string();
    let (folder, _) = name.rsplit_once('/').unwrap();
    let of_folder = site.store.list(&format!("{folder}/")).await.unwrap();
    let of_folder: Vec<_> = of_folder.iter().map(|listed| (listed.name, listed.size)).collect();
    assert!(of_folder == segments);
    assert!(site.store.list("nothing/").await.unwrap().is_empty());
}

pub async fn a_listing_goes_on_from_any_key(site: &Site) {
    begin(site).await;
    let mut names: Vec<_> = (1..=12).map(segment).collect();
    names.extend([ClaimName { epoch: Epoch(1), nonce: None }.into(), ObjectName::Base(Epoch(1))]);
    for name in &names {
        create(site, name, &Bytes::from_static(b"me")).await;
    }
    names.push(ObjectName::Genesis);
    for key in ["0", "epochs/0000000001.tmp", "notes.txt"] {
        (site.litter)(key);
    }
    let keys: Vec<String> = names.iter().map(ToString::to_string).collect();
    let Some(ObjectName::Segment(SegmentName { generation, .. })) = names.first() else {
        panic!("{names:?}");
    };
    let between = [
        SegmentName::start(*generation, 0, Txid(7)),
        SegmentName::start(*generation, 1, Txid(0)),
        SegmentName::behind(*generation),
        String::new(),
        "z".to_owned(),
    ];
    for prefix in ["", "epochs/", &SegmentName::prefix_of_level(*generation, 0), "nothing/"] {
        for after in keys.iter().chain(&between) {
            let is_wanted = |key: &str| key.starts_with(prefix) && key > after.as_str();
            let wanted: Vec<_> = keys.iter().filter(|key| is_wanted(key)).cloned().collect();
            assert_eq!(pages(site, prefix, after).await, wanted, "{prefix:?} after {after:?}");
        }
    }
}

/// The names on all pages of a listing.
async fn pages(site: &Site, prefix: &str, after: &str) -> Vec<String> {
    let (mut names, mut next) = (Vec::new(), Some(after.to_owned()));
    while let Some(after) = next {
        let page = site.store.list_after(prefix, &after).await.unwrap();
        names.extend(page.objects.iter().map(|object| object.name.to_string()));
        next = page.next;
    }
    names
}

pub async fn one_of_many_creators_wins(site: &Site) {
    const CREATORS: u64 = 16;
    begin(site).await;
    for n in 1..=5 {
        let mut creators = JoinSet::new();
        for creator in 0..CREATORS {
            let store = Retrying::new(Arc::clone(&site.store), Persistence::UnlessPermanent);
            let body = Body::Bytes(noise(1000, creator));
            creators.spawn(async move { (creator, store.create(&segment(n), body).await) });
        }
        let mut winners = Vec::new();
        for (creator, done) in creators.join_all().await {
            match done {
                Ok(()) => winners.push(creator),
                Err(error) => assert_eq!(error.kind, StoreErrorKind::AlreadyExists, "{error:?}"),
            }
        }
        let held = site.store.get(&segment(n)).await.unwrap();
        assert!(winners.iter().any(|winner| held == noise(1000, *winner)), "{winners:?}");
        if site.claims == Claims::Exclusive {
            assert_eq!(winners.len(), 1, "{winners:?}");
        }
    }
}

pub async fn nothing_is_stored_where_no_replica_is(site: &Site) {
    let refused = site.store.create(&segment(1), Body::Bytes(noise(10, 1))).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Permanent, "{refused:?}");
    assert!(site.store.list("").await.unwrap().is_empty());
}

pub async fn a_body_that_is_gone(site: &Site) {
    begin(site).await;
    let gone = Body::File(site.scratch.path().join("gone"));
    let refused = site.store.create(&segment(1), gone).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotFound, "{refused:?}");
    assert!(!site.store.exists(&segment(1)).await.unwrap());
}
