//! One simulated host: the production machines of one torrent, its disk, and what it is known to
//! have said.
//!
//! Hosts are honest unless their role says otherwise; a role only changes what leaves the host or
//! what its blocks hold, never what its machines decide.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::content::{Content, Disk, Tag};
use super::network::LinkId;
use super::oracle::ProtocolOracle;
use super::scenario::{EndReport, Role, Variations};
use super::storage::Storage;
use super::super_seed::SuperSeed;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::discovery::Discovery;
use crate::proto::discovery::event::{Config, Hints};
use crate::proto::infohash::InfoHash;
use crate::proto::metainfo::Info;
use crate::proto::peer_id::PeerId;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{ConnId, Settings, TrafficSnapshot};
use crate::proto::torrent::share_goal::ShareGoal;
use crate::proto::wire::message::Message;
use crate::storage::lifecycle::Lifecycle;
use crate::storage::pieces::PartialPiece;
use crate::transfer::Transfer;

use super::tracker::URL;

/// Connections of one host at most.
const CONNECTION_MAX: usize = 60;
/// Bytes of the metadata that magnets fetch: two pieces and a part of one.
const METADATA_LEN: usize = 40_000;
/// Peers asked for in an announce.
const NUMWANT: u32 = 50;

/// One host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) common: Arc<Common>,
    pub(super) role: Role,
    pub(super) addr: SocketAddr,
    pub(super) peer_id: PeerId,
    pub(super) machine: Transfer<Vec<u8>>,
    pub(super) disk: HostDisk,
    pub(super) wires: BTreeMap<ConnId, Wire>,
    pub(super) life: Life,
    pub(super) banned: BTreeSet<SocketAddr>,
    /// When the swarm will wake it next.
    pub(super) wake_at: Option<Instant>,
    /// A seed that super-seeds.
    pub(super) super_seed: Option<SuperSeed>,
    /// Lookups in the DHT so far.
    pub(super) lookup_count: u64,
    conn_count: u32,
    /// Decides which blocks of a poisoner are false, and what they hold.
    rng: Rng,
}

/// Where a host keeps the content.
#[derive(Debug)]
pub(super) enum HostDisk {
    /// A perfect disk that keeps tags.
    Tags(Disk),
    /// A real one, with the bytes.
    Real(Box<Storage>),
}

/// When what happened to it.
#[derive(Clone, Debug)]
pub(super) struct Life {
    pub(super) joined_at: Instant,
    pub(super) completed_at: Option<Instant>,
    pub(super) online: bool,
    /// What passed in earlier lives.
    pub(super) past: TrafficSnapshot,
    /// Pieces that its disk lost.
    pub(super) lost_count: usize,
    /// Connections closed to greet the other end anew.
    pub(super) anew_count: usize,
    /// Each time it went down.
    pub(super) ends: Vec<EndReport>,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) link: LinkId,
    pub(super) end: usize,
    /// What the host may say on it.
    pub(super) oracle: ProtocolOracle,
}

/// What all hosts of a swarm share.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) content: Content,
    pub(super) infohash: InfoHash,
    /// What magnets fetch; empty without them.
    pub(super) metadata: Bytes,
    pub(super) variations: Variations,
}

impl Common {
    /// The facts of a scenario's swarm, of its torrent of this number.
    pub(super) fn new(content: Content, variations: Variations, torrent: u8) -> Self {
        if !variations.magnets {
            let infohash = InfoHash([7 + torrent; 20]);
            return Self { content, infohash, metadata: Bytes::new(), variations };
        }
        let metadata = metadata(&content);
        Self { content, infohash: InfoHash::of(&metadata), metadata, variations }
    }
}

/// An info dictionary of [`METADATA_LEN`] bytes: with a filling behind the hashes of pieces, all of
/// them random.
fn metadata(content: &Content) -> Bytes {
    let geometry = content.geometry;
    let (total_len, piece_len) = (geometry.total_len(), geometry.piece_len());
    let hashes_len = geometry.piece_count() as usize * 20;
    let mut metadata =
        format!("d6:lengthi{total_len}e4:name1:n12:piece lengthi{piece_len}e6:pieces{hashes_len}:")
            .into_bytes();
    // A length of five digits, and the end.
    let filling_len = METADATA_LEN - metadata.len() - hashes_len - "7:filling".len() - "12345:e".len();
    let mut random = vec![0; hashes_len + filling_len];
    Rng::from_number(content.seed).fill(&mut random);
    let (hashes, filling) = random.split_at(hashes_len);
    metadata.extend_from_slice(hashes);
    metadata.extend_from_slice(format!("7:filling{filling_len:05}:").as_bytes());
    metadata.extend_from_slice(filling);
    metadata.push(b'e');
    metadata.into()
}

/// The machine of a peer that has `good`, and with `is_magnet` knows only the infohash.
fn machine(
    common: &Common,
    (addr, peer_id): (SocketAddr, PeerId),
    good: Bitfield,
    is_magnet: bool,
    content: Option<(Lifecycle<Vec<u8>>, &[PartialPiece])>,
    rng: &mut Rng,
    now: Instant,
) -> Transfer<Vec<u8>> {
    let settings = settings(common, addr, peer_id);
    let torrent_rng = rng.fork("torrent");
    let torrent = if is_magnet {
        Torrent::without_metadata(settings, torrent_rng, now)
    } else {
        let geometry = common.content.geometry;
        let wanted = Bitfield::full(geometry.piece_count());
        Torrent::new(settings, geometry, good, wanted, torrent_rng, now)
    };
    let variations = &common.variations;
    let config = Config {
        infohash: common.infohash,
        peer_id,
        port: addr.port(),
        numwant: NUMWANT,
        private: false,
        dht: variations.dht,
        lsd: variations.lsd,
        hints: Hints { tiers: vec![vec![URL.to_owned()]], ..Hints::default() },
    };
    let discovery = Discovery::new(config, torrent.progress(), rng.fork("announcer"), now);
    let (storage, partial) = content.map_or((None, &[][..]), |(storage, partial)| (Some(storage), partial));
    Transfer::new(torrent, discovery, storage, partial, ShareGoal::default(), now)
}

impl Host {
    /// A host that comes at `joined_at`, with a real disk or a perfect one.
    pub(super) fn new(
        common: Arc<Common>,
        role: Role,
        addr: SocketAddr,
        joined_at: Instant,
        storage: Option<Storage>,
        mut rng: Rng,
    ) -> Self {
        let piece_count = common.content.geometry.piece_count();
        let (good, complete) = match role {
            Role::Seed | Role::Poisoner => (Bitfield::full(piece_count), true),
            Role::Peer | Role::FreeRider => (Bitfield::new(piece_count), false),
        };
        let peer_id = PeerId::generate(&mut rng);
        let is_magnet = common.variations.magnets && role == Role::Peer && storage.is_none();
        let of = (addr, peer_id);
        let machine = machine(&common, of, good.clone(), is_magnet, None, &mut rng, joined_at);
        let disk = match storage {
            Some(storage) => HostDisk::Real(Box::new(storage)),
            None => HostDisk::Tags(Disk::new(common.content, good)),
        };
        let life = Life {
            joined_at,
            completed_at: complete.then_some(joined_at),
            online: false,
            past: TrafficSnapshot::default(),
            lost_count: 0,
            anew_count: 0,
            ends: Vec::new(),
        };
        Self {
            common,
            role,
            addr,
            peer_id,
            machine,
            disk,
            wires: BTreeMap::new(),
            life,
            banned: BTreeSet::new(),
            wake_at: None,
            super_seed: None,
            lookup_count: 0,
            conn_count: 0,
            rng,
        }
    }

    /// Begins anew with what is there.
    pub(super) fn restart(&mut self, now: Instant, lifecycle: Lifecycle<Vec<u8>>, partial: &[PartialPiece]) {
        self.peer_id = PeerId::generate(&mut self.rng);
        let (of, have) = ((self.addr, self.peer_id), lifecycle.have().clone());
        self.machine = machine(&self.common, of, have, false, Some((lifecycle, partial)), &mut self.rng, now);
        self.life.online = true;
    }

    /// Which life it lives, counted from 0.
    pub(super) fn life_number(&self) -> usize {
        self.life.ends.len()
    }

    /// What passed in all of its lives.
    pub(super) fn traffic(&self, now: Instant) -> TrafficSnapshot {
        let past = self.life.past;
        if self.disk.is_down() {
            // Its machines are those of the life that has ended.
            return past;
        }
        let traffic = self.machine.torrent.snapshot(now).traffic;
        TrafficSnapshot {
            uploaded: past.uploaded + traffic.uploaded,
            downloaded: past.downloaded + traffic.downloaded,
            wasted: past.wasted + traffic.wasted,
            availability_sent: past.availability_sent + traffic.availability_sent,
            ..traffic
        }
    }

    /// A fresh name for a connection.
    pub(super) fn next_conn(&mut self) -> ConnId {
        self.conn_count += 1;
        ConnId(self.conn_count)
    }

    /// Reads a block from the disk, or makes one up.
    pub(super) fn read(&mut self, block: Block, poison: f64) -> Tag {
        let right = self.common.content.tag(block);
        if self.role == Role::Poisoner && self.rng.unit() < poison {
            return right ^ (self.rng.bits() | 1);
        }
        if let HostDisk::Tags(disk) = &self.disk {
            assert!(disk.good().get(block.piece), "{}: sends {block:?}, which it has not", self.addr);
        }
        right
    }

    /// What the role lets leave of this message.
    pub(super) fn says(&mut self, conn: ConnId, message: Message) -> Vec<Message> {
        if let Some(super_seed) = &mut self.super_seed {
            return super_seed.disguise(conn, message);
        }
        let gives = matches!(message, Message::Unchoke | Message::AllowedFast(_));
        if self.role == Role::FreeRider && gives { Vec::new() } else { vec![message] }
    }

    /// The metadata is received.
    pub(super) fn begin_content(&mut self, now: Instant, info: &Info) {
        let common = &self.common;
        assert_eq!(info.bytes, common.metadata, "{}: what was received is right", self.addr);
        let geometry = common.content.geometry;
        let none = Bitfield::new(geometry.piece_count());
        let settings = settings(common, self.addr, self.peer_id);
        let wanted = Bitfield::full(geometry.piece_count());
        self.machine.torrent.handle_content(now, settings, geometry, none, wanted);
    }
}

/// The settings of a torrent's machine.
fn settings(common: &Common, addr: SocketAddr, peer_id: PeerId) -> Settings {
    Settings {
        infohash: common.infohash,
        peer_id,
        listen_port: Some(addr.port()),
        swarming_interval: Duration::from_secs(1),
        sequential: false,
        metadata: common.metadata.clone(),
        private: false,
        pex: common.variations.pex,
        dht_port: None,
        connection_max: CONNECTION_MAX,
    }
}

impl HostDisk {
    /// Whether the host does nothing: it is down.
    pub(super) fn is_down(&self) -> bool {
        matches!(self, Self::Real(storage) if !storage.is_running())
    }
}
