//! A forger: floods one node with announces whose tokens are its own invention, and with answers to
//! queries that it guesses are under way, and watches for signs that one was believed.
//!
//! All addresses that it invents are in one /8 where nobody else is: the lower half writes, the
//! upper half is named as nodes and peers. Whatever the victim sends to the upper half it can have
//! learnt from a forgery only.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use super::network::{HostId, Network, PORT};
use super::report::Forgeries;
use crate::proto::dht::Dht;
use crate::proto::dht::event::{Found, Output};
use crate::proto::dht::krpc::{self, Answer, Body, Method, Query, Want};
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// The /8 that is the forger's alone.
pub(super) const OWN_NET: u8 = 45;
/// Between two volleys.
pub(super) const VOLLEY_INTERVAL: Duration = Duration::from_millis(100);

/// The forger.
#[derive(Debug)]
pub(super) struct Forger {
    victim: HostId,
    /// What it pretends to announce.
    infohash: NodeId,
    /// Forgeries of each kind a volley.
    volley: u64,
    left: u64,
    counts: Forgeries,
    rng: Rng,
}

impl Forger {
    /// So many forgeries of each kind against this host, spread over this span.
    pub(super) fn new(victim: HostId, forgeries: u64, span: Duration, mut rng: Rng) -> Self {
        let volleys = (span.as_micros() / VOLLEY_INTERVAL.as_micros()).max(1) as u64;
        let infohash = NodeId::random(&mut rng);
        let counts = Forgeries::default();
        Self { victim, infohash, volley: forgeries.div_ceil(volleys), left: forgeries, counts, rng }
    }

    pub(super) fn victim(&self) -> HostId {
        self.victim
    }

    /// Whether it goes on.
    pub(super) fn has_more(&self) -> bool {
        self.left > 0
    }

    /// The next volley: when which datagram arrives.
    pub(super) fn fire(&mut self, now: Instant, victim: &Dht, network: &mut Network) -> Vec<(Instant, u32)> {
        let count = self.volley.min(self.left);
        self.left -= count;
        let known = victim.good_nodes();
        let mut under_way = Vec::new();
        for _ in 0..count {
            let from = self.invented(false);
            let announce = self.announce();
            under_way.extend(network.forge(now, from, self.victim, announce));
            self.counts.tokens_sent += 1;
            let asked = known.get(self.rng.below(known.len())).copied();
            let Some((node, SocketAddr::V4(from))) = asked.map(|node| (node, node.addr)) else { continue };
            let reply = self.reply(node.id);
            under_way.extend(network.forge(now, from, self.victim, reply));
            self.counts.replies_sent += 1;
        }
        under_way
    }

    /// The victim decided something.
    pub(super) fn watch(&mut self, output: &Output) {
        match output {
            Output::Send { to, bytes } => match own_half(*to) {
                Some(true) => self.counts.replies_accepted += 1,
                Some(false) => self.counts.tokens_accepted += u64::from(is_answer(bytes)),
                None => {}
            },
            Output::Found { request: _, found: Found::Peers { peers, local: _ } } => {
                let invented = peers.iter().filter(|addr| own_half(**addr).is_some());
                self.counts.replies_accepted += invented.count() as u64;
            }
            Output::Found { request: _, found: Found::Item(_) | Found::Done(_) }
            | Output::Bootstrap
            | Output::External(_) => {}
        }
    }

    /// Asks the victim what it has kept, and counts.
    pub(super) fn conclude(&mut self, now: Instant, victim: &mut Dht) -> Forgeries {
        let from = self.invented(false).into();
        let method = Method::GetPeers {
            infohash: self.infohash,
            want: Want::default(),
            scrape: false,
            no_seed: false,
        };
        let query = Query { id: NodeId::random(&mut self.rng), read_only: true, method };
        let _is_krpc = victim.handle_datagram(now, from, &krpc::encode_query([9; 4], &query));
        while let Some(output) = victim.poll_output() {
            if let Output::Send { bytes, .. } = &output
                && let Ok(message) = krpc::decode(bytes)
                && let Body::Response(response) = message.body
            {
                self.counts.tokens_accepted += response.peers().count() as u64;
            }
        }
        let kept = victim.good_nodes();
        let invented = kept.iter().filter(|node| own_half(node.addr).is_some());
        self.counts.replies_accepted += invented.count() as u64;
        self.counts
    }

    fn announce(&mut self) -> Vec<u8> {
        let (mut token, mut transaction) = ([0; 8], [0; krpc::TRANSACTION_LEN]);
        self.rng.fill(&mut token);
        self.rng.fill(&mut transaction);
        let id = NodeId::random(&mut self.rng);
        let method =
            Method::AnnouncePeer { infohash: self.infohash, port: Some(PORT), token: &token, seed: false };
        krpc::encode_query(transaction, &Query { id, read_only: true, method })
    }

    fn reply(&mut self, id: NodeId) -> Vec<u8> {
        let mut transaction = [0; krpc::TRANSACTION_LEN];
        self.rng.fill(&mut transaction);
        let node = Node { id: NodeId::random(&mut self.rng), addr: self.invented(true).into() };
        let peers = vec![self.invented(true).into()];
        let answer =
            Answer { nodes: vec![node], names_v4: true, peers, token: Some([1; 8]), ..Answer::default() };
        let victim_seen_at = self.invented(true).into();
        krpc::encode_answer(&transaction, id, victim_seen_at, &answer)
    }

    /// An address of its own, to write from or to be named.
    fn invented(&mut self, is_named: bool) -> SocketAddrV4 {
        let bits = self.rng.bits() as u32 & 0x007f_ffff | u32::from(is_named) << 23;
        SocketAddrV4::new(Ipv4Addr::from(u32::from(OWN_NET) << 24 | bits), PORT)
    }
}

/// Whether an address is one that the forger names (true) or writes from (false); None: neither.
fn own_half(addr: SocketAddr) -> Option<bool> {
    match addr {
        SocketAddr::V4(addr) if addr.ip().octets()[0] == OWN_NET => Some(addr.ip().octets()[1] >= 128),
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

/// Whether the victim says yes.
fn is_answer(bytes: &[u8]) -> bool {
    krpc::decode(bytes).is_ok_and(|message| matches!(message.body, Body::Response(_)))
}
