//! See `genesis_fuzz::apply::segment_apply`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::apply::segment_apply(data));
