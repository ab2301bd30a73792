//! The real binary and the whole peer over real sockets on loopback and real files. Ports are any free ones,
//! and nothing sleeps to wait: tests await what they wait for, within a limit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod dht;
mod engine;
mod fallback;
mod hostile;
mod limits;
mod magnet;
mod magnet_command;
mod metadata_peer;
mod process;
mod tracker;
