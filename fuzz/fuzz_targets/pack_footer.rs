//! See `genesis_fuzz::snapshot::pack_footer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::snapshot::pack_footer(data));
