//! The first 68 bytes of a connection (BEP 3), with the capability bits (BEP 5, 6, 10).
//!
//! Unknown reserved bits are ignored when received and zero when sent. Does not know which
//! infohashes and peer ids are accepted.

use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// How every handshake begins: the length of the protocol's name, and the name.
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// Offsets of the parts: 8 reserved bytes, the infohash, the peer id.
const RESERVED_AT: usize = 20;
const INFOHASH_AT: usize = 28;
const PEER_ID_AT: usize = 48;

/// The capabilities in the reserved bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// BEP 5 (`reserved[7] & 0x01`).
    pub dht: bool,
    /// BEP 6 (`reserved[7] & 0x04`).
    pub fast: bool,
    /// BEP 10 (`reserved[5] & 0x10`).
    pub extensions: bool,
    /// BEP 52 upgrade bit (`reserved[7] & 0x10`): read, never offered.
    pub v2: bool,
}

impl Capabilities {
    fn to_reserved(self) -> [u8; 8] {
        let mut reserved = [0; 8];
        reserved[5] = u8::from(self.extensions) * 0x10;
        reserved[7] = u8::from(self.dht) | (u8::from(self.fast) * 0x04) | (u8::from(self.v2) * 0x10);
        reserved
    }

    fn from_reserved(reserved: [u8; 8]) -> Self {
        Self {
            dht: reserved[7] & 0x01 != 0,
            fast: reserved[7] & 0x04 != 0,
            extensions: reserved[5] & 0x10 != 0,
            v2: reserved[7] & 0x10 != 0,
        }
    }
}

/// A handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// From the reserved bytes.
    pub capabilities: Capabilities,
    /// The torrent.
    pub infohash: InfoHash,
    /// The sender.
    pub peer_id: PeerId,
}

/// The other side speaks another protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other side does not speak BitTorrent")]
pub struct NotBitTorrent;

impl Handshake {
    /// Returns the bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..RESERVED_AT].copy_from_slice(PROTOCOL);
        bytes[RESERVED_AT..INFOHASH_AT].copy_from_slice(&self.capabilities.to_reserved());
        bytes[INFOHASH_AT..PEER_ID_AT].copy_from_slice(&self.infohash.0);
        bytes[PEER_ID_AT..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Decodes a received handshake.
    ///
    /// # Errors
    /// The other side uses another protocol; [`Handshake::may_begin_with`] detects this earlier.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, NotBitTorrent> {
        if !Self::may_begin_with(bytes) {
            return Err(NotBitTorrent);
        }
        Ok(Self {
            capabilities: Capabilities::from_reserved(part(bytes, RESERVED_AT)),
            infohash: InfoHash(part(bytes, INFOHASH_AT)),
            peer_id: PeerId(part(bytes, PEER_ID_AT)),
        })
    }

    /// Whether a handshake may begin with these bytes; the first 20 decide, and fewer can already
    /// refuse.
    pub fn may_begin_with(bytes: &[u8]) -> bool {
        bytes.iter().zip(PROTOCOL).all(|(came, belongs)| came == belongs)
    }
}

fn part<const N: usize>(bytes: &[u8; HANDSHAKE_LEN], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_capability_has_its_bit() {
        let none = Capabilities::default();
        for (capabilities, at, bit) in [
            (Capabilities { dht: true, ..none }, 27, 0x01),
            (Capabilities { fast: true, ..none }, 27, 0x04),
            (Capabilities { v2: true, ..none }, 27, 0x10),
            (Capabilities { extensions: true, ..none }, 25, 0x10),
        ] {
            let sent = Handshake { capabilities, infohash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
            let bytes = sent.encode();
            assert_eq!(bytes[at], bit);
            assert_eq!(bytes[20..28].iter().filter(|byte| **byte != 0).count(), 1);
            assert_eq!(Handshake::decode(&bytes), Ok(sent));
        }
    }

    #[test]
    fn refuses_from_the_first_wrong_byte() {
        assert!(Handshake::may_begin_with(b"") && Handshake::may_begin_with(b"\x13Bit"));
        assert!(!Handshake::may_begin_with(b"GET /") && !Handshake::may_begin_with(b"\x13bit"));
        let mut bytes = [0; HANDSHAKE_LEN];
        assert_eq!(Handshake::decode(&bytes), Err(NotBitTorrent));
        bytes[..20].copy_from_slice(PROTOCOL);
        assert!(Handshake::decode(&bytes).is_ok());
    }
}
