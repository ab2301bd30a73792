//! A swarm in virtual time: one event queue, one seed, the production machines, and oracles after
//! every event.
//!
//! What is checked, besides the machines' own invariants: no piece is claimed that is not right; no
//! block is sent that was not asked for or is not there; nothing is asked of a peer that chokes;
//! only liars are banned, and nobody is said to break the protocol; content bytes are conserved; no
//! line carries more than its rate. A violation panics and names the seed.

mod discovery;
mod oracles;
mod outages;
mod outputs;
mod process;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::content::{Content, mix};
use super::host::{Common, Host, HostDisk, Wire};
use super::network::{HostId, LinkId, Network, Parcel, Segment, Transit};
use super::oracle::ProtocolOracle;
use super::queue::Queue;
use super::scenario::{Report, Role, Scenario};
use super::super_seed::SuperSeed;
use super::tracker::Tracker;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{Command, ConnId, Connected, Direction, PieceResult, Receipt};
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::{Announce, AnnounceReply, TrackerError};
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;
use discovery::Dht;
use outages::{Happening, RealContents};
use process::{Process, ProcessId};

/// Bytes per second that a host hashes and writes.
const DISK_RATE: u64 = 500_000_000;
/// Every host listens here.
const PORT: u16 = 6881;
/// Port numbers of dialling ends.
const EPHEMERAL_PORT: u16 = 50_000;
/// How often lines and bytes are counted over, in events: it walks over all hosts.
const AUDIT_INTERVAL: u64 = 4_096;

/// Something that happens.
#[derive(Debug)]
enum Event {
    Join(HostId),
    Leave(HostId),
    Wake(HostId),
    Transit(Transit),
    /// A dial's round trips are over.
    Dialled {
        host: HostId,
        /// The dialling host's life.
        life: usize,
        addr: SocketAddr,
    },
    /// A user wants something.
    Command(HostId, Command),
    /// What happens to what the torrents of a process share.
    Process {
        process: ProcessId,
        happening: process::Happening,
    },
    /// What happens to a host with a real disk.
    Outage {
        host: HostId,
        life: usize,
        happening: Happening,
    },
    /// The disk is done with a piece.
    Stored {
        host: HostId,
        piece: PieceIndex,
        block_hashes: bool,
    },
    /// An announce reached the tracker.
    Announced {
        host: HostId,
        life: usize,
        request: RequestId,
        announce: Box<Announce>,
    },
    /// A lookup in the DHT is over.
    LookedUp {
        host: HostId,
        life: usize,
        lookup: u64,
    },
    /// The tracker's answer came.
    Answered {
        host: HostId,
        life: usize,
        request: RequestId,
        reply: Box<Result<AnnounceReply, TrackerError>>,
    },
}

/// A link between two hosts of one torrent.
struct LinkEnds {
    dialler: HostId,
    /// The connection at each end.
    conns: [ConnId; 2],
}

/// A swarm under simulation.
pub struct Swarm {
    scenario: Scenario,
    queue: Queue<Event>,
    now: Instant,
    network: Network,
    hosts: Vec<Host>,
    processes: Vec<Process>,
    datagram_rng: Rng,
    by_addr: BTreeMap<SocketAddr, HostId>,
    links: Vec<LinkEnds>,
    tracker: Tracker,
    dht: Dht,
    /// How many peers completed each piece.
    copies: Vec<u32>,
    rng: Rng,
    trace_digest: u64,
    event_count: u64,
}

impl Swarm {
    /// Everybody is yet to come.
    ///
    /// # Panics
    /// The scenario's pieces make no torrent.
    pub fn new(scenario: Scenario) -> Self {
        let mut rng = Rng::from_number(scenario.seed);
        let geometry = Geometry::new(scenario.total_len(), scenario.piece_len)
            .expect("a scenario has pieces of a sound length and number");
        let torrent_count = 1 + scenario.variations.more_torrents;
        let common = |torrent| {
            let content = Content { geometry, seed: rng.bits() };
            Arc::new(Common::new(content, scenario.variations, torrent))
        };
        let commons: Vec<Arc<Common>> = (0..torrent_count).map(common).collect();
        let real = RealContents::new(&scenario, &commons[0]);
        let mut queue = Queue::new();
        let (mut hosts, mut processes) = (Vec::new(), Vec::new());
        let mut by_addr = BTreeMap::new();
        let mut shared_rng = Rng::from_number(!scenario.seed);
        for id in 0..scenario.host_count() * commons.len() {
            let process = id % scenario.host_count();
            let role = scenario.role(id);
            let late = match role {
                Role::Seed | Role::Poisoner => 0.0,
                Role::Peer | Role::FreeRider => rng.unit(),
            };
            let joined_at = Instant::ZERO + scenario.arrivals.mul_f64(late);
            // Each in a network of its own: allowed-fast sets (BEP 6) follow from the network.
            let network = if scenario.variations.lsd { 0x0a00_0001 } else { 0x1400_0001 };
            let addr = SocketAddr::new(Ipv4Addr::from(network + ((process as u32) << 8)).into(), PORT);
            let storage = real.storage(&scenario, id);
            match &storage {
                Some(storage) => outages::plan(&mut queue, joined_at, id, 0, storage.life_len()),
                None => queue.push(joined_at, Event::Join(id)),
            }
            let common = Arc::clone(&commons[id / scenario.host_count()]);
            let mut host = Host::new(common, role, addr, joined_at, storage, rng.fork("host"));
            let reveal = scenario.variations.super_seeding.filter(|_| role == Role::Seed);
            host.super_seed = reveal.map(|reveal| SuperSeed::new(reveal, scenario.piece_count));
            hosts.push(host);
            by_addr.entry(addr).or_insert_with(|| {
                processes.push(Process::new(&scenario.variations, PORT, &mut shared_rng));
                id
            });
        }
        for (at, host, command) in scenario.commands() {
            queue.push(Instant::ZERO + at, Event::Command(host, command));
        }
        let lines = (0..scenario.host_count()).map(|id| scenario.line(id));
        let network = Network::new(lines, scenario.loss, rng.fork("network"));
        let tracker = Tracker::new(rng.fork("tracker"), Instant::ZERO);
        let dht_seed = scenario.seed;
        let copies = vec![0; scenario.piece_count as usize * commons.len()];
        let now = Instant::ZERO;
        let (trace_digest, event_count) = (0, 0);
        Self {
            scenario,
            queue,
            now,
            network,
            hosts,
            processes,
            datagram_rng: shared_rng,
            by_addr,
            links: Vec::new(),
            tracker,
            dht: Dht::new(dht_seed),
            copies,
            rng,
            trace_digest,
            event_count,
        }
    }

    /// Runs until everybody who wants the content has it, nothing is left to happen, or `limit` has
    /// passed.
    ///
    /// # Panics
    /// An oracle found a violation: a bug in a machine.
    pub fn run(mut self, limit: Duration) -> Report {
        let end_at = Instant::ZERO + limit;
        while !self.is_done()
            && let Some((at, event)) = self.queue.pop()
            && at <= end_at
        {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            self.event_count += 1;
            self.note(&event);
            self.handle(event);
            if self.event_count.is_multiple_of(AUDIT_INTERVAL) {
                self.audit();
            }
        }
        self.audit();
        self.report()
    }

    fn is_done(&self) -> bool {
        let wanting = |host: &Host| host.role == Role::Peer || host.role == Role::FreeRider;
        self.hosts.iter().filter(|host| wanting(host)).all(|host| host.life.completed_at.is_some())
    }

    /// The trace: when, what, who.
    fn note(&mut self, event: &Event) {
        let (kind, who, what) = match event {
            Event::Join(host) => (1, *host, 0),
            Event::Leave(host) => (2, *host, 0),
            Event::Wake(host) => (3, *host, 0),
            Event::Transit(Transit::UplinkFree(host)) => (4, *host, 0),
            Event::Transit(Transit::Arrive(segment)) => (5, segment.link, segment.content().1),
            Event::Transit(Transit::Deliver(segment)) => (6, segment.link, segment.parcels.len() as u64),
            Event::Dialled { host, addr, .. } => (7, *host, u64::from(addr.port())),
            Event::Outage { host, life, happening } => (11, *host, *life as u64 * 8 + happening.kind()),
            Event::Stored { host, piece, .. } => (8, *host, u64::from(*piece)),
            Event::Announced { host, request, .. } => (9, *host, request.0),
            Event::Answered { host, request, .. } => (10, *host, request.0),
            Event::LookedUp { host, lookup, .. } => (12, *host, *lookup),
            Event::Process { process, happening } => (13, *process, happening.kind()),
            Event::Command(host, _) => (14, *host, 0),
        };
        for value in [self.now.as_micros(), kind, who as u64, what] {
            self.trace_digest = mix(self.trace_digest, value);
        }
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Join(host) => {
                self.hosts[host].life.online = true;
                if let (Role::Seed, upload_rate @ Some(_)) =
                    (self.hosts[host].role, self.scenario.variations.seed_limit)
                {
                    let command = Command::Limit { upload_rate, download_rate: None };
                    self.hosts[host].machine.torrent.handle_command(now, command);
                }
                self.hosts[host].machine.handle_timeout(now);
                self.tell_session(host, true);
                self.settle(host);
            }
            Event::Command(host, command) => {
                self.hosts[host].machine.torrent.handle_command(now, command);
                self.settle(host);
            }
            Event::Process { process, happening } => self.happen(process, happening),
            Event::Leave(host) => self.leave(host),
            Event::Wake(host) => self.wake(host),
            Event::Transit(transit) => self.transit(transit),
            Event::Dialled { host, life, addr } => {
                if life == self.hosts[host].life_number() {
                    self.dialled(host, addr);
                }
            }
            Event::Outage { host, life, happening } => self.outage(host, life, happening),
            Event::Stored { host, piece, block_hashes } => self.stored(host, piece, block_hashes),
            Event::Announced { host, life, request, announce } => {
                self.announced(host, life, request, &announce);
            }
            Event::LookedUp { host, life, lookup } => {
                if life == self.hosts[host].life_number() {
                    self.looked_up(host, lookup);
                }
            }
            Event::Answered { host, life, request, reply } => {
                if life == self.hosts[host].life_number() {
                    self.hosts[host].machine.discovery_mut().handle_reply(now, request, *reply, false);
                    self.settle(host);
                }
            }
        }
    }

    fn wake(&mut self, id: HostId) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        if host.wake_at != Some(now) {
            return;
        }
        host.wake_at = None;
        host.machine.handle_timeout(now);
        self.settle(id);
    }

    fn leave(&mut self, id: HostId) {
        let conns: Vec<ConnId> = self.hosts[id].wires.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(id, conn));
        self.hosts[id].machine.handle_leave(self.now);
        self.settle(id);
        self.hosts[id].life.online = false;
        self.tell_session(id, false);
    }

    fn transit(&mut self, transit: Transit) {
        let now = self.now;
        match transit {
            Transit::UplinkFree(process) => {
                let (sent, next) = self.network.uplink_free(now, process);
                next.into_iter().for_each(|(at, transit)| self.queue.push(at, Event::Transit(transit)));
                let id = self.counterpart(self.links[sent.link].dialler, process);
                if sent.block_count > 0
                    && let Some(conn) = self.conn_at(id, sent.link, sent.end)
                {
                    let torrent = &mut self.hosts[id].machine.torrent;
                    torrent.handle_blocks_sent(now, conn, sent.block_count, sent.content_len);
                    self.settle(id);
                }
            }
            Transit::Arrive(segment) => {
                let (at, transit) = self.network.arrive(now, segment);
                self.queue.push(at, Event::Transit(transit));
            }
            Transit::Deliver(segment) => self.deliver(segment),
        }
    }

    fn deliver(&mut self, segment: Segment) {
        let (link, end) = (segment.link, 1 - segment.from_end);
        let id = self.counterpart(self.links[link].dialler, self.network.host_at(link, end));
        let (parcels, next) = self.network.deliver(self.now, segment);
        self.schedule(next);
        for parcel in parcels {
            match self.conn_at(id, link, end) {
                Some(conn) => self.receive(id, conn, parcel),
                // An earlier parcel of the segment made this end close.
                None => self.network.unheard(&parcel),
            }
        }
    }

    /// The connection at this end of a link, if it is still open.
    fn conn_at(&self, id: HostId, link: LinkId, end: usize) -> Option<ConnId> {
        Some(self.links[link].conns[end]).filter(|conn| self.hosts[id].wires.contains_key(conn))
    }

    fn schedule(&mut self, next: Option<(Instant, Transit)>) {
        if let Some((at, transit)) = next {
            self.queue.push(at, Event::Transit(transit));
        }
    }

    fn receive(&mut self, id: HostId, conn: ConnId, parcel: Parcel) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let torrent = &mut host.machine.torrent;
        match parcel {
            Parcel::Message(Message::Suggest(_)) if self.scenario.variations.foreign_peers => {}
            Parcel::Message(message) => {
                if let Some(wire) = host.wires.get_mut(&conn) {
                    wire.oracle.heard(&message);
                }
                let shown = host.super_seed.as_mut().map(|super_seed| super_seed.heard(conn, &message));
                torrent.handle_message(now, conn, message);
                shown.into_iter().flatten().for_each(|(conn, message)| self.say(id, conn, message));
            }
            Parcel::Block(block, tag) => match &mut host.disk {
                HostDisk::Tags(disk) => {
                    if torrent.handle_block(now, conn, block) == Receipt::Keep {
                        disk.store(block, tag);
                    }
                }
                HostDisk::Real(storage) => {
                    host.machine.handle_block(now, conn, block, || storage.keep(block, tag));
                }
            },
            Parcel::Close => {
                self.close(id, conn);
                self.hosts[id].machine.torrent.handle_disconnected(now, conn);
            }
        }
        self.settle(id);
    }

    /// The host's end closes; the other end hears of it in time.
    fn close(&mut self, id: HostId, conn: ConnId) {
        if let Some(super_seed) = &mut self.hosts[id].super_seed {
            super_seed.left(conn);
        }
        if let Some(wire) = self.hosts[id].wires.remove(&conn) {
            let next = self.network.close(self.now, wire.link, wire.end);
            self.schedule(next);
        }
    }

    fn dialled(&mut self, from: HostId, addr: SocketAddr) {
        let now = self.now;
        let to = self.by_addr.get(&addr).map(|&process| self.counterpart(from, process));
        let to = to.filter(|&to| self.hosts[to].life.online && !self.is_behind_nat(to));
        let (Some(to), true) = (to, self.hosts[from].life.online) else {
            self.hosts[from].machine.torrent.handle_dial_failed(now, addr);
            return self.settle(from);
        };
        let latency = self.scenario.latency.mul_f64(0.5 + self.rng.unit());
        let link = self.network.connect([from, to].map(|id| self.host_process(id)), latency);
        let dialler = SocketAddr::new(self.hosts[from].addr.ip(), EPHEMERAL_PORT + (link % 10_000) as u16);
        let conns = [from, to].map(|id| self.hosts[id].next_conn());
        self.links.push(LinkEnds { dialler: from, conns });
        let ends = [(from, 0, addr, to, Direction::Outgoing), (to, 1, dialler, from, Direction::Incoming)];
        for (id, end, remote_addr, remote, direction) in ends {
            let capabilities = Capabilities {
                fast: true,
                extensions: !self.scenario.variations.plain_haves,
                ..Capabilities::default()
            };
            let peer_id = self.hosts[remote].peer_id;
            let (conn, host) = (conns[end], &mut self.hosts[id]);
            host.wires.insert(conn, Wire { link, end, oracle: ProtocolOracle::default() });
            let connected = Connected { addr: remote_addr, direction, peer_id, capabilities };
            host.machine.torrent.handle_connected(now, conn, connected);
            self.settle(id);
        }
    }

    fn stored(&mut self, id: HostId, piece: PieceIndex, block_hashes: bool) {
        let (torrent, host) = (id / self.processes.len(), &mut self.hosts[id]);
        let piece_count = self.scenario.piece_count as usize;
        let first_copy = torrent * piece_count;
        let HostDisk::Tags(disk) = &mut host.disk else { return };
        let result = disk.verify(piece, block_hashes);
        if let PieceResult::Good(_) = result
            && host.role == Role::Peer
        {
            self.copies[piece as usize + first_copy] += 1;
        }
        host.machine.torrent.handle_piece_result(self.now, piece, result);
        self.settle(id);
        if self.scenario.variations.seeds_leave
            && self.copies[first_copy..][..piece_count].iter().all(|&copies| copies > 0)
        {
            let all = (0..self.processes.len()).map(|process| self.counterpart(id, process));
            let seeds = all.filter(|&id| self.hosts[id].role == Role::Seed);
            let online: Vec<HostId> = seeds.filter(|&id| self.hosts[id].life.online).collect();
            online.into_iter().for_each(|id| self.leave(id));
        }
    }

    /// Does what a host's machines decided, until they have nothing more to say, and sets its
    /// alarm.
    fn settle(&mut self, id: HostId) {
        if self.hosts[id].disk.is_down() {
            return;
        }
        self.tell_demand(id);
        while let Some(output) = self.hosts[id].machine.poll_output(self.now) {
            self.act(id, output);
        }
        self.check_host(id);
        let host = &mut self.hosts[id];
        if let Some(at) = host.machine.poll_timeout().filter(|_| !host.disk.is_down()) {
            // A machine that is due already gets its turn as the next event, never within this one.
            let at = at.max(self.now);
            if host.wake_at.is_none_or(|wake_at| at < wake_at) {
                host.wake_at = Some(at);
                self.queue.push(at, Event::Wake(id));
            }
        }
    }
}

/// How long a disk needs for so many bytes.
fn disk_time(len: u64) -> Duration {
    Duration::from_micros(len * 1_000_000 / DISK_RATE)
}
