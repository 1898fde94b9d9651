//! The fuzz targets over their committed corpora, without a fuzzer.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a failed step fails the test, and names its input"
)]

use std::fs;
use std::path::Path;

#[path = "../../fuzz/src/restore.rs"]
#[allow(clippy::panic, reason = "a fuzz target panics when something does not hold")]
mod targets;

#[path = "../../fuzz/src/apply.rs"]
#[allow(clippy::panic, reason = "a fuzz target panics when something does not hold")]
mod apply;

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
fn restore_plan() {
    run("restore_plan", targets::restore_plan);
}

#[test]
fn segment_apply() {
    run("segment_apply", apply::segment_apply);
}
