//! sprat: a swarming file distributor that speaks BitTorrent.
//!
//! Layers, each a feature so that the compiler keeps them apart: `cli -> engine -> transfer ->
//! storage -> proto`, and `sim -> transfer, storage's core, proto`. Without features this library
//! is `proto` alone; `datagram` is what the engine and the tracker share besides, `usage` what
//! their commands do.

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "datagram")]
pub mod datagram;
#[cfg(feature = "engine")]
pub mod engine;
pub mod proto;
#[cfg(feature = "sim")]
pub mod sim;
#[cfg(feature = "storage")]
pub mod storage;
#[cfg(feature = "storage")]
pub mod transfer;
#[cfg(feature = "usage")]
pub mod usage;
