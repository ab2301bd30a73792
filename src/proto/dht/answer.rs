//! Answers the queries of other nodes, and keeps their data: peers (BEP 5, 33, 51) and items (BEP
//! 44).
//!
//! Every query passes the budget before it is read, and every answer before it is sent; a token is
//! checked before anything that costs more. A source address may be forged, so no host is punished
//! for a query, and the size of an answer relative to its query is bounded: see the arithmetic in
//! [the machine](super). The routing tables are arguments; transactions and lookups are unknown
//! here.

use std::net::{IpAddr, SocketAddr};

use super::budget::Budget;
use super::item::{ItemError, ItemRef};
use super::items::{ItemStore, PutError};
use super::krpc::{self, Answer, Method, Query, Want};
use super::node_id::NodeId;
use super::overlay::Overlays;
use super::peers::PeerStore;
use super::routing::K;
use super::token::Tokens;
use crate::proto::rng::Rng;
use crate::proto::time::Instant;

/// Most IPv4 peers in an answer, 8 bytes each: eight nodes together name more than a peer connects
/// to.
const PEERS_V4_MAX: usize = 40;
/// Most IPv6 peers in an answer, 21 bytes each.
const PEERS_V6_MAX: usize = 16;
/// Most peers in an answer with filters, which take 530 bytes.
const PEERS_WITH_FILTERS_MAX: usize = 8;
/// Most infohashes in a sample (BEP 51).
const SAMPLE_COUNT_MAX: usize = 16;
/// Time until a crawler may ask for another sample, seconds.
const SAMPLE_INTERVAL_SECONDS: u64 = 300;

/// Codes of errors (BEP 5).
mod code {
    /// An error without a code of its own.
    pub(super) const GENERIC: i64 = 201;
    /// A wrong argument or token.
    pub(super) const PROTOCOL: i64 = 203;
    /// An unknown method.
    pub(super) const METHOD: i64 = 204;
}

/// Why a query is refused: its code, and a text.
type Refusal = (i64, &'static str);

/// A query with its sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    /// The source of the datagram, canonical.
    pub(super) from: SocketAddr,
    /// `t`
    pub(super) transaction: &'a [u8],
    /// The query.
    pub(super) query: &'a Query<'a>,
}

/// Answers queries and keeps the data of other nodes.
#[derive(Debug)]
pub(super) struct Answers {
    tokens: Tokens,
    /// Peers of torrents.
    pub(super) peers: PeerStore,
    /// Items.
    pub(super) items: ItemStore,
    budget: Budget,
    /// Queries answered, dropped by the budget, refused.
    pub(super) counts: (u64, u64, u64),
}

impl Answers {
    /// Creates empty stores.
    pub(super) fn new(rng: &mut Rng, now: Instant) -> Self {
        Self {
            tokens: Tokens::new(rng.fork("tokens"), now),
            peers: PeerStore::new(rng.fork("peers")),
            items: ItemStore::new(),
            budget: Budget::new(rng.fork("budget"), now),
            counts: (0, 0, 0),
        }
    }

    /// Whether a query may be read.
    pub(super) fn admit(&mut self, now: Instant, from: SocketAddr) -> bool {
        let admitted = self.budget.admit(now, from.ip());
        self.counts.1 += u64::from(!admitted);
        admitted
    }

    /// Returns the answer to an admitted query; `None` if the budget forbids it.
    pub(super) fn answer(&mut self, now: Instant, asked: &Asked, overlays: &Overlays) -> Option<Vec<u8>> {
        let own = overlays.of(asked.from.is_ipv6())?.table.own();
        let answer = self.reply(now, own, asked, overlays);
        let refused = answer.is_err();
        let bytes = match answer {
            Ok(answer) => krpc::encode_answer(asked.transaction, own, asked.from, &answer),
            Err((code, text)) => krpc::encode_error(asked.transaction, asked.from, code, text),
        };
        self.spend(now, bytes, refused)
    }

    /// Returns the error that answers an invalid query; `None` if it would be longer than `len_max`
    /// or the budget forbids it.
    pub(super) fn refuse(
        &mut self,
        now: Instant,
        from: SocketAddr,
        transaction: &[u8],
        text: &str,
        len_max: usize,
    ) -> Option<Vec<u8>> {
        let bytes = krpc::encode_error(transaction, from, code::PROTOCOL, text);
        if bytes.len() <= len_max { self.spend(now, bytes, true) } else { None }
    }

    /// Counts an answer; drops it if the budget does not allow it.
    fn spend(&mut self, now: Instant, bytes: Vec<u8>, refused: bool) -> Option<Vec<u8>> {
        let allowed = self.budget.spend(now, bytes.len());
        let counted = match (allowed, refused) {
            (false, _) => &mut self.counts.1,
            (true, true) => &mut self.counts.2,
            (true, false) => &mut self.counts.0,
        };
        *counted += 1;
        allowed.then_some(bytes)
    }

    /// Returns peers from our own store, for a request of our own.
    pub(super) fn recall_peers(&mut self, now: Instant, infohash: NodeId, is_v6: bool) -> Vec<SocketAddr> {
        self.peers.sample_peers(now, infohash, is_v6, false, PEERS_V4_MAX)
    }

    /// Drops expired data.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.expires_at().is_some_and(|at| at <= now) {
            self.peers.expire(now);
            self.items.expire(now);
        }
    }

    /// Returns when [`Answers::expire`] has something to do.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.peers.expires_at().into_iter().chain(self.items.expires_at()).min()
    }

    fn reply(
        &mut self,
        now: Instant,
        own: NodeId,
        asked: &Asked,
        overlays: &Overlays,
    ) -> Result<Answer, Refusal> {
        let from = asked.from;
        match asked.query.method {
            Method::Ping => Ok(Answer::default()),
            Method::FindNode { target, want } => Ok(nodes(from, target, want, overlays)),
            Method::GetPeers { infohash, want, scrape, no_seed } => {
                let answer = nodes(from, infohash, want, overlays);
                Ok(self.name_peers(now, from, infohash, (scrape, no_seed), answer))
            }
            Method::AnnouncePeer { infohash, port, token, seed } => {
                self.check_token(now, from, infohash, token)?;
                self.keep_peer(now, from, infohash, port, seed)
            }
            Method::Get { target, seq, want } => {
                let answer = nodes(from, target, want, overlays);
                Ok(self.name_item(now, from, target, seq, answer))
            }
            Method::Put { token, cas, item } => {
                self.check_token(now, from, item.target(), token)?;
                self.keep_item(now, (own, from.ip()), cas, &item)
            }
            Method::SampleInfohashes { target, want } => {
                let (samples, count) = self.peers.sample_infohashes(SAMPLE_COUNT_MAX);
                let samples = Some((samples, count, SAMPLE_INTERVAL_SECONDS));
                Ok(Answer { samples, ..nodes(from, target, want, overlays) })
            }
            Method::Unknown { target: Some(target) } => Ok(nodes(from, target, Want::default(), overlays)),
            Method::Unknown { target: None } => Err((code::METHOD, "method unknown")),
        }
    }

    fn check_token(
        &mut self,
        now: Instant,
        from: SocketAddr,
        target: NodeId,
        token: &[u8],
    ) -> Result<(), Refusal> {
        let good = self.tokens.accepts(now, from.ip(), target, token);
        if good { Ok(()) } else { Err((code::PROTOCOL, "bad token")) }
    }

    /// Adds peers of a torrent and a token; `scrape`, `no_seed`: BEP 33.
    fn name_peers(
        &mut self,
        now: Instant,
        from: SocketAddr,
        infohash: NodeId,
        (scrape, no_seed): (bool, bool),
        answer: Answer,
    ) -> Answer {
        let filters = if scrape { self.peers.filters(infohash) } else { None };
        let filters = filters.map(|filters| Box::new((filters.0.0, filters.1.0)));
        let most = if from.is_ipv6() { PEERS_V6_MAX } else { PEERS_V4_MAX };
        let count = if filters.is_some() { PEERS_WITH_FILTERS_MAX } else { most };
        let peers = self.peers.sample_peers(now, infohash, from.is_ipv6(), no_seed, count);
        let has_room = self.peers.has_room(infohash, from.ip());
        let token = has_room.then(|| self.tokens.issue(now, from.ip(), infohash));
        Answer { peers, token, filters, ..answer }
    }

    /// Stores the sender as a peer: its address is that of the datagram, the port may differ.
    fn keep_peer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        infohash: NodeId,
        port: Option<u16>,
        seed: bool,
    ) -> Result<Answer, Refusal> {
        let peer = SocketAddr::new(from.ip(), port.unwrap_or(from.port()));
        if peer.port() == 0 {
            return Err((code::PROTOCOL, "port 0"));
        }
        let kept = self.peers.insert(now, infohash, peer, seed);
        if kept { Ok(Answer::default()) } else { Err((code::GENERIC, "no room")) }
    }

    /// Adds an item, if it is newer than the querier's, and a token.
    fn name_item(
        &mut self,
        now: Instant,
        from: SocketAddr,
        target: NodeId,
        seq: Option<i64>,
        answer: Answer,
    ) -> Answer {
        let token = Some(self.tokens.issue(now, from.ip(), target));
        let Some(item) = self.items.find(target) else { return Answer { token, ..answer } };
        let known =
            item.mutable().map(|mutable| mutable.seq).filter(|&own| seq.is_some_and(|seq| own <= seq));
        let item = known.is_none().then(|| item.clone());
        Answer { token, item, seq: known, ..answer }
    }

    /// Stores an item whose token is valid.
    fn keep_item(
        &mut self,
        now: Instant,
        (own, from): (NodeId, IpAddr),
        cas: Option<i64>,
        item: &ItemRef,
    ) -> Result<Answer, Refusal> {
        let item = item.verify().map_err(item_refusal)?;
        self.items.insert(now, own, from, item, cas).map_err(put_refusal)?;
        Ok(Answer::default())
    }
}

/// Returns the known nodes closest to a target, of the families that the querier wants.
fn nodes(from: SocketAddr, target: NodeId, want: Want, overlays: &Overlays) -> Answer {
    let neither = !want.v4 && !want.v6;
    let wants = |is_v6| {
        if neither {
            from.is_ipv6() == is_v6
        } else if is_v6 {
            want.v6
        } else {
            want.v4
        }
    };
    let closest = |is_v6| {
        let overlay = overlays.of(is_v6).filter(|_| wants(is_v6));
        overlay.map(|overlay| overlay.table.closest(target, K))
    };
    let (v4, v6) = (closest(false), closest(true));
    let (names_v4, names_v6) = (v4.is_some(), v6.is_some());
    let mut nodes = v4.unwrap_or_default();
    nodes.append(&mut v6.unwrap_or_default());
    Answer { nodes, names_v4, names_v6, ..Answer::default() }
}

fn item_refusal(error: ItemError) -> Refusal {
    let text = match error {
        ItemError::TooLong => "value too long",
        ItemError::Signature => "bad signature",
        ItemError::Salt => "salt too long",
        ItemError::Other => "bad item",
    };
    (error.code(), text)
}

fn put_refusal(error: PutError) -> Refusal {
    let text = match error {
        PutError::Cas => "cas is not the stored seq",
        PutError::Seq => "a newer one is stored",
        PutError::Full => "no room",
    };
    (error.code(), text)
}
