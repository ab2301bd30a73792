//! The client's UDP transactions on one shared socket: connect, retransmit at 15 x 2^n s,
//! connection ids (BEP 15).
//!
//! Invariants: a reply counts only from exactly the address that was asked and with the transaction
//! id of a pending request; a tracker is asked for one connection id at a time, however many
//! torrents wait for it; every request ends in one [`Output::Reply`] within [`REQUEST_MAX`]. The
//! announcer decides which tracker comes next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::udp::{self, Family, Response};
use super::{Announce, AnnounceReply, TrackerError};
use crate::proto::compact;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use std::net::SocketAddr;

/// Datagrams to send, and results of requests. A `Key` is the engine's identifier of a request
/// (torrent and [`RequestId`](super::announcer::RequestId)).
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub enum Output<Key> {
    /// Send a datagram.
    Datagram {
        /// The receiver.
        to: SocketAddr,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A request ended.
    Reply {
        /// The request.
        key: Key,
        /// The result.
        reply: Result<AnnounceReply, TrackerError>,
    },
}

/// Time to the first retransmission; each further one takes twice as long (BEP 15).
pub const RETRANSMIT_AFTER: Duration = Duration::from_secs(15);
/// Most doublings of that time (BEP 15).
pub const DOUBLING_MAX: u32 = 8;
/// Longest time of a request, which then ends with [`TrackerError::Timeout`]: three tries, at 0, 15
/// and 45 s. The full series of BEP 15 takes an hour, and other trackers wait for their turn.
pub const REQUEST_MAX: Duration = Duration::from_secs(60);
/// Lifetime of a connection id at the client (BEP 15).
pub const CONNECTION_MAX: Duration = Duration::from_secs(60);

/// A datagram that is repeated until it is answered.
#[derive(Clone, Copy, Debug)]
struct Sent {
    resend_at: Instant,
    try_count: u32,
}

impl Sent {
    fn first(now: Instant) -> Self {
        Self { resend_at: now + RETRANSMIT_AFTER, try_count: 1 }
    }

    fn again(self, now: Instant) -> Self {
        let doublings = self.try_count.min(DOUBLING_MAX);
        Self { resend_at: now + RETRANSMIT_AFTER * 2_u32.pow(doublings), try_count: self.try_count + 1 }
    }
}

/// The state of one tracker address.
#[derive(Debug)]
enum Server {
    /// A connection id was requested.
    Connecting { transaction_id: u32, sent: Sent },
    /// A connection id is known.
    Connected { connection_id: u64, until: Instant },
}

impl Server {
    fn due_at(&self) -> Instant {
        match self {
            Self::Connecting { sent, .. } => sent.resend_at,
            Self::Connected { until, .. } => *until,
        }
    }
}

/// A pending announce.
#[derive(Debug)]
struct Request<Key> {
    key: Key,
    tracker: SocketAddr,
    url_data: String,
    announce: Announce,
    give_up_at: Instant,
    /// `None` while it waits for a connection id.
    sent: Option<Sent>,
}

impl<Key> Request<Key> {
    fn due_at(&self) -> Instant {
        self.sent.map_or(self.give_up_at, |sent| sent.resend_at.min(self.give_up_at))
    }
}

/// An owner of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// An announce, by its transaction id.
    Request(u32),
    /// A tracker.
    Server(SocketAddr),
}

/// The UDP transactions of a process.
///
/// After each `handle_*` drain [`UdpClient::poll_output`]; then wait until
/// [`UdpClient::poll_timeout`].
#[derive(Debug)]
pub struct UdpClient<Key> {
    rng: Rng,
    servers: BTreeMap<SocketAddr, Server>,
    /// By transaction id.
    requests: BTreeMap<u32, Request<Key>>,
    /// One entry for each server and each request.
    timers: BTreeSet<(Instant, Timer)>,
    outputs: VecDeque<Output<Key>>,
}

impl<Key: Clone + Ord + std::fmt::Debug> UdpClient<Key> {
    /// Creates it without transactions.
    pub fn new(rng: Rng) -> Self {
        Self {
            rng,
            servers: BTreeMap::new(),
            requests: BTreeMap::new(),
            timers: BTreeSet::new(),
            outputs: VecDeque::new(),
        }
    }

    /// Announces to the tracker at `tracker`; `url_data` is path and query of its URL (BEP 41).
    pub fn handle_announce(
        &mut self,
        now: Instant,
        key: Key,
        tracker: SocketAddr,
        url_data: &str,
        announce: Announce,
    ) {
        let tracker = compact::canonical(tracker);
        if !compact::is_dialable(tracker) {
            let reply = Err(TrackerError::Unreachable("no tracker can be at that address".into()));
            self.outputs.push_back(Output::Reply { key, reply });
            return;
        }
        let url_data = url_data.to_owned();
        let give_up_at = now + REQUEST_MAX;
        let request = Request { key, tracker, url_data, announce, give_up_at, sent: None };
        let transaction_id = self.fresh_transaction_id();
        self.timers.insert((request.due_at(), Timer::Request(transaction_id)));
        self.requests.insert(transaction_id, request);
        self.send_announce(now, transaction_id);
        self.check_invariant();
    }

    /// Handles a datagram. Returns false if it is not for this machine: not from a queried tracker,
    /// or no answer.
    pub fn handle_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) -> bool {
        let from = compact::canonical(from);
        if !self.servers.contains_key(&from) {
            return false;
        }
        // An unreadable datagram may be forged, so the request stays pending. It may also be a
        // request: a peer that runs its own tracker sends both from one address.
        let Ok(response) = udp::decode_response(bytes, Family::of(from.ip())) else { return false };
        match response {
            Response::Connect { transaction_id, connection_id } => {
                self.handle_connect(now, from, transaction_id, connection_id);
            }
            Response::Announce { transaction_id, reply } => self.end(from, transaction_id, Ok(reply)),
            Response::Scrape { .. } => (),
            Response::Error { transaction_id, message } => self.handle_error(from, transaction_id, message),
        }
        self.check_invariant();
        true
    }

    /// Applies the passage of time.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            match timer {
                Timer::Request(transaction_id) => self.request_due(now, transaction_id),
                Timer::Server(tracker) => self.server_due(now, tracker),
            }
        }
        self.check_invariant();
    }

    /// Returns the next output.
    pub fn poll_output(&mut self) -> Option<Output<Key>> {
        self.outputs.pop_front()
    }

    /// Returns when to call `handle_timeout`.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|&(at, _)| at)
    }

    fn handle_connect(&mut self, now: Instant, from: SocketAddr, transaction_id: u32, connection_id: u64) {
        match self.servers.get(&from) {
            Some(Server::Connecting { transaction_id: asked, .. }) if *asked == transaction_id => (),
            Some(Server::Connecting { .. } | Server::Connected { .. }) | None => return,
        }
        self.put_server(from, Server::Connected { connection_id, until: now + CONNECTION_MAX });
        for transaction_id in self.waiting_for(from) {
            self.send_announce(now, transaction_id);
        }
    }

    fn handle_error(&mut self, from: SocketAddr, transaction_id: u32, reason: String) {
        let refused = || Err(TrackerError::Refused { reason: reason.clone(), retry_in: None });
        if let Some(Server::Connecting { transaction_id: asked, .. }) = self.servers.get(&from)
            && *asked == transaction_id
        {
            self.remove_server(from);
            for transaction_id in self.waiting_for(from) {
                self.end(from, transaction_id, refused());
            }
        } else if self.requests.get(&transaction_id).is_some_and(|request| request.tracker == from) {
            // The tracker may have rejected the connection id.
            if matches!(self.servers.get(&from), Some(Server::Connected { .. })) {
                self.remove_server(from);
            }
            self.end(from, transaction_id, refused());
        }
    }

    fn request_due(&mut self, now: Instant, transaction_id: u32) {
        let request = self.requests.get(&transaction_id).expect("a timer's request exists");
        let tracker = request.tracker;
        if request.give_up_at <= now {
            self.end(tracker, transaction_id, Err(TrackerError::Timeout));
        } else {
            // The tracker may have lost its secrets: starts again with a new connection id.
            if matches!(self.servers.get(&tracker), Some(Server::Connected { .. })) {
                self.remove_server(tracker);
            }
            self.send_announce(now, transaction_id);
        }
    }

    fn server_due(&mut self, now: Instant, tracker: SocketAddr) {
        match self.servers.get(&tracker) {
            Some(&Server::Connecting { transaction_id, sent }) if !self.waiting_for(tracker).is_empty() => {
                self.put_server(tracker, Server::Connecting { transaction_id, sent: sent.again(now) });
                self.send_connect(tracker, transaction_id);
            }
            Some(Server::Connecting { .. } | Server::Connected { .. }) | None => self.remove_server(tracker),
        }
    }

    /// Sends the announce, or first requests a connection id.
    fn send_announce(&mut self, now: Instant, transaction_id: u32) {
        let Some(request) = self.requests.get_mut(&transaction_id) else {
            return;
        };
        let (tracker, was_due_at) = (request.tracker, request.due_at());
        match self.servers.get(&tracker) {
            Some(&Server::Connected { connection_id, until }) if now < until => {
                request.sent = Some(request.sent.map_or(Sent::first(now), |sent| sent.again(now)));
                let mut bytes = Vec::with_capacity(udp::ANNOUNCE_LEN);
                let Request { announce, url_data, .. } = &*request;
                udp::encode_announce(connection_id, transaction_id, announce, url_data, &mut bytes);
                self.outputs.push_back(Output::Datagram { to: tracker, bytes });
            }
            Some(Server::Connecting { .. }) => request.sent = None,
            Some(Server::Connected { .. }) | None => {
                request.sent = None;
                let transaction_id = self.fresh_transaction_id();
                self.put_server(tracker, Server::Connecting { transaction_id, sent: Sent::first(now) });
                self.send_connect(tracker, transaction_id);
            }
        }
        let due_at = self.requests[&transaction_id].due_at();
        self.timers.remove(&(was_due_at, Timer::Request(transaction_id)));
        self.timers.insert((due_at, Timer::Request(transaction_id)));
    }

    fn send_connect(&mut self, to: SocketAddr, transaction_id: u32) {
        let mut bytes = Vec::with_capacity(udp::CONNECT_LEN);
        udp::encode_connect(transaction_id, &mut bytes);
        self.outputs.push_back(Output::Datagram { to, bytes });
    }

    /// Ends a request to `tracker` with this transaction id, if there is one.
    fn end(&mut self, tracker: SocketAddr, id: u32, reply: Result<AnnounceReply, TrackerError>) {
        if self.requests.get(&id).is_some_and(|request| request.tracker == tracker) {
            let request = self.requests.remove(&id).expect("just found");
            self.timers.remove(&(request.due_at(), Timer::Request(id)));
            self.outputs.push_back(Output::Reply { key: request.key, reply });
        }
    }

    fn put_server(&mut self, tracker: SocketAddr, server: Server) {
        self.remove_server(tracker);
        self.timers.insert((server.due_at(), Timer::Server(tracker)));
        self.servers.insert(tracker, server);
    }

    fn remove_server(&mut self, tracker: SocketAddr) {
        if let Some(server) = self.servers.remove(&tracker) {
            self.timers.remove(&(server.due_at(), Timer::Server(tracker)));
        }
    }

    fn waiting_for(&self, tracker: SocketAddr) -> Vec<u32> {
        let waits = |request: &Request<Key>| request.tracker == tracker && request.sent.is_none();
        self.requests.iter().filter(|(_, request)| waits(request)).map(|(&id, _)| id).collect()
    }

    /// Returns an unpredictable id, so that only hosts that see our datagrams can answer them.
    fn fresh_transaction_id(&mut self) -> u32 {
        loop {
            let id = self.rng.bits() as u32;
            let connecting = |server: &Server| match server {
                Server::Connecting { transaction_id, .. } => *transaction_id == id,
                Server::Connected { .. } => false,
            };
            if !self.requests.contains_key(&id) && !self.servers.values().any(connecting) {
                return id;
            }
        }
    }

    fn check_invariant(&self) {
        #[cfg(debug_assertions)]
        {
            assert_eq!(self.timers.len(), self.servers.len() + self.requests.len());
            for (id, request) in &self.requests {
                assert!(self.timers.contains(&(request.due_at(), Timer::Request(*id))));
            }
            for (tracker, server) in &self.servers {
                assert!(self.timers.contains(&(server.due_at(), Timer::Server(*tracker))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::infohash::InfoHash;
    use crate::proto::peer_id::PeerId;
    use crate::proto::tracker::AnnounceEvent;
    use crate::proto::tracker::udp::Request as Packet;

    const TRACKER: &str = "192.0.2.1:6969";

    fn at(secs: u64) -> Instant {
        Instant::from_micros(secs * 1_000_000)
    }

    fn announce() -> Announce {
        Announce {
            left: 5,
            event: AnnounceEvent::Started,
            numwant: Some(50),
            key: 6,
            ..Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 6881)
        }
    }

    fn client() -> UdpClient<u8> {
        UdpClient::new(Rng::from_number(1))
    }

    fn datagrams(client: &mut UdpClient<u8>) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| client.poll_output())
            .map(|output| match output {
                Output::Datagram { to, bytes } => {
                    assert_eq!(to, TRACKER.parse().unwrap());
                    bytes
                }
                Output::Reply { .. } => panic!("{output:?}"),
            })
            .collect()
    }

    /// Answers the only pending connect.
    fn connect(client: &mut UdpClient<u8>, now: Instant) {
        let sent = datagrams(client);
        let Ok(Packet::Connect { transaction_id }) = udp::decode_request(&sent[0]) else {
            panic!("{sent:?}")
        };
        let mut reply = Vec::new();
        udp::encode_connect_reply(transaction_id, 77, &mut reply);
        assert!(client.handle_datagram(now, TRACKER.parse().unwrap(), &reply));
    }

    fn announced(bytes: &[u8]) -> (u64, u32) {
        match udp::decode_request(bytes) {
            Ok(Packet::Announce { connection_id, transaction_id, .. }) => (connection_id, transaction_id),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn one_connect_serves_all_torrents_for_a_minute() {
        let mut client = client();
        let tracker = TRACKER.parse().unwrap();
        for key in 0..3 {
            client.handle_announce(at(0), key, tracker, "/announce", announce());
        }
        connect(&mut client, at(1));
        let sent = datagrams(&mut client);
        assert_eq!(sent.len(), 3);
        for (key, bytes) in sent.iter().enumerate() {
            let (id, transaction_id) = announced(bytes);
            assert_eq!(id, 77, "{key}");
            let mut reply = Vec::new();
            udp::encode_announce_reply(transaction_id, 1800, 1, 2, &mut reply);
            client.handle_datagram(at(2), tracker, &reply);
            let Some(Output::Reply { reply: Ok(reply), .. }) = client.poll_output() else { panic!() };
            assert_eq!(reply.seeders, Some(2));
        }
        client.handle_announce(at(60), 9, tracker, "", announce());
        announced(&datagrams(&mut client)[0]);
        client.handle_announce(at(61), 10, tracker, "", announce());
        assert!(matches!(udp::decode_request(&datagrams(&mut client)[0]), Ok(Packet::Connect { .. })));
    }

    #[test]
    fn requests_are_repeated_at_15_and_45_seconds_and_then_time_out() {
        let mut client = client();
        client.handle_announce(at(0), 1, TRACKER.parse().unwrap(), "", announce());
        let first = datagrams(&mut client);
        let mut sent_at = Vec::new();
        loop {
            let now = client.poll_timeout().unwrap();
            client.handle_timeout(now);
            match client.poll_output() {
                Some(Output::Datagram { bytes, .. }) => {
                    assert_eq!(bytes, first[0]);
                    sent_at.push(now);
                }
                Some(Output::Reply { key, reply }) => {
                    assert_eq!((now, key, reply), (at(60), 1, Err(TrackerError::Timeout)));
                    break;
                }
                None => panic!("woke for nothing"),
            }
        }
        assert_eq!(sent_at, [at(15), at(45)]);
        while let Some(now) = client.poll_timeout() {
            client.handle_timeout(now);
        }
        assert_eq!(client.poll_output(), None);
    }

    #[test]
    fn an_unanswered_announce_starts_again_with_a_connect() {
        let mut client = client();
        let tracker = TRACKER.parse().unwrap();
        client.handle_announce(at(0), 1, tracker, "", announce());
        connect(&mut client, at(0));
        let (_, first) = announced(&datagrams(&mut client)[0]);
        client.handle_timeout(at(15));
        connect(&mut client, at(15));
        let (_, second) = announced(&datagrams(&mut client)[0]);
        assert_eq!(first, second, "a late answer to the first is an answer");
    }

    #[test]
    fn replies_from_other_addresses_or_without_a_request_are_ignored() {
        let mut client = client();
        let tracker: SocketAddr = TRACKER.parse().unwrap();
        client.handle_announce(at(0), 1, tracker, "", announce());
        connect(&mut client, at(0));
        let (_, transaction_id) = announced(&datagrams(&mut client)[0]);
        let mut reply = Vec::new();
        udp::encode_announce_reply(transaction_id, 1800, 1, 2, &mut reply);
        let other_port = SocketAddr::new(tracker.ip(), 1);
        assert!(!client.handle_datagram(at(1), other_port, &reply));
        let mut wrong = reply.clone();
        wrong[7] ^= 1;
        assert!(client.handle_datagram(at(1), tracker, &wrong));
        for len in 0..20 {
            client.handle_datagram(at(1), tracker, &reply[..len]);
        }
        assert_eq!(client.poll_output(), None);
        let mapped = "[::ffff:192.0.2.1]:6969".parse().unwrap();
        assert!(client.handle_datagram(at(1), mapped, &reply));
        assert!(matches!(client.poll_output(), Some(Output::Reply { reply: Ok(_), .. })));
    }

    #[test]
    fn an_error_ends_its_request() {
        let mut client = client();
        let tracker = TRACKER.parse().unwrap();
        client.handle_announce(at(0), 1, tracker, "", announce());
        let sent = datagrams(&mut client);
        let Ok(Packet::Connect { transaction_id }) = udp::decode_request(&sent[0]) else { panic!() };
        let mut reply = Vec::new();
        udp::encode_error(transaction_id, "go away", &mut reply);
        client.handle_datagram(at(0), tracker, &reply);
        let error = TrackerError::Refused { reason: "go away".into(), retry_in: None };
        assert_eq!(client.poll_output(), Some(Output::Reply { key: 1, reply: Err(error) }));
        assert_eq!(client.poll_timeout(), None);
    }
}
