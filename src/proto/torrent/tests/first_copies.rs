//! A first seed under an upload limit, and peers that ask it for the same pieces.

use std::collections::BTreeSet;

use super::rules::{PEER, PIECES, Rig, connected};
use super::swarm::{FAST, PLAIN};
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::peer::uploads::{QUEUE_COUNT_MAX, RAISE_PAUSE};
use crate::proto::time::Duration;
use crate::proto::torrent::event::{Command, ConnId, Output};
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;

const OTHER: ConnId = ConnId(2);
/// Bytes per second: a block in 82 ms.
const LIMIT: u64 = 200_000;
const TICK: Duration = Duration::from_millis(50);

/// A seed under the limit, or without one, and two interested peers.
fn seed(limit: Option<u64>, capabilities: Capabilities) -> Rig {
    let mut rig = Rig::seed();
    let command = Command::Limit { upload_rate: limit, download_rate: None };
    rig.torrent.handle_command(rig.now, command);
    for (number, conn) in [(1, PEER), (2, OTHER)] {
        rig.connect(conn, connected(number, capabilities));
        say(&mut rig, conn, Message::Interested);
    }
    rig
}

fn say(rig: &mut Rig, conn: ConnId, message: Message) -> Vec<Output> {
    rig.torrent.handle_message(rig.now, conn, message);
    rig.drain()
}

/// A peer asks for all blocks of these pieces; which blocks leave by that.
fn ask(rig: &mut Rig, conn: ConnId, pieces: impl Iterator<Item = u32>) -> Vec<(ConnId, Block)> {
    let blocks =
        pieces.flat_map(|piece| [0, BLOCK_LEN].map(|offset| Block { piece, offset, len: BLOCK_LEN }));
    let mut all = Vec::new();
    for block in blocks {
        let outputs = say(rig, conn, Message::Request(block));
        all.extend(send(rig, outputs));
    }
    all
}

/// Whatever is to be sent leaves at once.
fn send(rig: &mut Rig, mut outputs: Vec<Output>) -> Vec<(ConnId, Block)> {
    let mut sent = Vec::new();
    while !outputs.is_empty() {
        for output in std::mem::take(&mut outputs) {
            if let Output::SendBlock(conn, block) = output {
                sent.push((conn, block));
                rig.torrent.handle_blocks_sent(rig.now, conn, 1, u64::from(block.len));
                outputs.extend(rig.drain());
            }
        }
    }
    sent
}

fn wait(rig: &mut Rig, span: Duration) -> Vec<(ConnId, Block)> {
    let end = rig.now + span;
    let mut all = Vec::new();
    while rig.now < end {
        let outputs = rig.wait(TICK);
        all.extend(send(rig, outputs));
    }
    all
}

fn rejects(outputs: &[Output], to: ConnId) -> Vec<Block> {
    let reject = |output: &Output| {
        if let Output::Send(conn, Message::Reject(block)) = output { Some((*conn, *block)) } else { None }
    };
    outputs.iter().filter_map(reject).filter(|(conn, _)| *conn == to).map(|(_, block)| block).collect()
}

#[test]
fn under_a_limit_no_block_goes_out_twice_while_another_is_asked_for_that_did_not() {
    for capabilities in [FAST, PLAIN] {
        let mut rig = seed(Some(LIMIT), capabilities);
        let mut all = ask(&mut rig, PEER, (0..20).chain(40..60));
        all.extend(ask(&mut rig, OTHER, (0..20).chain(20..40)));
        while all.len() < 80 {
            all.extend(wait(&mut rig, TICK));
        }
        let distinct: BTreeSet<Block> = all[..80].iter().map(|&(_, block)| block).collect();
        assert_eq!(distinct.len(), 80);
        let others = all.iter().filter(|(conn, _)| *conn == OTHER).count();
        assert!((30..=50).contains(&others), "in turns: {others}");
    }
}

#[test]
fn a_peer_that_asks_only_for_what_another_was_sent_waits_a_second() {
    for capabilities in [FAST, PLAIN] {
        let mut rig = seed(Some(LIMIT), capabilities);
        ask(&mut rig, PEER, 0..60);
        wait(&mut rig, TICK * 10);
        ask(&mut rig, OTHER, 0..1);
        let all = wait(&mut rig, Duration::from_secs(3));
        assert_eq!(all.iter().filter(|(conn, _)| *conn == OTHER).count(), 2);
        assert!(all.iter().filter(|(conn, _)| *conn == PEER).count() > 20);
    }
}

#[test]
fn a_request_for_what_a_neighbour_has_is_rejected_once() {
    let mut rig = seed(Some(LIMIT), FAST);
    ask(&mut rig, PEER, 0..2);
    wait(&mut rig, Duration::from_secs(1));
    ask(&mut rig, PEER, 10..60);
    ask(&mut rig, OTHER, 0..1);
    let outputs = say(&mut rig, PEER, Message::Have(0));
    assert_eq!(rejects(&outputs, OTHER).len(), 2, "the requests that wait");
    say(&mut rig, PEER, Message::Have(1));
    let request = |offset| Message::Request(Block { piece: 1, offset, len: BLOCK_LEN });
    assert_eq!(rejects(&say(&mut rig, OTHER, request(0)), OTHER).len(), 1, "one that comes");
    assert_eq!(rejects(&say(&mut rig, OTHER, request(BLOCK_LEN)), OTHER).len(), 1);
    assert_eq!(rejects(&say(&mut rig, OTHER, request(0)), OTHER), [], "the neighbour may not give it");
    let all = wait(&mut rig, Duration::from_secs(1));
    assert!(all.contains(&(OTHER, Block { piece: 1, offset: 0, len: BLOCK_LEN })));
}

#[test]
fn a_free_rider_gets_no_more_first_copies_while_others_ask_for_some() {
    for shares in [false, true] {
        let mut rig = seed(Some(LIMIT), FAST);
        rig.connect(ConnId(3), connected(3, FAST));
        say(&mut rig, ConnId(3), Message::Interested);
        ask(&mut rig, PEER, 0..10);
        ask(&mut rig, OTHER, 10..20);
        wait(&mut rig, Duration::from_secs(5));
        (0..10).for_each(|piece| drop(say(&mut rig, PEER, Message::Have(piece))));
        (10..20).for_each(|piece| drop(say(&mut rig, OTHER, Message::Have(piece))));
        let reached = if shares { 0..20 } else { 10..20 };
        reached.for_each(|piece| drop(say(&mut rig, ConnId(3), Message::Have(piece))));
        ask(&mut rig, PEER, 20..60);
        ask(&mut rig, OTHER, 60..PIECES);
        let all = wait(&mut rig, Duration::from_secs(4));
        let to_peer = all.iter().filter(|(conn, _)| *conn == PEER).count();
        let bounds = if shares { 20..=30 } else { 1..=5 };
        assert!(bounds.contains(&to_peer), "shares: {shares}, {to_peer} of {}", all.len());
    }
}

#[test]
fn announcing_and_retracting_a_piece_raises_no_share() {
    let mut rig = seed(Some(LIMIT), FAST);
    let (honest, liar, helper) = (PEER, OTHER, ConnId(3));
    rig.connect(helper, connected(3, FAST));
    ask(&mut rig, honest, 0..10);
    ask(&mut rig, liar, 10..20);
    wait(&mut rig, Duration::from_secs(5));
    (0..10).for_each(|piece| drop(say(&mut rig, honest, Message::Have(piece))));
    (0..3).for_each(|piece| drop(say(&mut rig, helper, Message::Have(piece))));
    (10..20).for_each(|piece| drop(say(&mut rig, liar, Message::Have(piece))));
    for _ in 0..20 {
        for piece in 10..12 {
            say(&mut rig, helper, Message::Have(piece));
            let payload = dont_have::encode(piece);
            say(&mut rig, helper, Message::Extended { id: LT_DONTHAVE_ID, payload });
        }
    }
    ask(&mut rig, honest, 20..60);
    ask(&mut rig, liar, 60..PIECES);
    let all = wait(&mut rig, Duration::from_secs(4));
    let to_honest = all.iter().filter(|(conn, _)| *conn == honest).count();
    assert!((20..=30).contains(&to_honest), "{to_honest} of {}", all.len());
}

#[test]
fn a_piece_that_is_retracted_is_not_out() {
    let mut rig = seed(Some(LIMIT), FAST);
    let retract = |rig: &mut Rig, piece| {
        say(rig, PEER, Message::Extended { id: LT_DONTHAVE_ID, payload: dont_have::encode(piece) })
    };
    let piece_count = rig.torrent.have().len();
    (0..piece_count - 1).for_each(|piece| drop(say(&mut rig, PEER, Message::Have(piece))));
    ask(&mut rig, OTHER, 0..2);
    wait(&mut rig, Duration::from_secs(1));
    (0..40).for_each(|piece| drop(retract(&mut rig, piece)));
    let mut all = ask(&mut rig, PEER, 2..4);
    all.extend(ask(&mut rig, PEER, 0..2));
    all.extend(ask(&mut rig, OTHER, 2..40));
    while all.len() < 40 {
        all.extend(wait(&mut rig, TICK));
    }
    let distinct: BTreeSet<Block> = all[..40].iter().map(|&(_, block)| block).collect();
    assert_eq!(distinct.len(), 40);
}

#[test]
fn a_free_rider_is_served_when_no_other_asks() {
    let mut rig = seed(Some(LIMIT), FAST);
    ask(&mut rig, PEER, 0..10);
    ask(&mut rig, OTHER, 10..20);
    wait(&mut rig, Duration::from_secs(5));
    (0..10).for_each(|piece| drop(say(&mut rig, PEER, Message::Have(piece))));
    (10..20).for_each(|piece| drop(say(&mut rig, OTHER, Message::Have(piece))));
    (10..20).for_each(|piece| drop(say(&mut rig, PEER, Message::Have(piece))));
    ask(&mut rig, PEER, 20..80);
    assert!(wait(&mut rig, Duration::from_secs(4)).len() >= 40);
}

#[test]
fn without_a_limit_all_are_served_as_they_ask() {
    let mut rig = seed(None, FAST);
    let first = ask(&mut rig, PEER, 0..4);
    say(&mut rig, PEER, Message::Have(0));
    assert_eq!(ask(&mut rig, OTHER, 0..4).len(), first.len());
}

#[test]
fn request_queues_are_short_while_a_limit_is_shared_and_pieces_are_to_get_out() {
    let mut rig = seed(Some(8_000_000), FAST);
    let outputs = rig.wait(Duration::from_millis(2_900));
    let told = |outputs: &[Output]| {
        let queue_max = |output: &Output| {
            let Output::Send(_, Message::Extended { id: 0, payload }) = output else { return None };
            ExtensionHandshake::decode(payload).unwrap().request_queue_max
        };
        outputs.iter().filter_map(queue_max).collect::<Vec<u32>>()
    };
    assert_eq!(told(&outputs), [61, 61], "a quarter of a second for both together");
    for _ in 0..10 {
        say(&mut rig, OTHER, Message::NotInterested);
        assert!(told(&rig.wait(Duration::from_millis(100))).is_empty(), "a change that does not last");
        say(&mut rig, OTHER, Message::Interested);
    }
    rig.torrent.handle_disconnected(rig.now, OTHER);
    let outputs = rig.wait(RAISE_PAUSE);
    assert_eq!(told(&outputs), [QUEUE_COUNT_MAX as u32], "alone");
}
