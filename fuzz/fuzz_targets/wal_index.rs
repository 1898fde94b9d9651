//! See `genesis_fuzz::wal::wal_index`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::wal::wal_index(data));
