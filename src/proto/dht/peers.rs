//! Peers that others announced to us, by torrent (BEP 5, 33, 51), within limits.
//!
//! At most 4,096 torrents of 200 peers each, of which one /24 or /64 may have a few; peers expire half an hour
//! after their announce. A full store takes no new torrent and gives no token for one, rather than forgetting
//! what it promised to keep.

use std::net::{IpAddr, SocketAddr};

use super::bloom::Filter;
use super::node_id::NodeId;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// The store.
#[derive(Debug)]
pub struct PeerStore {
    _private: (),
}

impl PeerStore {
    /// Empty; `rng` chooses which peers are named.
    pub fn new(rng: Rng) -> Self {
        let _ = rng;
        todo!()
    }

    /// Whether an announce for this torrent from this address would be kept: else no token is given.
    pub fn has_room(&self, infohash: NodeId, ip: IpAddr) -> bool {
        let _ = (infohash, ip);
        todo!()
    }

    /// Keeps a peer; false: there is no room.
    pub fn insert(&mut self, now: Instant, infohash: NodeId, peer: SocketAddr, seed: bool) -> bool {
        let _ = (now, infohash, peer, seed);
        todo!()
    }

    /// Up to `count` random peers of one family.
    pub fn sample_peers(
        &mut self,
        now: Instant,
        infohash: NodeId,
        v6: bool,
        no_seed: bool,
        count: usize,
    ) -> Vec<SocketAddr> {
        let _ = (now, infohash, v6, no_seed, count);
        todo!()
    }

    /// Seeds and downloaders as filters (BEP 33); None: the torrent is unknown.
    pub fn filters(&self, infohash: NodeId) -> Option<Box<(Filter, Filter)>> {
        let _ = infohash;
        todo!()
    }

    /// Up to `count` random infohashes, and how many there are (BEP 51).
    pub fn sample_infohashes(&mut self, count: usize) -> (Vec<NodeId>, usize) {
        let _ = count;
        todo!()
    }

    /// Drops what has expired; cheap if nothing has.
    pub fn expire(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }

    /// When [`PeerStore::expire`] has something to do.
    pub fn expires_at(&self) -> Option<Instant> {
        todo!()
    }

    /// Torrents, and peers of all of them.
    pub fn counts(&self) -> (usize, usize) {
        todo!()
    }
}
