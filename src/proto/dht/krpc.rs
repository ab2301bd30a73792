//! KRPC: the DHT's messages as datagrams (BEP 5, with the keys of BEP 32, 33, 42, 43, 44, 51).
//!
//! Decoding borrows from the datagram and allocates nothing; what is missing, of the wrong kind or of a wrong
//! length counts as absent, and what cannot do without it is an error.

use std::net::SocketAddr;

use super::item::{Item, ItemRef};
use super::node_id::{Node, NodeId};

/// Longest datagram that we send, bytes: the payload of the smallest IPv6 MTU (1,280) with room for headers.
/// Longer answers are cut short by naming fewer nodes, peers or samples.
pub const DATAGRAM_LEN_MAX: usize = 1_200;
/// Bytes of a transaction id of ours.
pub const TRANSACTION_LEN: usize = 4;

/// A datagram, read.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// `t`: echoed in answers; at most 32 bytes.
    pub transaction: &'a [u8],
    /// What it is.
    pub body: Body<'a>,
    /// `ip`: our address as the sender sees it (BEP 42).
    pub external: Option<SocketAddr>,
}

/// The three kinds.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// `q`
    Query(Query<'a>),
    /// `r`
    Response(Response<'a>),
    /// `e`: code and text.
    Error(i64, &'a [u8]),
}

/// Which families of nodes are wanted in an answer (BEP 32); neither: that of the datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// `n4`
    pub v4: bool,
    /// `n6`
    pub v6: bool,
}

/// A query.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Who asks.
    pub id: NodeId,
    /// `ro`: is not to be kept in routing tables (BEP 43).
    pub read_only: bool,
    /// What it asks.
    pub method: Method<'a>,
}

/// What a query asks.
#[derive(Clone, Copy, Debug)]
pub enum Method<'a> {
    /// Are you there.
    Ping,
    /// The nodes closest to a target.
    FindNode {
        /// The target.
        target: NodeId,
        /// Families wanted.
        want: Want,
    },
    /// Peers of a torrent, a token, and the closest nodes.
    GetPeers {
        /// The torrent.
        infohash: NodeId,
        /// Families wanted.
        want: Want,
        /// Filters wanted (BEP 33).
        scrape: bool,
        /// No complete peers wanted (BEP 33).
        no_seed: bool,
    },
    /// Keep us as a peer of a torrent.
    AnnouncePeer {
        /// The torrent.
        infohash: NodeId,
        /// Where it takes connections; None: the datagram's source port (`implied_port`).
        port: Option<u16>,
        /// From an answer to `get_peers`.
        token: &'a [u8],
        /// It is complete (BEP 33).
        seed: bool,
    },
    /// An item (BEP 44).
    Get {
        /// SHA-1 of the value, or of key and salt.
        target: NodeId,
        /// Only newer ones than this.
        seq: Option<i64>,
        /// Families wanted.
        want: Want,
    },
    /// Keep an item (BEP 44).
    Put {
        /// From an answer to `get`.
        token: &'a [u8],
        /// Only over this sequence number.
        cas: Option<i64>,
        /// The item, signature not yet verified.
        item: ItemRef<'a>,
    },
    /// Some of the stored infohashes (BEP 51).
    SampleInfohashes {
        /// The target for the nodes in the answer.
        target: NodeId,
        /// Families wanted.
        want: Want,
    },
    /// A method that we do not know; to be answered by error 204, or as `find_node` if it has a target.
    Unknown {
        /// `target` or `info_hash`, if there.
        target: Option<NodeId>,
    },
}

/// An answer; every key but the id is optional, whoever asked knows what to look for.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// Who answers.
    pub id: NodeId,
    /// `nodes`, compact, 26 bytes each.
    pub nodes: &'a [u8],
    /// `nodes6`, compact, 38 bytes each.
    pub nodes6: &'a [u8],
    /// `token`
    pub token: Option<&'a [u8]>,
    /// `values`: read by [`Response::peers`].
    pub values: Option<crate::proto::bencode::List<'a>>,
    /// `BFsd`, `BFpe` (BEP 33).
    pub filters: Option<(&'a [u8; 256], &'a [u8; 256])>,
    /// `samples`, 20 bytes each; with `num` (BEP 51).
    pub samples: Option<(&'a [u8], i64)>,
    /// `v`, `k`, `sig`, `seq` (BEP 44).
    pub item: Option<ItemRef<'a>>,
    /// `seq` by itself: the node has no newer one (BEP 44).
    pub seq: Option<i64>,
}

impl<'a> Response<'a> {
    /// The nodes of both families, canonical; those that nobody can be reached at left out.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<'a> {
        todo!() as std::iter::Empty<Node>
    }

    /// The peers, canonical; those that nobody can be reached at left out.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        todo!() as std::iter::Empty<SocketAddr>
    }
}

/// An answer to be written; empty parts are left out.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Nodes of both families, closest first.
    pub nodes: Vec<Node>,
    /// `nodes`/`nodes6` are given even if empty.
    pub names_v4: bool,
    /// The same for IPv6.
    pub names_v6: bool,
    /// `values`
    pub peers: Vec<SocketAddr>,
    /// `token`
    pub token: Option<[u8; 8]>,
    /// `BFsd`, `BFpe`
    pub filters: Option<Box<([u8; 256], [u8; 256])>>,
    /// `samples`, `num`, `interval` in seconds.
    pub samples: Option<(Vec<NodeId>, usize, u64)>,
    /// The item.
    pub item: Option<Item>,
    /// `seq` by itself.
    pub seq: Option<i64>,
}

/// The datagram is no KRPC message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad KRPC message: {0}")]
pub struct KrpcError(pub &'static str);

/// Reads a datagram.
///
/// # Errors
/// It is not bencode within limits (64 KiB, depth 8, 256 tokens), has no `t` or `y`, or misses what its kind
/// needs.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, KrpcError> {
    let _ = bytes;
    todo!()
}

/// A query as a datagram.
pub fn encode_query(transaction: [u8; TRANSACTION_LEN], query: &Query) -> Vec<u8> {
    let _ = (transaction, query);
    todo!()
}

/// An answer as a datagram of at most [`DATAGRAM_LEN_MAX`] bytes: peers, samples and then nodes are left out from
/// the end until it fits. `to`: the asker, told as `ip` (BEP 42).
pub fn encode_answer(transaction: &[u8], id: NodeId, to: SocketAddr, answer: &Answer) -> Vec<u8> {
    let _ = (transaction, id, to, answer);
    todo!()
}

/// An error as a datagram: 201 generic, 203 protocol, 204 method unknown; BEP 44: 205 too big, 206 bad
/// signature, 207 salt too big, 301 cas mismatch, 302 seq less than current.
pub fn encode_error(transaction: &[u8], to: SocketAddr, code: i64, text: &str) -> Vec<u8> {
    let _ = (transaction, to, code, text);
    todo!()
}
