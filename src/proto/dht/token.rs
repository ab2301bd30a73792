//! Write tokens (BEP 5): prove that a node that stores something received a datagram at its address
//! shortly before.
//!
//! 8 bytes of a keyed hash (SipHash-2-4) of epoch, address without port, and target. An epoch lasts
//! five minutes; tokens of the previous epoch are still accepted. No state is kept for a token, so
//! requests for tokens cost no memory.

use std::net::IpAddr;

use siphasher::sip::SipHasher24;

use super::node_id::NodeId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Lifetime of an epoch (BEP 5: five minutes); a token is accepted in its epoch and the next one.
const EPOCH: Duration = Duration::from_secs(5 * 60);
const EPOCHS_ACCEPTED: u64 = 2;

/// Length of a token, bytes: a guess succeeds with a probability of 2 in 2^64.
pub const TOKEN_LEN: usize = 8;

/// Issues and checks tokens.
#[derive(Debug)]
pub struct Tokens {
    secret: SipHasher24,
    since: Instant,
}

impl Tokens {
    /// Creates it with new secrets.
    pub fn new(mut rng: Rng, now: Instant) -> Self {
        Self { secret: SipHasher24::new_with_keys(rng.bits(), rng.bits()), since: now }
    }

    /// Returns the token for this address and target.
    pub fn issue(&self, now: Instant, ip: IpAddr, target: NodeId) -> [u8; TOKEN_LEN] {
        self.of_epoch(self.epoch(now), ip, target)
    }

    /// Whether the token was issued to this address for this target within the last 5 to 10
    /// minutes. Takes the same time for every wrong token of the right length.
    pub fn accepts(&self, now: Instant, ip: IpAddr, target: NodeId, token: &[u8]) -> bool {
        let Ok(token) = <[u8; TOKEN_LEN]>::try_from(token) else { return false };
        let newest = self.epoch(now);
        (0..EPOCHS_ACCEPTED).fold(false, |accepted, age| {
            let issued = newest.checked_sub(age).map(|epoch| self.of_epoch(epoch, ip, target));
            accepted | (issued.map(u64::from_be_bytes) == Some(u64::from_be_bytes(token)))
        })
    }

    fn epoch(&self, now: Instant) -> u64 {
        (now.since(self.since).as_micros() / EPOCH.as_micros()) as u64
    }

    fn of_epoch(&self, epoch: u64, ip: IpAddr, target: NodeId) -> [u8; TOKEN_LEN] {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut text = [0; 44];
        text[..8].copy_from_slice(&epoch.to_be_bytes());
        text[8..24].copy_from_slice(&ip.octets());
        text[24..].copy_from_slice(&target.0);
        self.secret.hash(&text).to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: NodeId = NodeId([7; 20]);

    fn at(secs: u64) -> Instant {
        Instant::from_micros(1_000_000 * (1_000 + secs))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn tokens() -> Tokens {
        Tokens::new(Rng::from_number(1), at(0))
    }

    #[test]
    fn a_token_is_good_for_five_to_ten_minutes() {
        let tokens = tokens();
        for issued in [0, 1, 299, 300, 450] {
            let token = tokens.issue(at(issued), ip("8.8.8.8"), TARGET);
            assert!(tokens.accepts(at(issued), ip("8.8.8.8"), TARGET, &token));
            assert!(tokens.accepts(at(issued + 299), ip("::ffff:8.8.8.8"), TARGET, &token), "{issued}");
            assert!(!tokens.accepts(at(issued + 601), ip("8.8.8.8"), TARGET, &token), "{issued}");
        }
    }

    #[test]
    fn a_token_is_for_one_address_and_one_target() {
        let tokens = tokens();
        let token = tokens.issue(at(0), ip("8.8.8.8"), TARGET);
        assert!(!tokens.accepts(at(0), ip("8.8.8.9"), TARGET, &token));
        assert!(!tokens.accepts(at(0), ip("8.8.8.8"), NodeId([8; 20]), &token));
        assert!(!tokens.accepts(at(0), ip("8.8.8.8"), TARGET, &token[..7]));
        assert!(!tokens.accepts(at(0), ip("8.8.8.8"), TARGET, &[&token[..], &[0]].concat()));
        assert!(!tokens.accepts(at(0), ip("8.8.8.8"), TARGET, b""));
        let others = Tokens::new(Rng::from_number(2), at(0));
        assert!(!others.accepts(at(0), ip("8.8.8.8"), TARGET, &token), "each node has its own secret");
    }

    #[test]
    fn none_of_a_million_forged_tokens_is_accepted() {
        let tokens = tokens();
        let mut rng = Rng::from_number(3);
        let real = tokens.issue(at(400), ip("8.8.8.8"), TARGET);
        for round in 0..1_000_000_u64 {
            let mut forged = rng.bits().to_be_bytes();
            if round % 2 == 0 {
                // Off by up to 16 bits from a real one that somebody else was given.
                forged = real;
                forged[rng.below(8)] ^= 1 << rng.below(8);
                forged[rng.below(8)] ^= rng.bits() as u8;
            }
            let accepted = tokens.accepts(at(400), ip("8.8.8.8"), TARGET, &forged);
            assert!(!accepted || forged == real, "round {round}");
        }
    }
}
