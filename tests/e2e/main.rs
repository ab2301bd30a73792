//! The real binary and the whole peer over real sockets on loopback and real files. Ports are any
//! free ones, and nothing sleeps to wait: tests await what they wait for, within a limit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changed_files;
mod cli;
mod command_line;
mod descriptors;
mod dht;
mod empty_files;
mod engine;
mod fallback;
mod flood;
mod foreign_files;
mod full_disk;
mod hostile;
mod inwards;
mod kill;
mod limits;
mod local_addresses;
mod magnet;
mod magnet_command;
mod metadata_peer;
mod names;
mod obstacles;
mod odd_fs;
mod overlap;
mod process;
mod raw_peer;
mod refused;
mod resume;
mod scene;
mod seed_many;
mod signals;
mod slow_device;
mod slow_disk;
mod slow_rates;
mod small_disk;
mod state_files;
mod streams;
mod tracker;
mod truth;
