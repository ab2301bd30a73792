//! The values that enter and leave the DHT machine.

use std::net::SocketAddr;

use super::item::{Item, ItemKey};
use super::node_id::NodeId;
use crate::proto::infohash::InfoHash;
use crate::proto::time::Duration;

/// The shell's identifier of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Whether other nodes may keep this one in their routing tables (BEP 43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    /// Decides by itself: read-only while no node that was not queried recently reaches this one,
    /// with a new trial now and then. Never where only local nodes answer.
    #[default]
    Auto,
    /// Never read-only: all nodes are known to reach this one.
    Never,
    /// Always read-only: this node only queries.
    Always,
}

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Take part in the IPv4 overlay.
    pub v4: bool,
    /// Take part in the IPv6 overlay (BEP 32).
    pub v6: bool,
    /// The UDP port of this node.
    pub port: u16,
    /// BEP 43.
    pub read_only: ReadOnly,
    /// Our address, if it is known beforehand; `None` to learn it from answers (BEP 42). Ids follow
    /// from it.
    pub external: Option<std::net::IpAddr>,
}

/// A request of the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Find the peers of a torrent and, with `announce`, become one of them.
    Peers {
        /// The torrent.
        infohash: InfoHash,
        /// What to store at the closest nodes.
        announce: Option<Announce>,
        /// Ask for BEP 33 filters too, to estimate the swarm's size.
        scrape: bool,
    },
    /// Find an item (BEP 44).
    Get(ItemKey),
    /// Store an item at the closest nodes (BEP 44); with `cas`, only over this sequence number.
    Put {
        /// What to store.
        item: Item,
        /// Expected sequence number of the stored item.
        cas: Option<i64>,
    },
    /// Find the nodes closest to an id (for crawls and for display).
    Nodes(NodeId),
}

/// The content of an announce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The TCP port of the peer; `None` for the UDP port that nodes see (`implied_port`).
    pub port: Option<u16>,
    /// Whether it is complete (BEP 33).
    pub seed: bool,
}

/// An output of the machine.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send a datagram.
    Send {
        /// The receiver.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A request found something, or ended.
    Found {
        /// The request.
        request: RequestId,
        /// What it found.
        found: Found,
    },
    /// No node is known: look up the bootstrap names and pass their addresses to `handle_hint`.
    /// Repeated with backoff.
    Bootstrap,
    /// Enough nodes agree that this is our address.
    External(SocketAddr),
}

/// A result of a request; the last is `Done`.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Peers that a node named; addresses are canonical and dialable, and not checked further.
    Peers {
        /// Their addresses.
        peers: Vec<SocketAddr>,
        /// Whether the node has a loopback or private address, or is this one; then it may name
        /// such peers.
        local: bool,
    },
    /// A verified item for a `Get`; of a mutable one only newer ones follow.
    Item(Item),
    /// The request has ended.
    Done(Outcome),
}

/// The result of a request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Nodes queried.
    pub asked: u32,
    /// Nodes that answered.
    pub answered: u32,
    /// Steps from our own table to the first node that had the result, or else to the closest node:
    /// 0 if this node had it or no node answered, 1 for a node of our own table.
    pub hops: u32,
    /// Nodes that stored the announce or the item.
    pub stored: u32,
    /// Code and text of the last refusal to store, without terminal control characters.
    pub refused: Option<String>,
    /// Time from the request to its end.
    pub took: Duration,
    /// The closest nodes that answered, closest first, and all of them where many crowd the target;
    /// if something is stored, only those that gave a token.
    pub closest: Vec<super::node_id::Node>,
    /// BEP 33, if requested: estimated seeds and downloaders.
    pub scrape: Option<(u32, u32)>,
}

/// Figures of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// The overlays of this node.
    pub overlays: Vec<OverlaySnapshot>,
    /// Datagrams and bytes received.
    pub received: (u64, u64),
    /// Datagrams and bytes sent.
    pub sent: (u64, u64),
    /// Queries answered; dropped by the budget; refused.
    pub queries: (u64, u64, u64),
    /// Torrents and peers stored for others.
    pub stored_peers: (usize, usize),
    /// Items stored for others.
    pub stored_items: usize,
    /// Running lookups.
    pub lookups: usize,
    /// Whether this node asks others not to keep it (BEP 43), in one family at least.
    pub read_only: bool,
}

/// Figures of one overlay.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlaySnapshot {
    /// IPv6 or IPv4.
    pub is_v6: bool,
    /// Our id.
    pub id: NodeId,
    /// Our address as other nodes see it.
    pub external: Option<SocketAddr>,
    /// Nodes in the routing table; of these, good ones.
    pub nodes: (usize, usize),
    /// Estimated nodes in the whole overlay, from their density around the targets of lookups.
    pub size_estimate: u64,
}
