//! The tracker as a pure service: answers datagrams and queries (BEP 3, 7, 15, 23, 24, 31, 41, 48).
//!
//! [`Service`] is a whole tracker for one thread. A server with several threads uses its parts: an
//! [`Answerer`] for each worker, all made from the same [`ConnectionIds`], and [`Swarms`] behind
//! locks that it hands out by [`Shards`]. UDP is answered without allocation once the buffers have
//! grown.
//!
//! Invariants: no sender gets more bytes than it sent before it has shown that it receives at its
//! address; an error is never longer than the request; a peer is stored under the source address of
//! its announce, unless that is local and names another one.

use std::net::{IpAddr, SocketAddr};
use std::ops::DerefMut;

use siphasher::sip::SipHasher24;

use super::http::server as http;
use super::scrape::Scraped;
use super::swarm::{Announced, Chosen, Limits, Swarms};
use super::udp::{self, Family, Request};
use super::{Announce, AnnounceEvent};
use crate::proto::compact;
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Longest announce interval that answers give; the shortest is a tenth less, so that peers that
/// arrive together do not return together.
pub const INTERVAL: Duration = Duration::from_secs(30 * 60);
/// `min interval` of answers, for peers that want more peers.
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// Peers in an answer to a request without `numwant`.
pub const NUMWANT_DEFAULT: usize = 50;
/// Most peers of a family in an answer, whatever `numwant` says: 200 IPv4 peers fit an MTU.
pub const NUMWANT_MAX: usize = 200;
/// Most IPv6 peers in a datagram: 76 of 18 bytes and 20 before them are 1,388, which fits every MTU
/// in use.
pub const UDP_V6_MAX: usize = 76;
/// Period of connection ids, which are accepted in the two epochs after their own: 80 to 120 s.
const EPOCH: Duration = Duration::from_secs(40);
const EPOCHS_ACCEPTED: u64 = 3;

/// Limits of a tracker's memory: about 700 MB.
pub const LIMITS: Limits = Limits {
    torrent_max: 4 << 20,
    torrent_peer_max: 1 << 20,
    peer_max: 16 << 20,
    peer_age_max: Duration::from_secs(45 * 60),
    owned: INTERVAL,
};

/// Issues and checks connection ids (BEP 15) without storing any: an id is a keyed hash of epoch
/// and address, all 64 bits of it, so a guess succeeds once in 6e18. The port is left out, because
/// NATs change it between two datagrams, and the proof is about the address.
#[derive(Clone, Debug)]
pub struct ConnectionIds(SipHasher24);

impl ConnectionIds {
    /// Creates it with a secret from `rng`.
    pub fn new(rng: &mut Rng) -> Self {
        Self(SipHasher24::new_with_keys(rng.bits(), rng.bits()))
    }

    /// Returns the id for a client at `ip`.
    pub fn issue(&self, now: Instant, ip: IpAddr) -> u64 {
        self.of_epoch(epoch(now), ip)
    }

    /// Whether `id` was issued to `ip` recently. Takes the same time for every wrong id.
    pub fn accepts(&self, now: Instant, ip: IpAddr, id: u64) -> bool {
        let newest = epoch(now);
        (0..EPOCHS_ACCEPTED).fold(false, |accepted, age| {
            let issued = newest.checked_sub(age).map_or(0, |epoch| self.of_epoch(epoch, ip) ^ id);
            accepted | (newest >= age && issued == 0)
        })
    }

    fn of_epoch(&self, epoch: u64, ip: IpAddr) -> u64 {
        let ip = match ip.to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut text = [0; 24];
        text[..8].copy_from_slice(&epoch.to_be_bytes());
        text[8..].copy_from_slice(&ip.octets());
        self.0.hash(&text)
    }
}

fn epoch(now: Instant) -> u64 {
    now.as_micros() / EPOCH.as_micros() as u64
}

/// Gives an [`Answerer`] the swarm of a torrent.
pub trait Shards {
    /// Returns the store of this torrent, for as long as the answer takes.
    fn shard(&mut self, infohash: &InfoHash) -> impl DerefMut<Target = Swarms>;
}

impl Shards for Swarms {
    fn shard(&mut self, _infohash: &InfoHash) -> impl DerefMut<Target = Swarms> {
        self
    }
}

/// The number of answers so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connection ids issued.
    pub connects: u64,
    /// Announces answered.
    pub announces: u64,
    /// Scrapes answered.
    pub scrapes: u64,
    /// Refusals, and datagrams without an answer.
    pub errors: u64,
}

/// Answers the requests of one worker thread.
#[derive(Debug)]
pub struct Answerer {
    ids: ConnectionIds,
    rng: Rng,
    chosen: Chosen,
    counts: Counts,
}

impl Answerer {
    /// Creates it; each worker has its own `rng`, and all share `ids`.
    pub fn new(ids: ConnectionIds, rng: Rng) -> Self {
        Self { ids, rng, chosen: Chosen::default(), counts: Counts::default() }
    }

    /// Returns the number of answers so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Answers a UDP datagram into `out` (cleared first); false if there is no answer.
    pub fn answer_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        shards: &mut impl Shards,
        out: &mut Vec<u8>,
    ) -> bool {
        out.clear();
        let from = compact::canonical(from);
        match udp::decode_request(bytes) {
            Ok(Request::Connect { transaction_id }) => {
                self.counts.connects += 1;
                udp::encode_connect_reply(transaction_id, self.ids.issue(now, from.ip()), out);
            }
            Ok(Request::Announce { connection_id, transaction_id, announce, options: _ })
                if self.ids.accepts(now, from.ip(), connection_id) =>
            {
                self.answer_announce(now, from, transaction_id, &announce, shards, out);
            }
            Ok(Request::Scrape { connection_id, transaction_id, infohashes })
                if self.ids.accepts(now, from.ip(), connection_id) =>
            {
                self.counts.scrapes += 1;
                udp::encode_scrape_reply(transaction_id, out);
                for infohash in infohashes {
                    let infohash = InfoHash(*infohash);
                    udp::encode_scraped(shards.shard(&infohash).scrape(&infohash), out);
                }
            }
            // A sender without a valid connection id gets no answer.
            Ok(Request::Announce { .. } | Request::Scrape { .. }) | Err(_) => self.counts.errors += 1,
        }
        !out.is_empty()
    }

    fn answer_announce(
        &mut self,
        now: Instant,
        from: SocketAddr,
        transaction_id: u32,
        announce: &Announce,
        shards: &mut impl Shards,
        out: &mut Vec<u8>,
    ) {
        let numwant = numwant(announce);
        let (v4_max, v6_max) = match Family::of(from.ip()) {
            Family::V4 => (numwant, 0),
            Family::V6 => (0, numwant.min(UDP_V6_MAX)),
        };
        match self.enter(now, from.ip(), announce, [v4_max, v6_max], shards) {
            Some(Scraped { seeders, leechers, .. }) => {
                udp::encode_announce_reply(transaction_id, self.interval_secs(), leechers, seeders, out);
                out.extend_from_slice(&self.chosen.v4);
                out.extend_from_slice(&self.chosen.v6);
            }
            None => udp::encode_error(transaction_id, NOWHERE, out),
        }
    }

    /// Answers an HTTP target (`/announce?...`, `/scrape?...`): returns the status, and writes the
    /// bencoded body into `out` (cleared first). Refusals have status 200 too, as clients expect;
    /// 404 has no body.
    pub fn answer_http(
        &mut self,
        now: Instant,
        from: IpAddr,
        target: &str,
        shards: &mut impl Shards,
        out: &mut Vec<u8>,
    ) -> u16 {
        out.clear();
        let (path, query) = http::split_target(target);
        match path {
            "announce" => match http::decode_announce(query) {
                Ok(query) => self.answer_query(now, from.to_canonical(), &query, shards, out),
                Err(error) => self.refuse(&error.to_string(), out),
            },
            "scrape" => match http::decode_scrape(query) {
                Ok(hashes) => {
                    self.counts.scrapes += 1;
                    let scraped = |hash: InfoHash| (hash, shards.shard(&hash).scrape(&hash));
                    http::encode_scrape(hashes.into_iter().map(scraped), out);
                }
                Err(error) => self.refuse(&error.to_string(), out),
            },
            _ => {
                self.counts.errors += 1;
                return 404;
            }
        }
        200
    }

    fn answer_query(
        &mut self,
        now: Instant,
        from: IpAddr,
        query: &http::Query,
        shards: &mut impl Shards,
        out: &mut Vec<u8>,
    ) {
        let numwant = numwant(&query.announce);
        match self.enter(now, from, &query.announce, [numwant; 2], shards) {
            Some(scraped) => {
                let head = http::ReplyHead {
                    interval_secs: self.interval_secs(),
                    min_interval_secs: MIN_INTERVAL.as_secs() as u32,
                    scraped,
                    external_ip: from,
                };
                http::encode_reply(&head, &self.chosen, query.compact, out);
            }
            None => self.refuse(NOWHERE, out),
        }
    }

    fn refuse(&mut self, reason: &str, out: &mut Vec<u8>) {
        self.counts.errors += 1;
        http::encode_failure(reason, None, out);
    }

    /// Adds an announce to its swarm and chooses peers for it, at most `max` of IPv4 and of IPv6;
    /// `None` if its sender could not be dialled.
    fn enter(
        &mut self,
        now: Instant,
        from: IpAddr,
        announce: &Announce,
        [v4_max, v6_max]: [usize; 2],
        shards: &mut impl Shards,
    ) -> Option<Scraped> {
        // Honours `ip` only from local senders; otherwise anyone could aim a swarm at a victim.
        let ip = announce.ip.filter(|_| compact::is_local(from)).unwrap_or(from);
        let addr = compact::canonical(SocketAddr::new(ip, announce.port));
        if !compact::is_dialable(addr) {
            self.counts.errors += 1;
            return None;
        }
        self.counts.announces += 1;
        let Announce { infohash, peer_id, key, event, left, .. } = *announce;
        let announced = Announced {
            infohash,
            peer_id,
            key,
            addr,
            at_sender: addr.ip() == from,
            event,
            nothing_left: left == 0,
            v4_max,
            v6_max,
            draw: self.rng.bits(),
        };
        Some(shards.shard(&infohash).handle_announce(now, &announced, &mut self.chosen))
    }

    fn interval_secs(&mut self) -> u32 {
        let longest = INTERVAL.as_secs() as usize;
        (longest - self.rng.below(longest / 10)) as u32
    }
}

/// Refusal of an announce from an address that cannot be dialled; shorter than any announce.
const NOWHERE: &str = "port or address cannot be dialled";

fn numwant(announce: &Announce) -> usize {
    match announce.event {
        AnnounceEvent::Stopped => 0,
        AnnounceEvent::None | AnnounceEvent::Started | AnnounceEvent::Completed => {
            announce.numwant.map_or(NUMWANT_DEFAULT, |count| (count as usize).min(NUMWANT_MAX))
        }
    }
}

/// A whole tracker in one value.
#[derive(Debug)]
pub struct Service {
    answerer: Answerer,
    swarms: Swarms,
}

impl Service {
    /// Creates an empty tracker; its secrets come from `rng`.
    pub fn new(mut rng: Rng, now: Instant) -> Self {
        let swarms = Swarms::new(LIMITS, &mut rng.fork("swarms"), now);
        let ids = ConnectionIds::new(&mut rng.fork("connection ids"));
        Self { answerer: Answerer::new(ids, rng), swarms }
    }

    /// Answers a UDP datagram (BEP 15) into `out` (cleared first); false if there is no answer, or
    /// it is no tracker packet.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        self.answerer.answer_datagram(now, from, bytes, &mut self.swarms, out)
    }

    /// Answers an HTTP target (`/announce?...`, `/scrape?...`): returns the status, and writes the
    /// bencoded body into `out`.
    pub fn handle_http(&mut self, now: Instant, from: SocketAddr, target: &str, out: &mut Vec<u8>) -> u16 {
        self.answerer.answer_http(now, from.ip(), target, &mut self.swarms, out)
    }

    /// Applies the passage of time: expires peers.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.swarms.handle_timeout(now);
    }

    /// Returns when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.swarms.poll_timeout()
    }

    /// Returns the number of answers so far.
    pub fn counts(&self) -> Counts {
        self.answerer.counts()
    }

    /// Returns the totals of the store.
    pub fn totals(&self) -> super::swarm::Totals {
        self.swarms.totals()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::peer_id::PeerId;
    use crate::proto::tracker::AnnounceReply;
    use crate::proto::tracker::udp::Response;

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn addr(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn service() -> Service {
        Service::new(Rng::from_number(1), at(0))
    }

    fn announce(port: u16, left: u64) -> Announce {
        Announce {
            left,
            event: AnnounceEvent::Started,
            ..Announce::new(InfoHash([1; 20]), PeerId([2; 20]), port)
        }
    }

    fn connect(service: &mut Service, now: Instant, from: &str) -> u64 {
        let (mut request, mut out) = (Vec::new(), Vec::new());
        udp::encode_connect(5, &mut request);
        assert!(service.handle_datagram(now, addr(from), &request, &mut out));
        match udp::decode_response(&out, Family::V4) {
            Ok(Response::Connect { transaction_id: 5, connection_id }) => connection_id,
            other => panic!("{other:?}"),
        }
    }

    fn ask(
        service: &mut Service,
        now: Instant,
        from: &str,
        id: u64,
        announce: &Announce,
    ) -> Option<Response> {
        let (mut request, mut out) = (Vec::new(), Vec::new());
        udp::encode_announce(id, 6, announce, "/announce", &mut request);
        let answered = service.handle_datagram(now, addr(from), &request, &mut out);
        answered.then(|| udp::decode_response(&out, Family::of(addr(from).ip())).unwrap())
    }

    fn reply(response: Option<Response>) -> AnnounceReply {
        match response {
            Some(Response::Announce { transaction_id: 6, reply }) => reply,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn peers_of_udp_and_http_meet() {
        let mut service = service();
        let id = connect(&mut service, at(0), "1.2.3.4:999");
        let first = reply(ask(&mut service, at(0), "1.2.3.4:999", id, &announce(1000, 9)));
        assert_eq!((first.peers, first.seeders, first.leechers), (vec![], Some(0), Some(1)));
        let url = super::super::http::announce_url("http://t/announce", &announce(7, 0));
        let mut out = Vec::new();
        let target = url.strip_prefix("http://t").unwrap();
        assert_eq!(service.handle_http(at(1), addr("[2001:db8::1]:80"), target, &mut out), 200);
        let second = super::super::http::decode_reply(&out).unwrap();
        assert_eq!(second.peers, [addr("1.2.3.4:1000")]);
        assert_eq!(second.external_ip, Some("2001:db8::1".parse().unwrap()));
        let third = reply(ask(&mut service, at(2), "1.2.3.4:999", id, &announce(1000, 9)));
        assert_eq!((third.peers, third.seeders), (vec![], Some(1)), "IPv6 does not fit an answer over IPv4");
    }

    /// The ports of the peers that are named to a peer, over both transports.
    fn named(service: &mut Service, announce: &Announce) -> [Vec<u16>; 2] {
        let id = connect(service, at(0), "1.2.3.4:999");
        let by_udp = reply(ask(service, at(0), "1.2.3.4:999", id, announce));
        let url = super::super::http::announce_url("http://t/announce", announce);
        let (target, mut out) = (url.strip_prefix("http://t").unwrap(), Vec::new());
        assert_eq!(service.handle_http(at(0), addr("1.2.3.4:80"), target, &mut out), 200);
        let by_http = super::super::http::decode_reply(&out).unwrap();
        [by_udp, by_http].map(|reply| reply.peers.iter().map(SocketAddr::port).collect())
    }

    #[test]
    fn nothing_left_alone_is_no_proof_of_a_seed() {
        use AnnounceEvent::{Completed, None, Started};
        let of = |port, left, event| {
            let peer_id = PeerId([port as u8; 20]);
            Announce { event, peer_id, ..announce(port, left) }
        };
        let mut service = service();
        named(&mut service, &of(1, 0, Started));
        // A newcomer by a magnet link, as aria2 and rqbit announce it: first and ever after.
        assert_eq!(named(&mut service, &of(2, 0, Started)), [[1], [1]]);
        assert_eq!(named(&mut service, &of(2, 0, None)), [[1], [1]]);
        assert_eq!(named(&mut service, &of(3, 9, Started)), [[1, 2], [1, 2]]);
        let few = Announce { numwant: Some(1), ..of(2, 0, None) };
        assert_eq!(named(&mut service, &few), [[3], [3]], "leechers first");
        assert_eq!(named(&mut service, &of(2, 0, None)).map(|ports| ports[0]), [3, 3]);
        // Seeds for certain: one that had something left, and one that says that it has completed.
        assert_eq!(named(&mut service, &of(4, 5, Started))[0].len(), 3);
        assert_eq!(named(&mut service, &of(4, 0, None)), [[3], [3]]);
        assert_eq!(named(&mut service, &of(2, 0, Completed)), [[3], [3]]);
        assert_eq!(named(&mut service, &of(2, 0, None)), [[3], [3]], "that is remembered");
        assert_eq!(named(&mut service, &of(5, 0, Completed)), [[3], [3]]);
        assert_eq!(named(&mut service, &of(2, 0, Started))[0].len(), 4, "until it starts anew");
        let scraped = service.swarms.scrape(&InfoHash([1; 20]));
        assert_eq!(scraped, Scraped { seeders: 4, completed: 1, leechers: 1 }, "counted as before");
    }

    #[test]
    fn connection_ids_last_80_to_120_seconds_and_only_at_their_address() {
        let ids = ConnectionIds::new(&mut Rng::from_number(1));
        let (ip, other) = ("1.2.3.4".parse().unwrap(), "1.2.3.5".parse().unwrap());
        for issued_at in [0, 1, 39, 40, 1234, 5000] {
            let id = ids.issue(at(issued_at), ip);
            assert!((0..80).all(|age| ids.accepts(at(issued_at + age), ip, id)));
            assert!(ids.accepts(at(issued_at), "::ffff:1.2.3.4".parse().unwrap(), id));
            assert!(!ids.accepts(at(issued_at + 120), ip, id));
            assert!(!ids.accepts(at(issued_at), other, id));
            assert!(issued_at < 40 || !ids.accepts(at(issued_at - 40), ip, id), "from the future");
        }
        let strange = ConnectionIds::new(&mut Rng::from_number(2));
        assert!(!ids.accepts(at(0), ip, strange.issue(at(0), ip)));
        assert!(!ids.accepts(at(0), ip, 0), "no id of an epoch before the first");
    }

    #[test]
    fn senders_without_an_id_get_no_answer_and_errors_are_no_longer_than_requests() {
        let mut service = service();
        let id = connect(&mut service, at(0), "1.2.3.4:999");
        assert_eq!(ask(&mut service, at(0), "1.2.3.5:999", id, &announce(1, 9)), None);
        assert_eq!(ask(&mut service, at(0), "1.2.3.4:999", id ^ 1, &announce(1, 9)), None);
        assert_eq!(ask(&mut service, at(121), "1.2.3.4:999", id, &announce(1, 9)), None);
        let refused = ask(&mut service, at(0), "1.2.3.4:999", id, &announce(0, 9));
        let message = NOWHERE.to_owned();
        assert_eq!(refused, Some(Response::Error { transaction_id: 6, message }));
        assert_eq!(service.totals(), Default::default());
        assert_eq!(service.counts(), Counts { connects: 1, announces: 0, scrapes: 0, errors: 4 });
    }

    #[test]
    fn an_address_in_the_announce_counts_only_behind_the_same_door() {
        let mut service = service();
        let victim = Announce { ip: Some("9.9.9.9".parse().unwrap()), ..announce(1000, 9) };
        for (from, entered) in [("1.2.3.4:5", "1.2.3.4:1000"), ("127.0.0.1:5", "9.9.9.9:1000")] {
            let id = connect(&mut service, at(0), from);
            reply(ask(&mut service, at(0), from, id, &victim));
            let watcher = Announce { peer_id: PeerId([3; 20]), ..announce(2000, 9) };
            let id = connect(&mut service, at(0), "8.8.8.8:1");
            let seen = reply(ask(&mut service, at(0), "8.8.8.8:1", id, &watcher)).peers;
            assert!(seen.contains(&addr(entered)), "{seen:?}");
        }
    }

    #[test]
    fn answers_are_bounded_and_fit_a_datagram() {
        let mut service = service();
        for number in 0..500_u16 {
            for from in
                [format!("1.1.{}.{}:1", number / 250, number % 250 + 1), format!("[2001:db8::{number:x}]:1")]
            {
                let id = connect(&mut service, at(0), &from);
                reply(ask(&mut service, at(0), &from, id, &announce(1, 9)));
            }
        }
        let count = |service: &mut Service, from: &str, numwant| {
            let id = connect(service, at(0), from);
            reply(ask(service, at(0), from, id, &Announce { numwant, ..announce(1, 9) })).peers.len()
        };
        assert_eq!(count(&mut service, "1.1.1.1:1", None), NUMWANT_DEFAULT);
        assert_eq!(count(&mut service, "1.1.1.1:1", Some(7)), 7);
        assert_eq!(count(&mut service, "1.1.1.1:1", Some(u32::MAX)), NUMWANT_MAX);
        assert_eq!(count(&mut service, "[2001:db8::1]:1", Some(u32::MAX)), UDP_V6_MAX);
        let stopped = Announce { event: AnnounceEvent::Stopped, ..announce(1, 9) };
        let id = connect(&mut service, at(0), "1.1.1.1:1");
        let left = reply(ask(&mut service, at(0), "1.1.1.1:1", id, &stopped));
        assert_eq!((left.peers.len(), left.leechers), (0, Some(999)));
    }

    #[test]
    fn http_refuses_in_words() {
        let mut service = service();
        let mut out = Vec::new();
        for nowhere in ["/", "", "/announcer", "/announce/x", "http://announce"] {
            assert_eq!(service.handle_http(at(0), addr("1.2.3.4:5"), nowhere, &mut out), 404, "{nowhere}");
        }
        assert_eq!(service.handle_http(at(0), addr("1.2.3.4:5"), "/announce?port=1", &mut out), 200);
        assert_eq!(out, b"d14:failure reason23:one info_hash is needede");
        assert_eq!(service.handle_http(at(0), addr("1.2.3.4:5"), "/scrape", &mut out), 200);
        assert!(out.starts_with(b"d14:failure reason"));
    }
}
