//! The whole machine among its like: some dozens of nodes in virtual time, over a network with one
//! delay for all.

mod hostile;
mod lookups;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::Dht;
use super::event::{Config, Found, Outcome, Output, ReadOnly, Request, RequestId};
use super::item::Item;
use super::krpc::{self, Answer, Body, Method, Query};
use super::node_id::{Node, NodeId};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A machine, where it is, and what it told.
struct Host {
    dht: Dht,
    /// IPv4 and IPv6.
    addrs: Vec<SocketAddr>,
    /// Lets in only whom it has sent something.
    translated: bool,
    /// Neither sends nor receives.
    dead: bool,
    sent_to: BTreeSet<SocketAddr>,
    peers: BTreeMap<RequestId, Vec<SocketAddr>>,
    /// Requests whose peers were named by a local source.
    local: BTreeSet<RequestId>,
    items: BTreeMap<RequestId, Vec<Item>>,
    done: BTreeMap<RequestId, Outcome>,
    bootstraps: Vec<Instant>,
    externals: Vec<SocketAddr>,
}

/// A datagram on its way, or one that came to an address without a machine.
#[derive(Clone, Debug)]
struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// The network.
struct Net {
    now: Instant,
    hosts: Vec<Host>,
    flying: BTreeMap<(Instant, u64), Datagram>,
    /// What came to addresses where no machine is.
    strays: Vec<Datagram>,
    sent_count: u64,
    request_count: u64,
    delay: Duration,
    rng: Rng,
    /// Datagrams between these two halves, by the parity of the hosts' places, are lost.
    divided: bool,
}

impl Net {
    fn new(seed: u64) -> Self {
        Self {
            now: Instant::ZERO + SECOND,
            hosts: Vec::new(),
            flying: BTreeMap::new(),
            strays: Vec::new(),
            sent_count: 0,
            request_count: 0,
            delay: MILLI,
            rng: Rng::from_number(seed),
            divided: false,
        }
    }

    /// Nodes at 10.0.0.1 and following that all got a hint at the first, and some seconds to meet.
    fn local(seed: u64, count: u8) -> Self {
        let mut net = Self::new(seed);
        (1..=count).for_each(|last| _ = net.add(&[addr([10, 0, 0, last])]));
        net.meet();
        net
    }

    /// Nodes with addresses all over the Internet, met likewise.
    fn global(seed: u64, count: usize) -> Self {
        let mut net = Self::new(seed);
        net.delay = MILLI * 20;
        for _ in 0..count {
            let public = net.public_addr();
            net.add(&[public]);
        }
        net.meet();
        net
    }

    /// A public address of a prefix of its own.
    fn public_addr(&mut self) -> SocketAddr {
        let bytes = (self.hosts.len() as u16 + 1).to_be_bytes();
        addr([20 + 3 * (self.rng.below(20) as u8), bytes[0], bytes[1], 1 + self.rng.below(200) as u8])
    }

    fn meet(&mut self) {
        let first = self.hosts[0].addrs.clone();
        for place in 1..self.hosts.len() {
            first.iter().for_each(|&addr| self.hint(place, addr));
        }
        self.run(10 * SECOND);
    }

    fn add(&mut self, addrs: &[SocketAddr]) -> usize {
        self.add_with(addrs, ReadOnly::Auto)
    }

    fn add_with(&mut self, addrs: &[SocketAddr], read_only: ReadOnly) -> usize {
        let has = |is_v6| addrs.iter().any(|addr: &SocketAddr| addr.is_ipv6() == is_v6);
        let config =
            Config { v4: has(false), v6: has(true), port: addrs[0].port(), read_only, external: None };
        let dht = Dht::new(config, self.rng.fork("node"), self.now);
        self.hosts.push(Host {
            dht,
            addrs: addrs.to_vec(),
            translated: false,
            dead: false,
            sent_to: BTreeSet::new(),
            peers: BTreeMap::new(),
            local: BTreeSet::new(),
            items: BTreeMap::new(),
            done: BTreeMap::new(),
            bootstraps: Vec::new(),
            externals: Vec::new(),
        });
        self.hosts.len() - 1
    }

    fn hint(&mut self, place: usize, addr: SocketAddr) {
        self.hosts[place].dht.handle_hint(self.now, addr);
        self.drain(place);
    }

    fn start(&mut self, place: usize, request: Request) -> RequestId {
        self.request_count += 1;
        let id = RequestId(self.request_count);
        self.hosts[place].dht.handle_request(self.now, id, request);
        self.drain(place);
        id
    }

    /// Runs a request to its end; its id tells what it found.
    fn request(&mut self, place: usize, request: Request) -> (RequestId, Outcome) {
        let id = self.start(place, request);
        let until = self.now + MINUTE;
        while !self.hosts[place].done.contains_key(&id) {
            assert!(self.step(until), "a request did not end");
        }
        (id, self.hosts[place].done[&id].clone())
    }

    /// A datagram from anywhere; whoever is at `to` answers before this returns, if at all.
    fn inject(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let place = self.place_of(to).expect("a machine is there");
        self.hosts[place].dht.handle_datagram(self.now, from, bytes);
        self.drain(place);
    }

    /// Sends a query from an address without a machine, and gives what came back.
    fn ask(&mut self, from: SocketAddr, to: SocketAddr, query: &Query) -> Option<Vec<u8>> {
        self.strays.clear();
        self.inject(from, to, &krpc::encode_query(*b"test", query));
        self.run(self.delay * 3);
        let is_answer = |stray: &Datagram| {
            let message = krpc::decode(&stray.bytes).unwrap();
            stray.to == from && message.transaction == b"test"
        };
        let found = self.strays.iter().position(is_answer);
        found.map(|place| self.strays.swap_remove(place).bytes)
    }

    fn place_of(&self, addr: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.addrs.contains(&addr) && !host.dead)
    }

    fn run(&mut self, span: Duration) {
        let until = self.now + span;
        while self.step(until) {}
    }

    /// The next event, if it comes before `until`; else the clock is set to that.
    fn step(&mut self, until: Instant) -> bool {
        let live = self.hosts.iter().enumerate().filter(|(_, host)| !host.dead);
        let timer = live.filter_map(|(place, host)| Some((host.dht.poll_timeout()?, place))).min();
        let flying = self.flying.first_key_value().map(|(&(at, _), _)| at);
        let timer_at = timer.map(|(at, _)| at.max(self.now));
        let next = [timer_at, flying].into_iter().flatten().min().filter(|&at| at <= until);
        let Some(at) = next else {
            self.now = until;
            return false;
        };
        self.now = at;
        if flying.is_some_and(|flying| flying <= at) {
            self.deliver();
        } else if let Some((_, place)) = timer {
            let host = &mut self.hosts[place];
            host.dht.handle_timeout(at);
            let again = host.dht.poll_timeout();
            self.drain(place);
            assert!(
                again.is_none_or(|again| again > at),
                "a timer that is due stays due: {again:?} at {at:?}"
            );
        }
        true
    }

    fn deliver(&mut self) {
        let Some((_, datagram)) = self.flying.pop_first() else { return };
        let sender = self.place_of(datagram.from);
        let Some(place) = self.place_of(datagram.to) else {
            self.strays.push(datagram);
            return;
        };
        let cut = self.divided && sender.is_some_and(|sender| sender % 2 != place % 2);
        let host = &mut self.hosts[place];
        if !cut && (!host.translated || host.sent_to.contains(&datagram.from)) {
            host.dht.handle_datagram(self.now, datagram.from, &datagram.bytes);
            self.drain(place);
        }
    }

    fn drain(&mut self, place: usize) {
        let host = &mut self.hosts[place];
        while let Some(output) = host.dht.poll_output() {
            match output {
                Output::Send { to, bytes } => {
                    assert!(bytes.len() <= krpc::DATAGRAM_LEN_MAX && to.port() != 0);
                    let from = *host.addrs.iter().find(|addr| addr.is_ipv6() == to.is_ipv6()).expect("ours");
                    host.sent_to.insert(to);
                    self.sent_count += 1;
                    self.flying
                        .insert((self.now + self.delay, self.sent_count), Datagram { from, to, bytes });
                }
                Output::Found { request, found: Found::Peers { peers, local } } => {
                    if local {
                        host.local.insert(request);
                    }
                    host.peers.entry(request).or_default().extend(peers);
                }
                Output::Found { request, found: Found::Item(item) } => {
                    host.items.entry(request).or_default().push(item);
                }
                Output::Found { request, found: Found::Done(outcome) } => {
                    assert!(host.done.insert(request, outcome).is_none(), "a request ended twice");
                }
                Output::Bootstrap => host.bootstraps.push(self.now),
                Output::External(addr) => host.externals.push(addr),
            }
        }
    }

    fn addr(&self, place: usize) -> SocketAddr {
        self.hosts[place].addrs[0]
    }

    /// A machine's id in the first of its overlays.
    fn id(&self, place: usize) -> NodeId {
        self.hosts[place].dht.snapshot(self.now).overlays[0].id
    }

    /// Nodes in a machine's table.
    fn table_len(&self, place: usize) -> usize {
        self.hosts[place].dht.snapshot(self.now).overlays[0].nodes.0
    }
}

fn addr(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::new(IpAddr::from(ip), 6881)
}

fn query(id: u8, method: Method<'_>) -> Query<'_> {
    Query { id: NodeId([id; 20]), read_only: false, method }
}
