//! The fuzz targets over their committed corpora, without a fuzzer.

#![allow(clippy::print_stderr, reason = "the input is named where one fails")]

use std::path::Path;

use super::{listing, records, sealed};

#[path = "../../fuzz/src/replica.rs"]
mod targets;

fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut inputs = 0;
    for entry in std::fs::read_dir(folder.join(name)).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        target(&std::fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {name} is empty");
    target(&[]);
}

#[test]
fn epoch_record() {
    run("epoch_record", targets::epoch_record);
}

#[test]
fn epoch_list() {
    run("epoch_list", targets::epoch_list);
}
