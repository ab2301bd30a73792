//! The first part of a magnet's life: fetching the description from peers (BEP 9).
//!
//! No file is open and nobody gets anything from us but what greetings say. When the description is
//! there the same connections, trackers and names go on with the content; of a torrent that turns
//! out to be private only what BEP 27 allows.

use std::collections::BTreeSet;

use bytes::Bytes;
use tokio::time::{Duration, sleep_until};

use super::connections::Inbox;
use super::memory::{DescriptionMemory, Room};
use super::report::shown;
use super::swarm::{Dialled, Swarm};
use super::{Inputs, Leaving, Wishes};
use crate::engine::context::{Control, Established, Incoming, Input, Outgoing};
use crate::engine::handle::Stage;
use crate::engine::supervisor;
use crate::engine::task::Tasks;
use crate::proto::discovery::event::DiscoveryEvent;
use crate::proto::metainfo::magnet::Magnet;
use crate::proto::metainfo::{Info, Metainfo};
use crate::proto::rng::Rng;
use crate::proto::time::Instant;
use crate::proto::torrent::description::{Description, Handover, Output, Settings};
use crate::proto::torrent::event::{ConnId, TorrentSnapshot};

/// Inputs of connections taken before timers and the user are looked at again.
const INPUT_MAX: usize = 64;

/// The state of the task in this part.
pub(super) struct DescriptionTask {
    swarm: Swarm,
    machine: Description,
    memory: DescriptionMemory,
    /// Memory that is waited for.
    reserving: Tasks<Room>,
    /// Memory that is ours, at most until this part is over.
    reserved: Vec<Room>,
    described: Option<Bytes>,
    wishes: Wishes,
}

/// How this part ended.
pub(super) enum Outcome {
    /// The description is there.
    Described {
        /// Goes on.
        swarm: Box<Swarm>,
        /// What peers gave, as its infohash says.
        info: Box<Info>,
        /// For the torrent's machine.
        handover: Box<Handover>,
        /// What the user said meanwhile.
        wishes: Wishes,
    },
    /// It is to leave.
    Left {
        /// To take leave of.
        swarm: Box<Swarm>,
        /// Why.
        leaving: Leaving,
    },
}

/// What a magnet and its description say together.
pub(super) fn metainfo(magnet: &Magnet, info: Info) -> Metainfo {
    Metainfo {
        info,
        trackers: magnet.trackers.iter().map(|url| vec![url.clone()]).collect(),
        web_seeds: magnet.web_seeds.clone(),
        nodes: Vec::new(),
        comment: None,
        created_by: None,
        creation_date: None,
        oddities: Vec::new(),
    }
}

impl DescriptionTask {
    /// Nobody asked yet.
    pub(super) fn new(swarm: Swarm, memory: DescriptionMemory, rng: Rng) -> Self {
        let context = &swarm.context;
        let settings = Settings {
            infohash: swarm.infohash,
            peer_id: swarm.peer_id,
            listen_port: Some(context.port),
            dht_port: context.dht.is_some().then_some(context.port),
            pex: context.config.pex,
            connection_max: context.config.limits.torrent_connection_max,
        };
        let machine = Description::new(settings, rng);
        Self {
            swarm,
            machine,
            memory,
            reserving: Tasks::new(),
            reserved: Vec::new(),
            described: None,
            wishes: Wishes::default(),
        }
    }

    /// Runs until the description is there or the torrent is to leave.
    pub(super) async fn run(mut self, inputs: &mut Inputs, wishes: Wishes) -> Outcome {
        self.begin(wishes);
        let leaving = loop {
            let now = self.swarm.now();
            self.drain(now);
            if let Some(bytes) = self.described.take() {
                return self.finish(bytes);
            }
            self.swarm.tell_demand(now, self.machine.demand(), true);
            self.publish(now);
            inputs.inbox.attend(&mut self.swarm.connections);
            let swarm_deadline = self.swarm.poll_timeout(self.machine.demand());
            let deadline = self.machine.poll_timeout().into_iter().chain(swarm_deadline).min();
            let timer = self.swarm.context.clock.timer(deadline.unwrap_or_default());
            tokio::select! {
                control = inputs.control.recv() => match control {
                    Some(Control::Stop(grace, reply)) => break Leaving::Told(grace, Some(reply)),
                    Some(control) => self.handle_control(control),
                    None => break Leaving::Told(Duration::ZERO, None),
                },
                input = inputs.inbox.recv() => self.handle_inputs(input, &mut inputs.inbox),
                dialled = self.swarm.dials.next() => self.handle_dialled(dialled),
                answered = self.swarm.sources.next() => {
                    self.swarm.handle_answered(self.swarm.now(), answered);
                }
                room = self.reserving.next() => {
                    let len = room.len;
                    self.reserved.push(room);
                    self.machine.handle_reserved(self.swarm.now(), len);
                }
                lease = inputs.lease.next() => self.machine.handle_lease(self.swarm.now(), lease),
                () = sleep_until(timer), if deadline.is_some() => self.handle_timeout(),
            }
        };
        Outcome::Left { swarm: Box::new(self.swarm), leaving }
    }

    /// The first inputs: what the user gave.
    fn begin(&mut self, wishes: Wishes) {
        let now = self.swarm.now();
        for (source, peers) in wishes.peers {
            self.swarm.sources.machine.handle_peers(source, peers);
        }
        self.wishes.commands = wishes.commands;
        self.swarm.sources.machine.handle_lack(now, true);
        self.swarm.report.hurry();
    }

    /// The description is there and right; whether it describes anything is another matter.
    fn finish(mut self, bytes: Bytes) -> Outcome {
        let info = match Info::decode(bytes) {
            Ok(info) => info,
            Err(error) => {
                let leaving = Leaving::Failed(format!("the torrent's description is of no use: {error}"));
                return Outcome::Left { swarm: Box::new(self.swarm), leaving };
            }
        };
        if info.private {
            self.swarm.sources.machine.handle_private();
            self.drain(self.swarm.now());
            // A supervisor that is behind lets the handshakes of others know that we have a DHT
            // node, no more.
            let told = supervisor::Input::Private(self.swarm.infohash);
            let _ = self.swarm.context.supervisor.try_send(told);
        }
        let handover = self.machine.into_handover(info.private);
        self.swarm.connections.retain(&handover.connections().collect::<BTreeSet<_>>());
        let (swarm, info) = (Box::new(self.swarm), Box::new(info));
        Outcome::Described { swarm, info, handover: Box::new(handover), wishes: self.wishes }
    }

    fn handle_control(&mut self, control: Control) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        match control {
            Control::Accepted(established) => self.connected(now, established),
            Control::Encrypted(ip) => self.swarm.refusals.get_or_insert_default().handle_encrypted(now, ip),
            Control::Command(command, reply) => {
                self.wishes.commands.push(command);
                // Who does not wait any more needs no answer.
                let _ = reply.send(());
            }
            Control::Peers(source, peers) => self.swarm.sources.machine.handle_peers(source, peers),
            // Taken out before.
            Control::Stop(_, reply) => drop(reply),
        }
    }

    fn connected(&mut self, now: Instant, established: Established) {
        let connected = established.connected;
        let conn = self.swarm.connections.open(established);
        self.machine.handle_connected(now, conn, connected);
        self.drain(now);
    }

    /// Takes what the connections said, some of it at a time.
    fn handle_inputs(&mut self, first: Option<Input>, inbox: &mut Inbox) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        let mut next = first;
        for _ in 0..INPUT_MAX {
            let Some(input) = next.take() else { return };
            self.handle_input(now, input);
            // What follows the description is for the torrent's machine.
            next = if self.described.is_none() { inbox.try_recv() } else { None };
        }
        if let Some(input) = next {
            self.handle_input(now, input);
        }
    }

    fn handle_input(&mut self, now: Instant, input: Input) {
        match input {
            Input::Received(conn, batch) => self.handle_received(now, conn, batch),
            // Nothing is read or sent that these could be about.
            Input::Sent(..)
            | Input::MetadataSent(..)
            | Input::Unsent(..)
            | Input::PiecesLost(_)
            | Input::ReadFailed(_) => {}
            Input::Closed(conn) => self.disconnected(now, conn),
        }
        self.drain(now);
    }

    fn handle_received(&mut self, now: Instant, conn: ConnId, batch: Vec<Incoming>) {
        for incoming in batch {
            if !self.swarm.connections.is_open(conn) {
                return;
            }
            match incoming {
                Incoming::Message(message, _place) => self.machine.handle_message(now, conn, message),
                Incoming::Block(..) => self.machine.handle_block(now, conn),
            }
            self.drain(now);
        }
    }

    fn disconnected(&mut self, now: Instant, conn: ConnId) {
        if self.swarm.connections.close(conn) {
            self.machine.handle_disconnected(now, conn);
        }
    }

    fn handle_dialled(&mut self, dialled: Dialled) {
        let now = self.swarm.now();
        match self.swarm.handle_dialled(now, dialled) {
            Ok(established) => self.connected(now, established),
            Err(addr) => self.machine.handle_dial_failed(now, addr),
        }
    }

    fn handle_timeout(&mut self) {
        let now = self.swarm.now();
        if self.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.machine.handle_timeout(now);
            self.swarm.report.touch();
        }
        self.swarm.handle_timeout(now);
    }

    /// Does all that the machines have decided.
    fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.machine.poll_output() {
                self.handle_output(now, output);
            } else if let Some(event) = self.swarm.poll(now) {
                match event {
                    DiscoveryEvent::Peers(source, peers) => {
                        self.machine.handle_candidates(now, source, &peers);
                    }
                    DiscoveryEvent::ExternalIp(ip) => self.machine.handle_external_ip(now, ip),
                }
            } else {
                return;
            }
        }
    }

    fn handle_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send(conn, message) => {
                if self.swarm.connections.send(conn, Outgoing::Message(message)).is_err() {
                    tracing::debug!(?conn, "the peer does not read what it is sent");
                    self.disconnected(now, conn);
                }
            }
            Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.swarm.connections.close(conn);
                self.machine.handle_disconnected(now, conn);
            }
            Output::Dial(addr) => self.swarm.dial(addr),
            Output::Reserve(len) => {
                let memory = self.memory.clone();
                self.reserving.spawn("reserve", async move { memory.reserve(len).await });
            }
            Output::Release(len) => {
                if let Some(at) = self.reserved.iter().position(|room| room.len == len) {
                    self.reserved.swap_remove(at);
                }
            }
            Output::DhtNode(addr) => self.swarm.context.hint(addr),
            Output::Described(bytes) => self.described = Some(bytes),
            Output::Event(event) => self.swarm.report.event(shown(event)),
        }
    }

    fn publish(&mut self, now: Instant) {
        if self.swarm.report.due_at().is_none_or(|at| at > now) {
            return;
        }
        let progress = self.machine.progress();
        let stage = if progress.describing > 0 && progress.total_len > 0 {
            let (done, total) = (progress.done_len, progress.total_len);
            Stage::FetchingDescription { done, total, peers: progress.describing }
        } else {
            let demand = self.machine.demand();
            let connected = progress.connected;
            Stage::FindingPeers { known: demand.candidates.max(connected), connected }
        };
        self.swarm.publish(now, stage, false, TorrentSnapshot::default(), Vec::new());
    }
}
