//! KRPC: the DHT's messages as datagrams (BEP 5, with the keys of BEP 32, 33, 42, 43, 44, 51).
//!
//! Decoding borrows from the datagram and allocates nothing. A key of the wrong kind or length
//! counts as absent; a message that lacks a required key is an error. Encoding is canonical: keys
//! in order.
//!
//! Knows no nodes, transactions or policy, and checks no signature or token.

mod decode;
mod encode;

use std::net::SocketAddr;

use super::item::{Item, ItemRef};
use super::node_id::{Node, NodeId};
use super::token::TOKEN_LEN;
use crate::proto::bencode::List;
use crate::proto::compact;
pub use decode::decode;
pub use encode::{encode_answer, encode_error, encode_query};

/// Longest datagram sent, bytes: the payload of the smallest IPv6 MTU (1,280) with room for
/// headers. Longer answers are shortened by naming fewer peers, samples and nodes.
pub const DATAGRAM_LEN_MAX: usize = 1_200;
/// Length of our transaction ids, bytes.
pub const TRANSACTION_LEN: usize = 4;
/// Longest transaction id of other nodes, bytes: it is echoed, and a longer one is an error.
/// Clients use 2 to 8.
pub const TRANSACTION_LEN_MAX: usize = 32;
/// Most nodes of one family read from an answer; further ones are ignored. A query for k = 8 gets
/// 8, from some implementations 20, and no single answer may fill a lookup.
pub const NODE_COUNT_MAX: usize = 32;

/// Length of an IPv4 node in an answer, bytes: id, address, port.
const NODE_V4_LEN: usize = ID_LEN + compact::V4_LEN;
/// The same for IPv6 (BEP 32).
const NODE_V6_LEN: usize = ID_LEN + compact::V6_LEN;
const ID_LEN: usize = 20;
/// Length of a filter (BEP 33), bytes.
const FILTER_LEN: usize = 256;

/// A decoded datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// `t`: echoed in answers; at most 32 bytes.
    pub transaction: &'a [u8],
    /// Its kind and content.
    pub body: Body<'a>,
    /// `ip`: the receiver's address as the sender sees it (BEP 42).
    pub external: Option<SocketAddr>,
}

/// The three kinds of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body<'a> {
    /// `q`
    Query(Query<'a>),
    /// `r`
    Response(Response<'a>),
    /// `e`: code and text.
    Error(i64, &'a [u8]),
}

/// The families of nodes wanted in an answer (BEP 32); if neither, that of the datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Want {
    /// `n4`
    pub v4: bool,
    /// `n6`
    pub v6: bool,
}

/// A query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query<'a> {
    /// The sender's id.
    pub id: NodeId,
    /// `ro`: the sender must not be kept in routing tables (BEP 43).
    pub read_only: bool,
    /// The method with its arguments.
    pub method: Method<'a>,
}

/// The method of a query with its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method<'a> {
    /// Checks that the node is alive.
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
    /// Store the sender as a peer of a torrent.
    AnnouncePeer {
        /// The torrent.
        infohash: NodeId,
        /// Its TCP port; `None` for the datagram's source port (`implied_port`).
        port: Option<u16>,
        /// From an answer to `get_peers`.
        token: &'a [u8],
        /// Whether it is complete (BEP 33).
        seed: bool,
    },
    /// An item (BEP 44).
    Get {
        /// SHA-1 of the value, or of key and salt.
        target: NodeId,
        /// Only newer items than this sequence number.
        seq: Option<i64>,
        /// Families wanted.
        want: Want,
    },
    /// Store an item (BEP 44).
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
    /// An unknown method; answered by error 204, or as `find_node` if it has a target. Encoded with
    /// an empty name.
    Unknown {
        /// `target` or `info_hash`, if present.
        target: Option<NodeId>,
    },
}

/// An answer; every key but the id is optional.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The sender's id.
    pub id: NodeId,
    /// `nodes`, compact, 26 bytes each.
    pub nodes: &'a [u8],
    /// `nodes6`, compact, 38 bytes each.
    pub nodes6: &'a [u8],
    /// `token`
    pub token: Option<&'a [u8]>,
    /// `values`: read by [`Response::peers`].
    pub values: Option<List<'a>>,
    /// `BFsd`, `BFpe` (BEP 33).
    pub filters: Option<(&'a [u8; FILTER_LEN], &'a [u8; FILTER_LEN])>,
    /// `samples`, 20 bytes each; with `num` (BEP 51).
    pub samples: Option<(&'a [u8], i64)>,
    /// `v`, `k`, `sig`, `seq` (BEP 44).
    pub item: Option<ItemRef<'a>>,
    /// `seq` without an item: the node has no newer one (BEP 44).
    pub seq: Option<i64>,
}

impl<'a> Response<'a> {
    /// Returns the nodes of both families, canonical, without unreachable addresses; at most
    /// [`NODE_COUNT_MAX`] of each family.
    pub fn nodes(&self) -> impl Iterator<Item = Node> + use<'a> {
        let v4 = self.nodes.as_chunks::<NODE_V4_LEN>().0.iter().take(NODE_COUNT_MAX);
        let v6 = self.nodes6.as_chunks::<NODE_V6_LEN>().0.iter().take(NODE_COUNT_MAX);
        let v4 = v4.filter_map(|node| node_at(node, |addr| compact::decode_v4(addr).next()));
        let v6 = v6.filter_map(|node| node_at(node, |addr| compact::decode_v6(addr).next()));
        v4.chain(v6)
    }

    /// Returns the peers, canonical, without unreachable addresses.
    pub fn peers(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        self.values.into_iter().flatten().filter_map(|value| address(value.bytes()?))
    }
}

/// Returns a node of an answer, if its address is reachable.
fn node_at(bytes: &[u8], addr: impl Fn(&[u8]) -> Option<SocketAddr>) -> Option<Node> {
    let (id, rest) = bytes.split_first_chunk::<ID_LEN>()?;
    let addr = addr(rest).filter(|&addr| compact::is_dialable(addr))?;
    Some(Node { id: NodeId(*id), addr })
}

/// Returns a compact address of either family, canonical, if it is reachable.
fn address(bytes: &[u8]) -> Option<SocketAddr> {
    let addr = match bytes.len() {
        compact::V4_LEN => compact::decode_v4(bytes).next(),
        compact::V6_LEN => compact::decode_v6(bytes).next(),
        _ => None,
    };
    addr.filter(|&addr| compact::is_dialable(addr))
}

/// An answer to encode; empty parts are left out.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Nodes of both families, closest first.
    pub nodes: Vec<Node>,
    /// Whether `nodes` is encoded even if empty.
    pub names_v4: bool,
    /// Whether `nodes6` is encoded even if empty.
    pub names_v6: bool,
    /// `values`
    pub peers: Vec<SocketAddr>,
    /// `token`
    pub token: Option<[u8; TOKEN_LEN]>,
    /// `BFsd`, `BFpe`
    pub filters: Option<Box<([u8; FILTER_LEN], [u8; FILTER_LEN])>>,
    /// `samples`, `num`, `interval` in seconds.
    pub samples: Option<(Vec<NodeId>, usize, u64)>,
    /// The item.
    pub item: Option<Item>,
    /// `seq` without an item.
    pub seq: Option<i64>,
}

/// Why a datagram is no KRPC message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("bad KRPC message: {0}")]
pub struct KrpcError(pub &'static str);
