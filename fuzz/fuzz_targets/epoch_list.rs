//! See `genesis_fuzz::replica::epoch_list`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::replica::epoch_list(data));
