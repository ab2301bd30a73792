//! The values that enter and leave the DHT machine.

use std::net::SocketAddr;

use super::item::{Item, ItemKey};
use super::node_id::NodeId;
use crate::proto::infohash::InfoHash;
use crate::proto::time::Duration;

/// Most nodes remembered from one start to the next.
pub const SAVED_COUNT_MAX: usize = 400;

/// The shell's name for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Whether others may keep us in their routing tables (BEP 43).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadOnly {
    /// Not at first; then as long as no node that we have not asked lately reaches us, with a new
    /// trial now and then. Never where only local nodes answer.
    #[default]
    Auto,
    /// Never: everybody is known to reach us.
    Never,
    /// Always: we only ask.
    Always,
}

/// Fixed facts of a node.
#[derive(Clone, Debug)]
pub struct Config {
    /// Take part in the IPv4 overlay.
    pub v4: bool,
    /// Take part in the IPv6 overlay (BEP 32).
    pub v6: bool,
    /// The UDP port that we listen on.
    pub port: u16,
    /// BEP 43.
    pub read_only: ReadOnly,
    /// Our address as known beforehand; None: learnt from others' answers (BEP 42). Ids follow from
    /// it.
    pub external: Option<std::net::IpAddr>,
}

/// What the shell may want.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Find peers of a torrent and, with `announce`, become one that others find.
    Peers {
        /// Which torrent.
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
        /// Expected sequence number of what is there.
        cas: Option<i64>,
    },
    /// Find the nodes closest to an id (for crawls and for people).
    Nodes(NodeId),
}

/// What an announce says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Where we take connections; None: the UDP port that nodes see (`implied_port`).
    pub port: Option<u16>,
    /// We are complete (BEP 33).
    pub seed: bool,
}

/// The machine's decisions.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output {
    /// Send a datagram.
    Send {
        /// To whom.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A request found something, or is over.
    Found {
        /// Which request.
        request: RequestId,
        /// What it found.
        found: Found,
    },
    /// No node is known: look up the bootstrap names and tell by `handle_hint`. Repeated with
    /// backoff.
    Bootstrap,
    /// Enough nodes agree that this is our address.
    External(SocketAddr),
}

/// What a request found, as it comes; the last is `Done`.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Peers that a node named; addresses are canonical and dialable, not judged further.
    Peers {
        /// Where they listen.
        peers: Vec<SocketAddr>,
        /// The node is itself on a loopback or private address, or it is ours: it may name such
        /// peers.
        local: bool,
    },
    /// A verified item for a `Get`; of a mutable one only newer ones follow.
    Item(Item),
    /// The request is over.
    Done(Outcome),
}

/// How a request went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Nodes asked.
    pub asked: u32,
    /// Of these, nodes that answered.
    pub answered: u32,
    /// Steps from our own table to the first node that had what was sought, or else to the closest
    /// one: 0 if we kept it ourselves or no node answered, 1 for a node of our own table.
    pub hops: u32,
    /// Nodes that took the announce or the item.
    pub stored: u32,
    /// Why the last of those that refused it did: its code and words, without what could steer a
    /// terminal.
    pub refused: Option<String>,
    /// From the request on.
    pub took: Duration,
    /// The closest nodes that answered, closest first, all where many crowd the target; where
    /// something is stored, of those that gave a token.
    pub closest: Vec<super::node_id::Node>,
    /// BEP 33, if asked for: estimated seeds and downloaders.
    pub scrape: Option<(u32, u32)>,
}

/// Figures of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Each overlay that we take part in.
    pub overlays: Vec<OverlaySnapshot>,
    /// Datagrams and bytes received.
    pub received: (u64, u64),
    /// Datagrams and bytes sent.
    pub sent: (u64, u64),
    /// Queries answered; dropped for a budget; refused.
    pub queries: (u64, u64, u64),
    /// Torrents and peers stored for others.
    pub stored_peers: (usize, usize),
    /// Items stored for others.
    pub stored_items: usize,
    /// Lookups under way.
    pub lookups: usize,
    /// Whether we tell others not to keep us (BEP 43), in one family at least.
    pub read_only: bool,
}

/// Figures of one overlay.
#[derive(Clone, Debug, PartialEq)]
pub struct OverlaySnapshot {
    /// IPv6 or IPv4.
    pub is_v6: bool,
    /// Our id.
    pub id: NodeId,
    /// Our address as others see it.
    pub external: Option<SocketAddr>,
    /// Nodes in the routing table; of these, good ones.
    pub nodes: (usize, usize),
    /// Nodes in the whole overlay, estimated from how densely they lie around lookups' targets.
    pub size_estimate: u64,
}
