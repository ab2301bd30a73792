//! What the torrents of one process share: the session's budgets, announces on the local network,
//! the client of UDP trackers. Several hosts may be one process, each with a torrent of its own;
//! they have one address and one line.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Event, Swarm};
use crate::proto::infohash::InfoHash;
use crate::proto::lsd::{self, Group, Lsd};
use crate::proto::rng::Rng;
use crate::proto::session::{Lease, Output as SessionOutput, Session};
use crate::proto::time::Instant;
use crate::proto::torrent::event::Source;
use crate::proto::tracker::Announce;
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::udp_client::{self, UdpClient};
use crate::sim::network::HostId;
use crate::sim::scenario::{Role, Variations};

/// A process's number: that of the host with its first torrent.
pub(super) type ProcessId = usize;

/// Where the tracker takes datagrams.
pub(super) const TRACKER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(19, 0, 0, 1)), 80);

/// An announce: the host, its life, and the request.
pub(super) type Asked = (HostId, usize, RequestId);

/// One process.
#[derive(Debug)]
pub(super) struct Process {
    session: Option<Session>,
    lsd: Lsd,
    udp: UdpClient<Asked>,
    /// When the swarm will wake it next.
    wake_at: Option<Instant>,
}

/// What happens to a process.
#[derive(Debug)]
pub(super) enum Happening {
    Wake,
    /// The session's share for a host reaches it.
    Lease(HostId, usize, Lease),
    /// A datagram of the tracker.
    FromTracker(Vec<u8>),
    /// A datagram to the tracker, from this process.
    ToTracker(Vec<u8>),
    /// A datagram of the local network, from this address.
    Lsd(SocketAddr, Vec<u8>),
}

impl Happening {
    /// For the trace.
    pub(super) fn kind(&self) -> u64 {
        match self {
            Self::Wake => 0,
            Self::Lease(..) => 1,
            Self::FromTracker(_) => 2,
            Self::ToTracker(_) => 3,
            Self::Lsd(..) => 4,
        }
    }
}

impl Process {
    pub(super) fn new(variations: &Variations, port: u16, rng: &mut Rng) -> Self {
        Self {
            session: variations.limits.map(Session::new),
            lsd: Lsd::new(port, rng.fork("lsd"), Instant::ZERO),
            udp: UdpClient::new(rng.fork("udp client")),
            wake_at: None,
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let session = self.session.as_ref().and_then(Session::poll_timeout);
        [session, self.lsd.poll_timeout(), self.udp.poll_timeout()].into_iter().flatten().min()
    }
}

impl Swarm {
    /// The process that a host belongs to.
    pub(super) fn host_process(&self, host: HostId) -> ProcessId {
        host % self.processes.len()
    }

    /// The host of the same torrent as `host` in another process.
    pub(super) fn counterpart(&self, host: HostId, process: ProcessId) -> HostId {
        host - self.host_process(host) + process
    }

    /// Whether nobody can dial this host: every second peer, if there are NATs.
    pub(super) fn is_behind_nat(&self, host: HostId) -> bool {
        self.scenario.variations.nats
            && self.hosts[host].role == Role::Peer
            && self.host_process(host).is_multiple_of(2)
    }

    /// The host of a process that has this torrent.
    fn host_of(&self, process: ProcessId, infohash: InfoHash) -> Option<HostId> {
        let hosts = (process..self.hosts.len()).step_by(self.processes.len());
        hosts.into_iter().find(|&host| self.hosts[host].common.infohash == infohash)
    }

    /// A host's torrent is added to its process, or removed.
    pub(super) fn tell_session(&mut self, host: HostId, is_there: bool) {
        let (now, process) = (self.now, self.host_process(host));
        let infohash = self.hosts[host].common.infohash;
        if let Some(session) = &mut self.processes[process].session {
            if is_there { session.handle_added(now, infohash) } else { session.handle_removed(now, infohash) }
        }
        self.settle_process(process);
    }

    /// Tells the session what a host could use.
    pub(super) fn tell_demand(&mut self, host: HostId) {
        let (now, process) = (self.now, self.host_process(host));
        let Some(demand) = self.hosts[host].machine.poll_demand(now) else { return };
        if let Some(session) = &mut self.processes[process].session {
            session.handle_demand(now, self.hosts[host].common.infohash, demand);
            self.settle_process(process);
        }
    }

    /// A host's torrent is to be announced on the local network, or not any more.
    pub(super) fn announce_locally(&mut self, host: HostId, is_on: bool) {
        let (now, process) = (self.now, self.host_process(host));
        let (infohash, lsd) = (self.hosts[host].common.infohash, &mut self.processes[process].lsd);
        if is_on {
            lsd.handle_added(now, infohash)
        } else {
            lsd.handle_removed(infohash)
        }
        self.settle_process(process);
    }

    /// A host announces itself to the tracker by UDP.
    pub(super) fn announce_by_udp(&mut self, host: HostId, request: RequestId, announce: Announce) {
        let (now, process) = (self.now, self.host_process(host));
        let asked = (host, self.hosts[host].life_number(), request);
        self.processes[process].udp.handle_announce(now, asked, TRACKER, "/announce", announce);
        self.settle_process(process);
    }

    pub(super) fn happen(&mut self, process: ProcessId, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Wake => {
                if self.processes[process].wake_at != Some(now) {
                    return;
                }
                let Process { session, lsd, udp, wake_at } = &mut self.processes[process];
                *wake_at = None;
                session.iter_mut().for_each(|session| session.handle_timeout(now));
                lsd.handle_timeout(now);
                udp.handle_timeout(now);
            }
            Happening::Lease(host, life, lease) => {
                if self.hosts[host].life_number() == life {
                    self.hosts[host].machine.torrent.handle_lease(now, lease);
                    self.settle(host);
                }
            }
            Happening::FromTracker(bytes) => {
                let is_ours = self.processes[process].udp.handle_datagram(now, TRACKER, &bytes);
                assert!(is_ours, "an answer of the tracker is understood");
            }
            Happening::ToTracker(bytes) => {
                let answer = self.tracker.answer_datagram(now, self.hosts[process].addr, &bytes);
                let is_dead = self.is_tracker_dead();
                if let Some(answer) = answer.filter(|_| !is_dead) {
                    self.send_datagram(process, Happening::FromTracker(answer));
                }
            }
            Happening::Lsd(from, bytes) => self.processes[process].lsd.handle_datagram(now, from, &bytes),
        }
        self.settle_process(process);
    }

    /// Does what the machines of a process decided, and sets its alarm.
    fn settle_process(&mut self, id: ProcessId) {
        let (now, addr) = (self.now, self.hosts[id].addr);
        while let Some(output) = self.processes[id].session.as_mut().and_then(Session::poll_output) {
            let SessionOutput::Lease(infohash, lease) = output;
            let Some(host) = self.host_of(id, infohash) else { continue };
            let happening = Happening::Lease(host, self.hosts[host].life_number(), lease);
            self.queue.push(now, Event::Process { process: id, happening });
        }
        while let Some(output) = self.processes[id].lsd.poll_output() {
            match output {
                lsd::Output::Announce(Group::V4, bytes) => {
                    for other in (0..self.processes.len()).filter(|&other| other != id) {
                        self.send_datagram(other, Happening::Lsd(addr, bytes.clone()));
                    }
                }
                // No host has an IPv6 address.
                lsd::Output::Announce(Group::V6, _) => {}
                lsd::Output::Peer(infohash, peer) => {
                    let Some(host) = self.host_of(id, infohash) else { continue };
                    self.hosts[host].machine.discovery_mut().handle_peers(Source::Lsd, vec![peer]);
                    self.settle(host);
                }
            }
        }
        while let Some(output) = self.processes[id].udp.poll_output() {
            match output {
                udp_client::Output::Datagram { to: _, bytes } => {
                    self.send_datagram(id, Happening::ToTracker(bytes));
                }
                udp_client::Output::Reply { key: (host, life, request), reply } => {
                    let reply = Box::new(reply);
                    self.queue.push(now, Event::Answered { host, life, request, reply });
                }
            }
        }
        let process = &mut self.processes[id];
        if let Some(at) = process.poll_timeout() {
            let at = at.max(now);
            if process.wake_at.is_none_or(|wake_at| at < wake_at) {
                process.wake_at = Some(at);
                self.queue.push(at, Event::Process { process: id, happening: Happening::Wake });
            }
        }
    }

    /// A datagram arrives after the latency, or is lost.
    fn send_datagram(&mut self, process: ProcessId, happening: Happening) {
        if self.datagram_rng.unit() >= self.scenario.loss {
            self.queue.push(self.now + self.scenario.latency, Event::Process { process, happening });
        }
    }
}
