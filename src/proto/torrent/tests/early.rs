//! What peers say and the user wants before the metadata is known.

use super::played::{Manner, Rig, SECOND, honest, info, own_settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::{Geometry, PIECE_COUNT_MAX};
use crate::proto::torrent::event::{Command, DisconnectReason, Settings};
use crate::proto::wire::dont_have::{self, LT_DONTHAVE_ID};
use crate::proto::wire::message::Message;

/// The content that the metadata of the rig stands for.
fn begin_content(rig: &mut Rig, piece_count: u32) {
    let geometry = Geometry::new(u64::from(piece_count) * 16_384, 16_384).unwrap();
    let settings = Settings { metadata: info(), ..own_settings() };
    let (have, wanted) = (Bitfield::new(piece_count), Bitfield::full(piece_count));
    rig.torrent.handle_content(rig.now, settings, geometry, have, wanted);
    rig.outputs.extend(std::iter::from_fn(|| rig.torrent.poll_output()));
}

/// The bitfield of a peer that has all ten pieces, with as many bits as its bytes.
fn ten_of_sixteen() -> Bitfield {
    let mut field = Bitfield::new(16);
    (0..10).for_each(|piece| _ = field.set(piece));
    field
}

#[test]
fn what_is_said_about_pieces_before_the_metadata_counts_when_they_are_known() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, honest());
    rig.say(conn, Message::Bitfield(ten_of_sixteen()));
    rig.say(conn, Message::Extended { id: LT_DONTHAVE_ID, payload: dont_have::encode(3) });
    for message in [Message::Unchoke, Message::Choke, Message::Interested] {
        rig.say(conn, message);
    }
    assert!(rig.run(SECOND));
    begin_content(&mut rig, 10);
    let peer = &rig.torrent.snapshot(rig.now).peers[0];
    assert_eq!((peer.have_count, peer.peer_choking, peer.peer_interested), (9, true, true));
    assert!(rig.told(conn).contains(&Message::Interested));
    // Of another torrent.
    let mut rig = Rig::new();
    let conn = rig.meet(1, honest());
    rig.say(conn, Message::Bitfield(Bitfield::full(24)));
    assert!(rig.run(SECOND));
    begin_content(&mut rig, 10);
    assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
}

#[test]
fn a_peer_that_says_more_about_pieces_than_is_kept_is_met_again_when_they_are_known() {
    let mut rig = Rig::new();
    let (long, many) = (rig.meet(1, honest()), rig.meet(2, honest()));
    // Two of the longest bitfields there are fit with what others say, not forty.
    let field = Bitfield::full(PIECE_COUNT_MAX);
    (0..40).for_each(|_| rig.say(long, Message::Bitfield(field.clone())));
    (0..5_000).for_each(|piece| rig.say(many, Message::Have(piece)));
    let other = rig.meet(3, honest());
    rig.say(other, Message::Bitfield(ten_of_sixteen()));
    assert!(rig.run(SECOND));
    assert_eq!([long, many, other].map(|conn| rig.closed(conn)), [None; 3]);
    begin_content(&mut rig, 10);
    let anew = Some(DisconnectReason::Anew);
    assert_eq!([long, many, other].map(|conn| rig.closed(conn)), [anew, anew, None]);
}

#[test]
fn commands_hold_before_the_metadata_is_there_and_after() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(100_000));
    let mut wanted = Bitfield::new(10);
    wanted.set(4);
    rig.torrent.handle_command(rig.now, Command::Want(wanted.clone()));
    rig.torrent.handle_command(rig.now, Command::Pause);
    rig.drain();
    assert_eq!(rig.closed(conn), Some(DisconnectReason::Stopping));
    assert!(rig.torrent.snapshot(rig.now).paused && !rig.torrent.is_complete());
    rig.torrent.handle_command(rig.now, Command::Resume);
    rig.meet(2, honest());
    assert!(rig.run(SECOND));
    begin_content(&mut rig, 10);
    assert_eq!(rig.torrent.wanted(), &wanted);
    assert!(!rig.torrent.snapshot(rig.now).paused);
}
