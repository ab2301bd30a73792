//! What the machines of a torrent decide, done: the other half of its task.

use crate::engine::add::{Existing, Purpose};
use crate::engine::context::Outgoing;
use crate::engine::handle::Event;
use crate::engine::pool::BlockBuf;
use crate::proto::time::Instant;
use crate::proto::torrent::event::{self, ConnId, Output, PieceResult, StorageFault};
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::disk::{Done, Job, StoreOutcome};
use crate::storage::fs::RealFs;
use crate::storage::persistence;
use crate::storage::pieces::{Spill, WholePiece};
use crate::storage::store::Store;

use super::fault::fault_of;
use super::report::shown;
use super::swarm::News;
use super::transfer::{Ended, TorrentTask, progress};

impl TorrentTask {
    /// Does all that the machines have decided.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.machine.poll_output() {
                self.handle_output(now, output);
            } else if let Some(output) = self.persistence.poll_output() {
                self.persist(now, output);
            } else if let Some(news) = self.swarm.poll(now) {
                self.handle_news(now, news);
            } else {
                return;
            }
        }
    }

    pub(super) fn handle_news(&mut self, now: Instant, news: News) {
        match news {
            News::Connected(established) => self.connected(now, established),
            News::DialFailed(addr) => self.machine.handle_dial_failed(now, addr),
            News::Peers(source, peers) => self.machine.handle_candidates(now, source, &peers),
            News::ExternalIp(ip) => self.machine.handle_external_ip(now, ip),
        }
    }

    fn handle_output(&mut self, now: Instant, output: Output) {
        match output {
            Output::Send(conn, message) => self.send(now, conn, Outgoing::Message(message)),
            Output::SendMetadata(conn, message) => self.send(now, conn, Outgoing::Metadata(message)),
            Output::SendBlock(conn, block) => self.send(now, conn, Outgoing::Block(block)),
            Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.swarm.connections.close(conn);
                self.machine.handle_disconnected(now, conn);
            }
            Output::Dial(addr) => self.swarm.dial(addr),
            Output::VerifyPiece { piece, block_hashes } => {
                if !self.persistence.store(piece, block_hashes) {
                    self.machine.handle_piece_result(now, piece, PieceResult::Lost);
                }
            }
            Output::DropPiece(piece) => self.persistence.discard(piece),
            Output::DhtNode(addr) => self.swarm.context.hint(addr),
            Output::Event(event) => self.handle_event(event),
        }
    }

    fn send(&mut self, now: Instant, conn: ConnId, outgoing: Outgoing) {
        if self.swarm.connections.send(conn, outgoing).is_err() {
            tracing::debug!(?conn, "the peer does not read what it is sent");
            self.disconnected(now, conn);
        }
    }

    fn handle_event(&mut self, event: event::Event) {
        match event {
            // Told when it is durable.
            event::Event::Completed => return self.persistence.complete(),
            event::Event::PieceCompleted(piece) => self.files.add(self.content.info(), piece),
            event::Event::Storage(_) => self.swarm.report.hurry(),
            event::Event::PeerConnected(_)
            | event::Event::PeerDisconnected(..)
            | event::Event::PeerBanned(_)
            | event::Event::MetadataTooLong(..)
            | event::Event::PieceFailed(_) => {}
        }
        self.swarm.report.event(shown(event));
    }

    fn persist(&mut self, now: Instant, output: persistence::Output<BlockBuf>) {
        match output {
            persistence::Output::Store(whole) => self.store(whole),
            persistence::Output::Spill(spill) => self.spill(spill),
            persistence::Output::Commit => self.commit(),
            persistence::Output::Finish => self.finish(),
            // It does not pass: the torrent ends with it.
            persistence::Output::Storage(Some(_)) if self.failure.is_some() => {}
            persistence::Output::Storage(fault) => self.machine.handle_storage(now, fault),
            persistence::Output::Completed => self.completed(now),
        }
    }

    fn finish(&mut self) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        let have = self.machine.have().clone();
        let (was_fetched, purpose) = (!self.started_complete, self.plan.purpose);
        let finish = move |content: &Store<RealFs>| match purpose {
            Purpose::Seed => Ok(Vec::new()),
            Purpose::Download | Purpose::Overwrite if was_fetched => content.finish(&have),
            Purpose::Download | Purpose::Overwrite => content.make_whole().map(|()| Vec::new()),
        };
        self.jobs.spawn("finish", async move { Ended::Finished(context.disk.slow(&content, finish).await) });
    }

    /// What was complete from the start was so before we came: nobody waits until it is durable and noted.
    fn note_complete(&mut self) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        let have = self.machine.have().clone();
        self.jobs.spawn("note", async move {
            Ended::Noted(context.disk.slow(&content, move |content| content.close(&have)).await)
        });
    }

    fn store(&mut self, whole: WholePiece<BlockBuf>) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("store", async move {
            Ended::Stored(context.disk.run(&content, Job::Store(whole)).await)
        });
    }

    fn spill(&mut self, spill: Spill<BlockBuf>) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("spill", async move {
            Ended::Stored(context.disk.run(&content, Job::Spill(spill)).await)
        });
    }

    /// A disk job has ended.
    pub(super) fn handle_ended(&mut self, ended: Ended) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        self.tell_journal();
        match ended {
            Ended::Stored(done) => self.handle_stored(now, done),
            Ended::Committed(Some(Ok(lost))) => {
                self.pieces_lost(now, lost);
                self.persistence.handle_committed(now, Ok(()));
            }
            Ended::Committed(Some(Err(error))) => {
                let fault = self.failed(&error);
                self.persistence.handle_committed(now, Err(fault));
            }
            Ended::Finished(Some(Ok(lost))) => {
                self.pieces_lost(now, lost);
                self.persistence.handle_finished(now, Ok(()));
            }
            Ended::Finished(Some(Err(error))) if self.started_complete => {
                // A complete content may well lie where we cannot write.
                tracing::warn!(%error, "the content is left as it is");
                self.persistence.handle_finished(now, Ok(()));
            }
            Ended::Finished(Some(Err(error))) => {
                let fault = self.failed(&error);
                self.persistence.handle_finished(now, Err(fault));
            }
            Ended::Lost(pieces) => self.machine.handle_loss_noted(now, &pieces),
            Ended::Noted(Some(Ok(lost))) => self.pieces_lost(now, lost),
            Ended::Noted(Some(Err(error))) => tracing::warn!(%error, "the next start finds out again"),
            Ended::Noted(None) | Ended::Closed(_) => {}
            Ended::Committed(None) | Ended::Finished(None) => self.failure = Some(DISK_GONE.to_owned()),
        }
        self.drain(now);
    }

    /// What is wrong with the journal is said once.
    pub(super) fn tell_journal(&mut self) {
        if let Some(trouble) = self.content.take_journal_trouble() {
            self.swarm.report.journal(trouble);
        }
    }

    /// Makes durable what was written.
    fn commit(&mut self) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("commit", async move {
            Ended::Committed(context.disk.slow(&content, |content| content.commit()).await)
        });
    }

    /// Pieces are not there any more: files changed behind our back, or the disk did not keep what it took. They are not
    /// offered from now on. Fetched again they are when the journal has heard of it, so that it is not told that they
    /// are there while their bytes are touched; what was complete once is left as whoever changed it wants it.
    pub(super) fn pieces_lost(&mut self, now: Instant, lost: Vec<LostPiece>) {
        let lost: Vec<_> = lost.into_iter().filter(|lost| self.machine.have().get(lost.piece)).collect();
        if lost.is_empty() {
            return;
        }
        let pieces: Vec<_> = lost.iter().map(|lost| lost.piece).collect();
        let is_fetching = self.persistence.handle_lost() && self.plan.purpose != Purpose::Seed;
        self.machine.handle_lost(now, pieces.clone(), is_fetching);
        if self.machine.is_complete() {
            // What was lost is not wanted.
            self.persistence.complete();
        }
        for LostPiece { piece, path, why } in lost {
            self.files.remove(self.content.info(), piece);
            self.swarm.report.event(Event::PieceLost { piece, path, why, is_fetching });
        }
        self.swarm.report.hurry();
        let (context, content, told) = (self.swarm.context.clone(), self.content.clone(), pieces.clone());
        self.jobs.spawn("lose", async move {
            if let Some(Err(error)) = context.disk.slow(&content, move |content| content.lose(&told)).await {
                tracing::warn!(%error, "the next start finds out again");
            }
            Ended::Lost(pieces)
        });
    }

    fn handle_stored(&mut self, now: Instant, done: Option<Done<BlockBuf>>) {
        match done {
            Some(Done::Store(whole, outcome)) => self.handle_piece(now, whole, outcome),
            Some(Done::Spill(spill, Ok(crcs))) => self.persistence.handle_spilled(now, spill, &crcs),
            Some(Done::Spill(spill, Err(error))) => {
                let fault = self.failed(&error);
                self.persistence.handle_not_spilled(now, spill, fault);
            }
            Some(Done::Read { .. } | Done::Check(_)) | None => self.failure = Some(DISK_GONE.to_owned()),
        }
    }

    fn handle_piece(&mut self, now: Instant, whole: WholePiece<BlockBuf>, outcome: StoreOutcome) {
        let piece = whole.piece;
        match outcome {
            StoreOutcome::Good(hashes) => {
                drop(whole);
                self.machine.handle_piece_result(now, piece, PieceResult::Good(hashes));
                self.persistence.handle_stored(now, piece);
            }
            StoreOutcome::Bad(hashes) => {
                drop(whole);
                self.machine.handle_piece_result(now, piece, PieceResult::Bad(hashes));
                self.persistence.handle_false(piece);
            }
            StoreOutcome::Lost => {
                drop(whole);
                self.machine.handle_piece_result(now, piece, PieceResult::Lost);
                self.persistence.handle_false(piece);
            }
            StoreOutcome::Error(error) => {
                let fault = self.failed(&error);
                self.persistence.handle_not_stored(now, whole, fault);
            }
        }
    }

    /// All is there and durable.
    fn completed(&mut self, now: Instant) {
        self.swarm.report.event(Event::Completed);
        self.swarm.report.hurry();
        if self.machine.have().is_full() {
            let news = (!self.started_complete).then(|| progress(&self.machine, now));
            self.swarm.sources.handle_completed(now, news);
        }
        self.swarm.sources.handle_need(now, false);
        if self.started_complete && self.plan.existing != Existing::Assumed {
            self.note_complete();
        }
    }

    /// A full or failing disk is a state that passes; what only people can put right ends the torrent.
    fn failed(&mut self, error: &StorageError) -> StorageFault {
        if !error.may_pass() {
            self.failure = Some(error.to_string());
        }
        fault_of(error, &self.content, self.machine.have())
    }
}

/// Cannot happen while the engine lives.
const DISK_GONE: &str = "the disk threads are gone";
