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
use crate::sim::storage::{Ended, Found, RealContent, Storage};
use crate::storage::content::{LostPiece, StorageError};
use crate::storage::persistence::{Output, Persistence, STORAGE_RETRY};
use crate::storage::pieces::PartialPiece;

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
            Ok(Found { have, partial, lost_len }) => {
                if let Some(end) = host.life.ends.last_mut() {
                    let before = host.machines.torrent.have();
                    let lost = before.iter_set().filter(|&piece| !have.get(piece));
                    let len_of = |piece| u64::from(common.content.geometry.len_of(piece));
                    (end.lost_len, end.lost_piece_len) = (lost_len, lost.map(len_of).sum());
                }
                host.restart(common, now, &have);
                for PartialPiece { piece, blocks } in &partial {
                    let blocks: Vec<u32> = blocks.iter().map(|block| block.index).collect();
                    host.machines.torrent.handle_restored(now, *piece, &blocks);
                }
                host.machines.announcer.handle_timeout(now);
                if have.is_full() {
                    self.complete_real(id);
                }
                self.settle(id);
            }
            Err(error) if error.may_pass() => {
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
        host.life.ends.push(EndReport { at: now, lost_len: 0, lost_piece_len: 0, age });
        plan(&mut self.queue, now + rest, id, host.life_number(), len);
    }

    /// The timers of the storage.
    pub(super) fn wake_storage(&mut self, id: HostId) {
        let now = self.now;
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        running.persistence.handle_timeout(now);
        self.persist(id);
    }

    /// A piece is whole: it is to be stored.
    pub(super) fn verify_real(&mut self, id: HostId, piece: PieceIndex, block_hashes: bool) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        let is_whole = running.persistence.store(piece, block_hashes);
        assert!(is_whole, "a piece is verified when all of its blocks are in its buffer");
        self.persist(id);
    }

    /// Every piece is there.
    pub(super) fn complete_real(&mut self, id: HostId) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        running.persistence.complete();
        self.persist(id);
    }

    /// Does what the storage has decided.
    fn persist(&mut self, id: HostId) {
        loop {
            let (now, host) = (self.now, &mut self.hosts[id]);
            let HostDisk::Real(storage) = &mut host.disk else { return };
            let Some(output) = storage.running.as_mut().and_then(|running| running.persistence.poll_output())
            else {
                return;
            };
            let have = host.machines.torrent.have();
            let job = match output {
                Output::Store(whole) => storage.store(now, whole),
                Output::Spill(spill) => storage.spill(now, spill),
                Output::Commit => storage.commit(now, have),
                Output::Finish => storage.finish(now, have),
                Output::Storage(fault) => {
                    host.machines.torrent.handle_storage(now, fault);
                    None
                }
                Output::Completed => {
                    assert!(
                        storage.is_whole(),
                        "seed {}: complete, and bytes are missing",
                        self.scenario.seed
                    );
                    self.completed(id);
                    None
                }
            };
            self.await_disk(id, job);
        }
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
        match ended {
            Ended::Stored(piece, result) => {
                let is_good = matches!(result, PieceResult::Good(_));
                host.machines.torrent.handle_piece_result(now, piece, result);
                if is_good {
                    storage.is_stored(now, piece);
                } else {
                    storage.is_false(piece);
                }
            }
            Ended::Spilled(spill, Ok(crcs)) => {
                self.persistence(id, |persistence| persistence.handle_spilled(now, spill, &crcs));
            }
            Ended::Spilled(spill, Err(error)) => {
                let fault = self.fault_of(&error);
                self.persistence(id, |persistence| persistence.handle_not_spilled(now, spill, fault));
            }
            Ended::NotStored(whole, error) => {
                let fault = self.fault_of(&error);
                self.persistence(id, |persistence| persistence.handle_not_stored(now, whole, fault));
            }
            Ended::Committed(pieces, Ok(lost)) => {
                storage.is_durable(&pieces);
                self.pieces_lost(id, &lost);
                self.persistence(id, |persistence| persistence.handle_committed(now, Ok(())));
            }
            Ended::Committed(_, Err(error)) => {
                let fault = self.fault_of(&error);
                self.persistence(id, |persistence| persistence.handle_committed(now, Err(fault)));
            }
            Ended::Finished(Ok(lost)) => {
                self.pieces_lost(id, &lost);
                self.persistence(id, |persistence| persistence.handle_finished(now, Ok(())));
            }
            Ended::Finished(Err(error)) => {
                let fault = self.fault_of(&error);
                self.persistence(id, |persistence| persistence.handle_finished(now, Err(fault)));
            }
        }
        self.persist(id);
        self.settle(id);
    }

    fn persistence(&mut self, id: HostId, tell: impl FnOnce(&mut Persistence<Vec<u8>>)) {
        if let HostDisk::Real(storage) = &mut self.hosts[id].disk
            && let Some(running) = &mut storage.running
        {
            tell(&mut running.persistence);
        }
    }

    /// Pieces that are not there any more are fetched again, if there is something to fetch anyway.
    fn pieces_lost(&mut self, id: HostId, lost: &[LostPiece]) {
        if lost.is_empty() {
            return;
        }
        let (now, host) = (self.now, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let Some(running) = &mut storage.running else { return };
        let is_fetching = running.persistence.handle_lost();
        let pieces: Vec<PieceIndex> = lost.iter().map(|lost| lost.piece).collect();
        storage.lose(now, &pieces);
        host.life.lost_count += pieces.len();
        let torrent = &mut host.machines.torrent;
        torrent.handle_lost(now, pieces.clone(), is_fetching);
        torrent.handle_loss_noted(now, &pieces);
    }

    fn fault_of(&self, error: &StorageError) -> StorageFault {
        assert!(error.may_pass(), "seed {}: not to be waited out: {error}", self.scenario.seed);
        StorageFault::Failed(error.to_string())
    }

    /// A block is to be sent: it is read, and found right or lost, or the connection ends.
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
            Err(lost) if lost.is_empty() => {
                let fault = StorageFault::Failed("a block cannot be read".to_owned());
                self.persistence(id, |persistence| persistence.handle_read_failed(now, fault));
                self.persist(id);
                self.close(id, conn);
                self.hosts[id].machines.torrent.handle_disconnected(now, conn);
            }
            Err(lost) => {
                self.pieces_lost(id, &lost);
                let host = &mut self.hosts[id];
                if let Some(wire) = host.wires.get_mut(&conn) {
                    wire.not_sent(block);
                    host.machines.torrent.handle_blocks_unsent(now, conn, &[block]);
                }
            }
        }
    }
}
