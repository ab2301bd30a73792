//! The torrent machine among peers that say anything, with a disk that loses things and a user who
//! changes his mind.
//!
//! Oracles, besides the machine's own invariants: what the protocol allows
//! ([`ProtocolOracle`]); a block is kept once, a piece verified when all its blocks are kept; no
//! block is sent that is not there; outputs of one input and wakes at one instant are bounded; the
//! figures agree.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use sprat::proto::bitfield::Bitfield;
use sprat::proto::block::Block;
use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::piece::{Geometry, PieceIndex};
use sprat::proto::rng::Rng;
use sprat::proto::session::Lease;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::torrent::Torrent;
use sprat::proto::torrent::event::{
    Command, ConnId, Connected, Direction, Event, Output, PieceResult, Receipt, Settings, Source,
};
use sprat::proto::wire::decoder::{Decoder, Frame};
use sprat::proto::wire::handshake::Capabilities;
use sprat::proto::wire::message::Message;
use sprat::sim::oracle::ProtocolOracle;

use super::input::Input;
use super::timer::{WAKE_COUNT_MAX, later};

/// Connections at a time.
pub const CONN_COUNT_MAX: usize = 12;
/// Outputs of one input: to each connection a message for each piece, and some more.
const OUTPUT_COUNT_MAX: usize = 4_000;
/// Numbers of pieces, and bytes of one: the last one is short.
const GEOMETRIES: [(u32, u32); 3] = [(1, 32_768), (25, 16_384), (64, 40_000)];

pub fn torrent(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut rig = Rig::new(&mut input);
    while !input.is_empty() {
        rig.step(&mut input);
        rig.drain();
        rig.check();
    }
}

pub fn settings(input: &mut Input<'_>) -> Settings {
    let flags = input.byte();
    Settings {
        infohash: InfoHash([7; 20]),
        peer_id: PeerId([0; 20]),
        listen_port: (flags & 1 == 0).then_some(6_881),
        swarming_interval: Duration::from_secs(1),
        sequential: flags & 2 != 0,
        metadata: Bytes::from(vec![b'm'; 20_000]),
        private: flags & 4 != 0,
        pex: flags & 8 != 0,
        dht_port: (flags & 16 != 0).then_some(6_882),
        connection_max: CONN_COUNT_MAX,
    }
}

/// A finished handshake with one of a few peers, of which one is ourselves.
pub fn connected(input: &mut Input<'_>, dials: &mut Vec<SocketAddr>) -> Connected {
    let flags = input.byte();
    let is_outgoing = flags & 1 == 1 && !dials.is_empty();
    let (addr, direction) = if is_outgoing {
        (dials.swap_remove(input.below(dials.len())), Direction::Outgoing)
    } else {
        (sprat::proto::compact::canonical(input.addr()), Direction::Incoming)
    };
    let capabilities = Capabilities {
        dht: flags & 2 != 0,
        fast: flags & 4 != 0,
        extensions: flags & 8 != 0,
        v2: flags & 16 != 0,
    };
    Connected { addr, direction, peer_id: PeerId([input.byte() % 16; 20]), capabilities }
}

pub fn source(input: &mut Input<'_>) -> Source {
    let kind = input.byte();
    let local = kind >= 128;
    match kind % 6 {
        0 => Source::User,
        1 => Source::Magnet,
        2 => Source::Tracker { local },
        3 => Source::Dht { local },
        4 => Source::Pex { local },
        _ => Source::Lsd,
    }
}

pub fn lease(input: &mut Input<'_>) -> Lease {
    let connection_max = input.below(CONN_COUNT_MAX + 1);
    let unchoke_max = input.is_set().then(|| input.below(8));
    let mut rate = || input.is_set().then(|| input.magnitude());
    Lease { connection_max, unchoke_max, upload_rate: rate(), download_rate: rate() }
}

/// A message as the decoder of a connection lets it through.
pub fn message(input: &mut Input<'_>, piece_count: u32, asked: &[Block]) -> Option<Message> {
    let geometry_block = |input: &mut Input<'_>| match input.one_of(asked) {
        Some(block) if input.is_set() => block,
        _ => {
            let (piece, index) = (u32::from(input.byte()) % (piece_count + 1), u32::from(input.byte() % 4));
            Block { piece, offset: index * 16_384, len: 16_384 >> (input.byte() / 128) }
        }
    };
    let kind = input.byte();
    let piece = |input: &mut Input<'_>| u32::from(input.byte()) % (piece_count + 1);
    let message = match kind % 16 {
        0 => Message::KeepAlive,
        1 => Message::Choke,
        2 => Message::Unchoke,
        3 => Message::Interested,
        4 => Message::NotInterested,
        5 => Message::Have(piece(input)),
        6 => Message::Bitfield(bitfield(input, piece_count)),
        7 => Message::Request(geometry_block(input)),
        8 => Message::Cancel(geometry_block(input)),
        9 => Message::Port(input.u16()),
        10 => Message::Suggest(piece(input)),
        11 => Message::HaveAll,
        12 => Message::HaveNone,
        13 => Message::Reject(geometry_block(input)),
        14 => Message::AllowedFast(piece(input)),
        _ => Message::Extended { id: input.byte() % 6, payload: Bytes::copy_from_slice(input.string()) },
    };
    let mut stream = Vec::new();
    message.encode(&mut stream);
    let mut stream = BytesMut::from(&stream[..]);
    let decoded = Decoder::new(Some(piece_count)).decode(&mut stream);
    let Ok(Some(Frame::Message(message))) = decoded else { return None };
    Some(message)
}

fn bitfield(input: &mut Input<'_>, piece_count: u32) -> Bitfield {
    if input.is_set() {
        return Bitfield::full(piece_count);
    }
    let mut field = Bitfield::new(piece_count);
    for (at, byte) in input.string().iter().enumerate() {
        (0..8).filter(|bit| byte >> bit & 1 == 1).for_each(|bit| {
            let piece = (8 * at + bit) as u32;
            if piece < piece_count {
                field.set(piece);
            }
        });
    }
    field
}

/// The machine, and what its shell knows.
struct Rig {
    torrent: Torrent,
    now: Instant,
    geometry: Geometry,
    conns: BTreeMap<ConnId, ProtocolOracle>,
    conn_count: u32,
    dials: Vec<SocketAddr>,
    /// Requests that are under way.
    requested: Vec<(ConnId, Block)>,
    /// Blocks that are on their way to the socket.
    sending: Vec<(ConnId, Block)>,
    sending_metadata: Vec<ConnId>,
    /// Blocks in buffers.
    kept: BTreeMap<PieceIndex, BTreeSet<u32>>,
    verifying: Vec<(PieceIndex, bool)>,
    /// Losses that the journal has not heard of.
    unnoted: Vec<Vec<PieceIndex>>,
}

impl Rig {
    fn new(input: &mut Input<'_>) -> Self {
        let (piece_count, piece_len) = input.one_of(&GEOMETRIES).expect("there are some");
        let total_len = u64::from(piece_count) * u64::from(piece_len) - 5;
        let geometry = Geometry::new(total_len, piece_len).expect("a sound geometry");
        let settings = settings(input);
        let (have, wanted) = (bitfield(input, piece_count), bitfield(input, piece_count));
        let now = Instant::from_micros(1_000_000);
        let mut rig = Self {
            torrent: Torrent::new(settings, geometry, have, wanted, Rng::from_number(1), now),
            now,
            geometry,
            conns: BTreeMap::new(),
            conn_count: 0,
            dials: Vec::new(),
            requested: Vec::new(),
            sending: Vec::new(),
            sending_metadata: Vec::new(),
            kept: BTreeMap::new(),
            verifying: Vec::new(),
            unnoted: Vec::new(),
        };
        if input.is_set() {
            rig.restore(input);
        }
        rig
    }

    /// Blocks that an earlier run left.
    fn restore(&mut self, input: &mut Input<'_>) {
        let piece = input.below(self.geometry.piece_count() as usize) as u32;
        let blocks: BTreeSet<u32> =
            (0..self.geometry.block_count(piece)).filter(|_| input.is_set()).collect();
        let is_lacking = self.torrent.wanted().get(piece) && !self.torrent.have().get(piece);
        if !is_lacking || blocks.is_empty() {
            return;
        }
        let named: Vec<u32> = blocks.iter().copied().collect();
        self.kept.insert(piece, blocks);
        self.torrent.handle_restored(self.now, piece, &named);
        self.drain();
    }

    fn conn(&self, input: &mut Input<'_>) -> Option<ConnId> {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        input.one_of(&conns)
    }

    fn step(&mut self, input: &mut Input<'_>) {
        let now = self.now;
        match input.byte() % 20 {
            0 | 1 => self.connect(input),
            2 => {
                if let Some(conn) = self.conn(input) {
                    self.conns.remove(&conn);
                    self.torrent.handle_disconnected(now, conn);
                }
            }
            3..=8 => self.hear(input),
            9 | 10 => self.receive_block(input),
            11 => self.verified(input),
            12 | 13 => self.wait(input),
            14 => self.sent(input),
            15 => {
                let addrs: Vec<SocketAddr> = (0..input.byte() % 8).map(|_| input.addr()).collect();
                self.torrent.handle_candidates(now, source(input), &addrs);
            }
            16 => {
                if let Some(addr) = input.one_of(&self.dials) {
                    self.dials.retain(|dialled| *dialled != addr);
                    self.torrent.handle_dial_failed(now, addr);
                }
            }
            17 => self.command(input),
            18 => self.lose(input),
            _ => match input.byte() % 4 {
                0 => self.torrent.handle_lease(now, lease(input)),
                1 => self.torrent.handle_external_ip(now, input.addr().ip()),
                _ => self.torrent.handle_storage(now, input.is_set()),
            },
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        if self.conns.len() < CONN_COUNT_MAX {
            let connected = connected(input, &mut self.dials);
            self.conn_count += 1;
            let conn = ConnId(self.conn_count);
            self.conns.insert(conn, ProtocolOracle::default());
            self.torrent.handle_connected(self.now, conn, connected);
        }
    }

    fn hear(&mut self, input: &mut Input<'_>) {
        let Some(conn) = self.conn(input) else { return };
        let asked = self.requested.iter().filter(|(of, _)| *of == conn).map(|(_, block)| *block);
        let asked: Vec<Block> = asked.collect();
        let Some(message) = message(input, self.geometry.piece_count(), &asked) else { return };
        if let Some(oracle) = self.conns.get_mut(&conn) {
            oracle.heard(&message);
        }
        self.torrent.handle_message(self.now, conn, message);
    }

    /// A block comes: mostly one that was asked for.
    fn receive_block(&mut self, input: &mut Input<'_>) {
        let (conn, block) = if !self.requested.is_empty() && input.byte() < 240 {
            self.requested.swap_remove(input.below(self.requested.len()))
        } else {
            let Some(conn) = self.conn(input) else { return };
            let piece = input.byte().into();
            (
                conn,
                Block {
                    piece,
                    offset: u32::from(input.byte() % 4) * 16_384,
                    len: 1 + u32::from(input.byte()) * 64,
                },
            )
        };
        if !self.conns.contains_key(&conn) {
            return;
        }
        match self.torrent.handle_block(self.now, conn, block) {
            Receipt::Keep => {
                let is_new = self.kept.entry(block.piece).or_default().insert(block.index());
                assert!(is_new && self.geometry.is_block(block), "{block:?} is kept twice, or is none");
            }
            Receipt::Discard => {}
        }
    }

    fn verified(&mut self, input: &mut Input<'_>) {
        if self.verifying.is_empty() {
            return;
        }
        let (piece, block_hashes) = self.verifying.swap_remove(input.below(self.verifying.len()));
        self.kept.remove(&piece);
        let byte = input.byte();
        let hashes = || (0..self.geometry.block_count(piece)).map(|index| [byte ^ index as u8; 20]).collect();
        let result = match byte % 8 {
            0 => PieceResult::Lost,
            1 => PieceResult::Bad(hashes()),
            _ => PieceResult::Good(block_hashes.then(hashes)),
        };
        let is_good = matches!(result, PieceResult::Good(_));
        self.torrent.handle_piece_result(self.now, piece, result);
        assert_eq!(self.torrent.have().get(piece), is_good);
    }

    fn wait(&mut self, input: &mut Input<'_>) {
        self.now = later(input, self.now, self.torrent.poll_timeout());
        for _ in 0..WAKE_COUNT_MAX {
            if self.torrent.poll_timeout().is_none_or(|at| at > self.now) {
                return;
            }
            self.torrent.handle_timeout(self.now);
            self.drain();
        }
        panic!("a timer that does not move on");
    }

    /// Blocks or metadata have left for the socket.
    fn sent(&mut self, input: &mut Input<'_>) {
        if let Some(conn) = self.sending_metadata.pop() {
            if self.conns.contains_key(&conn) {
                self.torrent.handle_metadata_sent(self.now, conn, 1);
            }
            return;
        }
        let Some(&(conn, block)) = self.sending.first() else { return };
        self.sending.remove(0);
        if !self.conns.contains_key(&conn) {
            return;
        }
        if self.torrent.have().get(block.piece) || !input.is_set() {
            self.torrent.handle_blocks_sent(self.now, conn, 1, u64::from(block.len));
        } else {
            if let Some(oracle) = self.conns.get_mut(&conn) {
                oracle.not_sent(block);
            }
            self.torrent.handle_blocks_unsent(self.now, conn, &[block]);
        }
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let command = match input.byte() % 5 {
            0 => Command::Pause,
            1 => Command::Resume,
            2 => Command::Want(bitfield(input, self.geometry.piece_count())),
            3 => Command::Sequential(input.is_set()),
            _ => {
                let mut rate = || input.is_set().then(|| input.magnitude());
                Command::Limit { upload_rate: rate(), download_rate: rate() }
            }
        };
        self.torrent.handle_command(self.now, command);
    }

    /// Pieces are gone from the disk, or the journal has heard that they are.
    fn lose(&mut self, input: &mut Input<'_>) {
        if let Some(pieces) = self.unnoted.pop() {
            return self.torrent.handle_loss_noted(self.now, &pieces);
        }
        let have: Vec<PieceIndex> = self.torrent.have().iter_set().collect();
        let mut lost: Vec<PieceIndex> = (0..input.byte() % 4).filter_map(|_| input.one_of(&have)).collect();
        lost.sort_unstable();
        lost.dedup();
        if !lost.is_empty() {
            let is_fetching = input.is_set();
            self.torrent.handle_lost(self.now, lost.clone(), is_fetching);
            if is_fetching {
                self.unnoted.push(lost);
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..OUTPUT_COUNT_MAX {
            let Some(output) = self.torrent.poll_output() else { return };
            self.act(output);
        }
        panic!("an input leads to endless outputs");
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Send(conn, message) => {
                let Some(oracle) = self.conns.get_mut(&conn) else { return };
                assert_eq!(oracle.may_say(&message), Ok(()), "{message:?}");
                if let Message::Request(block) = message {
                    assert!(self.geometry.is_block(block), "{block:?}");
                    self.requested.push((conn, block));
                }
            }
            Output::SendBlock(conn, block) => {
                let Some(oracle) = self.conns.get_mut(&conn) else { return };
                assert!(oracle.may_send(block), "{block:?} was not asked for");
                assert!(self.torrent.have().get(block.piece), "{block:?} is not there");
                self.sending.push((conn, block));
            }
            Output::SendMetadata(conn, _) => self.sending_metadata.push(conn),
            Output::Disconnect(conn, _) => {
                assert!(self.conns.remove(&conn).is_some(), "{conn:?} is closed already");
                self.torrent.handle_disconnected(self.now, conn);
            }
            Output::Dial(addr) => {
                assert!(!self.dials.contains(&addr), "{addr} is dialled already");
                self.dials.push(addr);
            }
            Output::VerifyPiece { piece, block_hashes } => {
                let kept = self.kept.get(&piece).map_or(0, BTreeSet::len);
                assert_eq!(kept, self.geometry.block_count(piece) as usize, "piece {piece} is not whole");
                self.verifying.push((piece, block_hashes));
            }
            Output::DropPiece(piece) => drop(self.kept.remove(&piece)),
            Output::DhtNode(addr) => assert_ne!(addr.port(), 0),
            Output::ReserveMetadata(_) | Output::ReleaseMetadata(_) | Output::Metadata(_) => {
                panic!("the metadata is there: {output:?}")
            }
            Output::Event(Event::PieceCompleted(piece)) => assert!(self.torrent.have().get(piece)),
            Output::Event(_) => {}
        }
    }

    fn check(&self) {
        let snapshot = self.torrent.snapshot(self.now);
        assert_eq!(snapshot.have_count, self.torrent.have().count());
        assert_eq!(snapshot.complete, !self.torrent.wanted().has_more_than(self.torrent.have()));
        assert!(snapshot.left <= self.geometry.total_len());
        assert!(snapshot.peers.len() <= self.conns.len());
    }
}
