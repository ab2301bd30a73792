//! Encodes KRPC datagrams: keys are written in order, so that nothing is sorted or built twice. One
//! allocation for each datagram, of about its length.

use std::net::SocketAddr;

use super::super::item::{Item, Mutable};
use super::super::node_id::{Node, NodeId};
use super::super::token::TOKEN_LEN;
use super::{
    Answer, DATAGRAM_LEN_MAX, FILTER_LEN, ID_LEN, Method, NODE_V4_LEN, NODE_V6_LEN, Query, TRANSACTION_LEN,
    TRANSACTION_LEN_MAX, Want,
};
use crate::proto::bencode::{write_bytes, write_integer, write_len};
use crate::proto::compact;

/// `v`: client and version.
const CLIENT: &[u8] = b"1:v4:SP\x00\x01";
/// Longest text of an error, bytes; longer ones are truncated.
const ERROR_TEXT_LEN_MAX: usize = 128;
/// Bytes of a query without token and item: those of the longest query, and some reserve.
const QUERY_LEN: usize = 160;

/// Encodes a query.
pub fn encode_query(transaction: [u8; TRANSACTION_LEN], query: &Query) -> Vec<u8> {
    let (name, variable_len) = match &query.method {
        Method::Ping => ("4:ping", 0),
        Method::FindNode { .. } => ("9:find_node", 0),
        Method::GetPeers { .. } => ("9:get_peers", 0),
        Method::AnnouncePeer { token, .. } => ("13:announce_peer", token.len()),
        Method::Get { .. } => ("3:get", 0),
        Method::Put { token, item, .. } => ("3:put", 160 + token.len() + item.salt.len() + item.value.len()),
        Method::SampleInfohashes { .. } => ("17:sample_infohashes", 0),
        Method::Unknown { .. } => ("0:", 0),
    };
    let mut out = Vec::with_capacity(QUERY_LEN + variable_len);
    out.extend_from_slice(b"d1:ad");
    write_arguments(&mut out, query);
    out.extend_from_slice(b"e1:q");
    out.extend_from_slice(name.as_bytes());
    if query.read_only {
        out.extend_from_slice(b"2:roi1e");
    }
    write_end(&mut out, &transaction, true, b'q');
    out
}

/// Encodes an answer of at most [`DATAGRAM_LEN_MAX`] bytes: peers, samples and then nodes are left
/// out from the end until it fits. `to` is the querier's address, which the answer names as `ip`
/// (BEP 42).
///
/// Beside the longest item nothing of these fits; then the client's name, the address and even the
/// token are left out too. The item itself fails to fit, and is left out, only with a transaction
/// id longer than that of any client.
pub fn encode_answer(transaction: &[u8], id: NodeId, to: SocketAddr, answer: &Answer) -> Vec<u8> {
    let transaction = &transaction[..transaction.len().min(TRANSACTION_LEN_MAX)];
    let fit = Fit::new(transaction, to, answer);
    let mut out = Vec::with_capacity(DATAGRAM_LEN_MAX - fit.room.0);
    out.push(b'd');
    if fit.external {
        write_external(&mut out, to);
    }
    out.extend_from_slice(b"1:rd");
    fit.write(&mut out, id);
    out.push(b'e');
    write_end(&mut out, transaction, fit.client, b'r');
    out
}

/// Encodes an error: 201 generic, 203 protocol, 204 method unknown; BEP 44: 205 too big, 206 bad
/// signature, 207 salt too big, 301 cas mismatch, 302 seq less than current.
pub fn encode_error(transaction: &[u8], to: SocketAddr, code: i64, text: &str) -> Vec<u8> {
    let transaction = &transaction[..transaction.len().min(TRANSACTION_LEN_MAX)];
    let text = &text.as_bytes()[..text.len().min(ERROR_TEXT_LEN_MAX)];
    let mut out = Vec::with_capacity(96 + transaction.len() + text.len());
    out.extend_from_slice(b"d1:el");
    write_integer(&mut out, code);
    write_bytes(&mut out, text);
    out.push(b'e');
    write_external(&mut out, to);
    write_end(&mut out, transaction, true, b'e');
    out
}

/// Writes `t`, `v`, `y` and the end of the message.
fn write_end(out: &mut Vec<u8>, transaction: &[u8], client: bool, kind: u8) {
    out.extend_from_slice(b"1:t");
    write_bytes(out, transaction);
    if client {
        out.extend_from_slice(CLIENT);
    }
    out.extend_from_slice(&[b'1', b':', b'y', b'1', b':', kind, b'e']);
}

/// Writes `ip` (BEP 42).
fn write_external(out: &mut Vec<u8>, to: SocketAddr) {
    out.extend_from_slice(if compact::canonical(to).is_ipv4() { b"2:ip6:" } else { b"2:ip18:" });
    compact::encode(to, out);
}

fn write_id(out: &mut Vec<u8>, key: &str, id: NodeId) {
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(b"20:");
    out.extend_from_slice(&id.0);
}

fn write_flag(out: &mut Vec<u8>, key: &str, flag: bool) {
    if flag {
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(b"i1e");
    }
}

fn write_number(out: &mut Vec<u8>, key: &str, number: Option<i64>) {
    if let Some(number) = number {
        out.extend_from_slice(key.as_bytes());
        write_integer(out, number);
    }
}

fn write_string(out: &mut Vec<u8>, key: &str, string: &[u8]) {
    out.extend_from_slice(key.as_bytes());
    write_bytes(out, string);
}

fn write_want(out: &mut Vec<u8>, want: Want) {
    out.extend_from_slice(match (want.v4, want.v6) {
        (false, false) => b"",
        (true, false) => b"4:wantl2:n4e",
        (false, true) => b"4:wantl2:n6e",
        (true, true) => b"4:wantl2:n42:n6e",
    });
}

fn write_arguments(out: &mut Vec<u8>, query: &Query) {
    if let Method::Put { cas, .. } = query.method {
        write_number(out, "3:cas", cas);
    }
    write_id(out, "2:id", query.id);
    match query.method {
        Method::Ping => (),
        Method::FindNode { target, want } | Method::SampleInfohashes { target, want } => {
            write_id(out, "6:target", target);
            write_want(out, want);
        }
        Method::GetPeers { infohash, want, scrape, no_seed } => {
            write_id(out, "9:info_hash", infohash);
            write_flag(out, "6:noseed", no_seed);
            write_flag(out, "6:scrape", scrape);
            write_want(out, want);
        }
        Method::AnnouncePeer { infohash, port, token, seed } => {
            write_flag(out, "12:implied_port", port.is_none());
            write_id(out, "9:info_hash", infohash);
            // Required even if the other key counts; nodes that do not know `implied_port` refuse
            // 0.
            write_number(out, "4:port", Some(port.unwrap_or(0).into()));
            write_flag(out, "4:seed", seed);
            write_string(out, "5:token", token);
        }
        Method::Get { target, seq, want } => {
            write_number(out, "3:seq", seq);
            write_id(out, "6:target", target);
            write_want(out, want);
        }
        Method::Put { token, item, .. } => {
            if let (Some(public_key), Some(signature)) = (item.public_key, item.signature) {
                write_string(out, "1:k", public_key);
                if !item.salt.is_empty() {
                    write_string(out, "4:salt", item.salt);
                }
                write_number(out, "3:seq", Some(item.seq));
                write_string(out, "3:sig", signature);
            }
            write_string(out, "5:token", token);
            out.extend_from_slice(b"1:v");
            out.extend_from_slice(item.value);
        }
        Method::Unknown { target } => {
            if let Some(target) = target {
                write_id(out, "6:target", target);
            }
        }
    }
}

/// Bytes left in the datagram.
struct Room(usize);

impl Room {
    /// Takes `len` bytes, if they are left.
    fn take(&mut self, len: usize) -> bool {
        let fits = len <= self.0;
        if fits {
            self.0 -= len;
        }
        fits
    }

    /// Takes as many elements from the front as fit, with `head_len` bytes for all of them
    /// together.
    fn take_front<'a, T>(&mut self, head_len: usize, all: &'a [T], len: impl Fn(&T) -> usize) -> &'a [T] {
        if all.is_empty() || !self.take(head_len) {
            return &[];
        }
        let fitting = all.iter().take_while(|&one| self.take(len(one))).count();
        &all[..fitting]
    }
}

/// The parts of an answer that fit into a datagram, the most important first.
struct Fit<'a> {
    item: Option<&'a Item>,
    seq: Option<i64>,
    token: Option<&'a [u8; TOKEN_LEN]>,
    external: bool,
    client: bool,
    filters: Option<&'a ([u8; FILTER_LEN], [u8; FILTER_LEN])>,
    /// Whether `nodes` and `nodes6` are written.
    names: [bool; 2],
    nodes: &'a [Node],
    /// With `num` and `interval`.
    samples: Option<(&'a [NodeId], i64, i64)>,
    peers: &'a [SocketAddr],
    room: Room,
}

impl<'a> Fit<'a> {
    /// Reserves the longest form of each number.
    fn new(transaction: &[u8], to: SocketAddr, answer: &'a Answer) -> Self {
        // d, 1:rd..e, 2:id20: and the id, 1:t, 1:y1:r, e.
        let mut room = Room(DATAGRAM_LEN_MAX - (1 + 5 + 7 + ID_LEN + 3 + 3 + 6 + 1) - transaction.len());
        let item = answer.item.as_ref().filter(|item| room.take(item_len(item)));
        let seq = answer.seq.filter(|_| item.is_none() && room.take(27));
        let token = answer.token.as_ref().filter(|_| room.take(9 + TOKEN_LEN));
        let external = room.take(if is_v4(to) { 6 + compact::V4_LEN } else { 7 + compact::V6_LEN });
        let client = room.take(CLIENT.len());
        let filters = answer.filters.as_deref().filter(|_| room.take(2 * (10 + FILTER_LEN)));
        let named = |v4: bool| answer.nodes.iter().any(|node| is_v4(node.addr) == v4);
        let names = [(answer.names_v4, true, 12), (answer.names_v6, false, 13)]
            .map(|(asked, v4, head_len)| (asked || named(v4)) && room.take(head_len));
        let nodes = room.take_front(0, &answer.nodes, |node| match is_v4(node.addr) {
            true => NODE_V4_LEN,
            false => NODE_V6_LEN,
        });
        let samples = answer.samples.as_ref().filter(|_| room.take(14 + 27 + 33));
        let samples = samples.map(|(ids, num, interval)| {
            let ids = room.take_front(0, ids, |_| ID_LEN);
            (ids, *num as i64, i64::try_from(*interval).unwrap_or(i64::MAX))
        });
        let peers = room.take_front(10, &answer.peers, |&peer| match is_v4(peer) {
            true => 2 + compact::V4_LEN,
            false => 3 + compact::V6_LEN,
        });
        Self { item, seq, token, external, client, filters, names, nodes, samples, peers, room }
    }

    /// The answer's dictionary, without its ends.
    fn write(&self, out: &mut Vec<u8>, id: NodeId) {
        if let Some((seeds, downloaders)) = self.filters {
            write_string(out, "4:BFpe", downloaders);
            write_string(out, "4:BFsd", seeds);
        }
        write_id(out, "2:id", id);
        write_number(out, "8:interval", self.samples.map(|(.., interval)| interval));
        let mutable = self.item.and_then(Item::mutable);
        if let Some(Mutable { public_key, .. }) = mutable {
            write_string(out, "1:k", public_key);
        }
        self.write_nodes(out);
        if let Some((ids, num, _)) = self.samples {
            write_number(out, "3:num", Some(num));
            out.extend_from_slice(b"7:samples");
            write_len(out, ids.len() * ID_LEN);
            ids.iter().for_each(|id| out.extend_from_slice(&id.0));
        }
        write_number(out, "3:seq", mutable.map(|mutable| mutable.seq).or(self.seq));
        if let Some(Mutable { signature, .. }) = mutable {
            write_string(out, "3:sig", signature);
        }
        if let Some(token) = self.token {
            write_string(out, "5:token", token);
        }
        if let Some(item) = self.item {
            out.extend_from_slice(b"1:v");
            out.extend_from_slice(item.value());
        }
        if !self.peers.is_empty() {
            out.extend_from_slice(b"6:valuesl");
            for &peer in self.peers {
                out.extend_from_slice(if is_v4(peer) { b"6:" } else { b"18:" });
                compact::encode(peer, out);
            }
            out.push(b'e');
        }
    }

    fn write_nodes(&self, out: &mut Vec<u8>) {
        for (named, v4, key) in [(self.names[0], true, "5:nodes"), (self.names[1], false, "6:nodes6")] {
            if !named {
                continue;
            }
            let nodes = || self.nodes.iter().filter(|node| is_v4(node.addr) == v4);
            let node_len = if v4 { NODE_V4_LEN } else { NODE_V6_LEN };
            out.extend_from_slice(key.as_bytes());
            write_len(out, nodes().count() * node_len);
            for node in nodes() {
                out.extend_from_slice(&node.id.0);
                compact::encode(node.addr, out);
            }
        }
    }
}

fn is_v4(addr: SocketAddr) -> bool {
    addr.ip().to_canonical().is_ipv4()
}

/// Bytes that an item takes in an answer: `v`, and of a mutable one `k`, `seq` and `sig`.
fn item_len(item: &Item) -> usize {
    let seq_len = |seq: i64| {
        1 + usize::from(seq < 0) + seq.unsigned_abs().checked_ilog10().map_or(0, |log| log as usize)
    };
    3 + item.value().len() + item.mutable().map_or(0, |mutable| 38 + 7 + seq_len(mutable.seq) + 72)
}
