//! One machine against a peer that a test plays, well or badly.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::swarm::{FAST, PLAIN, addr, settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::peer::faults::{INVALID_REQUEST_MAX, UNSOLICITED_BLOCK_MAX};
use crate::proto::peer::uploads::QUEUE_COUNT_MAX;
use crate::proto::peer_id::PeerId;
use crate::proto::piece::Geometry;
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{
    Command, ConnId, Connected, Direction, DisconnectReason, Output, PieceResult, Receipt, Settings, Source,
};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;

pub(super) const PIECES: u32 = 100;
pub(super) const PEER: ConnId = ConnId(1);

/// A machine, and the time.
pub(super) struct Rig {
    pub(super) torrent: Torrent,
    pub(super) now: Instant,
}

pub(super) fn connected(number: u8, capabilities: Capabilities) -> Connected {
    let mut peer_id = [b'x'; 20];
    peer_id[0] = number;
    let addr = SocketAddr::new(addr(number).ip(), 50_000);
    Connected { addr, direction: Direction::Incoming, peer_id: PeerId(peer_id), capabilities }
}

pub(super) fn block(piece: u32) -> Block {
    Block { piece, offset: 0, len: BLOCK_LEN }
}

impl Rig {
    pub(super) fn new(have: Bitfield) -> Self {
        Self::with(settings(0), have)
    }

    pub(super) fn with(settings: Settings, have: Bitfield) -> Self {
        let geometry = Geometry::new(u64::from(PIECES) * 32_768, 32_768).unwrap();
        let wanted = Bitfield::full(PIECES);
        let now = Instant::from_micros(1_000_000);
        let torrent = Torrent::new(settings, geometry, have, wanted, Rng::from_number(1), now);
        Self { torrent, now }
    }

    pub(super) fn seed() -> Self {
        Self::new(Bitfield::full(PIECES))
    }

    pub(super) fn leech() -> Self {
        Self::new(Bitfield::new(PIECES))
    }

    /// A peer comes; what it is told.
    pub(super) fn connect(&mut self, conn: ConnId, connected: Connected) -> Vec<Output> {
        self.torrent.handle_connected(self.now, conn, connected);
        self.drain()
    }

    /// A peer says something; the answer.
    pub(super) fn say(&mut self, message: Message) -> Vec<Output> {
        self.torrent.handle_message(self.now, PEER, message);
        self.drain()
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.torrent.poll_output()).collect()
    }

    /// Lets time pass, timer by timer.
    pub(super) fn wait(&mut self, span: Duration) -> Vec<Output> {
        let end = self.now + span;
        let (mut outputs, mut steps) = (Vec::new(), 0);
        while let Some(at) = self.torrent.poll_timeout().filter(|&at| at <= end) {
            steps += 1;
            assert!(steps < 100_000, "a timer that does not move on");
            self.now = self.now.max(at);
            self.torrent.handle_timeout(self.now);
            outputs.extend(self.drain());
        }
        self.now = end;
        outputs
    }
}

pub(super) fn disconnected(outputs: &[Output]) -> Option<DisconnectReason> {
    outputs
        .iter()
        .find_map(|output| if let Output::Disconnect(_, reason) = output { Some(*reason) } else { None })
}

pub(super) fn requests(outputs: &[Output]) -> Vec<Block> {
    let request = |output: &Output| {
        if let Output::Send(_, Message::Request(block)) = output { Some(*block) } else { None }
    };
    outputs.iter().filter_map(request).collect()
}

pub(super) fn rejects(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::Send(_, Message::Reject(_)))).count()
}

pub(super) fn blocks(outputs: &[Output]) -> usize {
    outputs.iter().filter(|output| matches!(output, Output::SendBlock(..))).count()
}

#[test]
fn a_newcomer_hears_our_pieces_first_in_the_words_it_knows() {
    let first = |rig: &mut Rig, capabilities| {
        let output = rig.connect(PEER, connected(1, capabilities)).remove(0);
        if let Output::Send(_, message) = output { Some(message) } else { None }
    };
    let mut half = Bitfield::new(PIECES);
    half.set(5);
    assert_eq!(first(&mut Rig::seed(), FAST), Some(Message::HaveAll));
    assert_eq!(first(&mut Rig::leech(), FAST), Some(Message::HaveNone));
    assert_eq!(first(&mut Rig::new(half.clone()), PLAIN), Some(Message::Bitfield(half)));
    assert_eq!(first(&mut Rig::seed(), PLAIN), Some(Message::Bitfield(Bitfield::full(PIECES))));
    assert_eq!(first(&mut Rig::leech(), PLAIN), None);
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let extended = |id| Message::Extended { id, payload: vec![0xff; 40].into() };
    let offences = [
        vec![Message::Have(PIECES)],
        vec![Message::Suggest(PIECES)],
        vec![Message::AllowedFast(u32::MAX)],
        vec![Message::Bitfield(Bitfield::new(8))],
        vec![extended(0)],
        vec![extended(1)],
    ];
    for offence in offences {
        let mut rig = Rig::leech();
        rig.connect(PEER, connected(1, FAST));
        let outputs: Vec<_> = offence.iter().flat_map(|message| rig.say(message.clone())).collect();
        assert!(matches!(disconnected(&outputs), Some(DisconnectReason::Protocol(_))), "{offence:?}");
        assert!(rig.torrent.snapshot(rig.now).peers.is_empty());
        assert_eq!(rig.torrent.poll_timeout(), None);
    }
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    assert_eq!(disconnected(&rig.say(extended(200))), None);
    // aria2 sends a bitfield in place of many haves.
    let mut field = Bitfield::new(PIECES);
    field.set(2);
    for message in [Message::Have(1), Message::Bitfield(field)] {
        assert_eq!(disconnected(&rig.say(message)), None);
    }
    assert_eq!(rig.torrent.snapshot(rig.now).peers[0].have_count, 2);
}

#[test]
fn a_paused_torrent_waits_for_nobody() {
    let mut rig = Rig::leech();
    rig.torrent.handle_candidates(rig.now, Source::Tracker { local: false }, &[addr(9)]);
    rig.torrent.handle_dial_failed(rig.now, addr(9));
    rig.drain();
    assert!(rig.torrent.poll_timeout().is_some());
    rig.torrent.handle_command(rig.now, Command::Pause);
    assert_eq!(rig.torrent.poll_timeout(), None);
    rig.now += Duration::from_secs(300);
    rig.torrent.handle_command(rig.now, Command::Resume);
    assert!(rig.drain().contains(&Output::Dial(addr(9))));
}

#[test]
fn of_two_connections_the_one_that_stays_stands_for_the_address_that_was_dialled() {
    let port = ExtensionHandshake { port: Some(6881), ..ExtensionHandshake::default() };
    for (name, incoming_first, tells) in
        [1, b'z'].into_iter().flat_map(|name| [(name, true, true), (name, true, false), (name, false, false)])
    {
        let mut rig = Rig::leech();
        rig.torrent.handle_candidates(rig.now, Source::Tracker { local: false }, &[addr(1)]);
        let mut incoming = connected(1, FAST);
        incoming.peer_id.0[0] = name;
        let outgoing = Connected { addr: addr(1), direction: Direction::Outgoing, ..incoming };
        let (first, second) = if incoming_first { (incoming, outgoing) } else { (outgoing, incoming) };
        rig.connect(PEER, first);
        if tells {
            rig.say(Message::Extended { id: 0, payload: port.encode() });
        }
        assert_eq!(disconnected(&rig.connect(ConnId(2), second)), Some(DisconnectReason::Duplicate));
        let snapshot = rig.torrent.snapshot(rig.now);
        assert_eq!(
            (snapshot.peers.len(), snapshot.candidate_count),
            (1, 0),
            "{name} {incoming_first} {tells}"
        );
        [PEER, ConnId(2)].into_iter().for_each(|conn| rig.torrent.handle_disconnected(rig.now, conn));
        assert_eq!(rig.torrent.snapshot(rig.now).candidate_count, 1, "to be dialled again later");
    }
}

#[test]
fn a_choked_peer_gets_its_allowed_fast_pieces_and_no_more() {
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    let welcome = rig.say(Message::HaveNone);
    let allowed_fast =
        |output| if let Output::Send(_, Message::AllowedFast(piece)) = output { Some(piece) } else { None };
    let allowed: Vec<_> = welcome.into_iter().filter_map(allowed_fast).collect();
    assert_eq!(allowed.len(), 10);
    assert_eq!(blocks(&rig.say(Message::Request(block(allowed[0])))), 1);
    let other = (0..PIECES).find(|piece| !allowed.contains(piece)).unwrap();
    let outputs = rig.say(Message::Request(block(other)));
    assert_eq!((blocks(&outputs), rejects(&outputs)), (0, 1));
    // Harvesting the same piece for ever does not work.
    let served: usize = (0..50)
        .map(|_| {
            rig.torrent.handle_blocks_sent(rig.now, PEER, 1, u64::from(BLOCK_LEN));
            blocks(&rig.say(Message::Request(block(allowed[1]))))
        })
        .sum();
    assert_eq!(served, 6);
}

#[test]
fn floods_are_bounded_and_then_ended() {
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::Interested);
    rig.wait(Duration::from_secs(1));
    let flood = (0..5_000)
        .flat_map(|at| rig.say(Message::Request(Block { offset: at, len: 1_000, ..block(at % PIECES) })));
    let outputs: Vec<_> = flood.collect();
    assert!(disconnected(&outputs).is_none());
    let window = blocks(&outputs);
    assert!((16..300).contains(&window), "{window}");
    assert_eq!(rejects(&outputs), 5_000 - window - QUEUE_COUNT_MAX);

    let wrong = Message::Request(Block { piece: PIECES, offset: 0, len: 1 });
    let outputs: Vec<_> = (0..=INVALID_REQUEST_MAX).flat_map(|_| rig.say(wrong.clone())).collect();
    assert!(matches!(disconnected(&outputs), Some(DisconnectReason::Protocol(_))));
}

#[test]
fn cancelled_requests_are_not_served() {
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::Interested);
    rig.wait(Duration::from_secs(1));
    (0..20).for_each(|piece| drop(rig.say(Message::Request(block(piece)))));
    assert_eq!(rejects(&rig.say(Message::Cancel(block(19)))), 1);
    rig.torrent.handle_blocks_sent(rig.now, PEER, 16, 16 * u64::from(BLOCK_LEN));
    let rest = rig.drain();
    assert_eq!(blocks(&rest), 3);
    assert!(!rest.contains(&Output::SendBlock(PEER, block(19))));
}

#[test]
fn blocks_nobody_asked_for_are_dropped_and_end_the_connection() {
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    for _ in 0..UNSOLICITED_BLOCK_MAX {
        assert_eq!(rig.torrent.handle_block(rig.now, PEER, block(3)), Receipt::Discard);
    }
    assert_eq!(disconnected(&rig.drain()), None);
    assert_eq!(rig.torrent.handle_block(rig.now, PEER, block(3)), Receipt::Discard);
    assert!(disconnected(&rig.drain()).is_some());
    let wasted = u64::from(UNSOLICITED_BLOCK_MAX + 1) * u64::from(BLOCK_LEN);
    assert_eq!(rig.torrent.snapshot(rig.now).traffic.wasted, wasted);
}

#[test]
fn a_choke_gives_blocks_back_and_an_unchoke_asks_again() {
    for capabilities in [FAST, PLAIN] {
        let mut rig = Rig::leech();
        rig.connect(PEER, connected(1, capabilities));
        let interest = rig.say(Message::Bitfield(Bitfield::full(PIECES)));
        assert!(interest.contains(&Output::Send(PEER, Message::Interested)));
        assert!(requests(&interest).is_empty());
        let asked = requests(&rig.say(Message::Unchoke));
        assert!(!asked.is_empty());
        rig.say(Message::Choke);
        if capabilities.fast {
            asked.iter().for_each(|&block| drop(rig.say(Message::Reject(block))));
        }
        assert_eq!(requests(&rig.say(Message::Unchoke)).len(), asked.len());
        let snapshot = rig.torrent.snapshot(rig.now);
        assert!(snapshot.peers[0].am_interested && !snapshot.peers[0].peer_choking);
    }
}

#[test]
fn at_the_end_a_silent_peer_holds_nothing_up_and_is_told_to_forget_it() {
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::HaveAll);
    let silent = requests(&rig.say(Message::Unchoke));
    let other = ConnId(2);
    rig.connect(other, connected(2, FAST));
    rig.torrent.handle_message(rig.now, other, Message::HaveAll);
    rig.torrent.handle_message(rig.now, other, Message::Unchoke);
    let (mut outputs, mut cancelled) = (VecDeque::from(rig.drain()), Vec::new());
    while let Some(output) = outputs.pop_front() {
        if let Output::Send(PEER, Message::Cancel(block)) = output {
            cancelled.push(block);
        } else if let Output::VerifyPiece { piece, .. } = output {
            rig.torrent.handle_piece_result(rig.now, piece, PieceResult::Good(None));
        } else if let Output::Send(conn, Message::Request(block)) = output
            && conn == other
        {
            let _ = rig.torrent.handle_block(rig.now, other, block);
        }
        outputs.extend(rig.drain());
    }
    assert!(rig.torrent.have().is_full(), "without a moment's wait");
    assert!(silent.iter().all(|block| cancelled.contains(block)), "{silent:?} {cancelled:?}");
}

#[test]
fn what_a_silent_peer_was_asked_for_is_asked_elsewhere_within_a_minute() {
    let (mut rig, other) = (Rig::leech(), ConnId(2));
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::HaveAll);
    let silent = requests(&rig.say(Message::Unchoke));
    let mut same = Bitfield::new(PIECES);
    silent.iter().for_each(|block| _ = same.set(block.piece));
    assert!(same.count() > 0 && !same.is_full(), "far from the end");
    rig.connect(other, connected(2, FAST));
    rig.torrent.handle_message(rig.now, other, Message::Bitfield(same));
    rig.torrent.handle_message(rig.now, other, Message::Unchoke);
    let mut outputs = rig.drain();
    assert!(!requests(&outputs).iter().any(|block| silent.contains(block)), "nothing is asked twice so far");
    let mut asked = Vec::new();
    for _ in 0..60 {
        for output in std::mem::take(&mut outputs) {
            if let Output::Send(conn, Message::Request(block)) = output
                && conn == other
            {
                asked.push(block);
                let _ = rig.torrent.handle_block(rig.now, other, block);
            }
        }
        outputs.extend(rig.drain());
        if outputs.is_empty() && silent.iter().any(|block| asked.contains(block)) {
            break;
        }
        outputs.extend(rig.wait(Duration::from_secs(1)));
    }
    assert!(silent.iter().all(|block| asked.contains(block)), "{silent:?} {asked:?}");
}

#[test]
fn a_peer_that_rejects_everything_is_left() {
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::HaveAll);
    let mut asked = requests(&rig.say(Message::Unchoke));
    for _ in 0..100 {
        for block in std::mem::take(&mut asked) {
            if disconnected(&rig.say(Message::Reject(block))).is_some() {
                return;
            }
        }
        asked = requests(&rig.wait(Duration::from_secs(1)));
    }
    panic!("it quarrels for ever");
}

#[test]
fn silence_is_kept_alive_by_us_and_ended_when_it_is_theirs() {
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    let outputs = rig.wait(Duration::from_secs(119));
    assert!(outputs.contains(&Output::Send(PEER, Message::KeepAlive)));
    assert_eq!(disconnected(&outputs), None);
    assert_eq!(disconnected(&rig.wait(Duration::from_secs(3))), Some(DisconnectReason::Idle));
    assert_eq!(rig.torrent.poll_timeout(), None);
}

#[test]
fn ourselves_doubles_and_the_banned_are_refused() {
    let mut rig = Rig::leech();
    let ours = Connected { peer_id: settings(0).peer_id, ..connected(1, FAST) };
    assert_eq!(disconnected(&rig.connect(PEER, ours)), Some(DisconnectReason::Ourselves));
    assert_eq!(disconnected(&rig.connect(ConnId(2), connected(2, FAST))), None);
    let double = Connected { addr: SocketAddr::from(([9, 9, 9, 9], 9)), ..connected(2, FAST) };
    assert_eq!(disconnected(&rig.connect(ConnId(3), double)), Some(DisconnectReason::Duplicate));
    assert_eq!(rig.torrent.snapshot(rig.now).peers.len(), 1);
}

/// What becomes of a peer's neighbours when it is banned: of the same host, and of another.
fn ban_one_of(
    liar: SocketAddr,
    neighbour: SocketAddr,
    stranger: SocketAddr,
) -> Vec<(ConnId, DisconnectReason)> {
    let mut rig = Rig::leech();
    for (number, addr) in (1..).zip([liar, neighbour, stranger]) {
        rig.connect(ConnId(u32::from(number)), Connected { addr, ..connected(number, FAST) });
    }
    rig.say(Message::HaveAll);
    let mut asked = requests(&rig.say(Message::Unchoke));
    // Alone it sends a piece that does not hash.
    let verify = |output: &Output| matches!(output, Output::VerifyPiece { .. });
    while let Some(block) = asked.pop() {
        let _ = rig.torrent.handle_block(rig.now, PEER, block);
        let outputs = rig.drain();
        asked.extend(requests(&outputs));
        if outputs.iter().any(verify) {
            let hashes = vec![[0; 20]; 2];
            rig.torrent.handle_piece_result(rig.now, block.piece, PieceResult::Bad(hashes));
            break;
        }
    }
    let closed =
        |output| if let Output::Disconnect(conn, reason) = output { Some((conn, reason)) } else { None };
    rig.drain().into_iter().filter_map(closed).collect()
}

#[test]
fn a_ban_closes_every_connection_of_the_host() {
    let addr = |text: &str| text.parse().unwrap();
    let closed = ban_one_of(addr("80.1.1.1:1"), addr("80.1.1.1:2"), addr("80.1.1.2:1"));
    assert_eq!(closed, [1, 2].map(|conn| (ConnId(conn), DisconnectReason::Poison)));
    let closed = ban_one_of(addr("127.0.0.1:1"), addr("127.0.0.1:2"), addr("80.1.1.2:1"));
    assert_eq!(closed, [(PEER, DisconnectReason::Poison)], "on loopback all peers are of one host");
}

#[test]
fn a_full_house_refuses_unless_somebody_is_useless() {
    let mut rig = Rig::leech();
    for number in 0..50 {
        assert_eq!(disconnected(&rig.connect(ConnId(u32::from(number)), connected(number, FAST))), None);
    }
    let late = ConnId(100);
    assert_eq!(disconnected(&rig.connect(late, connected(100, FAST))), Some(DisconnectReason::Full));
    for _ in 0..7 {
        rig.wait(Duration::from_secs(100));
        for number in 0..50 {
            rig.torrent.handle_message(rig.now, ConnId(number), Message::KeepAlive);
        }
        rig.drain();
    }
    let outputs = rig.connect(ConnId(101), connected(101, FAST));
    assert!(outputs.contains(&Output::Disconnect(ConnId(0), DisconnectReason::Full)));
    assert_eq!(rig.torrent.snapshot(rig.now).peers.len(), 50);
}

#[test]
fn two_seeds_part_and_partial_seeds_too() {
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    assert_eq!(disconnected(&rig.say(Message::HaveAll)), Some(DisconnectReason::BothComplete));
    let mut rig = Rig::seed();
    rig.connect(PEER, connected(1, FAST));
    let payload = ExtensionHandshake { upload_only: true, ..ExtensionHandshake::default() }.encode();
    let outputs = rig.say(Message::Extended { id: 0, payload });
    assert_eq!(disconnected(&outputs), Some(DisconnectReason::BothComplete));
}

#[test]
fn the_pipeline_respects_what_the_peer_lets_wait() {
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    let payload = ExtensionHandshake { request_queue_max: Some(2), ..ExtensionHandshake::default() }.encode();
    rig.say(Message::Extended { id: 0, payload });
    rig.say(Message::HaveAll);
    assert_eq!(requests(&rig.say(Message::Unchoke)).len(), 2);
}

#[test]
fn an_idle_seed_waits_for_nothing() {
    let mut rig = Rig::seed();
    assert_eq!(rig.torrent.poll_timeout(), None);
    rig.torrent.handle_candidates(rig.now, Source::User, &[addr(9)]);
    assert_eq!(rig.drain(), [Output::Dial(addr(9))]);
    assert!(rig.torrent.poll_timeout().is_none_or(|at| at > rig.now));
}

#[test]
fn once_our_address_is_known_peers_are_dialled_in_the_canonical_order() {
    let addrs: Vec<_> = (1..=10).map(|host| SocketAddr::from(([98, 76, host, 32], 6881))).collect();
    let dialled = |addrs: &[SocketAddr]| {
        let mut rig = Rig::leech();
        rig.torrent.handle_external_ip(rig.now, "123.213.32.10".parse().unwrap());
        rig.torrent.handle_candidates(rig.now, Source::Dht { local: false }, addrs);
        rig.drain()
    };
    let reversed: Vec<_> = addrs.iter().rev().copied().collect();
    assert_eq!(dialled(&addrs).len(), addrs.len());
    assert_eq!(dialled(&addrs), dialled(&reversed), "however they were named");
}
