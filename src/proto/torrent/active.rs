//! The peer state of a torrent: its parts, and what passes between them.
//!
//! [`Active`] owns the parts and passes between them what they need; no part knows another. It is
//! allocated when the torrent's first input that concerns peers comes.
//!
//! Invariants, checked in debug builds: a disconnected peer is in no part; interest is what the
//! count of wanted pieces says; every bound of a connection holds; the books of the pieces agree.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::connection::have_batch::HaveBatch;
use super::connection::outbox::Outbox;
use super::connection::pex::Gossip;
use super::dial::dialer::Dialer;
use super::download::Download;
use super::download::pieces::Pieces;
use super::event::{Command, ConnId, DisconnectReason, Output, Settings};
use super::metadata::stage::MetadataStage;
use super::metadata::upload::MetadataUpload;
use super::snapshot::Totals;
use super::upload::initial_seeding::InitialSeeding;
use super::upload::{Share, Upload};
use crate::proto::peer::Peer;
use crate::proto::rng::Rng;
use crate::proto::session::{Demand, Lease};
use crate::proto::time::Instant;

/// The peer state of a torrent.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) settings: Settings,
    /// The metadata is fetched: there are no pieces yet.
    pub(super) stage: Option<Box<MetadataStage>>,
    pub(super) peers: BTreeMap<ConnId, Peer>,
    pub(super) download: Download,
    pub(super) upload: Upload,
    pub(super) have_batch: HaveBatch,
    pub(super) metadata: MetadataUpload,
    pub(super) gossip: Gossip,
    pub(super) dialer: Dialer,
    pub(super) status: Status,
    pub(super) limits: Limits,
    pub(super) totals: Totals,
    /// When to look after connections; None without any.
    pub(super) upkeep_at: Option<Instant>,
    pub(super) out: Outbox,
}

/// What people see as the state of the whole.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) paused: bool,
    /// Every wanted piece is there.
    pub(super) complete: bool,
}

/// The shares that the session leases, and what the user allows this torrent.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) lease: Lease,
    pub(super) upload_rate: Option<u64>,
    pub(super) download_rate: Option<u64>,
}

impl Active {
    /// Makes the state of a torrent without connections.
    pub(super) fn new(
        settings: Settings,
        pieces: Pieces,
        stage: Option<Box<MetadataStage>>,
        mut rng: Rng,
        now: Instant,
    ) -> Self {
        let geometry = pieces.geometry();
        let initial_seeding = InitialSeeding::new(pieces.have(), geometry, rng.fork("initial_seeding"));
        let status = Status { paused: false, complete: stage.is_none() && pieces.is_complete() };
        let connection_max = settings.connection_max;
        let lease = Lease { connection_max, unchoke_max: None, upload_rate: None, download_rate: None };
        Self {
            stage,
            peers: BTreeMap::new(),
            download: Download::new(pieces, settings.sequential, &mut rng, now),
            upload: Upload::new(initial_seeding, rng.fork("choker"), now),
            have_batch: HaveBatch::new(settings.swarming_interval, geometry.piece_len()),
            metadata: MetadataUpload::new(if settings.private {
                Bytes::new()
            } else {
                settings.metadata.clone()
            }),
            gossip: Gossip::default(),
            dialer: Dialer::new(rng.fork("candidates"), settings.private),
            status,
            limits: Limits { lease, upload_rate: None, download_rate: None },
            totals: Totals::new(now),
            upkeep_at: None,
            out: Outbox::default(),
            settings,
        }
    }

    /// Takes the session's share.
    pub(super) fn set_lease(&mut self, now: Instant, lease: Lease) {
        self.limits.lease = lease;
        self.limit_rates(now);
        self.dialer.look();
    }

    /// Takes our own address as a tracker sees it.
    pub(super) fn set_external(&mut self, ip: IpAddr) {
        // The port only tells apart peers that share our address; without a listener there is none.
        self.dialer.set_external(SocketAddr::new(ip, self.settings.listen_port.unwrap_or(0)));
    }

    /// Does what the user wants.
    pub(super) fn obey(&mut self, now: Instant, command: Command) {
        let held_back = match &mut self.stage {
            Some(stage) => stage.hold_back(command),
            None => Some(command),
        };
        let Some(command) = held_back else { return };
        match command {
            Command::Pause => {
                self.status.paused = true;
                self.disconnect_all(now, DisconnectReason::Stopping);
                self.dialer.look();
            }
            Command::Resume => {
                self.status.paused = false;
                self.dialer.look();
            }
            Command::Want(wanted) => self.want(now, wanted),
            Command::Sequential(sequential) => self.download.picker.set_sequential(sequential),
            Command::Limit { upload_rate, download_rate } => {
                self.limits.upload_rate = upload_rate;
                self.limits.download_rate = download_rate;
                self.limit_rates(now);
            }
        }
    }

    /// Does what is due.
    pub(super) fn time_passed(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if due(self.upkeep_at) {
            self.upkeep(now);
        }
        if due(self.have_batch.due_at()) {
            self.have_batch.tell(now, self.download.pieces.have(), &mut self.peers, &mut self.out);
        }
        if due(self.gossip.due_at()) {
            self.gossip.tell(now, &mut self.peers, &mut self.out);
        }
        if due(self.round_at()) {
            let share = Share {
                seeding: self.status.complete,
                unchoke_max: self.limits.lease.unchoke_max,
                availability: &self.download.availability,
            };
            self.upload.round(now, &mut self.peers, share, &mut self.out);
        }
        if due(self.download.ready_at()) {
            self.download.retry();
        }
        if due(self.dialer.look_at()) {
            self.dialer.look();
        }
    }

    /// Returns when something is due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let timers = [
            self.upkeep_at,
            self.have_batch.due_at(),
            self.gossip.due_at(),
            self.round_at(),
            self.upload.ready_at(),
            self.download.ready_at(),
            self.dialer.look_at(),
        ];
        timers.into_iter().flatten().min()
    }

    /// Returns what it could use of the session's budgets.
    pub(super) fn demand(&self) -> Demand {
        Demand {
            connections: self.peers.len() + self.dialer.dialing_count(),
            candidates: self.dialer.candidate_count(),
            interested: self.peers.values().filter(|peer| peer.state.peer_interested).count(),
            upload_rate: self.totals.upload_rate,
            download_rate: self.totals.download_rate,
            upload_starved: self.totals.upload_starved,
            download_starved: self.totals.download_starved,
        }
    }

    /// Returns when the next round of the choker is due; None without peers that may be unchoked.
    fn round_at(&self) -> Option<Instant> {
        (!self.peers.is_empty() && self.stage.is_none()).then(|| self.upload.round_at())
    }

    /// The tighter of lease and command, each way.
    pub(super) fn limit_rates(&mut self, now: Instant) {
        let tighter = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let Limits { lease, upload_rate, download_rate } = &self.limits;
        self.upload.set_rate(now, tighter(lease.upload_rate, *upload_rate));
        self.download.set_rate(now, tighter(lease.download_rate, *download_rate));
    }

    /// The end of every input: those who wait for blocks, bytes or addresses get what there is.
    pub(super) fn settle(&mut self, now: Instant) {
        for _ in 0..self.download.waiting_turns() {
            let Some(conn) = self.download.next_waiting(now) else { break };
            if let Some(peer) = self.peers.get_mut(&conn) {
                self.download.fill(now, peer, &mut self.out);
            }
        }
        self.settle_stage(now);
        let availability = &self.download.availability;
        self.upload.pump(now, &mut self.peers, &mut self.metadata, availability, &mut self.out);
        // While paused too: the dialer has to learn that it waits for no connection.
        let connection_max = if self.status.paused { 0 } else { self.limits.lease.connection_max };
        let room = connection_max.saturating_sub(self.peers.len());
        self.dialer.dial(now, room, |addr| self.out.push(Output::Dial(addr)));
        #[cfg(debug_assertions)]
        self.check_invariant();
    }

    /// Says whether the books agree.
    #[cfg(debug_assertions)]
    fn check_invariant(&self) {
        let holds_room = self.stage.as_ref().is_some_and(|stage| stage.fetch.holds_room());
        debug_assert_eq!(self.upkeep_at.is_some(), !self.peers.is_empty() || holds_room);
        if let Some(stage) = &self.stage {
            stage.fetch.check_invariant();
        }
        debug_assert!(!self.status.paused || self.peers.is_empty());
        self.download.pieces.check_invariant();
        self.gossip.check_invariant();
        for peer in self.peers.values() {
            peer.check_invariant();
            debug_assert_eq!(peer.state.am_interested, peer.remote.wanted_count() > 0);
        }
    }
}
