//! Hosts with real disks: they start, store what comes, wait for disks that fail, and go down.
//!
//! It does with the production storage what the engine does with it; what is decided, the machines decide.

use std::sync::Arc;

use super::{Event, Swarm, disk_time};
use crate::proto::block::Block;
use crate::proto::piece::PieceIndex;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{ConnId, PieceResult, StorageFault};
use crate::sim::content::Tag;
use crate::sim::host::{Common, HostDisk};
use crate::sim::network::HostId;
use crate::sim::queue::Queue;
use crate::sim::scenario::{EndReport, Scenario};
use crate::sim::storage::{Completion, Ended, RealContent, Storage};
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::journal::JournalError;
use crate::storage::pieces::{STORAGE_RETRY, WholePiece};

/// What happens to one of them in one of its lives.
#[derive(Debug)]
pub(super) enum Happening {
    Start,
    End,
    /// The disk is done with something.
    Done(Box<Ended>),
    /// The disk read a block, late.
    Read(ConnId, Block, Tag),
}

impl Happening {
    /// For the trace.
    pub(super) fn kind(&self) -> u64 {
        match self {
            Self::Start => 0,
            Self::End => 1,
            Self::Done(_) => 2,
            Self::Read(..) => 3,
        }
    }
}

/// The bytes of a swarm's content, if anybody has a real disk.
pub(super) struct RealContents(Option<Arc<RealContent>>);

impl RealContents {
    pub(super) fn new(scenario: &Scenario, common: Common) -> Self {
        let is_real = !scenario.machines.is_empty();
        Self(is_real.then(|| Arc::new(RealContent::new(common.content, common.infohash))))
    }

    /// The disks of a host, if they are real.
    pub(super) fn storage(&self, scenario: &Scenario, id: HostId) -> Option<Storage> {
        let plan = scenario.machines.get(id.checked_sub(scenario.seeds)?)?;
        self.0
            .as_ref()
            .map(|content| Storage::new(Arc::clone(content), plan, scenario.seed ^ (id as u64) << 32))
    }
}

/// The next life of a host: its start, and its end if that is planned.
pub(super) fn plan(queue: &mut Queue<Event>, at: Instant, host: HostId, life: usize, len: Option<Duration>) {
    queue.push(at, Event::Outage { host, life, happening: Happening::Start });
    if let Some(len) = len {
        queue.push(at + len, Event::Outage { host, life, happening: Happening::End });
    }
}

impl Swarm {
    pub(super) fn outage(&mut self, id: HostId, life: usize, happening: Happening) {
        if life != self.hosts[id].life_number() {
            return;
        }
        match happening {
            Happening::Start => self.start(id),
            Happening::End => self.end(id),
            Happening::Done(ended) => self.storage_done(id, *ended),
            Happening::Read(conn, block, tag) => self.send_block(id, conn, block, tag),
        }
    }

    fn start(&mut self, id: HostId) {
        let (now, common, host) = (self.now, self.common, &mut self.hosts[id]);
        let life = host.life_number();
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let started = storage.start(now);
        if storage.is_down() {
            return self.end(id);
        }
        match started {
            Ok(have) => {
                if let Some(end) = host.life.ends.last_mut() {
                    let before = host.machines.torrent.have();
                    let lost = before.iter_set().filter(|&piece| !have.get(piece));
                    end.lost_len = lost.map(|piece| u64::from(common.content.geometry.len_of(piece))).sum();
                }
                host.restart(common, now, &have);
                host.machines.announcer.handle_timeout(now);
                if have.is_full() {
                    self.finish_real(id);
                }
                self.settle(id);
            }
            Err(JournalError::Storage(error)) if error.may_pass() => {
                let happening = Happening::Start;
                self.queue.push(now + STORAGE_RETRY, Event::Outage { host: id, life, happening });
            }
            Err(error) => panic!("seed {}: a start fails: {error}", self.scenario.seed),
        }
    }

    fn end(&mut self, id: HostId) {
        let conns: Vec<ConnId> = self.hosts[id].wires.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(id, conn));
        let (now, host) = (self.now, &mut self.hosts[id]);
        if host.life.online {
            host.life.past = host.traffic(now);
        }
        host.life.online = false;
        host.wake_at = None;
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let (rest, oldest) = storage.end();
        let age = oldest.map_or(Duration::ZERO, |at| now - at);
        let len = storage.life_len();
        host.life.ends.push(EndReport { at: now, lost_len: 0, age });
        plan(&mut self.queue, now + rest, id, host.life_number(), len);
    }

    /// The timers of the storage.
    pub(super) fn wake_storage(&mut self, id: HostId) {
        let now = self.now;
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        let to_finish = running.completion == Completion::Finishing;
        if let Some(again) = running.pieces.retry(now) {
            if again.is_empty() && !to_finish {
                self.recovered(id);
            }
            again.into_iter().for_each(|whole| self.store_real(id, whole));
            if to_finish {
                self.finish_real(id);
            }
        }
        self.commit_real(id);
    }

    pub(super) fn verify_real(&mut self, id: HostId, piece: PieceIndex, block_hashes: bool) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let whole = storage.take(piece, block_hashes);
        self.store_real(id, whole.expect("a piece is verified when all of its blocks are in its buffer"));
    }

    fn store_real(&mut self, id: HostId, whole: WholePiece<Vec<u8>>) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let job = storage.store(self.now, whole);
        self.await_disk(id, job);
    }

    fn commit_real(&mut self, id: HostId) {
        let host = &mut self.hosts[id];
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let job = storage.commit(self.now, host.machines.torrent.have());
        self.await_disk(id, job);
    }

    pub(super) fn finish_real(&mut self, id: HostId) {
        let host = &mut self.hosts[id];
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let job = storage.finish(self.now, host.machines.torrent.have());
        self.await_disk(id, job);
    }

    fn await_disk(&mut self, id: HostId, job: Option<(Ended, Duration)>) {
        let Some((ended, delay)) = job else { return };
        let (now, host) = (self.now, &self.hosts[id]);
        let life = host.life_number();
        if matches!(&host.disk, HostDisk::Real(storage) if storage.is_down()) {
            // In the middle of this.
            return self.queue.push(now, Event::Outage { host: id, life, happening: Happening::End });
        }
        let at = now + disk_time(u64::from(self.common.content.geometry.piece_len())) + delay;
        let happening = Happening::Done(Box::new(ended));
        self.queue.push(at, Event::Outage { host: id, life, happening });
    }

    fn storage_done(&mut self, id: HostId, ended: Ended) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let Some(running) = &mut storage.running else { return };
        match ended {
            Ended::Stored(piece, result) => {
                running.pieces.stored(piece);
                let is_good = matches!(result, PieceResult::Good(_));
                if is_good {
                    storage.is_stored(now, piece);
                }
                host.machines.torrent.handle_piece_result(now, piece, result);
                if is_good {
                    self.commit_real(id);
                    self.recovered(id);
                }
            }
            Ended::NotStored(whole, error) => {
                running.pieces.stored(whole.piece);
                running.pieces.park(whole);
                self.write_failed(id, &error);
            }
            Ended::Committed(pieces, committed) => {
                running.durability.end(now, committed.is_ok());
                match committed {
                    Ok(lost) => {
                        storage.is_durable(&pieces);
                        self.not_kept(id, &lost);
                    }
                    Err(error) => self.write_failed(id, &error),
                }
            }
            Ended::Finished(Ok(lost)) => {
                self.recovered(id);
                self.not_kept(id, &lost);
                self.finished(id);
            }
            Ended::Finished(Err(error)) => self.write_failed(id, &error),
        }
        self.settle(id);
    }

    fn finished(&mut self, id: HostId) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        if running.completion == Completion::Finishing {
            running.completion = Completion::Finished;
            assert!(storage.is_whole(), "seed {}: complete, and bytes are missing", self.scenario.seed);
            self.completed(id);
        }
    }

    /// Pieces that the disk did not keep, although it took them, are fetched again.
    fn not_kept(&mut self, id: HostId, lost: &[LostPiece]) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        if let Some(running) = &mut storage.running
            && !lost.is_empty()
        {
            running.completion = Completion::Missing;
            self.pieces_lost(id, lost);
        }
    }

    fn pieces_lost(&mut self, id: HostId, lost: &[LostPiece]) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let pieces: Vec<PieceIndex> = lost.iter().map(|lost| lost.piece).collect();
        storage.lose(now, &pieces);
        for piece in pieces {
            host.machines.torrent.handle_piece_result(now, piece, PieceResult::Lost);
        }
    }

    fn write_failed(&mut self, id: HostId, error: &StorageError) {
        assert!(error.may_pass(), "seed {}: not to be waited out: {error}", self.scenario.seed);
        self.fault(id, error.to_string());
    }

    fn fault(&mut self, id: HostId, text: String) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let fault = StorageFault::Failed(text);
        if let Some(running) = &mut storage.running
            && running.pieces.fail(now, fault.clone())
        {
            host.machines.torrent.handle_storage(now, Some(fault));
        }
    }

    fn recovered(&mut self, id: HostId) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        if storage.running.as_mut().is_some_and(|running| running.pieces.recover()) {
            host.machines.torrent.handle_storage(now, None);
        }
    }

    /// A block is to be sent: it is read, and found right, or the connection ends.
    pub(super) fn read_real(&mut self, id: HostId, conn: ConnId, block: Block) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let life = host.life_number();
        let HostDisk::Real(storage) = &mut host.disk else { return };
        match storage.read(now, block) {
            Ok((tag, Duration::ZERO)) => self.send_block(id, conn, block, tag),
            Ok((tag, delay)) => {
                let happening = Happening::Read(conn, block, tag);
                self.queue.push(now + delay, Event::Outage { host: id, life, happening });
            }
            Err(lost) => {
                if lost.is_empty() {
                    self.fault(id, "a block cannot be read".to_owned());
                } else {
                    self.pieces_lost(id, &lost);
                }
                self.close(id, conn);
                self.hosts[id].machines.torrent.handle_disconnected(now, conn);
            }
        }
    }
}
