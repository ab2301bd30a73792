//! The codecs against the BEPs: one module a BEP, with the BEPs' own examples, and streams of
//! random bytes.

#![cfg(test)]

mod bep_0003_metainfo;
mod bep_0003_wire;
mod bep_0005_krpc;
mod bep_0005_node;
mod bep_0005_port;
mod bep_0006;
mod bep_0007;
mod bep_0009_magnet;
mod bep_0009_metadata;
mod bep_0010;
mod bep_0011;
mod bep_0012_announcer;
mod bep_0012_trackers;
mod bep_0014;
mod bep_0015;
mod bep_0019_web_seeds;
mod bep_0023;
mod bep_0024;
mod bep_0027_private;
mod bep_0031;
mod bep_0032;
mod bep_0033;
mod bep_0041;
mod bep_0042;
mod bep_0043;
mod bep_0044;
mod bep_0046;
mod bep_0047_attributes;
mod bep_0048;
mod bep_0051;
mod bep_0052_hybrid;
mod bep_0053_select;
mod bep_0054;
mod fuzz_dht;
mod fuzz_gossip;
mod fuzz_krpc;
mod fuzz_metainfo;
mod fuzz_tracker;
mod fuzz_wire;
mod odd_torrents;
mod sp_have;
