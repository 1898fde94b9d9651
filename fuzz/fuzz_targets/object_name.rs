//! See `genesis_fuzz::name::object_name`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| genesis_fuzz::name::object_name(data));
