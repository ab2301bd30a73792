//! What the machines of a torrent decide, done: the other half of its task.

use crate::engine::context::Outgoing;
use crate::engine::handle::Event;
use crate::engine::handshake;
use crate::engine::pool::BlockBuf;
use crate::proto::infohash::InfoHash;
use crate::proto::time::Instant;
use crate::proto::torrent::event::{self, ConnId, Output, PieceResult, Source, StorageFault};
use crate::proto::tracker::announcer;
use crate::storage::content::StorageError;
use crate::storage::disk::{Done, Job, StoreOutcome};

use super::pieces::WholePiece;
use super::trackers::announce;
use super::{Completion, Ended, TorrentTask};

impl TorrentTask {
    /// Does all that the machines have decided.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.machine.poll_output() {
                self.handle_output(now, output);
            } else if let Some(output) = self.trackers.poll_output() {
                self.handle_announcer_output(now, output);
            } else {
                return;
            }
        }
    }

    fn handle_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send(conn, message) => self.send(now, conn, Outgoing::Message(message)),
            Output::SendBlock(conn, block) => self.send(now, conn, Outgoing::Block(block)),
            Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.connections.close(conn);
                self.machine.handle_disconnected(now, conn);
            }
            Output::Dial(addr) => {
                let (infohash, peer_id) = (self.infohash(), self.peer_id);
                let dht = self.context.dht.is_some() && !self.content.info().private;
                self.tasks.spawn("dial", async move {
                    Ended::Dialled(addr, handshake::dial(addr, infohash, peer_id, dht).await)
                });
            }
            Output::VerifyPiece { piece, block_hashes } => match self.pieces.take(piece, block_hashes) {
                Some(whole) => self.store(whole),
                None => self.machine.handle_piece_result(now, piece, PieceResult::Lost),
            },
            Output::DropPiece(piece) => self.pieces.discard(piece),
            Output::DhtNode(addr) => self.context.hint(addr),
            Output::Event(event) => self.handle_event(event),
        }
    }

    fn infohash(&self) -> InfoHash {
        self.content.info().infohash
    }

    fn send(&mut self, now: Instant, conn: ConnId, outgoing: Outgoing) {
        if self.connections.send(conn, outgoing).is_err() {
            tracing::debug!(?conn, "the peer does not read what it is sent");
            self.disconnected(now, conn);
        }
    }

    fn handle_event(&mut self, event: event::Event) {
        match event {
            event::Event::PieceCompleted(piece) => self.report.piece(piece),
            event::Event::Completed => self.complete(),
            event::Event::PeerConnected(addr) => self.report.event(Event::PeerConnected(addr)),
            event::Event::PeerDisconnected(addr, reason) => {
                let reason = reason.map(|reason| reason.to_string());
                self.report.event(Event::PeerDisconnected(addr, reason));
            }
            event::Event::PeerBanned(addr) => self.report.event(Event::PeerBanned(addr)),
            event::Event::PieceFailed(piece) => self.report.event(Event::PieceFailed(piece)),
            event::Event::Storage(fault) => {
                self.report.event(Event::Storage(fault));
                self.report.hurry();
            }
        }
    }

    /// Every wanted piece is there: once, makes the content whole and durable.
    pub(super) fn complete(&mut self) {
        if self.completion == Completion::Missing {
            self.completion = Completion::Finishing;
            self.finish();
        }
    }

    fn finish(&mut self) {
        let (context, content) = (self.context.clone(), self.content.clone());
        self.tasks
            .spawn("finish", async move { Ended::Finished(context.disk.run(&content, Job::Finish).await) });
    }

    fn store(&mut self, whole: WholePiece) {
        let WholePiece { piece, blocks, block_hashes } = whole;
        self.pieces.storing(piece);
        let (context, content) = (self.context.clone(), self.content.clone());
        self.tasks.spawn("store", async move {
            let job = Job::StorePiece { piece, blocks, block_hashes };
            Ended::Stored(block_hashes, context.disk.run(&content, job).await)
        });
    }

    /// A task of the torrent has ended.
    pub(super) fn handle_ended(&mut self, ended: Ended) {
        let now = self.context.clock.now();
        self.report.touch();
        match ended {
            Ended::Dialled(_, Ok(established)) => self.connected(now, established),
            Ended::Dialled(addr, Err(error)) => {
                tracing::debug!(%addr, %error, "cannot connect");
                self.machine.handle_dial_failed(now, addr);
            }
            Ended::Stored(block_hashes, done) => self.handle_stored(now, block_hashes, done),
            Ended::Finished(Some(Done::Finish(Ok(())))) => self.finished(now),
            Ended::Finished(Some(Done::Finish(Err(error)))) if self.started_complete => {
                // A complete content may well lie where we cannot write.
                tracing::warn!(%error, "the content is left as it is");
                self.finished(now);
            }
            Ended::Finished(Some(Done::Finish(Err(error)))) => self.write_failed(now, &error),
            Ended::Finished(_) => self.failure = Some(DISK_GONE.to_owned()),
            Ended::Synced | Ended::HungUp => {}
            Ended::Announced(announced) => {
                let progress = self.progress(now);
                if let Some((url, peers)) = self.trackers.answered(now, progress, announced) {
                    self.report.event(Event::TrackerOk { url, peers });
                }
            }
        }
        self.drain(now);
    }

    fn handle_stored(&mut self, now: Instant, block_hashes: bool, done: Option<Done<BlockBuf>>) {
        let Some(Done::StorePiece { piece, blocks, outcome }) = done else {
            self.failure = Some(DISK_GONE.to_owned());
            return;
        };
        self.pieces.stored(piece);
        match outcome {
            StoreOutcome::Good(hashes) => {
                drop(blocks);
                self.machine.handle_piece_result(now, piece, PieceResult::Good(hashes));
                self.recovered(now);
            }
            StoreOutcome::Bad(hashes) => {
                drop(blocks);
                self.machine.handle_piece_result(now, piece, PieceResult::Bad(hashes));
            }
            StoreOutcome::Error(error) => {
                self.pieces.park(WholePiece { piece, blocks, block_hashes });
                self.write_failed(now, &error);
            }
        }
    }

    pub(super) fn finished(&mut self, now: Instant) {
        if matches!(self.completion, Completion::Finished(_)) {
            return;
        }
        self.completion = Completion::Finished(now);
        self.recovered(now);
        self.report.event(Event::Completed);
        self.report.hurry();
        if !self.started_complete && self.machine.have().is_full() {
            let progress = self.progress(now);
            self.trackers.announcer(progress).handle_completed(now);
        }
    }

    /// A full disk is a state that passes; anything else ends the torrent.
    fn write_failed(&mut self, now: Instant, error: &StorageError) {
        if error.is_full() {
            self.fault(now, StorageFault::Full);
        } else {
            self.failure = Some(error.to_string());
        }
    }

    /// A block could not be read to be sent.
    pub(super) fn storage_failed(&mut self, now: Instant, error: String) {
        self.fault(now, StorageFault::Failed(error));
    }

    fn fault(&mut self, now: Instant, fault: StorageFault) {
        if self.pieces.fail(now, fault.clone()) {
            self.machine.handle_storage(now, Some(fault));
        }
    }

    fn recovered(&mut self, now: Instant) {
        if self.pieces.recover() {
            self.machine.handle_storage(now, None);
        }
    }

    /// Tries a full or failing disk again, when it is time.
    pub(super) fn retry_storage(&mut self, now: Instant) {
        let Some(again) = self.pieces.retry(now) else { return };
        let to_finish = self.completion == Completion::Finishing;
        if again.is_empty() && !to_finish {
            self.recovered(now);
        }
        for whole in again {
            self.store(whole);
        }
        if to_finish {
            self.finish();
        }
        self.report.touch();
    }

    fn handle_announcer_output(&mut self, now: Instant, output: announcer::Output) {
        match output {
            announcer::Output::Announce { request, url, announce: what } => {
                self.trackers.asked(request, url.clone());
                let context = self.context.clone();
                self.tasks.spawn("announce", async move {
                    Ended::Announced(announce(context, request, url, what).await)
                });
            }
            announcer::Output::Peers { url, peers } => {
                let source = Source::Tracker { local: self.trackers.is_local(&url) };
                self.machine.handle_candidates(now, source, &peers);
            }
            announcer::Output::ExternalIp(ip) => self.machine.handle_external_ip(now, ip),
            announcer::Output::Announced { url, seeders, leechers } => {
                if let Some(status) = self.trackers.status(&url) {
                    (status.seeders, status.leechers, status.error) = (seeders, leechers, None);
                }
            }
            announcer::Output::Warning { url, text } => {
                self.report.event(Event::TrackerWarning { url, text });
            }
            announcer::Output::Failed { url, error, retry_at: _ } => {
                let error = error.to_string();
                if let Some(status) = self.trackers.status(&url) {
                    status.error = Some(error.clone());
                }
                self.report.event(Event::TrackerFailed { url, error });
            }
        }
    }
}

/// Cannot happen while the engine lives.
const DISK_GONE: &str = "the disk threads are gone";
