//! See `genesis_fuzz::restore::restore_plan`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::restore::restore_plan(data));
