//! Addresses of simulated hosts: public, unique, about two in each /24, the /24s all over the
//! space, so that the rules about prefixes and about ids that fit addresses mean something.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use super::forger::OWN_NET;
use crate::proto::rng::Rng;

/// Hands out addresses.
#[derive(Debug)]
pub(super) struct Addresses {
    rng: Rng,
    /// The /24s that hosts are in.
    prefixes: Vec<u32>,
    taken: HashSet<u32>,
}

impl Addresses {
    /// For about so many hosts at a time.
    pub(super) fn new(host_count: usize, mut rng: Rng) -> Self {
        let mut prefixes = HashSet::new();
        let count = (host_count / 2).max(1);
        let mut drawn = Vec::with_capacity(count);
        while drawn.len() < count {
            let prefix = rng.bits() as u32 & 0xffff_ff00;
            if is_public(Ipv4Addr::from(prefix)) && prefixes.insert(prefix) {
                drawn.push(prefix);
            }
        }
        Self { rng, prefixes: drawn, taken: HashSet::new() }
    }

    /// An address that nobody has had.
    pub(super) fn draw(&mut self) -> Ipv4Addr {
        loop {
            // A /24 that is full makes room for a new one: replaced hosts leave no address behind.
            let slot = self.rng.below(self.prefixes.len());
            let addr = self.prefixes[slot] | (1 + self.rng.below(254)) as u32;
            if self.taken.insert(addr) {
                return Ipv4Addr::from(addr);
            }
            let other = self.rng.bits() as u32 & 0xffff_ff00;
            if is_public(Ipv4Addr::from(other)) {
                self.prefixes[slot] = other;
            }
        }
    }
}

/// Whether hosts of the public network may be there; the forger's own net is left to it.
fn is_public(addr: Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    if a == OWN_NET {
        return false;
    }
    let special = matches!((a, b), (0 | 10 | 127 | 224.., _) | (100, 64..=127) | (169, 254) | (172, 16..=31))
        || matches!((a, b), (192, 0 | 88 | 168) | (198, 18 | 19 | 51) | (203, 0));
    !special
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn hosts_are_public_unique_and_spread() {
        let mut addresses = Addresses::new(1_000, Rng::from_number(1));
        let drawn: BTreeSet<Ipv4Addr> = (0..1_000).map(|_| addresses.draw()).collect();
        assert_eq!(drawn.len(), 1_000);
        assert!(drawn.iter().all(|addr| !addr.is_private() && !addr.is_loopback() && !addr.is_multicast()));
        let prefixes: BTreeSet<[u8; 3]> =
            drawn.iter().map(|addr| [addr.octets()[0], addr.octets()[1], addr.octets()[2]]).collect();
        assert!((300..600).contains(&prefixes.len()), "{}", prefixes.len());
    }
}
