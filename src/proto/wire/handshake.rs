//! The first 68 bytes of a connection (BEP 3), with the capability bits (BEP 5, 6, 10).

use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// What the reserved bytes say a peer can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// BEP 5 (reserved[7] & 0x01).
    pub dht: bool,
    /// BEP 6 (reserved[7] & 0x04).
    pub fast: bool,
    /// BEP 10 (reserved[5] & 0x10).
    pub extensions: bool,
    /// BEP 52 upgrade bit (reserved[7] & 0x10): read, never offered.
    pub v2: bool,
}

/// A handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// From the reserved bytes.
    pub capabilities: Capabilities,
    /// Which torrent.
    pub infohash: InfoHash,
    /// Who speaks.
    pub peer_id: PeerId,
}

/// The other side speaks another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side does not speak BitTorrent")]
pub struct NotBitTorrent;

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        todo!()
    }

    /// Reads what the other side sent; the first 20 bytes suffice to refuse.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotBitTorrent> {
        let _ = bytes;
        todo!()
    }
}
