//! Whom a machine tells that it gained a piece, and when: peers that lack it, peers that have it
//! and wait for the message, and peers that need no message.

use super::rules::{PEER, PIECES, Rig, connected, requests};
use super::swarm::FAST;
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::PieceIndex;
use crate::proto::time::Duration;
use crate::proto::torrent::event::{ConnId, Output, PieceResult};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;
use crate::proto::wire::sp_have::{self, SpHave};

const OTHER: ConnId = ConnId(2);
const SEED: ConnId = ConnId(3);
const THEIR_SP_HAVE: u8 = 5;

fn say(rig: &mut Rig, conn: ConnId, message: Message) -> Vec<Output> {
    rig.torrent.handle_message(rig.now, conn, message);
    rig.drain()
}

fn meet(rig: &mut Rig, conn: ConnId, first: Message) {
    rig.connect(conn, connected(conn.0 as u8, FAST));
    say(rig, conn, first);
}

/// Peers that are told of these pieces, in order.
fn told(outputs: &[Output]) -> Vec<(ConnId, Vec<PieceIndex>)> {
    let told = |output: &Output| {
        let Output::Send(conn, message) = output else { return None };
        if let Message::Have(piece) = message {
            return Some((*conn, vec![*piece]));
        }
        let Message::Extended { id: THEIR_SP_HAVE, payload } = message else { return None };
        let SpHave::Delta(pieces) = sp_have::decode(payload, PIECES).expect("our own") else { return None };
        Some((*conn, pieces))
    };
    outputs.iter().filter_map(told).collect()
}

/// The peer, which does not choke us, sends all that it is asked for until nothing more is asked;
/// what follows.
fn send_all(rig: &mut Rig, conn: ConnId, asked: Vec<Output>) -> Vec<Output> {
    let (mut all, mut next) = (Vec::new(), asked);
    while !next.is_empty() {
        let outputs = std::mem::take(&mut next);
        for output in &outputs {
            if let Output::Send(to, Message::Request(block)) = output
                && *to == conn
            {
                let _ = rig.torrent.handle_block(rig.now, conn, *block);
            } else if let Output::VerifyPiece { piece, .. } = output {
                rig.torrent.handle_piece_result(rig.now, *piece, PieceResult::Good(None));
            }
        }
        all.extend(outputs);
        next = rig.drain();
    }
    all
}

#[test]
fn a_super_seed_hears_at_once_of_each_piece_that_it_showed() {
    for fields in [vec![Message::HaveNone], vec![]] {
        let mut rig = Rig::leech();
        rig.connect(PEER, connected(1, FAST));
        fields.into_iter().for_each(|message| drop(rig.say(message)));
        [3, 7].into_iter().for_each(|piece| drop(rig.say(Message::Have(piece))));
        let mut asked = rig.say(Message::Unchoke);
        assert!(!requests(&asked).is_empty());
        for (shown, next) in [([3, 7], [50, 51]), ([50, 51], [52, 53]), ([52, 53], [54, 55])] {
            let outputs = send_all(&mut rig, PEER, asked);
            let mut pieces: Vec<_> = told(&outputs).into_iter().flat_map(|(_, pieces)| pieces).collect();
            pieces.sort_unstable();
            assert_eq!(pieces, shown, "without a wait");
            asked = next.into_iter().flat_map(|piece| rig.say(Message::Have(piece))).collect();
        }
    }
}

#[test]
fn a_super_seed_hears_of_pieces_that_came_from_others_too() {
    let mut rig = Rig::leech();
    meet(&mut rig, PEER, Message::HaveNone);
    rig.say(Message::Have(3));
    meet(&mut rig, OTHER, Message::HaveNone);
    let mut outputs = say(&mut rig, OTHER, Message::Have(9));
    outputs.extend(say(&mut rig, OTHER, Message::Unchoke));
    let outputs = send_all(&mut rig, OTHER, outputs);
    assert!(told(&outputs).contains(&(PEER, vec![9])), "the super-seed showed it to the other peer");
}

#[test]
fn peers_with_the_piece_hear_of_it_with_the_interval_and_seeds_not_at_all() {
    let mut rig = Rig::leech();
    meet(&mut rig, SEED, Message::HaveAll);
    let mut half = Bitfield::new(PIECES);
    (0..PIECES / 2).for_each(|piece| _ = half.set(piece));
    for conn in [PEER, OTHER] {
        meet(&mut rig, conn, Message::Bitfield(half.clone()));
        say(&mut rig, conn, Message::Interested);
    }
    let sprat = ExtensionHandshake { sp_have: Some(THEIR_SP_HAVE), ..ExtensionHandshake::default() };
    say(&mut rig, OTHER, Message::Extended { id: 0, payload: sprat.encode() });
    for piece in 0..4 {
        rig.torrent.handle_piece_result(rig.now, piece, PieceResult::Good(None));
    }
    assert_eq!(told(&rig.drain()), [], "they have those pieces, and much that we want");
    let told = told(&rig.wait(Duration::from_millis(1_100)));
    let haves: Vec<_> = (0..4).map(|piece| (PEER, vec![piece])).collect();
    assert_eq!(told.iter().filter(|(conn, _)| *conn == PEER).cloned().collect::<Vec<_>>(), haves);
    assert!(told.contains(&(OTHER, vec![0, 1, 2, 3])), "{told:?}");
    assert!(told.iter().all(|(conn, _)| *conn != SEED));
}

#[test]
fn a_peer_that_shows_no_piece_is_sent_one_keep_alive_early() {
    let mut rig = Rig::leech();
    meet(&mut rig, PEER, Message::HaveNone);
    meet(&mut rig, OTHER, Message::Have(1));
    let woken = |outputs: Vec<Output>| {
        let keep_alive = |output: Output| {
            if let Output::Send(conn, Message::KeepAlive) = output { Some(conn) } else { None }
        };
        outputs.into_iter().filter_map(keep_alive).collect::<Vec<_>>()
    };
    assert_eq!(woken(rig.wait(Duration::from_secs(4))), [PEER]);
    assert_eq!(woken(rig.wait(Duration::from_secs(60))), []);
}
