//! What a simulated swarm is made of, and what is reported of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::disk::{Faults, Model};
use super::network::Line;
use super::super_seed::Reveal;
use crate::proto::bitfield::Bitfield;
use crate::proto::session::Limits;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::Command;

/// A swarm to be.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Everything follows from it.
    pub seed: u64,
    /// Pieces of the content.
    pub piece_count: u32,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Complete hosts at the start.
    pub seeds: usize,
    /// Honest hosts that have nothing at the start.
    pub peers: usize,
    /// Hosts that download and never unchoke.
    pub free_riders: usize,
    /// Hosts that claim to be complete and send false blocks.
    pub poisoners: usize,
    /// How often a poisoner's block is false, 0.0 to 1.0.
    pub poison: f64,
    /// The seeds' lines.
    pub seed_line: Line,
    /// All the others' lines.
    pub peer_line: Line,
    /// Mean one-way latency; that of a connection is between half and one and a half of it.
    pub latency: Duration,
    /// Segments that come a retransmission late, 0.0 to 1.0.
    pub loss: f64,
    /// Peers arrive at random within this span.
    pub arrivals: Duration,
    /// What else sets the scenario apart.
    pub variations: Variations,
    /// The first peers' machines: they have disks with real bytes, and go down. All others' disks
    /// are perfect.
    pub machines: Vec<MachinePlan>,
}

/// A machine with real disks, and what becomes of it.
#[derive(Clone, Debug)]
pub struct MachinePlan {
    /// What its file systems promise.
    pub model: Model,
    /// Whether the journal has a disk of its own.
    pub apart: bool,
    /// One life after the other; those that follow are undisturbed.
    pub lives: Vec<LifePlan>,
}

/// From a start to the next end.
#[derive(Clone, Debug, Default)]
pub struct LifePlan {
    /// What goes wrong on the disk; calls are counted from the start, times are those of the disk.
    pub content: Faults,
    /// The same where the journal has a disk of its own.
    pub journal: Faults,
    /// It ends so long after the start, if not by a fault before; None: not.
    pub length: Option<Duration>,
    /// How it ends.
    pub ending: Ending,
    /// How long the host stays down then.
    pub rest: Duration,
}

/// How a host goes down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// The machine stops: what was not synced may be lost.
    #[default]
    PowerCut,
    /// The program stops.
    Kill,
    /// The torrent leaves in order; when everything is durable, the machine stops.
    Leave,
}

/// Deviations from the ordinary swarm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variations {
    /// Seeds leave as soon as every piece is somewhere else too.
    pub seeds_leave: bool,
    /// Peers leave when they are complete.
    pub complete_leave: bool,
    /// Handshakes offer no extension protocol, so that availability goes as plain HAVEs.
    pub plain_haves: bool,
    /// Seeds super-seed (BEP 16), in this way.
    pub super_seeding: Option<Reveal>,
    /// Peers behave as many other clients do: they heed no suggestion, and tell complete peers of
    /// their pieces too.
    pub foreign_peers: bool,
    /// The upload limit that the seeds are given, bytes per second.
    pub seed_limit: Option<u64>,
    /// Peers know only the infohash at the start (BEP 9).
    pub magnets: bool,
    /// Hosts ask the DHT as well.
    pub dht: bool,
    /// Hosts tell each other of their peers (BEP 11).
    pub pex: bool,
    /// Torrents of each host beyond the first, with content of their own and the same roles; they
    /// share its line.
    pub more_torrents: u8,
    /// A session shares these limits out among the torrents of each host.
    pub limits: Option<Limits>,
    /// All hosts are on one local network, and announce themselves there (BEP 14).
    pub lsd: bool,
    /// Every second peer is behind a NAT: nobody can dial it.
    pub nats: bool,
    /// What the users of every second peer do.
    pub users: Option<Users>,
    /// How the tracker is asked, and for how long it answers.
    pub tracker: Tracker,
}

/// The tracker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    /// It is asked by UDP (BEP 15), and datagrams are lost as segments are; else by HTTP.
    pub udp: bool,
    /// It answers no announce from then on.
    pub dies_at: Option<Duration>,
}

/// What users do in the course of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Users {
    /// They pause after 5 s, for 5 s.
    Pause,
    /// In the first 5 s they want every second piece alone.
    Select,
}

impl Default for Scenario {
    /// One seed of 1 MB/s and 50 peers of the same upload, four times the download, 32 MiB of
    /// content in small pieces.
    fn default() -> Self {
        let line = Line { up_rate: 1_000_000, down_rate: 4_000_000 };
        Self {
            seed: 1,
            piece_count: 512,
            piece_len: 64 * 1024,
            seeds: 1,
            peers: 50,
            free_riders: 0,
            poisoners: 0,
            poison: 1.0,
            seed_line: line,
            peer_line: line,
            latency: Duration::from_millis(30),
            loss: 0.0,
            arrivals: Duration::ZERO,
            variations: Variations::default(),
            machines: Vec::new(),
        }
    }
}

impl Scenario {
    /// Hosts in all, in this order: seeds, peers, free riders, poisoners.
    pub fn host_count(&self) -> usize {
        self.seeds + self.peers + self.free_riders + self.poisoners
    }

    /// What the host of this number is.
    pub fn role(&self, host: usize) -> Role {
        let host = host % self.host_count();
        let ends = [self.seeds, self.seeds + self.peers, self.seeds + self.peers + self.free_riders];
        match ends.iter().position(|&end| host < end) {
            Some(0) => Role::Seed,
            Some(1) => Role::Peer,
            Some(_) => Role::FreeRider,
            None => Role::Poisoner,
        }
    }

    /// The line of the host of this number.
    pub(super) fn line(&self, host: usize) -> Line {
        match self.role(host) {
            Role::Seed => self.seed_line,
            Role::Peer | Role::FreeRider | Role::Poisoner => self.peer_line,
        }
    }

    /// What users want: when, and at which host.
    pub(super) fn commands(&self) -> Vec<(Duration, usize, Command)> {
        let later = Duration::from_secs(5);
        let all = Bitfield::full(self.piece_count);
        let mut half = Bitfield::new(self.piece_count);
        (0..self.piece_count).step_by(2).for_each(|piece| _ = half.set(piece));
        let [first, second] = match self.variations.users {
            Some(Users::Pause) => [(later, Command::Pause), (2 * later, Command::Resume)],
            Some(Users::Select) => [(Duration::ZERO, Command::Want(half)), (later, Command::Want(all))],
            None => return Vec::new(),
        };
        let hosts = (self.seeds..self.seeds + self.peers).step_by(2);
        let at = |host| [&first, &second].map(|(at, command)| (*at, host, command.clone()));
        hosts.flat_map(at).collect()
    }

    /// Bytes of the content of one torrent.
    pub fn total_len(&self) -> u64 {
        u64::from(self.piece_count) * u64::from(self.piece_len)
    }

    /// The fluid bound: no way of sharing is faster than the seeds sending one copy, a peer
    /// receiving its copy, or all uplinks together sending everybody's. Exact for one flash crowd
    /// of equal peers.
    pub fn bound(&self) -> Duration {
        let len = self.total_len() as f64 * f64::from(1 + u32::from(self.variations.more_torrents));
        let seeds_up = (self.seeds as u64 * self.seed_line.up_rate) as f64;
        let peers_up = (self.peers as u64 * self.peer_line.up_rate) as f64;
        let downloaders = (self.peers + self.free_riders) as f64;
        let one_copy = len / seeds_up;
        let own_copy = len / self.peer_line.down_rate as f64;
        let all_copies = downloaders * len / (seeds_up + peers_up);
        Duration::from_secs_f64(one_copy.max(own_copy).max(all_copies))
    }
}

/// What a host is in the scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Complete at the start.
    Seed,
    /// Honest, and empty at the start.
    Peer,
    /// Never unchokes anybody.
    FreeRider,
    /// Claims to be complete and lies.
    Poisoner,
}

/// What became of a swarm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Each host, in the scenario's order, as often as it has torrents.
    pub hosts: Vec<HostReport>,
    /// A digest of every event in its order: equal for equal runs.
    pub trace_digest: u64,
    /// Events handled.
    pub event_count: u64,
    /// Virtual time of the last event.
    pub ended_at: Instant,
    /// The scenario's fluid bound.
    pub bound: Duration,
}

/// What became of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReport {
    /// What it is.
    pub role: Role,
    /// Where it is.
    pub addr: SocketAddr,
    /// When it came.
    pub joined_at: Instant,
    /// When it had everything; None: never.
    pub completed_at: Option<Instant>,
    /// Content bytes sent.
    pub uploaded: u64,
    /// Content bytes received and kept.
    pub downloaded: u64,
    /// Content bytes received and thrown away.
    pub wasted: u64,
    /// Bytes of availability messages sent.
    pub availability_sent: u64,
    /// Whom it banned.
    pub banned: BTreeSet<SocketAddr>,
    /// Pieces that its disk lost after they were announced.
    pub lost_count: usize,
    /// Connections that it closed so that the other end is greeted anew.
    pub anew_count: usize,
    /// How often it went down, and what that cost.
    pub ends: Vec<EndReport>,
}

/// What it cost a host to go down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndReport {
    /// When.
    pub at: Instant,
    /// Bytes that had come and are to be fetched again.
    pub lost_len: u64,
    /// Of these, bytes of pieces that were there whole.
    pub lost_piece_len: u64,
    /// How long the oldest of what was not durable had been there.
    pub age: Duration,
}

impl Report {
    /// How long the slowest of the honest downloaders took; None: one never completed.
    pub fn completion(&self) -> Option<Duration> {
        self.completions(Role::Peer).into_iter().try_fold(Duration::ZERO, |most, time| Some(most.max(time?)))
    }

    /// How long each host of this role took to complete; None: it did not.
    pub fn completions(&self, role: Role) -> Vec<Option<Duration>> {
        let hosts = self.hosts.iter().filter(|host| host.role == role);
        hosts.map(|host| host.completed_at.map(|at| at - host.joined_at)).collect()
    }

    /// Everybody who was banned by anybody.
    pub fn banned(&self) -> BTreeSet<SocketAddr> {
        self.hosts.iter().flat_map(|host| host.banned.iter().copied()).collect()
    }

    /// Bytes of availability messages for each host and piece.
    pub fn availability_per_peer_and_piece(&self, piece_count: u32) -> f64 {
        let sent: u64 = self.hosts.iter().map(|host| host.availability_sent).sum();
        sent as f64 / (self.hosts.len() as f64 * f64::from(piece_count))
    }
}
