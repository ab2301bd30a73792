//! What a torrent has from its first moment to its last, whether or not its description is known:
//! connections, dials, sources of peers, what the user sees, what the session is told, and how it
//! leaves.
//!
//! Everything that comes is handed on as [`News`] to the machine that the torrent has just then.

use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::Poll;

use tokio::time::{Duration, sleep_until, timeout};

use super::connections::{Connections, Inbox};
use super::report::Report;
use super::sources::{Arrived, Sources};
use crate::engine::context::{Context, Established};
use crate::engine::handle::{Event, Snapshot, Stage};
use crate::engine::handshake::{self, NoPeer};
use crate::engine::supervisor;
use crate::engine::task::Tasks;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::session::Demand;
use crate::proto::time::Instant;
use crate::proto::torrent::event::{Source, TorrentSnapshot};
use crate::proto::torrent::refusals::Refusals;
use crate::proto::tracker::announcer::Progress;

/// Least time between two demands told to the session.
const DEMAND_INTERVAL: Duration = crate::proto::session::LEASE_INTERVAL;
/// Fewer connections than this, and nobody left to dial, is reason to ask for more peers.
const CONNECTIONS_FEW: usize = 10;
/// Time for peers to take what is on its way to them, and to hang up.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// What the torrent's machine is to hear.
pub(super) enum News {
    /// A dial brought a connection.
    Connected(Established),
    /// A dial brought none.
    DialFailed(SocketAddr),
    /// Addresses of peers.
    Peers(Source, Vec<SocketAddr>),
    /// Our own address as a tracker sees it.
    ExternalIp(IpAddr),
}

/// Something came, for [`Swarm::handle`].
pub(super) enum Met {
    /// A dial has ended.
    Dialled(SocketAddr, Result<Box<Established>, NoPeer>),
    /// From a source of peers.
    Arrived(Arrived),
}

/// The torrent as a member of its swarm.
pub(super) struct Swarm {
    pub(super) context: Arc<Context>,
    pub(super) infohash: InfoHash,
    pub(super) peer_id: PeerId,
    pub(super) connections: Connections,
    pub(super) sources: Sources,
    pub(super) report: Report,
    /// Boxed, as what a torrent waits for has room in it all its life.
    dials: Tasks<(SocketAddr, Result<Box<Established>, NoPeer>)>,
    /// Made by the first one.
    pub(super) refusals: Option<Box<Refusals>>,
    /// Connections that close.
    last_words: Tasks<()>,
    demand: (Demand, Instant),
}

impl Swarm {
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

    /// Dials a peer; [`News`] follows.
    pub(super) fn dial(&mut self, addr: SocketAddr) {
        let (infohash, peer_id, dht) = (self.infohash, self.peer_id, self.sources.speaks_dht());
        self.dials.spawn("dial", async move {
            let dialled = handshake::dial(addr, infohash, peer_id, dht).await;
            (addr, dialled.map(Box::new))
        });
    }

    /// The next thing that comes; may be dropped and called again. Polled by hand, as each torrent
    /// has room for what it waits for all its life.
    pub(super) fn next(&mut self) -> impl Future<Output = Met> {
        poll_fn(|cx| match self.dials.poll_next(cx) {
            Poll::Ready((addr, dialled)) => Poll::Ready(Met::Dialled(addr, dialled)),
            Poll::Pending => self.sources.poll_next(cx).map(Met::Arrived),
        })
    }

    /// Something came; gives what the machine is to hear at once. [`Swarm::poll`] has the rest.
    pub(super) fn handle(
        &mut self,
        now: Instant,
        met: Met,
        progress: impl FnOnce() -> Progress,
    ) -> Option<News> {
        self.report.touch();
        match met {
            Met::Dialled(addr, Ok(established)) => {
                if established.connected.peer_id == self.peer_id {
                    self.context.ourselves.add(now, addr);
                }
                Some(News::Connected(*established))
            }
            Met::Dialled(addr, Err(error)) => {
                tracing::debug!(%addr, %error, "cannot connect");
                if matches!(error, NoPeer::Closed) {
                    self.refusals.get_or_insert_default().handle_closed(now, addr);
                }
                Some(News::DialFailed(addr))
            }
            Met::Arrived(arrived) => {
                self.sources.handle(now, arrived, progress, &self.report);
                None
            }
        }
    }

    /// The next thing that the machine is to hear; drain to None.
    pub(super) fn poll(&mut self, now: Instant) -> Option<News> {
        let mut news = self.sources.poll(now, &self.report);
        if let Some(News::Peers(_, peers)) = &mut news {
            self.context.ourselves.strike(now, peers);
        }
        news
    }

    /// When to call [`Swarm::handle_timeout`], or to tell the demand, or to show figures.
    pub(super) fn poll_timeout(&self, demand: Demand) -> Option<Instant> {
        let (told, told_at) = self.demand;
        let demand_at = (told != demand).then(|| told_at + DEMAND_INTERVAL);
        let refusals_at = self.refusals.as_ref().and_then(|refusals| refusals.poll_timeout());
        let all = [self.sources.poll_timeout(), self.report.due_at(), demand_at, refusals_at];
        all.into_iter().flatten().min()
    }

    /// Time passed.
    pub(super) fn handle_timeout(&mut self, now: Instant, progress: impl FnOnce() -> Progress) {
        if self.sources.handle_timeout(now, progress) {
            self.report.touch();
        }
        if self.connections.has_opened() {
            self.refusals = None;
        }
        if let Some(refused) = self.refusals.as_mut().and_then(|refusals| refusals.handle_timeout(now)) {
            self.report.event(Event::PeersRefused(refused));
        }
    }

    /// Tells the session what the torrent could use and, if it `lacks` something and knows few
    /// peers, the sources.
    pub(super) fn tell_demand(
        &mut self,
        now: Instant,
        demand: Demand,
        lacks: bool,
        progress: impl FnOnce() -> Progress,
    ) {
        let (last, at) = self.demand;
        if demand == last || now - at < DEMAND_INTERVAL {
            return;
        }
        let told = supervisor::Input::Demand(self.infohash, demand);
        // A supervisor that is behind is told again after another interval.
        let is_told = self.context.supervisor.try_send(told).is_ok();
        self.demand = (if is_told { demand } else { last }, now);
        let needs_peers = lacks && demand.candidates == 0 && demand.connections < CONNECTIONS_FEW;
        if needs_peers && let Some(announcer) = self.sources.announcer(progress()) {
            announcer.handle_need_peers(now);
        }
        self.sources.handle_need(now, needs_peers);
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
        let (trackers, dht) = (self.sources.tracker_statuses(), self.sources.dht_status());
        self.report.publish(now, Snapshot { stage, torrent, trackers, dht, file_done_lens, finished });
    }

    /// Begins to leave: hangs up when what is queued has gone out, and says `stopped`.
    pub(super) fn part(&mut self, now: Instant, progress: Progress) {
        let connections = self.connections.finish();
        self.last_words.spawn("last words", async move {
            // Those who do not hang up in time are hung up on.
            let _ = timeout(LAST_WORDS_TIMEOUT, connections).await;
        });
        self.dials = Tasks::new();
        self.sources.restrict();
        if let Some(announcer) = self.sources.announcer(progress) {
            announcer.handle_stopped(now);
        }
        self.drain_for_nobody(now);
    }

    /// Whether the peers have what was on its way, and every `stopped` is answered or given up.
    pub(super) fn has_parted(&self) -> bool {
        self.last_words.len() == 0 && self.sources.is_done()
    }

    /// A step towards [`Swarm::has_parted`]; may be dropped and called again.
    pub(super) async fn parting(&mut self, inbox: &mut Inbox, progress: impl FnOnce() -> Progress) {
        let deadline = self.sources.poll_timeout();
        let timer = self.context.clock.timer(deadline.unwrap_or_default());
        tokio::select! {
            () = self.last_words.next() => {}
            arrived = poll_fn(|cx| self.sources.poll_next(cx)) => {
                self.sources.handle(self.context.clock.now(), arrived, progress, &self.report);
            }
            // What peers still say does not matter; that it is taken lets them end.
            Some(_) = inbox.recv() => {}
            () = sleep_until(timer), if deadline.is_some() => {
                self.sources.handle_timeout(self.context.clock.now(), progress);
            }
        }
        self.drain_for_nobody(self.context.clock.now());
    }

    fn drain_for_nobody(&mut self, now: Instant) {
        while let Some(news) = self.poll(now) {
            drop(news);
        }
    }
}
