//! Addresses of peers that we might dial: the one gate for all sources.

use std::net::{IpAddr, SocketAddr};

use super::event::Source;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// Known addresses.
#[derive(Debug)]
pub struct Candidates {
    _rng: Rng,
}

impl Candidates {
    /// Nobody known.
    pub fn new(rng: Rng) -> Self {
        Self { _rng: rng }
    }

    /// An address from a source; true if it is new.
    pub fn add(&mut self, now: Instant, source: Source, addr: SocketAddr) -> bool {
        let _ = (now, source, addr);
        todo!()
    }

    /// The best address to dial now, marked as being dialled; None if nobody is due or `room` is 0.
    pub fn next_dial(&mut self, now: Instant, room: usize) -> Option<SocketAddr> {
        let _ = (now, room);
        todo!()
    }

    /// When [`Candidates::next_dial`] may have somebody; in the past if it has already.
    pub fn next_at(&self) -> Option<Instant> {
        todo!()
    }

    /// A dial failed: backoff.
    pub fn dial_failed(&mut self, now: Instant, addr: SocketAddr) {
        let _ = (now, addr);
        todo!()
    }

    /// A connection that we dialled is up.
    pub fn dialled(&mut self, addr: SocketAddr) {
        let _ = addr;
        todo!()
    }

    /// A connected peer listens at this address (extension handshake `p`): not dialled while it is connected.
    pub fn listens_at(&mut self, addr: SocketAddr) {
        let _ = addr;
        todo!()
    }

    /// A connection to a dialled or listening address is gone; `useful` if it was worth coming back to.
    pub fn disconnected(&mut self, now: Instant, addr: SocketAddr, useful: bool) {
        let _ = (now, addr, useful);
        todo!()
    }

    /// That was ourselves: never again.
    pub fn ourselves(&mut self, addr: SocketAddr) {
        let _ = addr;
        todo!()
    }

    /// Nothing more to do with this host.
    pub fn ban(&mut self, ip: IpAddr) {
        let _ = ip;
        todo!()
    }

    /// Whether the host is banned: for incoming connections too.
    pub fn is_banned(&self, ip: IpAddr) -> bool {
        let _ = ip;
        todo!()
    }

    /// Our own address as others see it, for the canonical order (BEP 40).
    pub fn external_addr(&mut self, addr: SocketAddr) {
        let _ = addr;
        todo!()
    }

    /// Addresses that may be dialled now or later.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
