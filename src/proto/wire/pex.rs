//! `ut_pex`: gossip about who else is in the swarm (BEP 11).

use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::bencode::BencodeError;

/// Most addresses added, and most dropped, in one message; of longer ones the rest is ignored.
pub const PEX_COUNT_MAX: usize = 50;
/// Longest payload, bytes; longer ones are refused.
pub const PEX_LEN_MAX: usize = 8 * 1024;

/// What is known of an address, `added.f`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PexFlags {
    /// 0x01: prefers encryption.
    pub encryption: bool,
    /// 0x02: seed, or upload only.
    pub seed: bool,
    /// 0x04: speaks uTP.
    pub utp: bool,
    /// 0x08: speaks holepunch.
    pub holepunch: bool,
    /// 0x10: reachable: the sender dialled it.
    pub reachable: bool,
}

/// A message: what changed since the last one to the same peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PexMessage {
    /// New addresses, both families.
    pub added: Vec<(SocketAddr, PexFlags)>,
    /// Addresses that are gone.
    pub dropped: Vec<SocketAddr>,
}

impl PexMessage {
    /// The payload of an extended message.
    pub fn encode(&self) -> Bytes {
        todo!()
    }

    /// Reads a payload; addresses canonical, those nobody can be at left out.
    ///
    /// # Errors
    /// It does not begin with a dictionary, or is too long.
    pub fn decode(payload: &[u8]) -> Result<Self, BencodeError> {
        let _ = payload;
        todo!()
    }
}
