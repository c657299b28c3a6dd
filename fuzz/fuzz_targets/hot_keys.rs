#![no_main]

#[allow(dead_code, reason = "each target uses one decoder of the file")]
#[path = "../decoders.rs"]
mod decoders;

libfuzzer_sys::fuzz_target!(|data: &[u8]| decoders::hot_keys(data));
