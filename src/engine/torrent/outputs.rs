//! What the machines of a torrent decide, done: the other half of its task.

use super::jobs::{DISK_GONE, Ended};
use super::report;
use super::sources::{self, Asked};
use super::transfer::{Part, TorrentTask};
use crate::engine::api::event::Event;
use crate::engine::inputs::Outgoing;
use crate::engine::network::pool::BlockBuf;
use crate::proto::discovery::event::{self as discovery, DiscoveryEvent};
use crate::proto::time::Instant;
use crate::proto::torrent::event::{self as torrent, ConnId};
use crate::storage::content::LostPiece;
use crate::storage::disk::{self, Done};
use crate::storage::lifecycle::{self, Job};
use crate::transfer::Output;

impl TorrentTask {
    /// Does all that the machines have decided.
    pub(super) fn drain(&mut self, now: Instant) {
        while let Some(output) = self.machine.poll_output(now) {
            match output {
                Output::Torrent(output) => self.handle_torrent(now, output),
                Output::Discovery(output) => self.handle_discovery(now, output),
                Output::Job(job) => self.start_job(job),
                Output::Storage(event) => self.handle_storage(event),
                Output::Metadata(Ok(info)) => {
                    if let Some(fetching) = self.part.fetching() {
                        fetching.received = Some(info);
                    }
                }
                Output::Metadata(Err(error)) => {
                    self.failure = Some(format!("the torrent's description is of no use: {error}"));
                }
            }
        }
    }

    fn handle_torrent(&mut self, now: Instant, output: torrent::Output) {
        match output {
            torrent::Output::Send(conn, message) => self.send(now, conn, Outgoing::Message(message)),
            torrent::Output::SendMetadata(conn, message) => {
                self.send(now, conn, Outgoing::Metadata(message));
            }
            torrent::Output::SendBlock(conn, block) => self.send(now, conn, Outgoing::Block(block)),
            torrent::Output::Disconnect(conn, reason) => {
                tracing::debug!(?conn, %reason, "disconnecting");
                self.membership.connections.close(conn);
                self.machine.torrent.handle_disconnected(now, conn);
            }
            torrent::Output::Dial(addr) => {
                self.membership.dial(addr, self.machine.discovery().speaks_dht());
            }
            torrent::Output::ReserveMetadata(len) => {
                self.part.fetching().into_iter().for_each(|fetching| fetching.reserve(len));
            }
            torrent::Output::ReleaseMetadata(len) => {
                self.part.fetching().into_iter().for_each(|fetching| fetching.release(len));
            }
            torrent::Output::DhtNode(addr) => self.membership.context.hint(addr),
            torrent::Output::Event(event) => {
                if let (torrent::Event::PieceCompleted(piece), Some(content)) = (&event, self.part.content())
                {
                    content.files.add(content.disk.info(), *piece);
                }
                self.membership.report.event(report::shown(event));
            }
            // For the storage, which takes them before.
            torrent::Output::VerifyPiece { .. }
            | torrent::Output::DropPiece(_)
            | torrent::Output::Metadata(_) => {}
        }
    }

    fn send(&mut self, now: Instant, conn: ConnId, outgoing: Outgoing) {
        if self.membership.connections.send(conn, outgoing).is_err() {
            tracing::debug!(?conn, "the peer does not read what it is sent");
            self.disconnected(now, conn);
        }
    }

    /// Asks a source of peers.
    fn handle_discovery(&mut self, now: Instant, output: discovery::Output) {
        let sources = &mut self.membership.sources;
        match output {
            discovery::Output::Found(mut found) => {
                if let DiscoveryEvent::Peers(_, peers) = &mut found {
                    self.membership.context.ourselves.strike(now, peers);
                }
                self.machine.handle_found(now, found);
            }
            discovery::Output::Announce { request, url, announce } => {
                let asked = Asked { request, url, announce };
                sources.announce(now, self.machine.discovery_mut(), asked);
            }
            discovery::Output::Lookup(request) => sources.look_up(request),
            discovery::Output::CancelLookup => sources.cancel_lookup(),
            discovery::Output::Lsd(is_on) => sources.tell_lsd(is_on),
            discovery::Output::ResolvePeer(name) => sources.resolve_peer(name),
            discovery::Output::ResolveNode(host, port) => sources.hint(host, port),
            discovery::Output::Event(event) => self.membership.report.event(sources::shown(event)),
        }
    }

    fn start_job(&mut self, job: Job<BlockBuf>) {
        let Some(content) = self.part.content() else { return };
        match job {
            Job::Run(step) => content.jobs.run(step),
            Job::Store(whole) => content.jobs.submit(disk::Job::Store(whole)),
            Job::Spill(spill) => content.jobs.submit(disk::Job::Spill(spill)),
            // Of a start, which is over.
            Job::Check(_) => {}
        }
    }

    /// Reports what happened to the content.
    fn handle_storage(&mut self, event: lifecycle::Event) {
        let report = &mut self.membership.report;
        match event {
            lifecycle::Event::Lost { lost, is_fetching } => {
                for LostPiece { piece, path, why } in lost {
                    if let Some(content) = self.part.content() {
                        content.files.remove(content.disk.info(), piece);
                    }
                    report.event(Event::PieceLost { piece, path, why, is_fetching });
                }
                report.hurry();
            }
            lifecycle::Event::Storage(fault) => {
                report.event(Event::Storage(fault));
                report.hurry();
            }
            lifecycle::Event::Completed => {
                report.event(Event::Completed);
                report.hurry();
            }
            lifecycle::Event::Failed(error) => self.failure = Some(error),
            lifecycle::Event::Ignored(error) => tracing::warn!(%error, "the next start finds out again"),
            lifecycle::Event::Closed(Some(error)) => tracing::warn!(%error, "not everything is durable"),
            lifecycle::Event::Closed(None)
            | lifecycle::Event::Piece(..)
            | lifecycle::Event::LossNoted(_)
            // Of a start, which is over.
            | lifecycle::Event::Started(_)
            | lifecycle::Event::Refused(_) => {}
        }
    }

    /// A disk job has ended, or there is room for metadata.
    pub(super) fn handle_ended(&mut self, ended: Ended) {
        let now = self.membership.now();
        self.membership.report.touch();
        self.tell_journal();
        match (ended, &mut self.machine.storage) {
            (Ended::Ran(Some(done)), Some(storage)) => storage.handle_step(now, done),
            (Ended::Done(Some(Done::Store(whole, result))), Some(storage)) => {
                storage.handle_stored(now, whole, result);
            }
            (Ended::Done(Some(Done::Spill(spill, written))), Some(storage)) => {
                storage.handle_spilled(now, spill, written);
            }
            (Ended::Reserved(room), _) => {
                if let Part::Metadata(fetching) = &mut self.part {
                    let len = room.len;
                    fetching.keep(room);
                    self.machine.torrent.handle_metadata_reserved(now, len);
                }
            }
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
}
