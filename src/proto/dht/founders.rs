//! Who was the first to bring what a store keeps for others: one network may not fill it.
//!
//! A network is a /24 of IPv4 or a /48 of IPv6, which one hand can have as easily. Local addresses are exempt.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::routing::prefix::Prefix;
use crate::proto::compact;

/// How many entries of a store each network has founded.
#[derive(Debug, Default)]
pub(super) struct Founders(BTreeMap<Prefix, u32>);

impl Founders {
    /// Whether this address may found one more in a store of `count` entries that takes `count_max`: while it is more
    /// than half full, one network has at most `share_max`.
    pub(super) fn may_found(&self, ip: IpAddr, count: usize, count_max: usize, share_max: u32) -> bool {
        2 * count < count_max
            || compact::is_local(ip)
            || self.0.get(&Prefix::site(ip)).is_none_or(|&founded| founded < share_max)
    }

    /// Counts an entry; its founder is to be kept with it.
    pub(super) fn add(&mut self, ip: IpAddr) -> Prefix {
        let founder = Prefix::site(ip);
        *self.0.entry(founder).or_default() += 1;
        founder
    }

    /// An entry is gone.
    pub(super) fn remove(&mut self, founder: Prefix) {
        if let Some(founded) = self.0.get_mut(&founder) {
            *founded -= 1;
            if *founded == 0 {
                self.0.remove(&founder);
            }
        }
    }
}
