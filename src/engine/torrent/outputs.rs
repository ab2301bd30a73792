//! What the machines of a torrent decide, done: the other half of its task.

use crate::engine::api::event::Event;
use crate::engine::inputs::Outgoing;
use crate::engine::network::pool::BlockBuf;
use crate::proto::discovery::event::DiscoveryEvent;
use crate::proto::time::Instant;
use crate::proto::torrent::event;
use crate::proto::torrent::event::{ConnId, Output};
use crate::storage::content::LostPiece;
use crate::storage::disk::{Done, Job};
use crate::storage::lifecycle;

use super::jobs::{DISK_GONE, Ended};
use super::report::shown;
use super::transfer::{Part, TorrentTask};

impl TorrentTask {
    /// Does all that the machines have decided.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.machine.poll_output() {
                self.handle_output(now, output);
            } else if let Some(output) = self.part.content().and_then(|content| content.storage.poll_output())
            {
                self.handle_storage(now, output);
            } else if let Some(event) = self.membership.poll(now) {
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
            Output::Send(conn, message) => self.send(now, conn, Outgoing::Message(message)),
            Output::SendMetadata(conn, message) => self.send(now, conn, Outgoing::Metadata(message)),
            Output::SendBlock(conn, block) => self.send(now, conn, Outgoing::Block(block)),
            Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.membership.connections.close(conn);
                self.machine.handle_disconnected(now, conn);
            }
            Output::Dial(addr) => self.membership.dial(addr),
            Output::VerifyPiece { piece, block_hashes } => {
                if let Some(content) = self.part.content() {
                    content.storage.handle_whole(piece, block_hashes);
                }
            }
            Output::DropPiece(piece) => {
                if let Some(content) = self.part.content() {
                    content.storage.handle_dropped(piece);
                }
            }
            Output::ReserveMetadata(len) => {
                if let Some(fetching) = self.part.fetching() {
                    fetching.reserve(len);
                }
            }
            Output::ReleaseMetadata(len) => {
                if let Some(fetching) = self.part.fetching() {
                    fetching.release(len);
                }
            }
            Output::Metadata(bytes) => {
                if let Some(fetching) = self.part.fetching() {
                    fetching.received = Some(bytes);
                }
            }
            Output::DhtNode(addr) => self.membership.context.hint(addr),
            Output::Event(event) => self.handle_event(event),
        }
    }

    fn send(&mut self, now: Instant, conn: ConnId, outgoing: Outgoing) {
        if self.membership.connections.send(conn, outgoing).is_err() {
            tracing::debug!(?conn, "the peer does not read what it is sent");
            self.disconnected(now, conn);
        }
    }

    fn handle_event(&mut self, event: event::Event) {
        if let Some(content) = self.part.content() {
            match event {
                // Told when it is durable.
                event::Event::Completed => return content.storage.handle_complete(),
                event::Event::PieceCompleted(piece) => content.piece_completed(piece),
                event::Event::PeerConnected(_)
                | event::Event::PeerDisconnected(..)
                | event::Event::PeerBanned(_)
                | event::Event::MetadataTooLong(..)
                | event::Event::PieceFailed(_) => {}
            }
        }
        self.membership.report.event(shown(event));
    }

    fn handle_storage(&mut self, now: Instant, output: lifecycle::Output<BlockBuf>) {
        let Some(content) = self.part.content() else { return };
        match output {
            lifecycle::Output::Job(lifecycle::Job::Run(step)) => content.jobs.run(step),
            lifecycle::Output::Job(lifecycle::Job::Store(whole)) => content.jobs.submit(Job::Store(whole)),
            lifecycle::Output::Job(lifecycle::Job::Spill(spill)) => content.jobs.submit(Job::Spill(spill)),
            // Of a start, which is over.
            lifecycle::Output::Job(lifecycle::Job::Check(_)) => {}
            lifecycle::Output::Event(event) => self.handle_storage_event(now, event),
        }
    }

    fn handle_storage_event(&mut self, now: Instant, event: lifecycle::Event) {
        match event {
            lifecycle::Event::Piece(piece, result) => self.machine.handle_piece_result(now, piece, result),
            lifecycle::Event::Lost { lost, is_fetching } => self.pieces_lost(now, lost, is_fetching),
            lifecycle::Event::LossNoted(pieces) => self.machine.handle_loss_noted(now, &pieces),
            lifecycle::Event::Storage(fault) => {
                self.machine.handle_storage(now, fault.is_some());
                self.membership.report.hurry();
                self.membership.report.event(Event::Storage(fault));
            }
            lifecycle::Event::Completed => self.completed(now),
            lifecycle::Event::Failed(error) => self.failure = Some(error),
            lifecycle::Event::Ignored(error) => tracing::warn!(%error, "the next start finds out again"),
            lifecycle::Event::Closed(error) => {
                if let Some(content) = self.part.content() {
                    content.is_closed = true;
                }
                if let Some(error) = error {
                    tracing::warn!(%error, "not everything is durable");
                }
            }
            // Of a start, which is over.
            lifecycle::Event::Started(_) | lifecycle::Event::Refused(_) => {}
        }
    }

    /// A disk job has ended, or there is room for metadata.
    pub(super) fn handle_ended(&mut self, ended: Ended) {
        let now = self.membership.now();
        self.membership.report.touch();
        self.tell_journal();
        match (ended, &mut self.part) {
            (Ended::Ran(Some(done)), Part::Content(content)) => content.storage.handle_step(now, done),
            (Ended::Done(Some(Done::Store(whole, result))), Part::Content(content)) => {
                content.storage.handle_stored(now, whole, result);
            }
            (Ended::Done(Some(Done::Spill(spill, written))), Part::Content(content)) => {
                content.storage.handle_spilled(now, spill, written);
            }
            (Ended::Reserved(room), Part::Metadata(fetching)) => {
                let len = room.len;
                fetching.keep(room);
                self.machine.handle_metadata_reserved(now, len);
            }
            (Ended::Reserved(_), Part::Content(_)) => {}
            (Ended::Ran(_) | Ended::Done(_), _) => self.failure = Some(DISK_GONE.to_owned()),
        }
        self.drain(now);
    }

    /// Tells what is wrong with the journal, once.
    pub(super) fn tell_journal(&mut self) {
        if let Some(trouble) = self.part.content().and_then(|content| content.disk.take_journal_trouble()) {
            self.membership.report.journal(trouble);
        }
    }

    fn pieces_lost(&mut self, now: Instant, lost: Vec<LostPiece>, is_fetching: bool) {
        let pieces = lost.iter().map(|lost| lost.piece).collect();
        self.machine.handle_lost(now, pieces, is_fetching);
        for LostPiece { piece, path, why } in lost {
            if let Some(content) = self.part.content() {
                content.files.remove(content.disk.info(), piece);
            }
            self.membership.report.event(Event::PieceLost { piece, path, why, is_fetching });
        }
        self.membership.report.hurry();
    }

    /// All is present and durable.
    fn completed(&mut self, now: Instant) {
        self.membership.report.event(Event::Completed);
        self.membership.report.hurry();
        if self.machine.have().is_full() {
            self.report_progress();
            let was_fetched = self.lacked_at_start();
            self.membership.sources.machine.handle_completed(now, was_fetched);
        }
        self.membership.sources.machine.handle_lack(now, false);
    }
}
