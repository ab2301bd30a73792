//! The codecs against the BEPs: one module a BEP, with the BEPs' own examples, and streams of random bytes.

#![cfg(test)]

mod bep_0003_wire;
mod bep_0006;
mod bep_0010;
mod fuzz_wire;
mod sp_have;
