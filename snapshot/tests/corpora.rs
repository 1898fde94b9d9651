//! The fuzz targets over their committed corpora, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failed step fails the test, and names its input"
)]

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/snapshot.rs"]
mod targets;

/// Runs a target over every input of its corpus; the input is named when it fails.
fn run(name: &str, target: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut inputs = 0;
    for entry in fs::read_dir(folder.join(name)).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        target(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus of {name} is empty");
    target(&[]);
}

#[test]
fn manifest_decode() {
    run("manifest_decode", targets::manifest_decode);
}

#[test]
fn pack_footer() {
    run("pack_footer", targets::pack_footer);
}

#[test]
fn block_unpack() {
    run("block_unpack", targets::block_unpack);
}
