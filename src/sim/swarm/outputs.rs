//! What the machines of a host decide, done.

use std::net::SocketAddr;

use super::{Event, PORT, Swarm, disk_time};
use crate::proto::block::Block;
use crate::proto::torrent::event::{
    ConnId, DisconnectReason, Event as TorrentEvent, Output as TorrentOutput,
};
use crate::proto::wire::message::Message;
use crate::sim::content::Tag;
use crate::sim::host::HostDisk;
use crate::sim::network::{HostId, Parcel};
use crate::sim::scenario::Role;
use crate::transfer::Output;

impl Swarm {
    pub(super) fn act(&mut self, id: HostId, output: Output<Vec<u8>>) {
        match output {
            Output::Torrent(output) => self.act_of_torrent(id, output),
            Output::Discovery(output) => self.discover(id, output),
            Output::Job(job) => self.perform(id, job),
            Output::Storage(event) => self.storage_event(id, event),
            Output::Metadata(info) => {
                let info = info.expect("the metadata of a swarm describes its content");
                self.hosts[id].begin_content(self.now, &info);
            }
        }
    }

    fn act_of_torrent(&mut self, id: HostId, output: TorrentOutput) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        match output {
            TorrentOutput::Send(conn, message) => {
                let Some(wire) = host.wires.get_mut(&conn) else { return };
                if let Err(fault) = wire.oracle.may_say(&message) {
                    panic!("seed {}: {} says {message:?}: {fault}", self.scenario.seed, host.addr);
                }
                let said = host.says(conn, message);
                said.into_iter().for_each(|message| self.say(id, conn, message));
            }
            TorrentOutput::SendBlock(conn, block) => {
                let Some(wire) = host.wires.get_mut(&conn) else { return };
                assert!(wire.oracle.may_send(block), "{} sends {block:?} unasked", host.addr);
                if let HostDisk::Real(_) = host.disk {
                    return self.read_real(id, conn, block);
                }
                let tag = host.read(block, self.scenario.poison);
                self.send_block(id, conn, block, tag);
            }
            TorrentOutput::Disconnect(conn, reason) => {
                host.life.anew_count += usize::from(reason == DisconnectReason::Anew);
                self.close(id, conn);
                self.hosts[id].machine.torrent.handle_disconnected(now, conn);
            }
            TorrentOutput::Dial(addr) => {
                // One round trip for the connection, one for the handshakes.
                let at = now + self.scenario.latency * 4;
                let life = host.life_number();
                self.queue.push(at, Event::Dialled { host: id, life, addr });
            }
            TorrentOutput::VerifyPiece { piece, block_hashes } => {
                let len = u64::from(host.common.content.geometry.len_of(piece));
                let at = now + disk_time(len);
                self.queue.push(at, Event::Stored { host: id, piece, block_hashes });
            }
            TorrentOutput::SendMetadata(conn, message) => {
                self.say(id, conn, message);
                self.hosts[id].machine.torrent.handle_metadata_sent(now, conn, 1);
            }
            // There is room for the metadata of one torrent.
            TorrentOutput::ReserveMetadata(len) => host.machine.torrent.handle_metadata_reserved(now, len),
            // No host has a DHT node that others could ask.
            TorrentOutput::ReleaseMetadata(_) | TorrentOutput::DhtNode(_) | TorrentOutput::Metadata(_) => {}
            TorrentOutput::DropPiece(piece) => {
                if let HostDisk::Tags(disk) = &mut host.disk {
                    disk.drop_piece(piece);
                }
            }
            TorrentOutput::Event(event) => self.notice(id, event),
        }
    }

    /// Puts a message on the wire.
    pub(super) fn say(&mut self, id: HostId, conn: ConnId, message: Message) {
        if let Some(wire) = self.hosts[id].wires.get(&conn) {
            let next = self.network.send(self.now, wire.link, wire.end, Parcel::Message(message));
            self.schedule(next);
        }
    }

    fn notice(&mut self, id: HostId, event: TorrentEvent) {
        match event {
            TorrentEvent::Completed => self.completed(id),
            TorrentEvent::PeerBanned(addr) => {
                let listening = SocketAddr::new(addr.ip(), PORT);
                let banned = self.by_addr[&listening];
                let role = self.hosts[banned].role;
                assert_eq!(role, Role::Poisoner, "seed {}: {addr} did not lie", self.scenario.seed);
                self.hosts[id].banned.insert(listening);
            }
            TorrentEvent::PeerDisconnected(addr, Some(DisconnectReason::Protocol(offence))) => {
                let seed = self.scenario.seed;
                panic!("seed {seed}: {} says that {addr} broke the protocol: {offence}", self.hosts[id].addr);
            }
            TorrentEvent::PieceCompleted(piece) => {
                if self.scenario.variations.foreign_peers {
                    let conns: Vec<ConnId> = self.hosts[id].wires.keys().copied().collect();
                    conns.into_iter().for_each(|conn| self.say(id, conn, Message::Have(piece)));
                }
            }
            // Looked at after every event.
            TorrentEvent::MetadataTooLong(..)
            | TorrentEvent::PeerConnected(_)
            | TorrentEvent::PeerDisconnected(..)
            | TorrentEvent::PieceFailed(_) => {}
        }
    }

    /// A host has all of it.
    pub(super) fn completed(&mut self, id: HostId) {
        let (now, host) = (self.now, &mut self.hosts[id]);
        host.life.completed_at.get_or_insert(now);
        if self.scenario.variations.complete_leave && host.role == Role::Peer {
            self.queue.push(now, Event::Leave(id));
        }
    }

    pub(super) fn send_block(&mut self, id: HostId, conn: ConnId, block: Block, tag: Tag) {
        if let Some(wire) = self.hosts[id].wires.get(&conn) {
            let next = self.network.send(self.now, wire.link, wire.end, Parcel::Block(block, tag));
            self.schedule(next);
        }
    }
}
