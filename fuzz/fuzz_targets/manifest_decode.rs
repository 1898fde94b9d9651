//! See `genesis_fuzz::snapshot::manifest_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::snapshot::manifest_decode(data));
