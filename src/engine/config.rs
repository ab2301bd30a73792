//! What a user of the engine can set.

use std::net::IpAddr;
use std::time::Duration;

pub use crate::proto::session::Limits;

/// Settings of an engine; `Config::default()` is what most want.
#[derive(Clone, Debug)]
pub struct Config {
    /// Port for peers, TCP and UDP; 0: any.
    pub port: u16,
    /// Addresses to listen on; empty: all of IPv4 and IPv6.
    pub listen: Vec<IpAddr>,
    /// Budgets.
    pub limits: Limits,
    /// How often neighbours are told what we gained.
    pub swarming_interval: Duration,
    /// Answer as a UDP tracker on the peer port.
    pub embedded_tracker: bool,
    /// Threads for hashing and disk work; None: as many as cores.
    pub disk_threads: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: 0,
            listen: Vec::new(),
            limits: Limits::default(),
            swarming_interval: Duration::from_secs(1),
            embedded_tracker: false,
            disk_threads: None,
        }
    }
}
