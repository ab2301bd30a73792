//! What a DHT node knows when its program ends, for the next start: its ids, so that others still
//! find it in their tables, and nodes that were good, so that the next start needs no bootstrap
//! name.
//!
//! A bencoded dictionary: `version` (1), `nodes` and `nodes6`, the compact nodes of BEP 5 and 32,
//! and, since they were added later, perhaps `id` and `id6`. It is believed no more than what
//! strangers say: nodes in it are only asked first.

use std::net::SocketAddr;

use super::node_id::{Node, NodeId};
use crate::proto::bencode::{Keys, Limits, Numbers, Trailing, Value};
use crate::proto::compact::{self, V4_LEN, V6_LEN};

/// Most nodes saved for the next run.
pub const SAVED_COUNT_MAX: usize = 400;
/// Longest state that is read, bytes: four times what is ever written; a longer one is damaged.
pub const STATE_LEN_MAX: usize = 64 << 10;
/// The version that is written and read.
const VERSION: i64 = 1;
/// A dictionary of five entries, and room for entries of later programs.
const LIMITS: Limits = Limits {
    len_max: STATE_LEN_MAX,
    depth_max: 4,
    token_max: 64,
    trailing: Trailing::Refused,
    keys: Keys::Unique,
    numbers: Numbers::Canonical,
};
/// Bytes of an id in front of an address.
const ID_LEN: usize = 20;

/// Why a state cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another program's, probably a later sprat's.
    #[error("it has an unknown version")]
    Version,
    /// Nobody wrote it like that.
    #[error("it is damaged")]
    Damaged,
}

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The ids of the node, IPv4 first.
    pub ids: [Option<NodeId>; 2],
    /// At most [`SAVED_COUNT_MAX`].
    pub nodes: Vec<Node>,
}

impl State {
    /// Returns the nodes worth saving: the good ones, and behind them those of this earlier state,
    /// so that a short run does not forget what a long one learnt. None if none is good: then it is
    /// the network that is away.
    pub fn with_good(&self, mut good: Vec<Node>) -> Vec<Node> {
        if good.is_empty() {
            return good;
        }
        let known: Vec<SocketAddr> = good.iter().map(|node| node.addr).collect();
        good.extend(self.nodes.iter().filter(|node| !known.contains(&node.addr)));
        good.truncate(SAVED_COUNT_MAX);
        good
    }

    /// Returns the ids to save for a node that has `ids`: of a family in which it takes no part,
    /// the earlier one stays.
    pub fn with_ids(&self, ids: [Option<NodeId>; 2]) -> [Option<NodeId>; 2] {
        [ids[0].or(self.ids[0]), ids[1].or(self.ids[1])]
    }

    /// Returns the dictionary.
    pub fn encode(&self) -> Vec<u8> {
        let Self { ids, nodes } = self;
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for node in nodes {
            let out = if node.addr.is_ipv4() { &mut v4 } else { &mut v6 };
            out.extend_from_slice(&node.id.0);
            compact::encode(node.addr, out);
        }
        let mut bytes = Vec::with_capacity(v4.len() + v6.len() + 128);
        bytes.push(b'd');
        let ids = [("2:id", ids[0]), ("3:id6", ids[1])]
            .into_iter()
            .filter_map(|(key, id)| Some((key, id?.0.to_vec())));
        for (key, value) in ids.chain([("5:nodes", v4), ("6:nodes6", v6)]) {
            bytes.extend_from_slice(format!("{key}{}:", value.len()).as_bytes());
            bytes.extend_from_slice(&value);
        }
        bytes.extend_from_slice(format!("7:versioni{VERSION}ee").as_bytes());
        bytes
    }

    /// Reads a dictionary.
    ///
    /// # Errors
    /// It is of another version, or damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, StateError> {
        let value = Value::read(bytes, &LIMITS).map_err(|_| StateError::Damaged)?;
        let dict = value.dict().ok_or(StateError::Damaged)?;
        match dict.get(b"version").and_then(|version| version.integer()) {
            Some(VERSION) => {}
            Some(_) | None => return Err(StateError::Version),
        }
        let list = |key| dict.get(key).and_then(|nodes| nodes.bytes()).ok_or(StateError::Damaged);
        let v4 = split::<{ ID_LEN + V4_LEN }>(list(b"nodes")?, |addr| compact::decode_v4(addr).next())?;
        let v6 = split::<{ ID_LEN + V6_LEN }>(list(b"nodes6")?, |addr| compact::decode_v6(addr).next())?;
        let reachable = v4.into_iter().chain(v6).filter(|node| compact::is_dialable(node.addr));
        let id = |key| dict.get(key).and_then(|id| id.bytes()).and_then(|id| id.try_into().ok()).map(NodeId);
        Ok(Self { ids: [id(&b"id"[..]), id(b"id6")], nodes: reachable.take(SAVED_COUNT_MAX).collect() })
    }
}

/// The nodes of a compact list of entries of `LEN` bytes.
fn split<const LEN: usize>(
    list: &[u8],
    addr: impl Fn(&[u8]) -> Option<SocketAddr>,
) -> Result<Vec<Node>, StateError> {
    let (entries, rest) = list.as_chunks::<LEN>();
    if !rest.is_empty() {
        return Err(StateError::Damaged);
    }
    let node = |entry: &[u8; LEN]| {
        let (id, rest) = entry.split_first_chunk::<ID_LEN>()?;
        Some(Node { id: NodeId(*id), addr: addr(rest)? })
    };
    Ok(entries.iter().filter_map(node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::rng::Rng;
    use std::net::IpAddr;

    fn nodes(count: u16) -> Vec<Node> {
        let mut rng = Rng::from_number(1);
        let ip = |number| -> IpAddr {
            if number % 3 == 0 { [0x2001, 0xdb8, 0, 0, 0, 0, 1, number].into() } else { [8, 8, 1, 1].into() }
        };
        (1..=count)
            .map(|number| Node {
                id: NodeId::random(&mut rng),
                addr: SocketAddr::new(ip(number), 1_000 + number),
            })
            .collect()
    }

    fn state(count: u16) -> State {
        State { ids: [Some(NodeId([7; 20])), Some(NodeId([8; 20]))], nodes: nodes(count) }
    }

    #[test]
    fn a_file_that_is_cut_short_or_overwritten_is_damaged_and_never_a_panic() {
        let bytes = state(9).encode();
        for len in 0..bytes.len() {
            assert!(matches!(State::decode(&bytes[..len]), Err(StateError::Damaged)), "{len}");
        }
        let mut rng = Rng::from_number(2);
        for _ in 0..20_000 {
            let mut bytes = bytes.clone();
            for _ in 0..=rng.below(3) {
                let at = rng.below(bytes.len());
                bytes[at] = rng.bits() as u8;
            }
            if let Ok(state) = State::decode(&bytes) {
                assert!(state.nodes.len() <= 9);
            }
        }
        assert!(matches!(State::decode(b"d5:nodes1:x6:nodes60:7:versioni1ee"), Err(StateError::Damaged)));
        assert!(matches!(State::decode(b"d5:nodesi1e6:nodes60:7:versioni1ee"), Err(StateError::Damaged)));
    }

    #[test]
    fn another_version_and_too_much_are_told_apart_from_what_we_wrote() {
        for other in [&b"d5:nodes0:6:nodes60:7:versioni2ee"[..], b"d4:nodei1ee", b"d7:version1:1e"] {
            assert!(matches!(State::decode(other), Err(StateError::Version)));
        }
        assert_eq!(State::decode(&state(1_000).encode()).unwrap().nodes.len(), SAVED_COUNT_MAX);
        let nowhere = Node { id: NodeId([1; 20]), addr: "0.0.0.0:0".parse().unwrap() };
        assert!(
            State::decode(&State { ids: [None; 2], nodes: vec![nowhere] }.encode()).unwrap().nodes.is_empty()
        );
        let odd = State::decode(b"d2:id3:abc3:id6i7e5:nodes0:6:nodes60:7:versioni1ee").unwrap();
        assert_eq!(odd, State::default(), "an id that is none is drawn anew");
    }

    #[test]
    fn what_is_saved_is_read() {
        let sorted = |mut state: State| {
            state.nodes.sort_unstable();
            state
        };
        for state in [state(250), State { ids: [None; 2], ..state(3) }, State::default()] {
            assert_eq!(sorted(State::decode(&state.encode()).unwrap()), sorted(state));
        }
    }

    #[test]
    fn a_short_run_forgets_nothing_and_no_run_saves_what_it_could_not_reach() {
        let node = |port| Node { id: NodeId([1; 20]), addr: SocketAddr::from(([8, 8, 8, 8], port)) };
        let nodes = |ports: std::ops::Range<u16>| ports.map(node).collect::<Vec<_>>();
        let earlier = |ports| State { nodes: nodes(ports), ..State::default() };
        assert!(earlier(1..50).with_good(Vec::new()).is_empty());
        let expected = [nodes(10..12), nodes(9..10), nodes(12..13)].concat();
        assert_eq!(earlier(9..13).with_good(nodes(10..12)), expected);
        assert_eq!(earlier(1..900).with_good(nodes(1..300)).len(), SAVED_COUNT_MAX);
    }
}
