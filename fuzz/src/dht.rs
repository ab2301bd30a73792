//! A node of the DHT among nodes that ask and answer anything.

use std::net::SocketAddr;

use bytes::Bytes;
use sprat::proto::dht::Dht;
use sprat::proto::dht::event::{Announce, Config, Found, Output, ReadOnly, Request, RequestId};
use sprat::proto::dht::item::{Item, ItemKey};
use sprat::proto::dht::krpc::{self, Answer, Body, Method, Query, Want};
use sprat::proto::dht::node_id::{Node, NodeId};
use sprat::proto::dht::saved::SAVED_COUNT_MAX;
use sprat::proto::infohash::InfoHash;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;

use super::input::Input;
use super::timer::{WAKE_COUNT_MAX, later};

/// Outputs of one input.
const OUTPUT_COUNT_MAX: usize = 2_000;
/// Queries of the node that wait for an answer here.
const PENDING_COUNT_MAX: usize = 64;
/// Nodes in both routing tables at most, stored peers at most: the module's own limits, doubled.
const NODE_COUNT_MAX: usize = 4_000;
const PEER_COUNT_MAX: usize = 200_000;

pub fn dht(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    while !input.is_empty() {
        rig.step(&mut input);
        rig.drain();
    }
    rig.check();
}

struct Rig {
    dht: Dht,
    now: Instant,
    /// What the node asked of whom.
    pending: Vec<(SocketAddr, Vec<u8>)>,
    /// Tokens that it gave.
    tokens: Vec<Bytes>,
    request_count: u64,
    done: Vec<RequestId>,
}

fn id(input: &mut Input<'_>) -> NodeId {
    let mut id = [input.byte(); 20];
    id[0] = input.byte();
    id[19] = input.byte();
    NodeId(id)
}

fn node(input: &mut Input<'_>) -> Node {
    Node { id: id(input), addr: sprat::proto::compact::canonical(input.addr()) }
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let flags = input.byte();
        let read_only = [ReadOnly::Auto, ReadOnly::Never, ReadOnly::Always][usize::from(flags) % 3];
        let config = Config {
            v4: flags & 64 == 0,
            v6: flags & 128 == 0,
            port: 6_881,
            read_only,
            external: (flags & 32 != 0).then(|| input.addr().ip()),
        };
        let now = Instant::from_micros(1_000_000);
        let dht = Dht::new(config, Rng::from_number(1), now);
        Self { dht, now, pending: Vec::new(), tokens: Vec::new(), request_count: 0, done: Vec::new() }
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 16 {
            0 | 1 => {
                let from = input.addr();
                self.dht.handle_datagram(now, from, input.string());
            }
            2..=5 => self.ask(input),
            6..=10 => self.answer(input),
            11 | 12 => self.wait(input),
            13 => self.request(input),
            14 => match input.is_set() {
                true => self.dht.handle_hint(now, input.addr()),
                false => {
                    let nodes: Vec<Node> = (0..input.byte() % 16).map(|_| node(input)).collect();
                    self.dht.handle_saved(now, &nodes);
                }
            },
            _ => self.dht.handle_cancel(RequestId(u64::from(input.byte()))),
        }
    }

    /// A query comes.
    fn ask(&mut self, input: &mut Input<'_>) {
        let (from, id, target) = (input.addr(), id(input), id(input));
        let flags = input.byte();
        let want = Want { v4: flags & 1 == 1, v6: flags & 2 == 2 };
        let token = input.one_of(&self.tokens).unwrap_or_default();
        let item = Item::immutable("5:hello".into()).expect("a value");
        let method = match flags / 4 % 8 {
            0 => Method::Ping,
            1 => Method::FindNode { target, want },
            2 => Method::GetPeers { infohash: target, want, scrape: flags & 128 != 0, no_seed: false },
            3 => {
                let port = input.is_set().then_some(6_881);
                Method::AnnouncePeer { infohash: target, port, token: &token, seed: input.is_set() }
            }
            4 => Method::Get { target, seq: input.is_set().then_some(5), want },
            5 => Method::Put { token: &token, cas: None, item: item.as_item_ref() },
            6 => Method::SampleInfohashes { target, want },
            _ => Method::Unknown { target: Some(target) },
        };
        let query = Query { id, read_only: flags & 64 != 0, method };
        let bytes = krpc::encode_query(*b"abcd", &query);
        self.dht.handle_datagram(self.now, from, &bytes);
    }

    /// The node is answered, well or badly.
    fn answer(&mut self, input: &mut Input<'_>) {
        if self.pending.is_empty() {
            return;
        }
        let (asked, query) = self.pending.swap_remove(input.below(self.pending.len()));
        let message = krpc::decode(&query).expect("ours is read");
        let kind = input.byte();
        let bytes = if kind < 240 {
            let answer = Answer {
                nodes: (0..kind % 9).map(|_| node(input)).collect(),
                names_v4: true,
                names_v6: true,
                peers: (0..input.byte() % 4)
                    .map(|_| sprat::proto::compact::canonical(input.addr()))
                    .collect(),
                token: input.is_set().then_some(*b"12345678"),
                filters: kind.is_multiple_of(16).then(|| Box::new(([kind; 256], [1; 256]))),
                samples: (kind % 16 == 1).then(|| (vec![id(input)], 9, u64::from(kind))),
                item: (kind % 16 == 2).then(|| Item::immutable("5:hello".into()).expect("a value")),
                seq: (kind % 16 == 3).then_some(i64::from(input.byte())),
            };
            krpc::encode_answer(message.transaction, id(input), self.dht_addr(input), &answer)
        } else {
            krpc::encode_error(message.transaction, asked, i64::from(kind), "no")
        };
        self.dht.handle_datagram(self.now, asked, &bytes);
    }

    /// Our own address, as nodes may see it.
    fn dht_addr(&self, input: &mut Input<'_>) -> SocketAddr {
        SocketAddr::from(([93, 184, 216, input.byte() % 4], 6_881))
    }

    fn wait(&mut self, input: &mut Input<'_>) {
        self.now = later(input, self.now, self.dht.poll_timeout());
        for _ in 0..WAKE_COUNT_MAX {
            if self.dht.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.dht.handle_timeout(self.now);
            self.drain();
        }
        panic!("a timer that does not move on");
    }

    fn request(&mut self, input: &mut Input<'_>) {
        let target = id(input);
        let kind = input.byte();
        let request = match kind % 4 {
            0 => {
                let announce = (kind & 4 == 0).then_some(Announce { port: Some(6_881), seed: kind & 8 == 0 });
                Request::Peers { infohash: InfoHash(target.0), announce, scrape: kind & 16 == 0 }
            }
            1 => Request::Get(ItemKey::Immutable(target)),
            2 => Request::Put { item: Item::immutable("5:hello".into()).expect("a value"), cas: None },
            _ => Request::Nodes(target),
        };
        let id = RequestId(self.request_count);
        self.request_count += 1;
        self.dht.handle_request(self.now, id, request);
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUT_COUNT_MAX {
            let Some(output) = self.dht.poll_output() else { return };
            self.act(output);
        }
        panic!("an input leads to endless outputs");
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send { to, bytes } => {
                assert!(bytes.len() <= krpc::DATAGRAM_LEN_MAX && to.port() != 0, "{to}");
                let message = krpc::decode(&bytes).expect("ours is read");
                match message.body {
                    Body::Query(_) => self.pending.push((to, bytes)),
                    Body::Response(response) => {
                        self.tokens.extend(response.token.map(Bytes::copy_from_slice));
                        let surplus = self.tokens.len().saturating_sub(PENDING_COUNT_MAX);
                        self.tokens.drain(..surplus);
                    }
                    Body::Error(..) => {}
                }
                let surplus = self.pending.len().saturating_sub(PENDING_COUNT_MAX);
                self.pending.drain(..surplus);
            }
            Output::Found { request, found } => {
                assert!(
                    request.0 < self.request_count && !self.done.contains(&request),
                    "{request:?} is over"
                );
                if let Found::Done(_) = found {
                    self.done.push(request);
                }
            }
            Output::Bootstrap | Output::External(_) => {}
        }
    }

    fn check(&self) {
        let snapshot = self.dht.snapshot(self.now);
        assert!(snapshot.overlays.iter().all(|overlay| overlay.nodes.0 <= NODE_COUNT_MAX), "{snapshot:?}");
        assert!(snapshot.stored_peers.1 <= PEER_COUNT_MAX, "{snapshot:?}");
        assert!(self.dht.good_nodes().len() <= SAVED_COUNT_MAX);
    }
}
