//! What a torrent has from its first moment to its last, whether or not its description is known:
//! connections, dials, sources of peers, what the user sees, what the session is told, and how it
//! leaves.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Duration, sleep_until, timeout};

use super::connections::{Connections, Inbox};
use super::report::Report;
use super::sources::{Answered, Sources};
use crate::engine::api::event::{Event, Snapshot, Stage};
use crate::engine::context::Context;
use crate::engine::inputs::Established;
use crate::engine::network::handshake;
use crate::engine::network::handshake::NoPeer;
use crate::engine::session::input;
use crate::engine::task::Tasks;
use crate::proto::discovery::event::DiscoveryEvent;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::session::Demand;
use crate::proto::time::Instant;
use crate::proto::torrent::dial::refusals::Refusals;
use crate::proto::torrent::event::TorrentSnapshot;

/// Least time between two demands told to the session.
const DEMAND_INTERVAL: Duration = crate::proto::session::LEASE_INTERVAL;
/// Time for peers to take what is on its way to them, and to hang up.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How a dial ended.
pub(super) type Dialled = (SocketAddr, Result<Box<Established>, NoPeer>);

/// The torrent as a member of its swarm.
pub(super) struct Membership {
    pub(super) context: Arc<Context>,
    pub(super) infohash: InfoHash,
    pub(super) peer_id: PeerId,
    pub(super) connections: Connections,
    pub(super) sources: Sources,
    pub(super) report: Report,
    /// Boxed, as what a torrent waits for has room in it all its life.
    pub(super) dials: Tasks<Dialled>,
    /// Made by the first one.
    pub(super) refusals: Option<Box<Refusals>>,
    /// Connections that close.
    last_words: Tasks<()>,
    demand: (Demand, Instant),
}

impl Membership {
    /// Nobody met yet.
    pub(super) fn new(
        context: Arc<Context>,
        infohash: InfoHash,
        peer_id: PeerId,
        connections: Connections,
        sources: Sources,
        report: Report,
    ) -> Self {
        let demand = (Demand::default(), context.clock.now());
        let (dials, last_words) = (Tasks::new(), Tasks::new());
        Self {
            context,
            infohash,
            peer_id,
            connections,
            sources,
            report,
            dials,
            refusals: None,
            last_words,
            demand,
        }
    }

    /// The present.
    pub(super) fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// Dials a peer; [`Membership::handle_dialled`] follows.
    pub(super) fn dial(&mut self, addr: SocketAddr) {
        let (infohash, peer_id, dht) = (self.infohash, self.peer_id, self.sources.machine.speaks_dht());
        self.dials.spawn("dial", async move {
            let dialled = handshake::dial(addr, infohash, peer_id, dht).await;
            (addr, dialled.map(Box::new))
        });
    }

    /// A dial has ended; gives the connection that it brought.
    pub(super) fn handle_dialled(
        &mut self,
        now: Instant,
        dialled: Dialled,
    ) -> Result<Established, SocketAddr> {
        self.report.touch();
        let (addr, dialled) = dialled;
        match dialled {
            Ok(established) => {
                if established.connected.peer_id == self.peer_id {
                    self.context.ourselves.add(now, addr);
                }
                Ok(*established)
            }
            Err(error) => {
                tracing::debug!(%addr, %error, "cannot connect");
                if matches!(error, NoPeer::Closed) {
                    self.refusals.get_or_insert_default().handle_closed(now, addr);
                }
                Err(addr)
            }
        }
    }

    /// A source of peers has answered; [`Membership::poll`] has what follows.
    pub(super) fn handle_answered(&mut self, now: Instant, answered: Answered) {
        self.report.touch();
        self.sources.handle(now, answered);
    }

    /// The next thing that the torrent's machine is to hear; drain to None.
    pub(super) fn poll(&mut self, now: Instant) -> Option<DiscoveryEvent> {
        let mut event = self.sources.poll(now, &self.report);
        if let Some(DiscoveryEvent::Peers(_, peers)) = &mut event {
            self.context.ourselves.strike(now, peers);
        }
        event
    }

    /// When to call [`Membership::handle_timeout`], or to tell the demand, or to show figures.
    pub(super) fn poll_timeout(&self, demand: Demand) -> Option<Instant> {
        let (told, told_at) = self.demand;
        let demand_at = (told != demand).then(|| told_at + DEMAND_INTERVAL);
        let refusals_at = self.refusals.as_ref().and_then(|refusals| refusals.poll_timeout());
        let all = [self.sources.machine.poll_timeout(), self.report.due_at(), demand_at, refusals_at];
        all.into_iter().flatten().min()
    }

    /// Time passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.sources.machine.poll_timeout().is_some_and(|at| at <= now) {
            self.sources.machine.handle_timeout(now);
            self.report.touch();
        }
        if self.connections.has_opened() {
            self.refusals = None;
        }
        if let Some(refused) = self.refusals.as_mut().and_then(|refusals| refusals.handle_timeout(now)) {
            self.report.event(Event::PeersRefused(refused));
        }
    }

    /// Tells the session, and the sources, what the torrent could use.
    pub(super) fn tell_demand(&mut self, now: Instant, demand: Demand, lacks_pieces: bool) {
        let (last, at) = self.demand;
        if demand == last || now - at < DEMAND_INTERVAL {
            return;
        }
        let told = input::Input::Demand(self.infohash, demand);
        // A supervisor that is behind is told again after another interval.
        let is_told = self.context.supervisor.try_send(told).is_ok();
        self.demand = (if is_told { demand } else { last }, now);
        self.sources.machine.handle_demand(now, &demand, lacks_pieces);
    }

    /// Shows new figures.
    pub(super) fn publish(
        &mut self,
        now: Instant,
        stage: Stage,
        finished: bool,
        torrent: TorrentSnapshot,
        file_done_lens: Vec<u64>,
    ) {
        let discovery = &self.sources.machine;
        let (trackers, dht) = (discovery.tracker_statuses(), discovery.dht_status());
        self.report.publish(now, Snapshot { stage, torrent, trackers, dht, file_done_lens, finished });
    }

    /// Begins to leave: hangs up when what is queued has gone out, and says `stopped`.
    pub(super) fn part(&mut self, now: Instant) {
        let connections = self.connections.finish();
        self.last_words.spawn("last words", async move {
            // Those who do not hang up in time are hung up on.
            let _ = timeout(LAST_WORDS_TIMEOUT, connections).await;
        });
        self.dials = Tasks::new();
        self.sources.machine.handle_stopped(now);
        self.drain_for_nobody(now);
    }

    /// Whether the peers have what was on its way, and every `stopped` is answered or given up.
    pub(super) fn has_parted(&self) -> bool {
        self.last_words.len() == 0 && self.sources.machine.is_done()
    }

    /// A step towards [`Membership::has_parted`]; may be dropped and called again.
    pub(super) async fn parting(&mut self, inbox: &mut Inbox) {
        let deadline = self.sources.machine.poll_timeout();
        let timer = self.context.clock.timer(deadline.unwrap_or_default());
        tokio::select! {
            () = self.last_words.next() => {}
            answered = self.sources.next() => self.sources.handle(self.context.clock.now(), answered),
            // What peers still say does not matter; that it is taken lets them end.
            Some(_) = inbox.recv() => {}
            () = sleep_until(timer), if deadline.is_some() => {
                self.sources.machine.handle_timeout(self.context.clock.now());
            }
        }
        self.drain_for_nobody(self.context.clock.now());
    }

    fn drain_for_nobody(&mut self, now: Instant) {
        while let Some(event) = self.poll(now) {
            drop(event);
        }
    }
}
