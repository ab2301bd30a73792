//! The program that libFuzzer makes of the target `extension`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sprat_fuzz::run("extension", bytes));
