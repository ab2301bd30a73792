//! A host that means harm: it speaks KRPC by the production codec, and lies.
//!
//! It answers every query with those of its kind that are closest to what was asked for, gives
//! tokens, takes announces without keeping them, knows no peers, and keeps asking honest nodes so
//! that they may keep it.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::scenario::Attack;
use crate::proto::dht::event::Output;
use crate::proto::dht::krpc::{self, Answer, Body, Method, Query, Want};
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::dht::routing::K;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Between two queries of one hostile host.
const QUERY_INTERVAL: Duration = Duration::from_secs(20);
/// Ids that fit an address are drawn so often to find all eight that there are (BEP 42).
const FITTING_DRAW_COUNT: usize = 64;
/// Leading bits of an id that follow from the address (BEP 42).
const FITTING_BITS: u32 = 21;

/// So many members with one id are looked at for an answer; they are all the same to whoever asks.
const EQUAL_COUNT_MAX: usize = 64;

/// What all hostile hosts know.
#[derive(Debug)]
pub(super) struct Conspiracy {
    target: NodeId,
    attack: Attack,
    /// Ids as close to the target as this cannot be told from honest luck by their number alone.
    shared_bits: u32,
    /// All of them, by id.
    members: Vec<Node>,
}

impl Conspiracy {
    /// Against this infohash, in an overlay of so many nodes.
    pub(super) fn new(attack: Attack, target: NodeId, node_count: usize) -> Self {
        let shared_bits = node_count.max(1).ilog2() + 6;
        Self { target, attack, shared_bits, members: Vec::new() }
    }

    /// The id of a new member at this address.
    pub(super) fn admit(&mut self, addr: SocketAddr, rng: &mut Rng) -> NodeId {
        let id = match self.attack {
            Attack::Gather => self.target.random_at(self.shared_bits, rng),
            Attack::GatherFitting => closest_fitting(addr.ip(), self.target, rng),
            Attack::OneId => self.target,
        };
        let node = Node { id, addr };
        let at = self.members.binary_search(&node).unwrap_or_else(|at| at);
        self.members.insert(at, node);
        id
    }

    /// The members closest to a point, closest first; among equals, others each time.
    fn closest(&self, target: NodeId, rng: &mut Rng) -> Vec<Node> {
        // In the order of ids, those that share the most bits with the point stand together.
        let mut range = &self.members[..];
        for at in 0..160 {
            let (zeros, ones) = range.split_at(range.partition_point(|node| !bit(node.id, at)));
            let nearer = if bit(target, at) { ones } else { zeros };
            if nearer.len() < K {
                break;
            }
            range = nearer;
        }
        let from = rng.below(range.len().saturating_sub(EQUAL_COUNT_MAX) + 1);
        let mut range: Vec<Node> = range.iter().skip(from).take(EQUAL_COUNT_MAX).copied().collect();
        rng.shuffle(&mut range);
        range.sort_by_key(|node| node.id.distance(target));
        range.truncate(K);
        range
    }
}

/// The bit of an id at this place, the first one being the highest.
fn bit(id: NodeId, at: usize) -> bool {
    id.0[at / 8] & (0x80 >> (at % 8)) != 0
}

/// The closest id to the target that an address allows: what follows from the address is what it
/// is, the rest is the target's but for some bits that tell members apart.
fn closest_fitting(ip: IpAddr, target: NodeId, rng: &mut Rng) -> NodeId {
    let drawn = (0..FITTING_DRAW_COUNT).map(|_| NodeId::for_ip(ip, rng));
    let mut best = drawn.min_by_key(|id| id.distance(target)).unwrap_or(target);
    let free = FITTING_BITS as usize / 8;
    best.0[free] = best.0[free] & 0xf8 | target.0[free] & 0x07;
    best.0[free + 1..12].copy_from_slice(&target.0[free + 1..12]);
    best
}

/// One hostile host.
#[derive(Debug)]
pub(super) struct Hostile {
    id: NodeId,
    conspiracy: Rc<Conspiracy>,
    /// An honest node to ask next, told by the overlay: whoever means harm has crawled it.
    victim: Option<SocketAddr>,
    wakes_at: Instant,
    outputs: VecDeque<Output>,
    rng: Rng,
}

impl Hostile {
    pub(super) fn new(now: Instant, id: NodeId, conspiracy: Rc<Conspiracy>, mut rng: Rng) -> Self {
        let wakes_at = now + QUERY_INTERVAL.mul_f64(rng.unit());
        Self { id, conspiracy, victim: None, wakes_at, outputs: VecDeque::new(), rng }
    }

    /// Whom to ask next.
    pub(super) fn aim(&mut self, victim: Option<SocketAddr>) {
        self.victim = victim;
    }

    pub(super) fn wakes_at(&self) -> Instant {
        self.wakes_at
    }

    /// Asks an honest node for the target, as anybody may.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.wakes_at = now + QUERY_INTERVAL.mul_f64(0.75 + 0.5 * self.rng.unit());
        let Some(to) = self.victim.take() else { return };
        let want = Want::default();
        let method = Method::FindNode { target: self.conspiracy.target, want };
        let mut transaction = [0; krpc::TRANSACTION_LEN];
        self.rng.fill(&mut transaction);
        let bytes = krpc::encode_query(transaction, &Query { id: self.id, read_only: false, method });
        self.outputs.push_back(Output::Send { to, bytes });
    }

    pub(super) fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let Ok(message) = krpc::decode(bytes) else { return };
        let query = match message.body {
            Body::Query(query) => query,
            Body::Response(_) | Body::Error(..) => return,
        };
        let target = match query.method {
            Method::FindNode { target, .. }
            | Method::GetPeers { infohash: target, .. }
            | Method::Get { target, .. }
            | Method::SampleInfohashes { target, .. } => Some(target),
            Method::Unknown { target } => target,
            Method::Ping | Method::AnnouncePeer { .. } | Method::Put { .. } => None,
        };
        let mut answer = Answer::default();
        if let Some(target) = target {
            answer.nodes = self.conspiracy.closest(target, &mut self.rng);
            answer.names_v4 = true;
            answer.token = Some([7; 8]);
        }
        let bytes = krpc::encode_answer(message.transaction, self.id, from, &answer);
        self.outputs.push_back(Output::Send { to: from, bytes });
    }

    pub(super) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
