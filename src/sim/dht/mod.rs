//! A DHT in virtual time: production nodes over a network with latency, loss, NATs, churn, and
//! enemies.
//!
//! `scenario` is what is to happen and when, [`Overlay`] the loop that lets it happen, `report`
//! what came of it. `network` carries datagrams through `nat`, `host` is one node with its machine,
//! `hostile` one without, `trials` announces and looks up, `forger` floods. Nothing here decides
//! what a node does.

mod address;
mod census;
mod forger;
mod host;
mod hostile;
mod nat;
mod network;
mod overlay;
pub mod report;
pub mod scenario;
mod trace;
mod traffic;
mod trials;

pub use overlay::Overlay;
pub use report::Report;
pub use scenario::Scenario;
