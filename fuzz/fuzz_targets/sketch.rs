//! `cargo fuzz run sketch`: see `src/targets.rs`.
#![no_main]

#[allow(dead_code, reason = "one target of many")]
#[path = "../src/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::sketch(data));
