//! See `genesis_fuzz::snapshot::block_unpack`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::snapshot::block_unpack(data));
