//! The program that libFuzzer makes of the target `metadata`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sprat_fuzz::run("metadata", bytes));
