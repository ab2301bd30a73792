//! A network's share of a store of what the node keeps for others.
//!
//! An entry counts for the network that stored it first: a /24 of IPv4, or a /48 of IPv6, which is
//! as easy to obtain. Local addresses are exempt.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::prefix::Prefix;
use crate::proto::compact;

/// The number of entries of a store that each network has founded.
#[derive(Debug, Default)]
pub(in crate::proto::dht) struct PrefixQuota(BTreeMap<Prefix, u32>);

impl PrefixQuota {
    /// Returns whether this address may found another entry in a store of `count` entries that
    /// takes `count_max`: while it is more than half full, a network has at most `share_max`.
    pub(in crate::proto::dht) fn may_found(
        &self,
        ip: IpAddr,
        count: usize,
        count_max: usize,
        share_max: u32,
    ) -> bool {
        2 * count < count_max
            || compact::is_local(ip)
            || self.0.get(&Prefix::site(ip)).is_none_or(|&founded| founded < share_max)
    }

    /// Counts an entry and returns its founder, to be kept with it.
    pub(in crate::proto::dht) fn add(&mut self, ip: IpAddr) -> Prefix {
        let founder = Prefix::site(ip);
        *self.0.entry(founder).or_default() += 1;
        founder
    }

    /// Records that an entry of this founder is gone.
    pub(in crate::proto::dht) fn remove(&mut self, founder: Prefix) {
        if let Some(founded) = self.0.get_mut(&founder) {
            *founded -= 1;
            if *founded == 0 {
                self.0.remove(&founder);
            }
        }
    }
}
