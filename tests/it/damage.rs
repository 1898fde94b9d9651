//! A damaged replica is never restored from: the object is named, and nothing is left behind.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use genesis_wal::part::{self, Part};
use genesis_wal::reader::Reader;
use genesis_wal::segment::{PageRecord, fragments};

use crate::support::{Sandbox, Sqlite, contents_of, files_below, wait_until};

/// A replica with one snapshot and several segments.
fn replicated() -> Sandbox {
    replicated_with("")
}

/// A replica of a database that has something more in its snapshot.
fn replicated_with(more: &str) -> Sandbox {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    application.run(more);
    let replicator = sandbox.replicate();
    for txid in 2..=5_u64 {
        application.run(&format!("INSERT INTO t VALUES(randomblob({txid} * 3000));"));
        // One segment each.
        sandbox.wait_for_txid(txid);
        sandbox.wait_until_shipped();
    }
    replicator.stop();
    assert_eq!(sandbox.objects_ending(".seg").len(), 4);
    sandbox
}

/// The end of an object's name, which a message must tell.
fn name(object: &Path) -> &str {
    object.file_name().unwrap().to_str().unwrap()
}

#[track_caller]
fn assert_refused(sandbox: &Sandbox, object: &Path) {
    sandbox.restore_fails(&[]).expect_code(5).expect_words(&[name(object)]);
}

fn put_back(object: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(object).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

fn take_away(object: &Path) -> Vec<u8> {
    let good = std::fs::read(object).unwrap();
    std::fs::remove_file(object).unwrap();
    good
}

#[allow(clippy::disallowed_methods, reason = "no file of a running database")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).unwrap();
}

#[test]
fn a_flipped_byte() {
    let sandbox = replicated();
    // Of each, what can be restored without it.
    let segments = (1..).zip(sandbox.objects_ending(".seg"));
    let mut objects: Vec<_> = segments
        .map(|(before, object)| {
            (object, format!("the last one before it that can is transaction {before}"))
        })
        .collect();
    let manifests = sandbox.objects_ending(".manifest").into_iter();
    objects.extend(manifests.map(|object| (object, "no earlier one can".to_owned())));
    for (object, instead) in objects {
        let good = std::fs::read(&object).unwrap();
        for position in [0, 9, good.len() / 3, good.len() / 2, good.len() - 1] {
            let mut bad = good.clone();
            bad[position] ^= 0x10;
            put_back(&object, &bad);
            let refused = sandbox.restore_fails(&[]).expect_code(5);
            refused.expect_words(&[name(&object), &instead]);
        }
        put_back(&object, &good);
    }
    // Of a pack, what is read is its blocks.
    let pack = &sandbox.objects_ending(".pack")[0];
    let good = std::fs::read(pack).unwrap();
    let mut bad = good.clone();
    bad[good.len() / 2] ^= 0x10;
    put_back(pack, &bad);
    assert_refused(&sandbox, pack);
    put_back(pack, &good);
    sandbox.restore(&[]);
}

/// A delta in a sound envelope that does not lead to the page that was recorded. It is unpacked when
/// all segments have been read, and it is its own segment that is named.
#[test]
fn a_delta_that_leads_elsewhere() {
    let sandbox = replicated();
    let good_state = std::fs::read(sandbox.restore(&[]).0).unwrap();
    for object in &sandbox.objects_ending(".seg")[..2] {
        let good = std::fs::read(object).unwrap();
        let part = Part::decode(&mut Reader::new(&good)).unwrap();
        assert_eq!(good.len(), part.payload.len() + 112, "one part");
        let pages = fragments(&part).flat_map(|fragment| fragment.unwrap().pages);
        let delta = pages.filter(PageRecord::is_delta).last().unwrap();
        let at =
            part.payload.windows(delta.stored_len()).position(|w| w == delta.stored()).unwrap();
        let mut refused = 0;
        for position in 0..delta.stored_len() {
            let mut payload = part.payload.to_vec();
            payload[at + position] ^= 0x41;
            let mut bad = Vec::new();
            part::encode(&part.header, &payload, &mut bad).unwrap();
            put_back(object, &bad);
            let (restored, ended) = sandbox.try_restore(&[]);
            if ended.code == 0 {
                assert!(std::fs::read(restored).unwrap() == good_state, "byte {position}");
            } else {
                ended.expect_code(5).expect_words(&[name(object)]);
                refused += 1;
            }
        }
        assert!(refused > delta.stored_len() / 2, "{refused} of {}", delta.stored_len());
        put_back(object, &good);
    }
}

/// Who only reads goes by what the writer has stored, where it has; who writes does not.
#[test]
fn a_damaged_newest_base() {
    let sandbox = replicated();
    let damage = |epoch: u32| {
        let base = sandbox.replica.join(format!("epochs/{epoch:010}.base"));
        let good = std::fs::read(&base).unwrap();
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 0x10;
        put_back(&base, &bad);
        (base, good)
    };
    sandbox.replicate().stop();
    let (base, good) = damage(2);
    assert_refused(&sandbox, &base);
    put_back(&base, &good);

    let replicator = sandbox.replicate();
    sandbox.application(Sqlite::Bundled).run("INSERT INTO t VALUES('last');");
    sandbox.wait_for_txid(6);
    replicator.stop();
    let (base, _) = damage(3);
    for (wanted, last) in [("6", true), ("5", false)] {
        let (restored, _) = sandbox.restore(&["--txid", wanted]);
        assert_eq!(contents_of(&restored).contains("'last'"), last, "{wanted}");
    }
    let (_, ended) = sandbox.try_restore(&[]);
    let ended = ended.expect_code(0).expect_words(&[name(&base), "after=5"]);
    assert!(ended.stdout.contains("transaction 6"), "{}", ended.stdout);
    assert_eq!(sandbox.last_txid(), Some(6));
    sandbox.replicate_fails(&[]).expect_code(5).expect_words(&[name(&base)]);
}

#[test]
fn a_truncated_object() {
    let sandbox = replicated();
    for ending in [".seg", ".manifest", ".pack"] {
        let object = &sandbox.objects_ending(ending)[0];
        let good = std::fs::read(object).unwrap();
        for keep in [1, good.len() / 4, good.len() - 1] {
            // The last byte of a pack belongs to its footer, which a restore does not need.
            if ending == ".pack" && keep == good.len() - 1 {
                continue;
            }
            put_back(object, &good[..keep]);
            assert_refused(&sandbox, object);
        }
        put_back(object, &good);
    }
    sandbox.restore(&[]);
}

#[test]
fn a_missing_object() {
    let sandbox = replicated();
    // Without a segment there is a gap, and what can be had instead.
    let segment = &sandbox.objects_ending(".seg")[1];
    let good = take_away(segment);
    let refused = sandbox.restore_fails(&[]).expect_code(5);
    refused.expect_words(&["between 2 and 4", "can be restored: transaction 2"]);
    sandbox.restore(&["--txid", "2"]);
    put_back(segment, &good);

    let manifest = &sandbox.objects_ending(".manifest")[0];
    let good = take_away(manifest);
    sandbox.restore_fails(&[]).expect_code(6).expect_words(&["no snapshot"]);
    put_back(manifest, &good);
    sandbox.restore(&[]);
}

/// A writer that is killed with several segments under way leaves later ones without an earlier one. The
/// latest state is the one before, and the next start ships the rest.
#[test]
fn segments_that_overtook_one_that_never_came() {
    let sandbox = Sandbox::with_database();
    let mut application = sandbox.application(Sqlite::Shell);
    let replicator = sandbox.replicate();
    application.run("INSERT INTO t VALUES('stored');");
    sandbox.wait_for_txid(2);
    sandbox.wait_until_shipped();
    // From here on nothing can be stored.
    let level = sandbox.objects_ending(".seg")[0].parent().unwrap().to_owned();
    let away = level.with_extension("away");
    rename(&level, &away);
    File::create(&level).unwrap();
    let spool = sandbox.state().join("spool").join(level.strip_prefix(&sandbox.replica).unwrap());
    let waiting = |count: usize| {
        wait_until("a sealed segment", || {
            let files = files_below(&spool);
            (files.len() == count).then_some(files)
        })
    };
    let mut files = Vec::new();
    for count in 1..=3 {
        application.run(&format!("INSERT INTO t VALUES('waits {count}');"));
        files = waiting(count);
    }
    replicator.kill();
    std::fs::remove_file(&level).unwrap();
    rename(&away, &level);

    for file in &files[1..] {
        put_back(&level.join(file), &std::fs::read(spool.join(file)).unwrap());
    }
    let (_, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 2,"), "{said}");
    sandbox.try_restore(&["--dry-run"]).1.expect_code(0);
    sandbox.restore_fails(&["--txid", "5"]).expect_code(5);
    sandbox.replicate().stop();
    let (restored, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 5,"), "{said}");
    assert!(contents_of(&restored).contains("waits 3"));
}

#[test]
fn a_missing_pack() {
    let sandbox = replicated();
    let pack = &sandbox.objects_ending(".pack")[0];
    let good = take_away(pack);
    assert_refused(&sandbox, pack);
    put_back(pack, &good);
    sandbox.restore(&[]);
}

/// A segment that does not hold what its name says, though every part of it is sound: without the
/// comparison, an earlier state would be restored and called the latest.
#[test]
fn a_segment_that_is_not_what_its_name_says() {
    let sandbox = replicated();
    let segments = sandbox.objects_ending(".seg");
    let earlier = std::fs::read(&segments[0]).unwrap();
    for segment in [&segments[1], segments.last().unwrap()] {
        let good = take_away(segment);
        for other in [&[][..], &earlier] {
            put_back(segment, other);
            assert_refused(&sandbox, segment);
        }
        put_back(segment, &good);
    }
    sandbox.restore(&[]);
}

#[test]
fn swapped_objects() {
    let sandbox = replicated();
    let segments = sandbox.objects_ending(".seg");
    let [first, second] = [0, 1].map(|n| std::fs::read(&segments[n]).unwrap());
    put_back(&segments[0], &second);
    put_back(&segments[1], &first);
    assert_refused(&sandbox, &segments[0]);
    put_back(&segments[0], &first);
    put_back(&segments[1], &second);
    sandbox.restore(&[]);
}

#[test]
fn objects_of_another_replica() {
    let other = "INSERT INTO t VALUES('of another');";
    let (sandbox, other) = (replicated(), replicated_with(other));
    for ending in [".seg", ".manifest", ".pack"] {
        let object = &sandbox.objects_ending(ending)[0];
        let good = std::fs::read(object).unwrap();
        put_back(object, &std::fs::read(&other.objects_ending(ending)[0]).unwrap());
        assert_refused(&sandbox, object);
        put_back(object, &good);
    }
    sandbox.restore(&[]);
}

/// What a killed writer or a stranger left in the folder is none of the replica's business.
#[test]
fn strange_files() {
    let sandbox = replicated();
    let generation = sandbox.replica.join(&sandbox.generations()[0]);
    for strange in ["wal/00/.tmp-0123456789abcdef", "wal/00/notes.txt", "snapshots/x.manifest"] {
        put_back(&generation.join(strange), b"strange");
    }
    put_back(&sandbox.replica.join("README"), b"strange");
    let (_, said) = sandbox.restore(&[]);
    assert!(said.contains("as of transaction 5,"), "{said}");
}
