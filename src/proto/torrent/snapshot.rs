//! Figures for people, for announces and for the session.

use super::active::Active;
use super::download::pieces::Pieces;
use super::event::{PeerSnapshot, TorrentSnapshot, TrafficSnapshot};
use crate::proto::peer::Peer;
use crate::proto::rate::Rate;
use crate::proto::time::Instant;

/// What passed in all, gone connections included.
#[derive(Debug)]
pub(super) struct Totals {
    pub(super) upload: Rate,
    pub(super) download: Rate,
    pub(super) uploaded: u64,
    pub(super) downloaded: u64,
    pub(super) wasted: u64,
    /// As of the last upkeep, bytes per second.
    pub(super) upload_rate: u64,
    /// As of the last upkeep, bytes per second.
    pub(super) download_rate: u64,
    /// The upload limit held something back in the last second.
    pub(super) upload_starved: bool,
    /// The download limit held something back in the last second.
    pub(super) download_starved: bool,
}

impl Totals {
    /// Nothing passed yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            upload: Rate::new(now),
            download: Rate::new(now),
            uploaded: 0,
            downloaded: 0,
            wasted: 0,
            upload_rate: 0,
            download_rate: 0,
            upload_starved: false,
            download_starved: false,
        }
    }

    /// A second of connections passed.
    pub(super) fn upkeep(&mut self, now: Instant, upload_starved: bool, download_starved: bool) {
        self.upload_rate = self.upload.per_second(now);
        self.download_rate = self.download.per_second(now);
        self.upload_starved = upload_starved;
        self.download_starved = download_starved;
    }

    /// The last connection is gone.
    pub(super) fn idle(&mut self) {
        self.upload_rate = 0;
        self.download_rate = 0;
        self.upload_starved = false;
        self.download_starved = false;
    }
}

impl Active {
    /// The figures of this moment.
    pub(super) fn take_snapshot(&self, now: Instant) -> TorrentSnapshot {
        TorrentSnapshot {
            traffic: TrafficSnapshot {
                uploaded: self.totals.uploaded,
                downloaded: self.totals.downloaded,
                wasted: self.totals.wasted,
                availability_sent: self.out.availability_sent,
                upload_rate: self.totals.upload.per_second(now),
                download_rate: self.totals.download.per_second(now),
            },
            peers: self.peers.values().map(|peer| peer_snapshot(peer, now)).collect(),
            candidate_count: self.dialer.candidate_count(),
            availability_min: self.download.availability.min(),
            complete: self.status.complete,
            paused: self.status.paused,
            ..of_pieces(&self.download.pieces)
        }
    }
}

/// The figures of a torrent that has met nobody.
pub(super) fn of_pieces(pieces: &Pieces) -> TorrentSnapshot {
    TorrentSnapshot {
        have_count: pieces.have().count(),
        piece_count: pieces.have().len(),
        wanted_done_len: pieces.wanted_done_len(),
        wanted_len: pieces.wanted_len(),
        left: pieces.left(),
        traffic: TrafficSnapshot::default(),
        peers: Vec::new(),
        candidate_count: 0,
        availability_min: 0,
        complete: pieces.is_complete(),
        paused: false,
    }
}

fn peer_snapshot(peer: &Peer, now: Instant) -> PeerSnapshot {
    let client = peer.remote.extension().and_then(|extension| extension.client.clone());
    PeerSnapshot {
        addr: peer.connected.addr,
        direction: peer.connected.direction,
        client: client.unwrap_or_else(|| peer.connected.peer_id.to_string()),
        have_count: peer.remote.have().count(),
        am_choking: peer.state.am_choking,
        am_interested: peer.state.am_interested,
        peer_choking: peer.state.peer_choking,
        peer_interested: peer.state.peer_interested,
        upload_rate: peer.traffic.upload.per_second(now),
        download_rate: peer.traffic.download.per_second(now),
        uploaded: peer.traffic.uploaded,
        downloaded: peer.traffic.downloaded,
    }
}
