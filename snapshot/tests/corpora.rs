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

#[test]
fn manifest_decode() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/manifest_decode");
    let mut inputs = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        targets::manifest_decode(&fs::read(path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "the corpus is empty");
}
