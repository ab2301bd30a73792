//! The tracker as a pure service: datagrams and queries in, answers out.

use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use std::net::SocketAddr;

/// A whole tracker in one value.
#[derive(Debug)]
pub struct Service {
    _skeleton: (),
}

impl Service {
    /// An empty tracker; its secrets come from `rng`.
    pub fn new(rng: Rng, now: Instant) -> Self {
        let _ = (rng, now);
        todo!()
    }

    /// Answers a UDP datagram (BEP 15) into `out` (cleared first); false: no answer, or no tracker packet.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        let _ = (now, from, bytes, out);
        todo!()
    }

    /// Answers an HTTP target (`/announce?...`, `/scrape?...`): status and bencoded body into `out`.
    pub fn handle_http(&mut self, now: Instant, from: SocketAddr, target: &str, out: &mut Vec<u8>) -> u16 {
        let _ = (now, from, target, out);
        todo!()
    }

    /// Time passed: expire peers.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
}
