//! Hosts with real disks: they start, store what comes, wait for disks that fail, and go down.
//!
//! It does with the production storage what the engine does with it; what is decided, the machines
//! decide.

use std::sync::Arc;

use super::{Event, Swarm, disk_time};
use crate::proto::block::Block;
use crate::proto::piece::PieceResult;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::ConnId;
use crate::sim::content::Tag;
use crate::sim::host::{Common, HostDisk};
use crate::sim::network::HostId;
use crate::sim::queue::Queue;
use crate::sim::scenario::{EndReport, Scenario};
use crate::sim::storage::{Ended, Found, RealContent, Storage};
use crate::storage::lifecycle::{Event as StorageEvent, Job, StepDone};

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
        let (now, host) = (self.now, &mut self.hosts[id]);
        let life = host.life_number();
        let HostDisk::Real(storage) = &mut host.disk else { return };
        let started = storage.start(now);
        if storage.is_down() {
            return self.end(id);
        }
        let Found { lifecycle, partial, lost_len } = match started {
            Ok(found) => found,
            Err(retry_at) => {
                let happening = Happening::Start;
                return self.queue.push(retry_at, Event::Outage { host: id, life, happening });
            }
        };
        if let Some(end) = host.life.ends.last_mut() {
            let before = host.machine.torrent.have();
            let lost = before.iter_set().filter(|&piece| !lifecycle.have().get(piece));
            let len_of = |piece| u64::from(host.common.content.geometry.len_of(piece));
            (end.lost_len, end.lost_piece_len) = (lost_len, lost.map(len_of).sum());
        }
        host.restart(now, lifecycle, &partial);
        host.machine.handle_timeout(now);
        self.tell_session(id, true);
        self.settle(id);
    }

    /// A planned end: the host leaves in order first, or goes down.
    fn depart_or_end(&mut self, id: HostId) {
        self.go_offline(id);
        let HostDisk::Real(storage) = &mut self.hosts[id].disk else { return };
        if !storage.leave() {
            return self.end(id);
        }
        self.hosts[id].machine.handle_leave(self.now);
        self.settle(id);
    }

    fn go_offline(&mut self, id: HostId) {
        let conns: Vec<ConnId> = self.hosts[id].wires.keys().copied().collect();
        conns.into_iter().for_each(|conn| self.close(id, conn));
        let (now, host) = (self.now, &mut self.hosts[id]);
        if host.life.online {
            host.life.past = host.traffic(now);
        }
        let was_online = std::mem::take(&mut host.life.online);
        host.wake_at = None;
        if was_online {
            self.tell_session(id, false);
        }
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

    /// Does what the storage asks for.
    pub(super) fn perform(&mut self, id: HostId, job: Job<Vec<u8>>) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let (HostDisk::Real(storage), Some(lifecycle)) = (&mut host.disk, &host.machine.storage) else {
            return;
        };
        if let Some(ended) = storage.perform(now, job, lifecycle.have()) {
            self.await_disk(id, ended);
        }
    }

    /// Looks at what happened to the content.
    pub(super) fn storage_event(&mut self, id: HostId, event: StorageEvent) {
        let (seed, host) = (self.scenario.seed, &mut self.hosts[id]);
        let (HostDisk::Real(storage), Some(lifecycle)) = (&mut host.disk, &host.machine.storage) else {
            return;
        };
        match event {
            StorageEvent::Lost { lost, is_fetching: _ } => {
                storage.are_lost(&lost);
                host.life.lost_count += lost.len();
            }
            StorageEvent::Completed => {
                assert!(storage.is_whole(), "seed {seed}: complete, and bytes are missing");
                self.completed(id);
            }
            StorageEvent::Closed(error) => {
                storage.closed(error.as_ref(), lifecycle.have());
                self.end(id);
            }
            // Of an ignored error the next start finds out.
            StorageEvent::Piece(..)
            | StorageEvent::LossNoted(_)
            | StorageEvent::Storage(_)
            | StorageEvent::Ignored(_) => {}
            StorageEvent::Failed(_) if storage.is_down() || storage.is_leaving() => {}
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
        let at = now + disk_time(u64::from(host.common.content.geometry.piece_len())) + delay;
        let happening = Happening::Done(Box::new(ended));
        self.queue.push(at, Event::Outage { host: id, life, happening });
    }

    fn storage_done(&mut self, id: HostId, ended: Ended) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let (HostDisk::Real(storage), Some(lifecycle)) = (&mut host.disk, &mut host.machine.storage) else {
            return;
        };
        match ended {
            Ended::Stored(whole, result) => {
                match &result {
                    Ok(PieceResult::Good(_)) => storage.is_stored(now, whole.piece),
                    Ok(PieceResult::Bad(_) | PieceResult::Lost) => storage.is_dropped(whole.piece),
                    Err(_) => {}
                }
                lifecycle.handle_stored(now, whole, result);
            }
            Ended::Spilled(spill, written) => lifecycle.handle_spilled(now, spill, written),
            Ended::Ran(done, pieces) => {
                if let StepDone::Committed(Ok(_)) = done {
                    storage.is_durable(&pieces, lifecycle.have());
                }
                lifecycle.handle_step(now, done);
            }
        }
        self.settle(id);
    }

    /// A block is to be sent: it is read, and found right or lost, or the connection ends.
    pub(super) fn read_real(&mut self, id: HostId, conn: ConnId, block: Block) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        let life = host.life_number();
        let (HostDisk::Real(storage), Some(lifecycle)) = (&mut host.disk, &mut host.machine.storage) else {
            return;
        };
        match storage.read(now, block) {
            Ok((tag, Duration::ZERO)) => self.send_block(id, conn, block, tag),
            Ok((tag, delay)) => {
                let happening = Happening::Read(conn, block, tag);
                self.queue.push(now + delay, Event::Outage { host: id, life, happening });
            }
            Err(lost) if lost.is_empty() => {
                let error = "a block cannot be read".to_owned();
                lifecycle.handle_read_failed(now, error);
                self.close(id, conn);
                self.hosts[id].machine.torrent.handle_disconnected(now, conn);
            }
            Err(lost) => {
                lifecycle.handle_lost(lost);
                if let Some(wire) = host.wires.get_mut(&conn) {
                    wire.oracle.not_sent(block);
                    host.machine.torrent.handle_blocks_unsent(now, conn, &[block]);
                }
            }
        }
    }
}
