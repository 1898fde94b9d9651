//! See `genesis_fuzz::replica::epoch_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::replica::epoch_record(data));
