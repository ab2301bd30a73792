//! The real binary and the whole peer over real sockets on loopback and real files. Ports are any free ones,
//! and nothing sleeps to wait: tests await what they wait for, within a limit.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cli;
mod dht;
mod engine;
mod hostile;
mod limits;
mod process;
mod tracker;
