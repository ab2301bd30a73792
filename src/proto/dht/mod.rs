//! The DHT (BEP 5, 32, 33, 42, 43, 44, 51): a node that finds peers and keeps items, without a tracker.
//!
//! [`Dht`] is the machine. It owns one [`routing::Table`] for each address family (BEP 32: two overlays that
//! share a socket port), the transactions under way, the lookups that requests have started, and what the node
//! stores for others. The shell moves datagrams and looks up names.

pub mod bloom;
pub mod budget;
pub mod event;
pub mod item;
pub mod items;
pub mod krpc;
pub mod lookup;
pub mod node_id;
pub mod peers;
pub mod routing;
pub mod token;
pub mod voter;

use std::net::SocketAddr;

use super::rng::Rng;
use super::time::Instant;
use event::{Config, Output, Request, RequestId, Snapshot};
use node_id::Node;

/// The machine.
#[derive(Debug)]
pub struct Dht {
    _private: (),
}

impl Dht {
    /// A node that knows nobody. Nothing happens before the first input.
    pub fn new(config: Config, rng: Rng, now: Instant) -> Self {
        let _ = (config, rng, now);
        todo!()
    }

    /// A datagram came. Whether it was KRPC (its first byte says so): false leaves it to somebody else.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let _ = (now, from, bytes);
        todo!()
    }

    /// Somebody may be a node there: a bootstrap name looked up, a PORT message, a torrent's `nodes`. Asked once
    /// and known only if it answers.
    pub fn handle_hint(&mut self, now: Instant, addr: SocketAddr) {
        let _ = (now, addr);
        todo!()
    }

    /// Nodes known good when the program last ended ([`Dht::good_nodes`]): tried before any bootstrap name.
    pub fn handle_saved(&mut self, now: Instant, nodes: &[Node]) {
        let _ = (now, nodes);
        todo!()
    }

    /// Starts a request. The id is the shell's and never used twice.
    pub fn handle_request(&mut self, now: Instant, id: RequestId, request: Request) {
        let _ = (now, id, request);
        todo!()
    }

    /// Nobody waits for this request any more.
    pub fn handle_cancel(&mut self, id: RequestId) {
        let _ = id;
        todo!()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// The next decision; drain to None after every input.
    pub fn poll_output(&mut self) -> Option<Output> {
        todo!()
    }

    /// When to call [`Dht::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    /// Nodes worth remembering for the next start: good ones of both families, at most
    /// [`event::SAVED_COUNT_MAX`].
    pub fn good_nodes(&self) -> Vec<Node> {
        todo!()
    }

    /// Figures for people.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let _ = now;
        todo!()
    }
}
