//! Write tokens: who stores something has shown shortly before that it receives at its address (BEP 5).
//!
//! 8 bytes of a keyed hash (SipHash) of address, port-less, and target, under a secret that changes every five
//! minutes; the one before is still good. Nothing is kept for a token.

use std::net::IpAddr;

use super::node_id::NodeId;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// Issues and checks tokens.
#[derive(Debug)]
pub struct Tokens {
    _private: (),
}

impl Tokens {
    /// With fresh secrets.
    pub fn new(rng: Rng, now: Instant) -> Self {
        let _ = (rng, now);
        todo!()
    }

    /// The token for this asker and target.
    pub fn issue(&mut self, now: Instant, ip: IpAddr, target: NodeId) -> [u8; 8] {
        let _ = (now, ip, target);
        todo!()
    }

    /// Whether the token was issued to this asker for this target within the last 5 to 10 minutes.
    pub fn accepts(&mut self, now: Instant, ip: IpAddr, target: NodeId, token: &[u8]) -> bool {
        let _ = (now, ip, target, token);
        todo!()
    }
}
