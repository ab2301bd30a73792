//! Our own address, by a quorum of those who see it (`ip` of BEP 42): one vote a prefix, the latest counts.

use std::net::{IpAddr, SocketAddr};

use crate::proto::time::Instant;

/// The votes of one family.
#[derive(Debug, Default)]
pub struct Voter {
    _private: (),
}

impl Voter {
    /// A node that we asked says that this is our address. The new winner, if the vote changed it: it needs
    /// several voters, and two thirds of the latest.
    pub fn vote(&mut self, now: Instant, voter: IpAddr, claimed: SocketAddr) -> Option<SocketAddr> {
        let _ = (now, voter, claimed);
        todo!()
    }

    /// The address, if enough agree.
    pub fn winner(&self) -> Option<SocketAddr> {
        todo!()
    }
}
