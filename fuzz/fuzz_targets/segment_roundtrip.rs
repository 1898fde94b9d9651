//! See `genesis_fuzz::wal::segment_roundtrip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::wal::segment_roundtrip(data));
