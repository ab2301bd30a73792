//! Hosts with real disks: they start, store what comes, wait for disks that fail, and go down.
//!
//! It does with the production storage what the engine does with it; what is decided, the machines
//! decide.

use std::sync::Arc;

use super::{Event, Swarm, disk_time};
use crate::proto::block::Block;
use crate::proto::piece::{PieceIndex, PieceResult};
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::ConnId;
use crate::sim::content::Tag;
use crate::sim::host::{Common, HostDisk};
use crate::sim::network::HostId;
use crate::sim::queue::Queue;
use crate::sim::scenario::{EndReport, Scenario};
use crate::sim::storage::{Ended, Found, RealContent, Storage};
use crate::storage::lifecycle::{Event as StorageEvent, Lifecycle, Output, StepDone};
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
    pub(super) fn new(scenario: &Scenario, common: &Common) -> Self {
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
            Happening::End => self.depart_or_end(id),
            Happening::Done(ended) => self.storage_done(id, *ended),
            Happening::Read(conn, block, tag) => self.send_block(id, conn, block, tag),
        }
    }

    fn start(&mut self, id: HostId) {
        let (now, common, host) = (self.now, &self.common, &mut self.hosts[id]);
        let life = host.life_number();
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let started = storage.start(now);
        if storage.is_down() {
            return self.end(id);
        }
        let Found { have, partial, lost_len } = match started {
            Ok(found) => found,
            Err(retry_at) => {
                let happening = Happening::Start;
                return self.queue.push(retry_at, Event::Outage { host: id, life, happening });
            }
        };
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
        self.begin_discovery(id);
        self.run_storage(id);
        self.settle(id);
    }

    /// A planned end: the host leaves in order first, or goes down.
    fn depart_or_end(&mut self, id: HostId) {
        self.go_offline(id);
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        if storage.leave() { self.run_storage(id) } else { self.end(id) }
    }

    fn go_offline(&mut self, id: HostId) {
        let conns: Vec<ConnId> = self.hosts[id].wires.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(id, conn));
        let (now, host) = (self.now, &mut self.hosts[id]);
        if host.life.online {
            host.life.past = host.traffic(now);
        }
        host.life.online = false;
        host.wake_at = None;
    }

    fn end(&mut self, id: HostId) {
        self.go_offline(id);
        let (now, host) = (self.now, &mut self.hosts[id]);
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
        self.lifecycle(id, |lifecycle| lifecycle.handle_timeout(now));
    }

    /// A piece is whole: it is to be stored.
    pub(super) fn verify_real(&mut self, id: HostId, piece: PieceIndex, block_hashes: bool) {
        self.lifecycle(id, |lifecycle| lifecycle.handle_whole(piece, block_hashes));
    }

    /// Every piece is there.
    pub(super) fn complete_real(&mut self, id: HostId) {
        self.lifecycle(id, Lifecycle::handle_complete);
    }

    /// Tells the storage something, and does what it decides.
    fn lifecycle(&mut self, id: HostId, tell: impl FnOnce(&mut Lifecycle<Vec<u8>>)) {
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        let Some(running) = &mut storage.running else { return };
        tell(&mut running.lifecycle);
        self.run_storage(id);
    }

    /// Does what the storage has decided.
    fn run_storage(&mut self, id: HostId) {
        loop {
            let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
            let output = storage.running.as_mut().and_then(|running| running.lifecycle.poll_output());
            match output {
                Some(Output::Job(job)) => {
                    if let Some(ended) = storage.perform(self.now, job) {
                        self.await_disk(id, ended);
                    }
                }
                Some(Output::Event(event)) => self.storage_event(id, event),
                None => return,
            }
        }
    }

    /// Tells the torrent what happened to its content, unless it leaves.
    fn storage_event(&mut self, id: HostId, event: StorageEvent) {
        let (now, seed, host) = (self.now, self.scenario.seed, &mut self.hosts[id]);
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let (is_leaving, torrent) = (storage.is_leaving(), &mut host.machines.torrent);
        match event {
            StorageEvent::Piece(piece, result) => {
                match &result {
                    PieceResult::Good(_) => storage.is_stored(now, piece),
                    PieceResult::Bad(_) | PieceResult::Lost => storage.is_false(piece),
                }
                if !is_leaving {
                    torrent.handle_piece_result(now, piece, result);
                }
            }
            StorageEvent::Lost { lost, is_fetching } => {
                storage.are_lost(&lost);
                host.life.lost_count += lost.len();
                if !is_leaving {
                    let pieces = lost.iter().map(|lost| lost.piece).collect();
                    torrent.handle_lost(now, pieces, is_fetching);
                }
            }
            StorageEvent::LossNoted(_) | StorageEvent::Storage(_) if is_leaving => {}
            StorageEvent::LossNoted(pieces) => torrent.handle_loss_noted(now, &pieces),
            StorageEvent::Storage(fault) => torrent.handle_storage(now, fault.is_some()),
            StorageEvent::Completed => {
                assert!(storage.is_whole(), "seed {seed}: complete, and bytes are missing");
                self.completed(id);
            }
            // The next start finds out.
            StorageEvent::Ignored(_) => {}
            StorageEvent::Closed(error) => {
                storage.closed(error.as_ref());
                self.end(id);
            }
            StorageEvent::Failed(_) if storage.is_down() || is_leaving => {}
            StorageEvent::Started(_) | StorageEvent::Refused(_) | StorageEvent::Failed(_) => {
                panic!("seed {seed}: {event:?}")
            }
        }
    }

    fn await_disk(&mut self, id: HostId, (ended, delay): (Ended, Duration)) {
        let (now, host) = (self.now, &self.hosts[id]);
        let life = host.life_number();
        if matches!(&host.disk, HostDisk::Real(storage) if storage.is_down()) {
            // In the middle of this; a host that was leaving does not come so far.
            return self.queue.push(now, Event::Outage { host: id, life, happening: Happening::End });
        }
        let at = now + disk_time(u64::from(self.common.content.geometry.piece_len())) + delay;
        let happening = Happening::Done(Box::new(ended));
        self.queue.push(at, Event::Outage { host: id, life, happening });
    }

    fn storage_done(&mut self, id: HostId, ended: Ended) {
        let now = self.now;
        if let Ended::Ran(StepDone::Committed(Ok(_)), pieces) = &ended
            && let HostDisk::Real(storage) = &mut self.hosts[id].disk
        {
            storage.is_durable(pieces);
        }
        self.lifecycle(id, |lifecycle| match ended {
            Ended::Stored(whole, result) => lifecycle.handle_stored(now, whole, result),
            Ended::Spilled(spill, written) => lifecycle.handle_spilled(now, spill, written),
            Ended::Ran(done, _) => lifecycle.handle_step(now, done),
        });
        if self.hosts[id].life.online {
            self.settle(id);
        }
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
                let error = "a block cannot be read".to_owned();
                self.lifecycle(id, |lifecycle| lifecycle.handle_read_failed(now, error));
                self.close(id, conn);
                self.hosts[id].machines.torrent.handle_disconnected(now, conn);
            }
            Err(lost) => {
                self.lifecycle(id, |lifecycle| lifecycle.handle_lost(lost));
                let host = &mut self.hosts[id];
                if let Some(wire) = host.wires.get_mut(&conn) {
                    wire.not_sent(block);
                    host.machines.torrent.handle_blocks_unsent(now, conn, &[block]);
                }
            }
        }
    }
}
