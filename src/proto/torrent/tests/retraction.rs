//! Pieces that are there no more (BEP 54): ours, told to each peer as it takes it, and those of
//! peers, well-meaning or not.

use super::rules::{PEER, PIECES, Rig, block, blocks, connected, disconnected, rejects, requests};
use super::swarm::{FAST, PLAIN, Swarm, settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::block::BLOCK_LEN;
use crate::proto::peer::faults::{RETRACTION_MAX, UNSOLICITED_REJECT_MAX};
use crate::proto::piece::{Geometry, PieceIndex};
use crate::proto::rng::Rng;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{Command, ConnId, DisconnectReason, Event, Output, PieceResult, Receipt};
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::extension::{ExtensionHandshake, SP_HAVE_ID};
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;
use crate::proto::wire::sp_have;

/// The played peers' numbers.
const THEIR_LT_DONTHAVE: u8 = 7;
const THEIR_SP_HAVE: u8 = 5;
const SECOND: Duration = Duration::from_secs(1);
const OTHER: ConnId = ConnId(2);

fn these(pieces: &[PieceIndex]) -> Bitfield {
    let mut field = Bitfield::new(PIECES);
    pieces.iter().for_each(|&piece| _ = field.set(piece));
    field
}

/// What a played peer says that its piece is gone.
fn dont_have(piece: PieceIndex) -> Message {
    Message::Extended { id: LT_DONTHAVE_ID, payload: dont_have::encode(piece) }
}

/// What a played peer is told about a piece of ours.
fn told_gone(conn: ConnId, piece: PieceIndex) -> Output {
    Output::Send(conn, Message::Extended { id: THEIR_LT_DONTHAVE, payload: dont_have::encode(piece) })
}

fn is_gone_or_have(output: &Output) -> bool {
    matches!(output, Output::Send(_, Message::Have(_) | Message::Extended { id: 1.., .. }))
}

/// An extension handshake of a peer that takes these.
fn speaks(lt_donthave: bool, sp_have: bool) -> Message {
    let handshake = ExtensionHandshake {
        lt_donthave: lt_donthave.then_some(THEIR_LT_DONTHAVE),
        sp_have: sp_have.then_some(THEIR_SP_HAVE),
        ..ExtensionHandshake::default()
    };
    Message::Extended { id: 0, payload: handshake.encode() }
}

fn meet(rig: &mut Rig, conn: ConnId, capabilities: Capabilities, speaks: Option<Message>) {
    let _ = rig.connect(conn, connected(conn.0 as u8, capabilities));
    if let Some(message) = speaks {
        rig.torrent.handle_message(rig.now, conn, message);
    }
    let _ = rig.drain();
}

/// The first peer, one that takes `lt_donthave`, and what else it says.
fn met(mut rig: Rig, says: &[Message]) -> Rig {
    meet(&mut rig, PEER, FAST, Some(speaks(true, false)));
    says.iter().for_each(|message| drop(rig.say(message.clone())));
    rig
}

fn lose(rig: &mut Rig, pieces: &[PieceIndex]) -> Vec<Output> {
    rig.torrent.handle_lost(rig.now, pieces.to_vec(), true);
    rig.drain()
}

fn note(rig: &mut Rig, pieces: &[PieceIndex]) -> Vec<Output> {
    rig.torrent.handle_loss_noted(rig.now, pieces);
    rig.drain()
}

fn good(rig: &mut Rig, piece: PieceIndex) -> Vec<Output> {
    rig.torrent.handle_piece_result(rig.now, piece, PieceResult::Good(None));
    rig.drain()
}

fn have_count(rig: &Rig) -> u32 {
    rig.torrent.snapshot(rig.now).peers[0].have_count
}

#[test]
fn our_handshakes_offer_it() {
    let outputs = Rig::leech().connect(PEER, connected(1, FAST));
    let offer = |output: &Output| {
        let Output::Send(_, Message::Extended { id: 0, payload }) = output else { return None };
        ExtensionHandshake::decode(payload).unwrap().lt_donthave
    };
    assert_eq!(outputs.iter().find_map(offer), Some(LT_DONTHAVE_ID));
}

#[test]
fn a_lost_piece_is_taken_back_from_who_takes_that_and_others_are_greeted_anew() {
    let mut rig = Rig::seed();
    let peers = [
        (FAST, Some(speaks(true, false))),
        (FAST, Some(speaks(true, true))),
        (FAST, Some(speaks(false, true))),
        (FAST, None),
        (PLAIN, None),
    ];
    for (number, (capabilities, speaks)) in (1..).zip(peers) {
        meet(&mut rig, ConnId(number), capabilities, speaks);
    }
    let outputs = lose(&mut rig, &[3]);
    assert!(outputs.contains(&told_gone(ConnId(1), 3)));
    let by_sp_have = Message::Extended { id: THEIR_SP_HAVE, payload: vec![2, 3].into() };
    assert!(outputs.contains(&Output::Send(ConnId(2), by_sp_have)));
    for conn in 3..=5 {
        assert!(outputs.contains(&Output::Disconnect(ConnId(conn), DisconnectReason::Anew)), "{conn}");
    }
    assert_eq!(outputs.iter().filter(|output| is_gone_or_have(output)).count(), 2, "{outputs:?}");
    assert_eq!(rig.torrent.snapshot(rig.now).peers.len(), 2);
    assert!(lose(&mut rig, &[3]).is_empty(), "it is gone already");
}

#[test]
fn what_was_not_told_yet_is_not_taken_back_but_withdrawn() {
    let mut rig = Rig::leech();
    meet(&mut rig, PEER, FAST, Some(speaks(true, false)));
    meet(&mut rig, OTHER, PLAIN, None);
    // Who knows of nothing is told of the first at once, and of the others with the interval.
    assert_eq!(good(&mut rig, 0).iter().filter(|output| is_gone_or_have(output)).count(), 2);
    [1, 2].into_iter().for_each(|piece| assert!(!good(&mut rig, piece).iter().any(is_gone_or_have)));
    let outputs = lose(&mut rig, &[1]);
    assert!(!outputs.iter().any(is_gone_or_have) && disconnected(&outputs).is_none(), "{outputs:?}");
    let outputs = lose(&mut rig, &[0]);
    assert!(outputs.contains(&told_gone(PEER, 0)));
    assert!(outputs.contains(&Output::Disconnect(OTHER, DisconnectReason::Anew)));
    let news: Vec<_> = rig.wait(SECOND).into_iter().filter(is_gone_or_have).collect();
    assert_eq!(news, [Output::Send(PEER, Message::Have(2))]);
    // Fetched again, it is news again.
    note(&mut rig, &[0, 1]);
    good(&mut rig, 0);
    let news: Vec<_> = rig.wait(SECOND).into_iter().filter(is_gone_or_have).collect();
    assert_eq!(news, [Output::Send(PEER, Message::Have(0))]);
}

#[test]
fn many_lost_pieces_cost_a_sprat_one_bitfield_and_others_a_new_connection() {
    let piece_count = 2_000;
    let geometry = Geometry::new(u64::from(piece_count) * 16_384, 16_384).unwrap();
    let (now, all) = (Instant::ZERO, Bitfield::full(piece_count));
    let mut torrent = Torrent::new(settings(0), geometry, all.clone(), all, Rng::from_number(1), now);
    for (conn, speaks) in [(PEER, speaks(true, false)), (OTHER, speaks(true, true))] {
        torrent.handle_connected(now, conn, connected(conn.0 as u8, FAST));
        torrent.handle_message(now, conn, speaks);
    }
    while torrent.poll_output().is_some() {}
    torrent.handle_lost(now, (0..1_999).collect(), true);
    let outputs: Vec<_> = std::iter::from_fn(|| torrent.poll_output()).collect();
    assert!(outputs.contains(&Output::Disconnect(PEER, DisconnectReason::Anew)));
    let told: Vec<_> = outputs.into_iter().filter(is_gone_or_have).collect();
    let payload = sp_have::encode_lost(&(0..1_999).collect::<Vec<_>>(), torrent.have());
    assert_eq!(payload.len(), 251);
    assert_eq!(told, [Output::Send(OTHER, Message::Extended { id: THEIR_SP_HAVE, payload })]);
}

#[test]
fn blocks_of_a_lost_piece_are_not_sent_and_each_request_has_its_answer() {
    for capabilities in [FAST, Capabilities { fast: false, ..FAST }] {
        let mut rig = Rig::seed();
        meet(&mut rig, PEER, capabilities, Some(speaks(true, false)));
        rig.say(Message::Interested);
        rig.wait(SECOND);
        let handed: usize = (0..20).map(|piece| blocks(&rig.say(Message::Request(block(piece))))).sum();
        assert_eq!(handed, 16);
        let outputs = lose(&mut rig, &[0, 17]);
        let reject = Output::Send(PEER, Message::Reject(block(17)));
        assert_eq!(rejects(&outputs), usize::from(capabilities.fast), "one in the queue, one in hand");
        if capabilities.fast {
            let place = |output: &Output| outputs.iter().position(|other| other == output).unwrap();
            assert!(place(&told_gone(PEER, 17)) < place(&reject), "else it is asked for again");
        }
        // The one in hand cannot be read.
        rig.torrent.handle_blocks_unsent(rig.now, PEER, &[block(0)]);
        let outputs = rig.drain();
        let reject = Output::Send(PEER, Message::Reject(block(0)));
        assert_eq!(outputs.contains(&reject), capabilities.fast);
        assert!(outputs.contains(&Output::SendBlock(PEER, block(16))), "there is room for another");
        rig.torrent.handle_blocks_sent(rig.now, PEER, 15, 15 * u64::from(BLOCK_LEN));
        let rest = rig.drain();
        assert_eq!(blocks(&rest), 2);
        assert!(!rest.contains(&Output::SendBlock(PEER, block(17))));
        let uploaded = rig.torrent.snapshot(rig.now).traffic.uploaded;
        assert_eq!(uploaded, 15 * u64::from(BLOCK_LEN), "what was not sent does not count");
    }
}

#[test]
fn allowed_fast_holds_again_when_the_piece_is_there_again() {
    let mut rig = Rig::seed();
    meet(&mut rig, PEER, FAST, Some(speaks(true, false)));
    let welcome = rig.say(Message::HaveNone);
    let allowed =
        |output| if let Output::Send(_, Message::AllowedFast(piece)) = output { Some(piece) } else { None };
    let piece = welcome.into_iter().find_map(allowed).unwrap();
    lose(&mut rig, &[piece]);
    let outputs = rig.say(Message::Request(block(piece)));
    assert_eq!((blocks(&outputs), rejects(&outputs)), (0, 1));
    note(&mut rig, &[piece]);
    good(&mut rig, piece);
    assert_eq!(blocks(&rig.say(Message::Request(block(piece)))), 1);
}

#[test]
fn what_is_lost_is_not_suggested_and_something_else_in_its_place() {
    let suggested = |outputs: &[Output]| {
        let suggestion = |output: &Output| {
            if let Output::Send(_, Message::Suggest(piece)) = output { Some(*piece) } else { None }
        };
        outputs.iter().filter_map(suggestion).collect::<Vec<_>>()
    };
    let mut rig = Rig::seed();
    lose(&mut rig, &(0..96).collect::<Vec<_>>());
    let mut rig = met(rig, &[]);
    let mut outputs = rig.say(Message::Interested);
    outputs.extend(rig.wait(SECOND));
    let first = suggested(&outputs);
    assert!(first.len() == 2 && first.iter().all(|&piece| piece >= 96), "{first:?}");
    let second = suggested(&lose(&mut rig, &first));
    assert!(second.len() == 2 && second.iter().all(|piece| *piece >= 96 && !first.contains(piece)));
}

#[test]
fn a_lost_piece_is_fetched_again_when_its_loss_is_noted_if_it_is_wanted_then() {
    for kept in [vec![3, 4], vec![3], vec![]] {
        let mut rig = Rig::seed();
        lose(&mut rig, &[3, 4]);
        assert!(!rig.torrent.is_complete());
        let mut rig = met(rig, &[]);
        assert!(rig.say(Message::HaveAll).contains(&Output::Send(PEER, Message::Interested)));
        assert!(requests(&rig.say(Message::Unchoke)).is_empty(), "held back");
        assert!(requests(&rig.wait(3 * SECOND)).is_empty(), "for as long as it takes");
        // The user wants something else meanwhile.
        let mut wanted = Bitfield::full(PIECES);
        [3, 4].into_iter().filter(|piece| !kept.contains(piece)).for_each(|piece| _ = wanted.clear(piece));
        rig.torrent.handle_command(rig.now, Command::Want(wanted));
        let mut outputs = rig.drain();
        outputs.extend(note(&mut rig, &[3, 4]));
        let mut asked: Vec<_> = requests(&outputs).iter().map(|block| block.piece).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, kept);
        assert_eq!(outputs.contains(&Output::Event(Event::Completed)), kept.is_empty());
    }
}

#[test]
fn what_is_not_fetched_again_leaves_the_rest_complete() {
    let mut rig = met(Rig::seed(), &[]);
    rig.torrent.handle_lost(rig.now, vec![3], false);
    let outputs = rig.drain();
    assert!(outputs.contains(&told_gone(PEER, 3)));
    assert!(!outputs.contains(&Output::Event(Event::Completed)), "it has been for long");
    assert!(rig.torrent.is_complete() && rig.torrent.snapshot(rig.now).complete);
    note(&mut rig, &[3]);
    rig.say(Message::Have(3));
    assert!(requests(&rig.say(Message::Unchoke)).is_empty());
}

#[test]
fn what_a_peer_takes_back_is_asked_elsewhere_and_its_late_answers_are_no_fault() {
    let mut rig = met(Rig::leech(), &[Message::HaveAll]);
    let asked = requests(&rig.say(Message::Unchoke));
    let (gone, others): (Vec<_>, Vec<_>) = asked.iter().partition(|block| block.piece == asked[0].piece);
    assert!(!others.is_empty());
    meet(&mut rig, OTHER, FAST, None);
    rig.torrent.handle_message(rig.now, OTHER, Message::Bitfield(these(&[asked[0].piece])));
    rig.torrent.handle_message(rig.now, OTHER, Message::Unchoke);
    assert!(
        requests(&rig.drain()).iter().all(|block| !gone.contains(block)),
        "nothing is asked twice so far"
    );
    let outputs = rig.say(dont_have(asked[0].piece));
    assert_eq!((have_count(&rig), disconnected(&outputs)), (PIECES - 1, None));
    for &block in &gone {
        assert!(outputs.contains(&Output::Send(OTHER, Message::Request(block))), "{outputs:?}");
        assert!(!outputs.contains(&Output::Send(PEER, Message::Request(block))));
    }
    // Answers that were under way: the rejects of BEP 6, and a block.
    assert_eq!(rig.torrent.handle_block(rig.now, PEER, gone[0]), Receipt::Keep);
    gone[1..].iter().for_each(|&block| assert_eq!(disconnected(&rig.say(Message::Reject(block))), None));
    let nothing =
        (0..UNSOLICITED_REJECT_MAX).all(|_| disconnected(&rig.say(Message::Reject(gone[0]))).is_none());
    assert!(nothing && disconnected(&rig.say(Message::Reject(gone[0]))).is_some(), "each has one answer");
}

#[test]
fn interest_follows_what_a_peer_takes_back() {
    let mut rig = met(Rig::leech(), &[]);
    for _ in 0..3 {
        assert!(rig.say(Message::Have(5)).contains(&Output::Send(PEER, Message::Interested)));
        assert!(rig.say(dont_have(5)).contains(&Output::Send(PEER, Message::NotInterested)));
    }
    let snapshot = rig.torrent.snapshot(rig.now);
    assert_eq!((snapshot.availability_min, snapshot.peers[0].have_count), (0, 0));
}

#[test]
fn a_seed_that_takes_back_a_piece_is_none_until_it_has_it_again() {
    for takes_back in [true, false] {
        let mut have = Bitfield::full(PIECES);
        have.clear(9);
        let mut rig = met(Rig::new(have), &[Message::HaveAll]);
        assert_eq!(rig.torrent.snapshot(rig.now).availability_min, 1);
        if takes_back {
            rig.say(dont_have(3));
            assert_eq!(rig.torrent.snapshot(rig.now).availability_min, 0);
        }
        let parted = disconnected(&good(&mut rig, 9));
        assert_eq!(parted.is_none(), takes_back, "{parted:?}");
        if takes_back {
            assert_eq!(disconnected(&rig.say(Message::Have(3))), Some(DisconnectReason::BothComplete));
        }
    }
}

#[test]
fn who_takes_back_what_we_have_hears_of_it() {
    let mut rig = met(Rig::new(these(&[3, 4])), &[Message::Bitfield(these(&[3, 4, 5, 6, 7, 8]))]);
    assert!(rig.say(dont_have(3)).contains(&Output::Send(PEER, Message::Have(3))), "it may not know");
    // It has this one, and so is told of it with the interval.
    assert!(!good(&mut rig, 5).iter().any(is_gone_or_have));
    assert!(!rig.say(dont_have(5)).iter().any(is_gone_or_have), "in its turn");
    let news: Vec<_> = rig.wait(SECOND).into_iter().filter(is_gone_or_have).collect();
    assert_eq!(news, [Output::Send(PEER, Message::Have(5))]);
    rig.say(speaks(true, true));
    let gone = sp_have::encode_lost(&[4, 6], &these(&[]));
    let outputs = rig.say(Message::Extended { id: SP_HAVE_ID, payload: gone });
    assert!(outputs.contains(&Output::Send(PEER, Message::Have(4))));
}

#[test]
fn sp_have_takes_back_by_name_and_by_what_it_leaves_out() {
    let sp_have = |payload| Message::Extended { id: SP_HAVE_ID, payload };
    let mut rig = met(Rig::leech(), &[speaks(true, true), Message::Bitfield(these(&[1, 2, 3]))]);
    rig.say(sp_have(sp_have::encode_lost(&[2], &these(&[1, 3]))));
    assert_eq!(have_count(&rig), 2);
    let full = [&[0], these(&[3, 50]).as_bytes()].concat();
    rig.say(sp_have(full.into()));
    assert_eq!(have_count(&rig), 2);
    assert!(rig.say(dont_have(3)).is_empty() && have_count(&rig) == 1);
    assert!(rig.say(dont_have(50)).contains(&Output::Send(PEER, Message::NotInterested)));
}

#[test]
fn taking_back_nonsense_ends_the_connection() {
    let payload = |bytes: &'static [u8]| Message::Extended { id: LT_DONTHAVE_ID, payload: bytes.into() };
    for offence in [dont_have(PIECES), dont_have(u32::MAX), payload(b""), payload(b"\0\0\0\0\0")] {
        let mut rig = met(Rig::leech(), &[Message::HaveAll]);
        let reason = disconnected(&rig.say(offence.clone()));
        assert!(matches!(reason, Some(DisconnectReason::Protocol(_))), "{offence:?}");
        assert!(rig.torrent.snapshot(rig.now).peers.is_empty());
    }
}

#[test]
fn what_comes_before_the_bitfield_does_not_stand_for_it() {
    let mut rig = met(Rig::seed(), &[]);
    assert_eq!(disconnected(&rig.say(dont_have(3))), None);
    let welcome = rig.say(Message::Bitfield(these(&[3])));
    assert!(welcome.iter().any(|output| matches!(output, Output::Send(_, Message::AllowedFast(_)))));
    assert_eq!(have_count(&rig), 1);
}

#[test]
fn floods_of_what_is_taken_back_are_bounded() {
    let flood = |rig: &mut Rig, messages: &[Message]| {
        (1..)
            .find(|_| messages.iter().any(|message| disconnected(&rig.say(message.clone())).is_some()))
            .unwrap()
    };
    let mut rig = met(Rig::leech(), &[]);
    assert_eq!(flood(&mut rig, &[dont_have(3)]), RETRACTION_MAX + 1, "what it never had");
    let mut rig = met(Rig::leech(), &[Message::HaveAll]);
    let count = flood(&mut rig, &[dont_have(3), Message::Have(3)]);
    assert_eq!(count, PIECES + RETRACTION_MAX + 1, "once is free for each piece");
}

#[test]
fn a_seed_that_loses_pieces_keeps_its_leech_and_gets_them_from_it() {
    let mut swarm = Swarm::new(Geometry::new(40 * 65_536, 65_536).unwrap());
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    swarm.nodes[seed].uplink = 500_000;
    swarm.introduce(leech, seed);
    let have_count = |swarm: &Swarm| swarm.nodes[leech].torrent.have().count();
    assert!(swarm.run(60 * SECOND, |swarm| have_count(swarm) >= 20));
    // Of those that the leech has some, and it was never told of one that the seed has.
    let lost: Vec<_> = swarm.nodes[leech].torrent.have().iter_set().step_by(3).collect();
    swarm.input(seed, |torrent, now| torrent.handle_lost(now, lost.clone(), true));
    swarm.run(SECOND, |_| false);
    swarm.input(seed, |torrent, now| torrent.handle_loss_noted(now, &lost));
    let gone = |swarm: &Swarm| {
        let event = |event: &Event| matches!(event, Event::PeerDisconnected(..));
        swarm.nodes.iter().any(|node| node.events.iter().any(|(_, gone)| event(gone)))
    };
    swarm.run(60 * SECOND, |swarm| gone(swarm) || (swarm.is_complete(seed) && swarm.is_complete(leech)));
    assert!(swarm.is_complete(seed) && swarm.is_complete(leech), "on one connection");
    assert!(swarm.nodes[seed].torrent.have().is_full());
}
