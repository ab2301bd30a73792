//! What the user of a torrent sees: its stage, figures and events.
//!
//! Figures are made at most five times a second, and only while something happens and somebody
//! listens.

use std::sync::Arc;

use crate::engine::api::event::{Event, Snapshot, Stage, StorageFault};
use crate::engine::api::view::Teller;
use crate::proto::metainfo::Metainfo;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event;
use crate::storage::journal::Trouble;

/// Least time between two snapshots.
const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(200);

/// The user's view.
#[derive(Debug)]
pub(super) struct Report {
    teller: Teller,
    /// Something happened since the last snapshot.
    is_stale: bool,
    next_at: Instant,
}

impl Report {
    /// Nothing told yet.
    pub(super) fn new(teller: Teller) -> Self {
        Self { teller, is_stale: true, next_at: Instant::ZERO }
    }

    /// Tells what happened; nobody may be listening.
    pub(super) fn event(&self, event: Event) {
        self.teller.tell(event);
    }

    /// Tells what is wrong with the journal of a torrent that goes on, which begins a new one if
    /// need be.
    pub(super) fn journal(&self, trouble: Trouble) {
        self.event(match trouble {
            Trouble::Lapsed(error) => Event::JournalLapsed(error.to_string()),
            Trouble::Unusable(error, path) | Trouble::SetAside(error, path) => {
                Event::JournalSetAside { error: error.to_string(), path }
            }
        });
    }

    /// The description is there.
    pub(super) fn describe(&self, metainfo: Metainfo) {
        self.teller.describe(Arc::new(metainfo));
        self.event(Event::Described);
    }

    /// The stage alone has changed, at once.
    pub(super) fn stage(&self, stage: Stage) {
        self.teller.show(|snapshot| snapshot.stage = stage);
    }

    /// The start waits for the disk, with the bytes that are wanted and of those that are present.
    pub(super) fn waiting(&self, fault: StorageFault, (wanted_len, wanted_done_len): (u64, u64)) {
        self.teller.show(|snapshot| {
            snapshot.stage = Stage::Waiting(fault);
            (snapshot.torrent.wanted_len, snapshot.torrent.wanted_done_len) = (wanted_len, wanted_done_len);
        });
    }

    /// The torrent has ended, and nothing more is told.
    pub(super) fn end(&self, stage: Stage) {
        self.stage(stage);
        self.event(Event::Stopped);
    }

    /// Something happened: figures are to be made soon.
    pub(super) fn touch(&mut self) {
        self.is_stale = true;
    }

    /// Figures are to be made with the next chance, however short the last ones were ago.
    pub(super) fn hurry(&mut self) {
        self.is_stale = true;
        self.next_at = Instant::ZERO;
    }

    /// When figures are due.
    pub(super) fn due_at(&self) -> Option<Instant> {
        (self.is_stale && self.teller.is_read()).then_some(self.next_at)
    }

    /// Shows new figures.
    pub(super) fn publish(&mut self, now: Instant, snapshot: Snapshot) {
        self.is_stale = false;
        self.next_at = now + SNAPSHOT_INTERVAL;
        self.teller.show(|shown| *shown = snapshot);
    }
}

/// What a machine tells people, in the words of the engine's user.
pub(super) fn shown(event: event::Event) -> Event {
    match event {
        event::Event::PieceCompleted(piece) => Event::Piece(piece),
        event::Event::Completed => Event::Completed,
        event::Event::PeerConnected(addr) => Event::PeerConnected(addr),
        event::Event::PeerDisconnected(addr, reason) => {
            Event::PeerDisconnected(addr, reason.map(|reason| reason.to_string()))
        }
        event::Event::PeerBanned(addr) => Event::PeerBanned(addr),
        event::Event::MetadataTooLong(addr, len) => Event::MetadataTooLong { addr, len },
        event::Event::PieceFailed(piece) => Event::PieceFailed(piece),
    }
}
