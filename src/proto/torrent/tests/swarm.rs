//! A pump for tests: some machines on links with latency and limited uplinks, in virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use bytes::Bytes;

use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{
    ConnId, Connected, Direction, Event, Output, PieceResult, Receipt, Settings, Source,
};
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;

pub(super) const LATENCY: Duration = Duration::from_millis(5);
pub(super) const FAST: Capabilities = Capabilities { dht: false, fast: true, extensions: true, v2: false };
pub(super) const PLAIN: Capabilities = Capabilities { dht: false, fast: false, extensions: false, v2: false };

pub(super) fn settings(number: u8) -> Settings {
    let mut peer_id = *b"-SP0100-............";
    peer_id[19] = number;
    Settings {
        infohash: InfoHash([7; 20]),
        peer_id: PeerId(peer_id),
        listen_port: Some(6881),
        swarming_interval: Duration::from_secs(1),
        sequential: false,
        metadata: Bytes::new(),
        private: false,
        pex: false,
        dht_port: None,
        connection_max: 50,
    }
}

pub(super) fn addr(number: u8) -> SocketAddr {
    SocketAddr::from(([80, number, 1, 1], 6881))
}

#[derive(Debug)]
enum Input {
    Connected(Connected),
    DialFailed(SocketAddr),
    Disconnected,
    Message(Message),
    /// With who falsified it, 0 for nobody.
    Block(Block, u8),
    Sent(u64),
    MetadataSent,
    PieceResult(PieceIndex, PieceResult),
    Reserved(u32),
}

/// One machine with its shell.
pub(super) struct Node {
    pub(super) torrent: Torrent,
    /// What a magnet has when its metadata is received.
    magnet: Option<Bitfield>,
    settings: Settings,
    pub(super) capabilities: Capabilities,
    /// Sends false bytes for these pieces.
    pub(super) lies: Vec<PieceIndex>,
    /// Sends no blocks at all.
    pub(super) stalls: bool,
    /// Bytes per second.
    pub(super) uplink: u64,
    uplink_free_at: Instant,
    buffers: BTreeMap<PieceIndex, Vec<Option<u8>>>,
    pub(super) events: Vec<(Instant, Event)>,
    pub(super) outputs: Vec<(Instant, Output)>,
}

impl Node {
    /// Whether its metadata is known.
    pub(super) fn is_described(&self) -> bool {
        self.torrent.metadata_progress().is_none()
    }
}

/// The swarm.
pub(super) struct Swarm {
    pub(super) now: Instant,
    geometry: Geometry,
    /// The info dictionary of those who are added from now on.
    pub(super) metadata: Bytes,
    /// Whether the description says so.
    pub(super) private: bool,
    pub(super) nodes: Vec<Node>,
    queue: BTreeMap<(Instant, u64), (usize, ConnId, Input)>,
    links: BTreeMap<(usize, ConnId), (usize, ConnId)>,
    /// When the last thing on a link arrives: nothing overtakes.
    arrives_at: BTreeMap<(usize, ConnId), Instant>,
    next: u64,
}

impl Swarm {
    pub(super) fn new(geometry: Geometry) -> Self {
        Self {
            now: Instant::ZERO,
            geometry,
            metadata: Bytes::new(),
            private: false,
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            arrives_at: BTreeMap::new(),
            next: 0,
        }
    }

    /// A machine that has `have` and wants everything; its number.
    pub(super) fn add(&mut self, have: Bitfield) -> usize {
        let settings = Settings { metadata: self.metadata.clone(), ..settings(self.nodes.len() as u8) };
        self.add_with(settings, have)
    }

    /// The same, with settings of its own.
    pub(super) fn add_with(&mut self, settings: Settings, have: Bitfield) -> usize {
        let number = self.nodes.len();
        let wanted = Bitfield::full(self.geometry.piece_count());
        let rng = Rng::from_number(number as u64);
        let torrent = Torrent::new(settings.clone(), self.geometry, have, wanted, rng, self.now);
        self.nodes.push(Node {
            torrent,
            magnet: None,
            settings,
            capabilities: FAST,
            lies: Vec::new(),
            stalls: false,
            uplink: 2_000_000,
            uplink_free_at: self.now,
            buffers: BTreeMap::new(),
            events: Vec::new(),
            outputs: Vec::new(),
        });
        number
    }

    pub(super) fn add_seed(&mut self) -> usize {
        self.add(Bitfield::full(self.geometry.piece_count()))
    }

    pub(super) fn add_leech(&mut self) -> usize {
        self.add(Bitfield::new(self.geometry.piece_count()))
    }

    /// A machine that has `have` and knows only the infohash; its number.
    pub(super) fn add_magnet(&mut self, have: Bitfield) -> usize {
        let own = Settings { infohash: InfoHash::of(&self.metadata), ..settings(self.nodes.len() as u8) };
        let number = self.add_with(own.clone(), Bitfield::new(self.geometry.piece_count()));
        let node = &mut self.nodes[number];
        node.torrent = Torrent::without_metadata(own, Rng::from_number(number as u64), self.now);
        node.magnet = Some(have);
        number
    }

    /// `from` hears of `to`.
    pub(super) fn introduce(&mut self, from: usize, to: usize) {
        self.introduce_by(Source::User, from, to);
    }

    /// The same, from this source.
    pub(super) fn introduce_by(&mut self, source: Source, from: usize, to: usize) {
        let (now, addrs) = (self.now, [addr(to as u8)]);
        self.nodes[from].torrent.handle_candidates(now, source, &addrs);
        self.drain(from);
    }

    /// Everyone hears of all before it.
    pub(super) fn introduce_all(&mut self) {
        for from in 0..self.nodes.len() {
            (0..from).for_each(|to| self.introduce(from, to));
        }
    }

    /// Lets an input of a test through.
    pub(super) fn input(&mut self, number: usize, input: impl FnOnce(&mut Torrent, Instant)) {
        input(&mut self.nodes[number].torrent, self.now);
        self.drain(number);
    }

    pub(super) fn is_complete(&self, number: usize) -> bool {
        self.nodes[number].torrent.snapshot(self.now).complete
    }

    /// Runs until `done` or for `span`; whether it was done.
    pub(super) fn run(&mut self, span: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + span;
        let mut steps = 0;
        while !done(self) {
            let timeout = self.nodes.iter().filter_map(|node| node.torrent.poll_timeout()).min();
            let event = self.queue.keys().next().map(|(at, _)| *at);
            let Some(at) = event.into_iter().chain(timeout).min().filter(|&at| at <= end) else {
                self.now = end;
                return done(self);
            };
            steps += 1;
            assert!(steps < 3_000_000, "spins at {:?}", self.now);
            self.now = self.now.max(at);
            if event.is_some_and(|event| event <= self.now) {
                let (_, (number, conn, input)) = self.queue.pop_first().unwrap();
                self.deliver(number, conn, input);
            } else {
                for number in 0..self.nodes.len() {
                    if self.nodes[number].torrent.poll_timeout().is_some_and(|at| at <= self.now) {
                        self.nodes[number].torrent.handle_timeout(self.now);
                        self.drain(number);
                    }
                }
            }
        }
        true
    }

    fn schedule(&mut self, at: Instant, number: usize, conn: ConnId, input: Input) {
        self.next += 1;
        self.queue.insert((at, self.next), (number, conn, input));
    }

    fn deliver(&mut self, number: usize, conn: ConnId, input: Input) {
        let now = self.now;
        let node = &mut self.nodes[number];
        match input {
            Input::Reserved(len) => node.torrent.handle_metadata_reserved(now, len),
            Input::Connected(connected) => node.torrent.handle_connected(now, conn, connected),
            Input::DialFailed(addr) => node.torrent.handle_dial_failed(now, addr),
            Input::Disconnected => node.torrent.handle_disconnected(now, conn),
            Input::Message(message) => node.torrent.handle_message(now, conn, message),
            Input::Sent(len) => node.torrent.handle_blocks_sent(now, conn, 1, len),
            Input::MetadataSent => node.torrent.handle_metadata_sent(now, conn, 1),
            Input::PieceResult(piece, result) => node.torrent.handle_piece_result(now, piece, result),
            Input::Block(block, liar) => {
                if node.torrent.handle_block(now, conn, block) == Receipt::Keep {
                    let count = self.geometry.block_count(block.piece) as usize;
                    let buffer = node.buffers.entry(block.piece).or_insert_with(|| vec![None; count]);
                    buffer[block.index() as usize] = Some(liar);
                }
            }
        }
        self.drain(number);
    }

    fn drain(&mut self, number: usize) {
        while let Some(output) = self.nodes[number].torrent.poll_output() {
            self.nodes[number].outputs.push((self.now, output.clone()));
            match output {
                Output::Send(conn, message) => self.pass(number, conn, self.now, Input::Message(message)),
                Output::SendMetadata(conn, message) => {
                    self.pass(number, conn, self.now, Input::Message(message));
                    self.schedule(self.now, number, conn, Input::MetadataSent);
                }
                Output::SendBlock(conn, block) => self.send_block(number, conn, block),
                Output::Disconnect(conn, _) => self.disconnect(number, conn),
                Output::Dial(to) => self.dial(number, to),
                Output::VerifyPiece { piece, block_hashes } => self.verify(number, piece, block_hashes),
                Output::DropPiece(piece) => {
                    self.nodes[number].buffers.remove(&piece);
                }
                Output::ReserveMetadata(len) => {
                    self.schedule(self.now, number, ConnId(0), Input::Reserved(len));
                }
                Output::Metadata(bytes) => {
                    assert_eq!(bytes, self.metadata);
                    self.begin_content(number);
                }
                Output::ReleaseMetadata(_) | Output::DhtNode(_) => {}
                Output::Event(event) => self.nodes[number].events.push((self.now, event)),
            }
        }
    }

    fn disconnect(&mut self, number: usize, conn: ConnId) {
        self.pass(number, conn, self.now, Input::Disconnected);
        self.schedule(self.now, number, conn, Input::Disconnected);
        if let Some(other) = self.links.remove(&(number, conn)) {
            self.links.remove(&other);
        }
    }

    /// A magnet goes on with its content.
    fn begin_content(&mut self, number: usize) {
        let (now, node) = (self.now, &mut self.nodes[number]);
        if self.private {
            node.torrent.handle_private(now);
        }
        let have = node.magnet.take().expect("metadata is received once");
        let wanted = Bitfield::full(self.geometry.piece_count());
        let settings =
            Settings { private: self.private, metadata: self.metadata.clone(), ..node.settings.clone() };
        node.torrent.handle_content(now, settings, self.geometry, have, wanted);
    }

    fn send_block(&mut self, number: usize, conn: ConnId, block: Block) {
        let node = &mut self.nodes[number];
        if node.stalls {
            return;
        }
        let span = Duration::from_micros(u64::from(block.len) * 1_000_000 / node.uplink);
        node.uplink_free_at = node.uplink_free_at.max(self.now) + span;
        let left_at = node.uplink_free_at;
        let liar = if node.lies.contains(&block.piece) { number as u8 + 1 } else { 0 };
        self.schedule(left_at, number, conn, Input::Sent(u64::from(block.len)));
        self.pass(number, conn, left_at, Input::Block(block, liar));
    }

    /// Puts something on a link.
    fn pass(&mut self, number: usize, conn: ConnId, at: Instant, input: Input) {
        let Some(&(to, their_conn)) = self.links.get(&(number, conn)) else { return };
        let last = self.arrives_at.entry((number, conn)).or_default();
        *last = (*last).max(at + LATENCY);
        let at = *last;
        self.schedule(at, to, their_conn, input);
    }

    fn dial(&mut self, number: usize, to: SocketAddr) {
        let at = self.now + LATENCY;
        let Some(other) = (0..self.nodes.len()).find(|&other| addr(other as u8) == to) else {
            return self.schedule(at, number, ConnId(0), Input::DialFailed(to));
        };
        self.next += 2;
        let (ours, theirs) = (ConnId(self.next as u32), ConnId(self.next as u32 + 1));
        self.links.insert((number, ours), (other, theirs));
        self.links.insert((other, theirs), (number, ours));
        let capabilities = Capabilities {
            fast: self.nodes[number].capabilities.fast && self.nodes[other].capabilities.fast,
            extensions: self.nodes[number].capabilities.extensions
                && self.nodes[other].capabilities.extensions,
            ..FAST
        };
        let met = |node: &Node, addr, direction| Connected {
            addr,
            direction,
            peer_id: node.settings.peer_id,
            capabilities,
        };
        let from = SocketAddr::new(addr(number as u8).ip(), 40_000 + number as u16);
        let outgoing = met(&self.nodes[other], to, Direction::Outgoing);
        let incoming = met(&self.nodes[number], from, Direction::Incoming);
        self.schedule(at, number, ours, Input::Connected(outgoing));
        self.schedule(at, other, theirs, Input::Connected(incoming));
        self.arrives_at.insert((number, ours), at);
        self.arrives_at.insert((other, theirs), at);
    }

    fn verify(&mut self, number: usize, piece: PieceIndex, block_hashes: bool) {
        let buffer = self.nodes[number].buffers.remove(&piece).expect("a complete piece has a buffer");
        let blocks: Vec<_> = buffer.into_iter().map(|block| block.expect("every block is there")).collect();
        let good = blocks.iter().all(|&liar| liar == 0);
        let hashes: Vec<_> = blocks.into_iter().map(|liar| [liar; 20]).collect();
        let result = match good {
            true => PieceResult::Good(block_hashes.then_some(hashes)),
            false => PieceResult::Bad(hashes),
        };
        let at = self.now + Duration::from_millis(1);
        self.schedule(at, number, ConnId(0), Input::PieceResult(piece, result));
    }
}
