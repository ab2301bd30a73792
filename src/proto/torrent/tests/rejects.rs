//! Rejects (BEP 6) that say nothing against the peer: answers to our cancels, and many at once.

use super::rules::{PEER, PIECES, Rig, connected, disconnected, requests};
use super::swarm::FAST;
use crate::proto::bitfield::Bitfield;
use crate::proto::block::Block;
use crate::proto::peer::faults::REJECT_RUN_MAX;
use crate::proto::time::Duration;
use crate::proto::torrent::event::{Command, Output, Receipt};
use crate::proto::wire::message::Message;

/// More requests than may be refused in a row.
const IN_FLIGHT: usize = REJECT_RUN_MAX as usize + 8;

fn last_pieces(count: u32) -> Bitfield {
    let mut field = Bitfield::new(PIECES);
    (PIECES - count..PIECES).for_each(|piece| _ = field.set(piece));
    field
}

fn cancels(outputs: &[Output]) -> Vec<Block> {
    let cancel = |output: &Output| {
        if let Output::Send(PEER, Message::Cancel(block)) = output { Some(*block) } else { None }
    };
    outputs.iter().filter_map(cancel).collect()
}

fn seeded() -> (Rig, Vec<Block>) {
    let mut rig = Rig::leech();
    rig.connect(PEER, connected(1, FAST));
    rig.say(Message::HaveAll);
    let asked = requests(&rig.say(Message::Unchoke));
    (rig, asked)
}

fn want(rig: &mut Rig, wanted: Bitfield) -> Vec<Output> {
    rig.torrent.handle_command(rig.now, Command::Want(wanted));
    rig.drain()
}

#[test]
fn the_answers_to_cancels_are_no_refusals_of_what_was_asked_for_again() {
    let (mut rig, _) = seeded();
    let mut crossed = 0;
    for _ in 0..3 * REJECT_RUN_MAX {
        let cancelled = cancels(&want(&mut rig, last_pieces(1)));
        let again = requests(&want(&mut rig, last_pieces(2)));
        assert!(!cancelled.is_empty());
        for block in cancelled {
            crossed += u32::from(again.contains(&block));
            assert_eq!(disconnected(&rig.say(Message::Reject(block))), None, "after {crossed}");
        }
        rig.now += Duration::from_millis(100);
    }
    assert!(crossed > REJECT_RUN_MAX, "the same blocks are asked for again: {crossed}");
    // The last requests stand: their blocks are taken as what they are.
    let cancelled = cancels(&want(&mut rig, last_pieces(1)));
    assert!(!cancelled.is_empty(), "nothing was given up because of the rejects");
    assert!(requests(&want(&mut rig, last_pieces(2))).iter().all(|&block| {
        let receipt = rig.torrent.handle_block(rig.now, PEER, block);
        let _ = rig.drain();
        receipt == Receipt::Keep
    }));
}

#[test]
fn a_queue_that_is_shorter_than_the_pipeline_is_no_refusal_of_everything() {
    let (mut rig, mut asked) = seeded();
    while asked.len() < IN_FLIGHT {
        rig.now += Duration::from_millis(20);
        let _ = rig.torrent.handle_block(rig.now, PEER, asked.remove(0));
        asked.extend(requests(&rig.drain()));
    }
    let rejected = asked.split_off(4);
    for &block in &rejected {
        assert_eq!(disconnected(&rig.say(Message::Reject(block))), None);
    }
    let _ = rig.torrent.handle_block(rig.now, PEER, asked[0]);
    let next = requests(&rig.drain());
    assert!(next.len() <= 4, "the pipeline is as short as the queue seems to be: {}", next.len());
}

#[test]
fn a_choke_and_unchoke_before_its_rejects_is_no_refusal() {
    let (mut rig, mut asked) = seeded();
    while asked.len() < IN_FLIGHT {
        rig.now += Duration::from_millis(20);
        let _ = rig.torrent.handle_block(rig.now, PEER, asked.remove(0));
        asked.extend(requests(&rig.drain()));
    }
    rig.say(Message::Choke);
    rig.say(Message::Unchoke);
    assert!(asked.iter().all(|&block| disconnected(&rig.say(Message::Reject(block))).is_none()));
}
