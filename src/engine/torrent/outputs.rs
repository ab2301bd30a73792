//! What the machines of a torrent decide, done: the other half of its task.

use crate::engine::context::Outgoing;
use crate::engine::handle::Event;
use crate::engine::pool::BlockBuf;
use crate::proto::time::Instant;
use crate::proto::torrent::event::{self, Command, ConnId, Output, PieceResult, StorageFault};
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::disk::{Done, Job, StoreOutcome};
use crate::storage::pieces::WholePiece;

use super::fault::fault_of;
use super::report::shown;
use super::swarm::News;
use super::transfer::{Completion, Ended, TorrentTask, progress};

impl TorrentTask {
    /// Does all that the machines have decided.
    pub(super) fn drain(&mut self, now: Instant) {
        loop {
            if let Some(output) = self.machine.poll_output() {
                self.handle_output(now, output);
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
            Output::SendBlock(conn, block) => self.send(now, conn, Outgoing::Block(block)),
            Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.swarm.connections.close(conn);
                self.machine.handle_disconnected(now, conn);
            }
            Output::Dial(addr) => self.swarm.dial(addr),
            Output::VerifyPiece { piece, block_hashes } => match self.pieces.take(piece, block_hashes) {
                Some(whole) => self.store(whole),
                None => self.machine.handle_piece_result(now, piece, PieceResult::Lost),
            },
            Output::DropPiece(piece) => self.pieces.discard(piece),
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
            event::Event::Completed => return self.complete(),
            event::Event::PieceCompleted(piece) => self.files.add(piece),
            event::Event::Storage(_) => self.swarm.report.hurry(),
            event::Event::PeerConnected(_)
            | event::Event::PeerDisconnected(..)
            | event::Event::PeerBanned(_)
            | event::Event::PieceFailed(_) => {}
        }
        self.swarm.report.event(shown(event));
    }

    /// Every wanted piece is there: once, makes the content whole and durable.
    pub(super) fn complete(&mut self) {
        if self.completion == Completion::Missing {
            self.completion = Completion::Finishing;
            self.finish();
        }
    }

    fn finish(&mut self) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        let have = self.machine.have().clone();
        let was_fetched = !self.started_complete;
        let finish = move || {
            if was_fetched {
                return content.finish(&have);
            }
            content.content().make_whole().map(|()| Vec::new())
        };
        self.jobs.spawn("finish", async move { Ended::Finished(context.disk.slow(finish).await) });
    }

    /// What was complete from the start was so before we came: nobody waits until it is durable and noted.
    fn note_complete(&mut self) {
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        let have = self.machine.have().clone();
        self.jobs.spawn("note", async move {
            Ended::Noted(context.disk.slow(move || content.close(&have)).await)
        });
    }

    fn store(&mut self, whole: WholePiece<BlockBuf>) {
        let WholePiece { piece, blocks, block_hashes } = whole;
        self.pieces.storing(piece);
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("store", async move {
            let job = Job::StorePiece { piece, blocks, block_hashes };
            Ended::Stored(block_hashes, context.disk.run(&content, job).await)
        });
    }

    /// A disk job has ended.
    pub(super) fn handle_ended(&mut self, ended: Ended) {
        let now = self.swarm.now();
        self.swarm.report.touch();
        match ended {
            Ended::Stored(block_hashes, done) => self.handle_stored(now, block_hashes, done),
            Ended::Committed(Some(committed)) => {
                self.durability.end(now, committed.is_ok());
                match committed {
                    Ok(lost) => self.not_kept(now, lost),
                    Err(error) => self.write_failed(now, &error),
                }
            }
            Ended::Finished(Some(made)) if self.started_complete => {
                if let Err(error) = made {
                    // A complete content may well lie where we cannot write.
                    tracing::warn!(%error, "the content is left as it is");
                }
                self.finished(now);
                self.note_complete();
            }
            Ended::Finished(Some(Ok(lost))) => {
                self.recovered(now);
                self.not_kept(now, lost);
                // Else something turned out to be lost meanwhile.
                if self.completion == Completion::Finishing {
                    self.finished(now);
                }
            }
            Ended::Finished(Some(Err(error))) => self.write_failed(now, &error),
            Ended::Noted(Some(Ok(lost))) => self.pieces_lost(now, lost),
            Ended::Noted(Some(Err(error))) => tracing::warn!(%error, "the next start finds out again"),
            Ended::Noted(None) | Ended::Closed(_) => {}
            Ended::Committed(None) | Ended::Finished(None) => self.failure = Some(DISK_GONE.to_owned()),
        }
        self.drain(now);
    }

    /// Makes durable what was written, when it is time.
    pub(super) fn commit(&mut self, now: Instant) {
        if !self.durability.begin(now) {
            return;
        }
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("commit", async move {
            Ended::Committed(context.disk.slow(move || content.commit()).await)
        });
    }

    /// Pieces that the disk did not keep, although it took them, are fetched again.
    fn not_kept(&mut self, now: Instant, lost: Vec<LostPiece>) {
        if !lost.is_empty() && self.completion == Completion::Finishing {
            self.completion = Completion::Missing;
        }
        self.pieces_lost(now, lost);
    }

    /// Files changed behind our back: what is lost is not offered any more, and fetched again while there is
    /// something to fetch anyway. What was complete once is left as whoever changed it wants it.
    pub(super) fn pieces_lost(&mut self, now: Instant, lost: Vec<LostPiece>) {
        let lost: Vec<_> = lost.into_iter().filter(|lost| self.machine.have().get(lost.piece)).collect();
        let pieces: Vec<_> = lost.iter().map(|lost| lost.piece).collect();
        if pieces.is_empty() {
            return;
        }
        let is_fetching = self.completion == Completion::Missing;
        if !is_fetching {
            let mut wanted = self.machine.wanted().clone();
            pieces.iter().for_each(|&piece| {
                wanted.clear(piece);
            });
            self.machine.handle_command(now, Command::Want(wanted));
        }
        for LostPiece { piece, path, why } in lost {
            self.files.remove(piece);
            self.machine.handle_piece_result(now, piece, PieceResult::Lost);
            self.swarm.report.event(Event::PieceLost { piece, path, why, is_fetching });
        }
        self.swarm.report.hurry();
        let (context, content) = (self.swarm.context.clone(), self.content.clone());
        self.jobs.spawn("lose", async move {
            let lose = move || content.lose(&pieces).map(|()| Vec::new());
            Ended::Noted(context.disk.slow(lose).await)
        });
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
                self.durability.written(now, u64::from(self.content.info().geometry.len_of(piece)));
                self.commit(now);
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
        self.swarm.report.event(Event::Completed);
        self.swarm.report.hurry();
        if self.machine.have().is_full() {
            let news = (!self.started_complete).then(|| progress(&self.machine, now));
            self.swarm.sources.handle_completed(now, news);
        }
        self.swarm.sources.handle_need(now, false);
    }

    /// A full or failing disk is a state that passes; what only people can put right ends the torrent.
    fn write_failed(&mut self, now: Instant, error: &StorageError) {
        if error.may_pass() {
            self.fault(now, fault_of(error, &self.content, self.machine.have()));
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
        self.swarm.report.touch();
    }
}

/// Cannot happen while the engine lives.
const DISK_GONE: &str = "the disk threads are gone";
