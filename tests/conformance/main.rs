//! Tests to come.

mod bep_0007;
mod bep_0012_announcer;
mod bep_0015;
mod bep_0023;
mod bep_0024;
mod bep_0031;
mod bep_0041;
mod bep_0048;
mod fuzz_tracker;
