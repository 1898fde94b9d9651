//! See `genesis_fuzz::wal::part_decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::wal::part_decode(data));
