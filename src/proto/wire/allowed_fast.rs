//! The allowed-fast set (BEP 6): the few pieces that a peer may ask for while it is choked.
//!
//! The set follows from the torrent and the peer's network, so a peer gains nothing by reconnecting
//! or changing its id. BEP 6 defines it for IPv4 only, over the address without its last byte. For
//! IPv6 the first six bytes of the address are used, the network of one customer of a provider; the
//! receiver accepts any set, so clients need not agree on this.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use crate::proto::infohash::InfoHash;
use crate::proto::piece::PieceIndex;

/// Most rounds of SHA-1, five draws each; after them a set is smaller than requested. The chance
/// that 320 draws miss a set of ten out of eleven pieces is below 10^-11; only a request for nearly
/// all pieces of a larger torrent could reach the limit.
const ROUND_MAX: usize = 64;

/// Returns the pieces that a peer at `ip` may request while choked: `k` of them, or all if there
/// are fewer, in the order of BEP 6.
pub fn allowed_fast_set(infohash: InfoHash, ip: IpAddr, piece_count: u32, k: usize) -> Vec<PieceIndex> {
    if piece_count as usize <= k {
        return (0..piece_count).collect();
    }
    let mut set = Vec::with_capacity(k.min(ROUND_MAX * 5));
    let mut digest: [u8; 20] = seed(infohash, ip);
    for _ in 0..ROUND_MAX {
        for word in digest.as_chunks::<4>().0 {
            if set.len() == k {
                return set;
            }
            let piece = u32::from_be_bytes(*word) % piece_count;
            if !set.contains(&piece) {
                set.push(piece);
            }
        }
        digest = Sha1::digest(digest).into();
    }
    set
}

/// The first digest: over the peer's network and the infohash.
fn seed(infohash: InfoHash, ip: IpAddr) -> [u8; 20] {
    let sha = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Sha1::new_with_prefix([a, b, c, 0])
        }
        IpAddr::V6(ip) => Sha1::new_with_prefix(&ip.octets()[..6]),
    };
    sha.chain_update(infohash.0).finalize().into()
}
