//! The loop: one event queue, one seed, production nodes, and what happens to them.
//!
//! What is checked, besides the machines' own invariants: time runs forward, and no datagram is
//! longer than the codec's limit. A violation panics.

use std::net::SocketAddr;
use std::rc::Rc;

use super::super::queue::Queue;
use super::address::Addresses;
use super::forger::{Forger, VOLLEY_INTERVAL};
use super::host::{Host, Mind};
use super::hostile::{Conspiracy, Hostile};
use super::nat::Nat;
use super::network::{HostId, Network, Place};
use super::report::{Forgeries, Report};
use super::scenario::{Attack, Disaster, Scenario};
use super::trace::Trace;
use super::trials::{Party, Step, Trials};
use super::{census, traffic};
use crate::proto::dht::event::{Found, Output};
use crate::proto::dht::krpc::DATAGRAM_LEN_MAX;
use crate::proto::dht::node_id::{Node, NodeId};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};

/// Honest, reachable hosts that are there from the first moment, so that others have somebody to
/// begin with.
const FOUNDER_COUNT: usize = 3;
/// Nodes that a bootstrap names: what looking up the well-known names gives.
const BOOTSTRAP_COUNT: usize = 3;
/// Looking up a bootstrap name takes so long.
const NAME_LOOKUP_TIME: Duration = Duration::from_millis(50);
/// Draws for a host of some kind before it is assumed that there is none.
const DRAW_COUNT_MAX: usize = 200;
/// Traffic is looked at so often.
const MINUTE: Duration = Duration::from_secs(60);
/// Honest nodes around the target that hostile hosts aim at, besides all others.
const AIMED_AT_COUNT: usize = 64;
/// Hosts that left and may come back with what they had saved; the oldest are forgotten beyond it.
const GONE_COUNT_MAX: usize = 256;

/// Something that happens. Small, since the queue moves it about.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrive(u32),
    Leave {
        host: u32,
        generation: u32,
    },
    Alarm(u32),
    Deliver(u32),
    /// A bootstrap name was looked up.
    Named {
        host: u32,
        generation: u32,
    },
    Trial(Step),
    Minute,
    RestBegins,
    RestEnds,
    Restart(u32),
    Split(bool),
    Volley,
}

/// A DHT under simulation.
pub struct Overlay {
    scenario: Scenario,
    queue: Queue<Event>,
    now: Instant,
    network: Network,
    hosts: Vec<Host>,
    addresses: Addresses,
    trials: Trials,
    conspiracy: Option<Rc<Conspiracy>>,
    /// Honest nodes closest to the target, as who has crawled the overlay knows them.
    aimed_at: Vec<SocketAddr>,
    forger: Option<Forger>,
    gone: Vec<(Place, Vec<Node>)>,
    /// The disaster has begun.
    is_after_disaster: bool,
    trace: Trace,
    rng: Rng,
}

impl Overlay {
    /// Everybody is yet to come.
    pub fn new(scenario: Scenario) -> Self {
        let mut rng = Rng::from_number(scenario.seed);
        let mut queue = Queue::new();
        let (trials, steps) = Trials::new(&scenario, rng.fork("trials"));
        steps.into_iter().for_each(|(at, step)| queue.push(at, Event::Trial(step)));
        queue.push(Instant::ZERO + MINUTE, Event::Minute);
        queue.push(scenario.rest_at(), Event::RestBegins);
        queue.push(scenario.work_at(), Event::RestEnds);
        let network = Network::new(scenario.weather, scenario.nodes, rng.fork("network"));
        let addresses = Addresses::new(scenario.nodes, rng.fork("addresses"));
        let mut overlay = Self {
            queue,
            now: Instant::ZERO,
            network,
            hosts: (0..scenario.nodes).map(|_| Host::new()).collect(),
            addresses,
            trials,
            conspiracy: None,
            aimed_at: Vec::new(),
            forger: None,
            gone: Vec::new(),
            is_after_disaster: false,
            trace: Trace::default(),
            rng,
            scenario,
        };
        overlay.plan_arrivals();
        overlay.plan_disaster();
        if overlay.scenario.enemies.forgeries > 0 {
            let (forgeries, span) = (overlay.scenario.enemies.forgeries, overlay.scenario.plan.work);
            overlay.forger = Some(Forger::new(0, forgeries, span, overlay.rng.fork("forger")));
            overlay.queue.push(overlay.scenario.work_at(), Event::Volley);
        }
        overlay
    }

    /// Founders first, then everybody in a random order; hostile hosts are the last by number.
    fn plan_arrivals(&mut self) {
        let honest = self.scenario.nodes - self.scenario.hostile_count();
        for host in 0..honest {
            let late = if host < FOUNDER_COUNT { 0.0 } else { self.rng.unit() };
            let at = Instant::ZERO + self.scenario.plan.arrivals.mul_f64(late);
            self.queue.push(at, Event::Arrive(host as u32));
        }
        if honest == self.scenario.nodes {
            return;
        }
        let attack = self.scenario.enemies.attack;
        let target = match attack {
            Attack::Gather | Attack::GatherFitting => NodeId::from(self.trials.target()),
            Attack::OneId => NodeId::random(&mut self.rng),
        };
        let mut conspiracy = Conspiracy::new(attack, target, self.scenario.nodes);
        let mut members = Vec::new();
        for host in honest..self.scenario.nodes {
            let place = Place::new(self.addresses.draw(), None, &mut self.rng);
            let id = conspiracy.admit(place.addr(), &mut self.rng);
            members.push((host, place, id));
        }
        let conspiracy = Rc::new(conspiracy);
        for (host, place, id) in members {
            let at = Instant::ZERO + self.scenario.plan.arrivals.mul_f64(self.rng.unit());
            let mind = Hostile::new(at, id, Rc::clone(&conspiracy), self.rng.fork("hostile"));
            self.network.join(host, place);
            self.hosts[host].enter(Mind::Hostile(Box::new(mind)));
            self.queue.push(at, Event::Arrive(host as u32));
        }
        self.conspiracy = Some(conspiracy);
    }

    fn plan_disaster(&mut self) {
        let work_at = self.scenario.work_at();
        match self.scenario.disaster {
            None => {}
            Some(Disaster::Restart { after, share, within }) => {
                for host in 0..self.scenario.nodes - self.scenario.hostile_count() {
                    if self.rng.unit() < share {
                        let at = work_at + after + within.mul_f64(self.rng.unit());
                        self.queue.push(at, Event::Restart(host as u32));
                    }
                }
            }
            Some(Disaster::Partition { after, span }) => {
                self.queue.push(work_at + after, Event::Split(true));
                self.queue.push(work_at + after + span, Event::Split(false));
            }
        }
    }

    /// Runs to the scenario's end; `progress` is told the virtual time every virtual minute.
    ///
    /// # Panics
    /// A violation was found: a bug in a machine.
    pub fn run(mut self, mut progress: impl FnMut(Duration)) -> Report {
        let end_at = self.scenario.end_at();
        let mut minute = Instant::ZERO;
        while let Some((at, event)) = self.queue.pop()
            && at <= end_at
        {
            assert!(at >= self.now, "time runs forward");
            self.now = at;
            if self.now - minute >= MINUTE {
                minute = self.now;
                progress(minute - Instant::ZERO);
            }
            self.handle(event);
        }
        self.report()
    }

    fn handle(&mut self, event: Event) {
        let now = self.now;
        let (kind, what) = match event {
            Event::Arrive(host) => (1, host),
            Event::Leave { host, .. } => (2, host),
            Event::Alarm(host) => (3, host),
            Event::Deliver(number) => (4, number),
            Event::Named { host, .. } => (5, host),
            Event::Trial(Step::Announce(number)) => (6, number),
            Event::Trial(Step::LookUp(number)) => (7, number),
            Event::Minute | Event::RestBegins | Event::RestEnds => (8, 0),
            Event::Restart(host) => (9, host),
            Event::Split(is_split) => (10, u32::from(is_split)),
            Event::Volley => (11, 0),
        };
        self.trace.event(now, kind, what);
        match event {
            Event::Arrive(host) => self.arrive(host as HostId),
            Event::Leave { host, generation } => self.leave(host as HostId, generation),
            Event::Alarm(host) => self.alarm(host as HostId),
            Event::Deliver(number) => self.deliver(number),
            Event::Named { host, generation } => self.bootstrap(host as HostId, generation),
            Event::Trial(Step::Announce(number)) => self.announce(number),
            Event::Trial(Step::LookUp(number)) => self.look_up(number),
            Event::Minute => self.minute(),
            Event::RestBegins => self.hosts.iter_mut().for_each(|host| host.traffic.rest_begins()),
            Event::RestEnds => {
                let span = self.scenario.plan.rest;
                self.hosts.iter_mut().for_each(|host| host.traffic.rest_ends(span));
            }
            Event::Restart(host) => self.restart(host as HostId),
            Event::Split(is_split) => {
                self.is_after_disaster = true;
                self.network.split(is_split);
            }
            Event::Volley => self.volley(),
        }
    }

    fn arrive(&mut self, host: HostId) {
        match self.hosts[host].mind {
            Mind::Absent => {
                let place = self.draw_place(host < FOUNDER_COUNT);
                self.enter(host, place, &[]);
            }
            Mind::Hostile(_) | Mind::Node(_) => self.settle(host),
        }
    }

    /// Somewhere new.
    fn draw_place(&mut self, is_founder: bool) -> Place {
        let has_nat = !is_founder && self.rng.unit() < self.scenario.weather.nat;
        let nat = has_nat.then(|| Nat::draw(self.rng.fork("nat")));
        Place::new(self.addresses.draw(), nat, &mut self.rng)
    }

    /// An honest host comes online.
    fn enter(&mut self, host: HostId, place: Place, saved: &[Node]) {
        self.network.join(host, place);
        let rng = self.rng.fork("node");
        self.hosts[host].start(self.now, saved, self.scenario.defence, rng);
        if let Some(median) = self.scenario.churn {
            // Exponential: half of all sessions are longer than the median.
            let session = median.mul_f64(-(1.0 - self.rng.unit()).log2());
            let generation = self.hosts[host].generation;
            self.queue.push(self.now + session, Event::Leave { host: host as u32, generation });
        }
        self.settle(host);
    }

    /// A host goes without a word; one that had gone before, or a fresh one, takes its number at
    /// once.
    fn leave(&mut self, host: HostId, generation: u32) {
        if self.hosts[host].generation != generation {
            return;
        }
        let saved = self.hosts[host].node().map(|node| node.good_nodes()).unwrap_or_default();
        let left = self.network.leave(host);
        let returns = !self.gone.is_empty() && self.rng.below(2) == 0;
        let (place, nodes) = if returns {
            let at = self.rng.below(self.gone.len());
            self.gone.swap_remove(at)
        } else {
            (self.draw_place(false), Vec::new())
        };
        if let Some(left) = left {
            self.gone.push((left, saved));
            if self.gone.len() > GONE_COUNT_MAX {
                self.gone.swap_remove(0);
            }
        }
        self.enter(host, place, &nodes);
    }

    /// The program starts anew, where it was.
    fn restart(&mut self, host: HostId) {
        self.is_after_disaster = true;
        let Some(saved) = self.hosts[host].node().map(|node| node.good_nodes()) else { return };
        if let Some(place) = self.network.leave(host) {
            self.enter(host, place, &saved);
        }
    }

    fn alarm(&mut self, host: HostId) {
        if let Mind::Hostile(_) = self.hosts[host].mind {
            let victim = self.victim();
            if let Mind::Hostile(hostile) = &mut self.hosts[host].mind {
                hostile.aim(victim);
            }
        }
        if self.hosts[host].ring(self.now) {
            self.settle(host);
        }
    }

    fn deliver(&mut self, number: u32) {
        if let Some(delivery) = self.network.deliver(self.now, number) {
            self.trace.delivery(delivery.to, &delivery.bytes);
            self.hosts[delivery.to].receive(self.now, delivery.from, &delivery.bytes);
            self.settle(delivery.to);
        }
    }

    /// A host asked for a bootstrap: it is told some that strangers reach.
    fn bootstrap(&mut self, host: HostId, generation: u32) {
        if self.hosts[host].generation != generation {
            return;
        }
        for _ in 0..BOOTSTRAP_COUNT {
            let other = self.draw(|overlay, other| {
                other != host && overlay.network.is_reachable(other) && overlay.hosts[other].node().is_some()
            });
            let addr = other.and_then(|other| self.network.place(other)).map(Place::addr);
            if let (Some(addr), Some(node)) = (addr, self.hosts[host].node_mut()) {
                node.handle_hint(self.now, addr);
            }
        }
        self.settle(host);
    }

    /// A random host of some kind; None: there seems to be none.
    fn draw(&mut self, suits: impl Fn(&Self, HostId) -> bool) -> Option<HostId> {
        (0..DRAW_COUNT_MAX).find_map(|_| {
            let host = self.rng.below(self.hosts.len());
            suits(self, host).then_some(host)
        })
    }

    /// Whom a hostile host asks next: one close to the target or anybody.
    fn victim(&mut self) -> Option<SocketAddr> {
        if !self.aimed_at.is_empty() && self.rng.below(2) == 0 {
            let at = self.rng.below(self.aimed_at.len());
            return self.aimed_at.get(at).copied();
        }
        let host = self.draw(|overlay, host| {
            overlay.network.is_reachable(host) && overlay.hosts[host].node().is_some()
        })?;
        self.network.place(host).map(Place::addr)
    }

    fn party(&self, host: HostId) -> Option<Party> {
        let (place, generation) = (self.network.place(host)?, self.hosts[host].generation);
        self.hosts[host].node().is_some().then_some(Party { host, generation, is_east: place.is_east })
    }

    fn announce(&mut self, number: u32) {
        let host = self.draw(|overlay, host| overlay.party(host).is_some());
        let party = host.and_then(|host| self.party(host));
        let place = host.and_then(|host| self.network.place(host)).map(Place::addr);
        if let Some((party, place)) = party.zip(place) {
            let (id, request) = self.trials.announce(number, party, place);
            self.request(party.host, id, request);
        }
    }

    fn look_up(&mut self, number: u32) {
        let Some(announcer) = self.trials.announcer(number) else { return };
        let victim = self.forger.as_ref().map(Forger::victim);
        let host = victim
            .or_else(|| self.draw(|overlay, host| host != announcer.host && overlay.party(host).is_some()));
        if let Some(party) = host.and_then(|host| self.party(host)) {
            let (id, request) = self.trials.look_up(self.now, number, party);
            self.request(party.host, id, request);
        }
    }

    fn request(
        &mut self,
        host: HostId,
        id: crate::proto::dht::event::RequestId,
        request: crate::proto::dht::event::Request,
    ) {
        self.hosts[host].traffic.is_busy();
        if let Some(node) = self.hosts[host].node_mut() {
            node.handle_request(self.now, id, request);
        }
        self.settle(host);
    }

    fn minute(&mut self) {
        self.queue.push(self.now + MINUTE, Event::Minute);
        for host in &mut self.hosts {
            host.traffic.minute_ends(self.is_after_disaster);
        }
        if self.scenario.one_target() {
            let target = NodeId::from(self.trials.target());
            let reachable = (0..self.hosts.len()).filter(|host| self.network.is_reachable(*host));
            let mut honest: Vec<_> = reachable
                .filter_map(|host| {
                    let id = census::id_of(self.now, &self.hosts[host])?;
                    Some((id.distance(target), self.network.place(host)?.addr()))
                })
                .collect();
            honest.sort_unstable();
            self.aimed_at = honest.into_iter().take(AIMED_AT_COUNT).map(|(_, addr)| addr).collect();
        }
    }

    fn volley(&mut self) {
        let Some(forger) = &mut self.forger else { return };
        if let Some(node) = self.hosts[forger.victim()].node() {
            for (at, number) in forger.fire(self.now, node, &mut self.network) {
                self.queue.push(at, Event::Deliver(number));
            }
        }
        if forger.has_more() {
            self.queue.push(self.now + VOLLEY_INTERVAL, Event::Volley);
        }
    }

    /// Lets everything happen that a host wants, and sets its alarm.
    fn settle(&mut self, host: HostId) {
        while let Some(output) = self.hosts[host].poll_output() {
            if let Some(forger) = &mut self.forger
                && forger.victim() == host
            {
                forger.watch(&output);
            }
            match output {
                Output::Send { to, bytes } => self.send(host, to, bytes),
                Output::Found { request, found: Found::Peers { peers, local: _ } } => {
                    self.trials.peers(self.now, request, &peers);
                }
                Output::Found { request, found: Found::Done(outcome) } => {
                    self.hosts[host].traffic.is_busy();
                    self.trials.done(request, outcome);
                }
                Output::Bootstrap => {
                    let generation = self.hosts[host].generation;
                    let event = Event::Named { host: host as u32, generation };
                    self.queue.push(self.now + NAME_LOOKUP_TIME, event);
                }
                Output::Found { request: _, found: Found::Item(_) } | Output::External(_) => {}
            }
        }
        if let Some(at) = self.hosts[host].next_alarm() {
            self.queue.push(at.max(self.now), Event::Alarm(host as u32));
        }
    }

    fn send(&mut self, host: HostId, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() <= DATAGRAM_LEN_MAX, "a datagram of {} bytes", bytes.len());
        self.trace.datagrams += 1;
        self.hosts[host].traffic.sends(bytes.len());
        if let Some((at, number)) = self.network.send(self.now, host, to, bytes) {
            self.queue.push(at, Event::Deliver(number));
        }
    }

    fn report(mut self) -> Report {
        let forgeries = self.forgeries();
        let hosts = &self.hosts;
        let is_there = |party: Party| hosts[party.host].generation == party.generation;
        let honest = || hosts.iter().filter(|host| host.node().is_some()).map(|host| &host.traffic);
        let reachable = (0..hosts.len()).filter(|host| self.network.is_reachable(*host));
        let reachable = reachable.filter(|host| hosts[*host].node().is_some());
        let rest = traffic::rest(honest(), reachable.map(|host| &hosts[host].traffic));
        Report {
            lookups: self.trials.conclude(is_there),
            tables: census::take(self.now, hosts, &self.network),
            peak: traffic::peak(honest(), &rest),
            rest,
            forgeries,
            trace_digest: self.trace.digest,
            event_count: self.trace.events,
            datagram_count: self.trace.datagrams,
            ended_at: self.now,
        }
    }

    fn forgeries(&mut self) -> Forgeries {
        let Some(forger) = &mut self.forger else { return Forgeries::default() };
        let victim = self.hosts[forger.victim()].node_mut();
        victim.map_or_else(Forgeries::default, |node| forger.conclude(self.now, node))
    }
}
