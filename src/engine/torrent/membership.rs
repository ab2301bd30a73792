//! What a torrent has from its first moment to its last, whether or not its description is known:
//! connections, dials, sources of peers, what the user sees, what the session is told, and how it
//! leaves.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Duration, timeout};

use super::connections::{Connections, Inbox};
use super::report::Report;
use super::sources::{Answered, Sources};
use crate::engine::api::event::Event;
use crate::engine::context::Context;
use crate::engine::inputs::Established;
use crate::engine::network::handshake;
use crate::engine::network::handshake::NoPeer;
use crate::engine::session::input;
use crate::engine::task::Tasks;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::session::Demand;
use crate::proto::time::Instant;
use crate::proto::torrent::dial::refusals::Refusals;

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
        let (dials, last_words) = (Tasks::new(), Tasks::new());
        Self { context, infohash, peer_id, connections, sources, report, dials, refusals: None, last_words }
    }

    /// The present.
    pub(super) fn now(&self) -> Instant {
        self.context.clock.now()
    }

    /// Dials a peer; [`Membership::handle_dialled`] follows. `dht`: it may know that we are a node
    /// of the DHT.
    pub(super) fn dial(&mut self, addr: SocketAddr, dht: bool) {
        let (infohash, peer_id) = (self.infohash, self.peer_id);
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

    /// When to call [`Membership::handle_timeout`], or to show figures.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let refusals_at = self.refusals.as_ref().and_then(|refusals| refusals.poll_timeout());
        self.report.due_at().into_iter().chain(refusals_at).min()
    }

    /// Time passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.connections.has_opened() {
            self.refusals = None;
        }
        if let Some(refused) = self.refusals.as_mut().and_then(|refusals| refusals.handle_timeout(now)) {
            self.report.event(Event::PeersRefused(refused));
        }
    }

    /// Tells the session what the torrent could use. Returns whether it was told: a supervisor may
    /// be behind.
    pub(super) fn tell_demand(&self, demand: Demand) -> bool {
        self.context.supervisor.try_send(input::Input::Demand(self.infohash, demand)).is_ok()
    }

    /// Begins to leave: connections are closed when what is queued for them has been sent.
    pub(super) fn part(&mut self) {
        let connections = self.connections.finish();
        self.last_words.spawn("last words", async move {
            // Peers that do not close in time are disconnected.
            let _ = timeout(LAST_WORDS_TIMEOUT, connections).await;
        });
        self.dials = Tasks::new();
    }

    /// Whether the peers have what was queued for them.
    pub(super) fn has_parted(&self) -> bool {
        self.last_words.len() == 0
    }

    /// A step towards [`Membership::has_parted`], or an answer of a source of peers; may be dropped
    /// and called again.
    pub(super) async fn parting(&mut self, inbox: &mut Inbox) -> Option<Answered> {
        tokio::select! {
            () = self.last_words.next() => None,
            answered = self.sources.next() => Some(answered),
            // What peers still send does not matter; that it is taken lets them end.
            Some(_) = inbox.recv() => None,
        }
    }
}
