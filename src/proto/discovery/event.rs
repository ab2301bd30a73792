//! The values that enter and leave the discovery machine.

use std::net::{IpAddr, SocketAddr};

use crate::proto::dht::event as dht;
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Metainfo;
use crate::proto::metainfo::magnet::Magnet;
use crate::proto::peer_id::PeerId;
use crate::proto::torrent::event::Source;
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::{Announce, TrackerError};

/// Fixed facts of one torrent's discovery.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which torrent.
    pub infohash: InfoHash,
    /// Our name in its swarm.
    pub peer_id: PeerId,
    /// The port that we take connections on.
    pub port: u16,
    /// Peers wanted of each announce.
    pub numwant: u32,
    /// The torrent is known to be private (BEP 27).
    pub private: bool,
    /// There is a DHT node to ask.
    pub dht: bool,
    /// Torrents are announced on the local network (BEP 14).
    pub lsd: bool,
    /// What is told of the torrent.
    pub hints: Hints,
}

/// Trackers, peers and DHT nodes that a torrent, its link or the user names.
#[derive(Clone, Debug, Default)]
pub struct Hints {
    /// Trackers, in tiers.
    pub tiers: Vec<Vec<String>>,
    /// Peers, `host:port`.
    pub peers: Vec<String>,
    /// Nodes of the DHT, host and port.
    pub nodes: Vec<(String, u16)>,
}

impl Hints {
    /// Returns what a .torrent file names.
    pub fn of_metainfo(metainfo: &Metainfo) -> Self {
        let Metainfo { trackers, nodes, .. } = metainfo;
        Self { tiers: trackers.clone(), peers: Vec::new(), nodes: nodes.clone() }
    }

    /// Returns what a link names, each tracker in a tier of its own.
    pub fn of_magnet(magnet: &Magnet) -> Self {
        let mut hints = Self { peers: magnet.peers.clone(), ..Self::default() };
        hints.add_trackers(magnet.trackers.clone());
        hints
    }

    /// Adds trackers, each in a tier of its own.
    pub fn add_trackers(&mut self, trackers: Vec<String>) {
        self.tiers.extend(trackers.into_iter().map(|url| vec![url]));
    }
}

/// What a source of peers says: the one way of an address to the torrent's candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// Addresses of peers, and the source that named them.
    Peers(Source, Vec<SocketAddr>),
    /// Our own address as a tracker sees it (BEP 24).
    ExternalIp(IpAddr),
}

/// The machine's decisions.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// For the torrent's machine, to dial.
    Found(DiscoveryEvent),
    /// Send an announce; answered by [`super::Discovery::handle_reply`].
    Announce {
        /// To be given back with the answer.
        request: RequestId,
        /// The tracker.
        url: String,
        /// What to say.
        announce: Announce,
    },
    /// Ask the DHT; answered by [`super::Discovery::handle_found`]. There is one lookup at a time.
    Lookup(dht::Request),
    /// The answers of the lookup under way are not wanted any more.
    CancelLookup,
    /// Announce the torrent on the local network from now on (BEP 14), or no longer.
    Lsd(bool),
    /// Look up the addresses of a peer, `host:port`, that the link names; answered by
    /// [`super::Discovery::handle_peers`].
    ResolvePeer(String),
    /// Look up the addresses of a DHT node, host and port, and tell the DHT of them.
    ResolveNode(String, u16),
    /// For people.
    Event(Event),
}

/// What users notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tracker answered.
    TrackerAnswered {
        /// Its URL.
        url: String,
        /// The number of peers that it named.
        peers: usize,
    },
    /// A tracker said something for the user.
    TrackerWarning {
        /// Its URL.
        url: String,
        /// Its words.
        text: String,
    },
    /// A tracker failed, or has been silent for long and is waited for.
    TrackerFailed {
        /// Its URL.
        url: String,
        /// Why.
        error: TrackerError,
    },
    /// A lookup in the DHT is over.
    DhtAnswered {
        /// Nodes that answered.
        nodes: u32,
        /// Different peers that they named.
        peers: usize,
    },
}

/// How things stand with the DHT for one torrent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DhtStatus {
    /// A lookup is under way.
    pub asking: bool,
    /// Lookups that are over.
    pub lookups: u32,
    /// Nodes that answered the last of these.
    pub answered: u32,
    /// Different peers that nodes named in the lookup under way, or else in the last one.
    pub peers: usize,
    /// Nodes that took down in the last lookup that we are here.
    pub announced: u32,
}
