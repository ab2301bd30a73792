//! A second shell: the production machines in virtual time, over a simulated network and disk.
//!
//! The engine moves bytes between sockets and the machines of [`crate::proto`]; this moves values
//! between the same machines and a network that exists in memory only. Nothing here decides what a
//! peer does. One event queue and one seed make a run, which is the same every time, bit for bit;
//! thousands of hosts fit into a process, and hours into seconds.

mod content;
pub mod dht;
pub mod disk;
mod host;
mod network;
pub mod oracle;
mod queue;
pub mod scenario;
mod storage;
mod super_seed;
pub mod swarm;
mod tracker;

pub use network::Line;
pub use scenario::Scenario;
pub use super_seed::Reveal;
pub use swarm::Swarm;
