//! Fetching the metadata from peers that a test plays.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::Bytes;

use super::played::{Manner, Rig, SECOND, THEIR_ID, addr_of, falsified, honest, own_settings};
use super::rules::connected;
use super::swarm::{FAST, PLAIN, addr};
use crate::proto::block::{BLOCK_LEN, Block};
use crate::proto::infohash::InfoHash;
use crate::proto::rng::Rng;
use crate::proto::session::Lease;
use crate::proto::torrent::Torrent;
use crate::proto::torrent::event::{
    ConnId, Connected, Direction, DisconnectReason, Event, Output, Receipt, Settings, Source,
};
use crate::proto::torrent::metadata::METADATA_LEN_MAX;
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;
use crate::proto::wire::metadata::{MetadataMessage, UT_METADATA_ID};
use crate::proto::wire::pex::{PexFlags, PexMessage, UT_PEX_ID};

#[test]
fn one_peer_gives_it_and_several_share_the_work() {
    for count in [1, 3] {
        let mut rig = Rig::new();
        let conns: Vec<_> = (1..=count).map(|number| rig.meet(number, honest())).collect();
        assert!(rig.run(SECOND));
        let asked: Vec<_> = conns.iter().map(|&conn| rig.asked(conn).len()).collect();
        assert_eq!(asked.iter().sum::<usize>(), 7, "nothing twice: {asked:?}");
        assert!(asked.iter().all(|&asked| asked < 7) || count == 1, "{asked:?}");
        assert!(rig.banned().is_empty());
        assert_eq!(rig.reserved_max, 100_000);
    }
}

#[test]
fn a_greeting_says_what_we_are() {
    let mut rig = Rig::new();
    let both = Capabilities { dht: true, ..FAST };
    rig.torrent.handle_connected(rig.now, ConnId(1), connected(1, both));
    rig.drain();
    let sent = rig.told(ConnId(1));
    let [Message::HaveNone, Message::Port(6882), Message::Extended { id: 0, payload }] = &sent[..] else {
        panic!("{sent:?}");
    };
    let handshake = ExtensionHandshake::decode(payload).unwrap();
    assert_eq!((handshake.ut_metadata, handshake.metadata_size), (Some(UT_METADATA_ID), None));
    assert!(handshake.ut_pex.is_some() && handshake.port == Some(6881));
    rig.say(ConnId(1), Message::Port(77));
    let node = SocketAddr::new(addr_of(1).ip(), 77);
    assert!(rig.outputs.contains(&Output::DhtNode(node)));
    rig.outputs.clear();
    rig.torrent.handle_connected(rig.now, ConnId(2), connected(2, PLAIN));
    rig.drain();
    assert_eq!(rig.outputs, [Output::Event(Event::PeerConnected(addr_of(2)))]);
}

#[test]
fn a_lie_about_the_size_costs_the_others_nothing() {
    for lie in [1, 16_384, 99_999, 100_001, METADATA_LEN_MAX, METADATA_LEN_MAX + 1, u32::MAX] {
        let mut rig = Rig::new();
        rig.meet(1, Manner::Silent(lie));
        rig.meet(2, Manner::Answers(vec![7; 300_000].into()));
        rig.meet(3, honest());
        assert!(rig.run(SECOND), "{lie}");
        assert!(rig.reserved_max <= u64::from(METADATA_LEN_MAX) + 400_000);
    }
}

#[test]
fn too_long_a_description_is_not_asked_for() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(METADATA_LEN_MAX + 1));
    rig.run(60 * SECOND);
    assert!(rig.asked(conn).is_empty() && rig.closed(conn).is_none());
    assert_eq!((rig.reserved_max, rig.progress().source_count), (0, 0));
}

#[test]
fn who_sends_a_wrong_one_alone_is_banned_at_once() {
    let mut rig = Rig::new();
    let liar = rig.meet(1, falsified(3));
    assert!(!rig.run(SECOND));
    assert_eq!(rig.closed(liar), Some(DisconnectReason::Poison));
    rig.meet(2, honest());
    assert!(rig.run(SECOND));
    assert_eq!(rig.banned(), BTreeSet::from([addr_of(1)]));
}

#[test]
fn exactly_the_liars_among_contributors_are_banned() {
    for seed in 0..8 {
        let mut rig = Rig::new();
        rig.torrent = Torrent::without_metadata(own_settings(), Rng::from_number(seed), rig.now);
        let honest_conns = [rig.meet(1, honest()), rig.meet(3, honest())];
        rig.meet(2, falsified(3));
        rig.meet(4, falsified(6));
        assert!(rig.run(120 * SECOND), "{seed}");
        assert!(
            rig.banned().is_subset(&BTreeSet::from([addr_of(2), addr_of(4)])),
            "{seed}: {:?}",
            rig.banned()
        );
        assert!(honest_conns.iter().all(|conn| rig.closed(*conn).is_none()), "{seed}");
    }
}

#[test]
fn a_lie_among_three_is_found_out() {
    // Every piece of the second peer is wrong, so whatever it was asked for spoils the common copy.
    let mut rig = Rig::new();
    rig.meet(1, honest());
    rig.meet(2, Manner::Answers(vec![0; 100_000].into()));
    rig.meet(3, honest());
    assert!(rig.run(10 * SECOND));
    assert_eq!(rig.banned(), BTreeSet::from([addr_of(2)]));
    assert!(rig.reserved_max <= 400_000, "{}", rig.reserved_max);
}

#[test]
fn the_silent_and_those_who_reject_hold_nothing_up() {
    let mut rig = Rig::new();
    let silent = rig.meet(1, Manner::Silent(100_000));
    let rejecting = rig.meet(2, Manner::Rejects(100_000));
    rig.run(SECOND);
    rig.meet(3, honest());
    assert!(rig.run(5 * SECOND));
    assert!(rig.asked(silent).len() <= 4 && rig.asked(rejecting).len() <= 8);
    assert!(rig.closed(silent).is_none() && rig.banned().is_empty());
}

#[test]
fn a_peer_that_rejects_everything_is_asked_ever_less() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Rejects(100_000));
    rig.run(300 * SECOND);
    let asked = rig.asked(conn).len();
    assert!((4..=80).contains(&asked), "{asked}");
}

#[test]
fn alone_the_silent_do_not_keep_the_others_from_proving_themselves() {
    let mut rig = Rig::new();
    rig.meet(1, Manner::Answers(vec![0; 100_000].into()));
    rig.meet(2, honest());
    // The common copy fails, and of those who then have to prove themselves most are silent.
    for number in 3..40 {
        rig.meet(number, Manner::Silent(100_000));
    }
    rig.meet(40, honest());
    assert!(rig.run(600 * SECOND));
    assert_eq!(rig.banned(), BTreeSet::from([addr_of(1)]));
    assert!(rig.reserved_max <= 800_000, "{}", rig.reserved_max);
}

#[test]
fn a_late_comer_is_asked_before_the_silent_are_asked_again() {
    let small = Bytes::from(vec![3; 10_000]);
    let mut rig = Rig::new();
    let settings = Settings { infohash: InfoHash::of(&small), ..own_settings() };
    rig.torrent = Torrent::without_metadata(settings, Rng::from_number(1), rig.now);
    for number in 1..10 {
        rig.meet(number, Manner::Silent(10_000));
        rig.run(SECOND);
    }
    rig.run(50 * SECOND);
    rig.meet(10, Manner::Answers(small.clone()));
    rig.run(30 * SECOND);
    assert_eq!(rig.described, Some(small));
}

#[test]
fn liars_that_keep_their_connections_alive_make_room_for_others() {
    let mut rig = Rig::new();
    let lease = Lease { connection_max: 3, unchoke_max: None, upload_rate: None, download_rate: None };
    rig.torrent.handle_lease(rig.now, lease);
    (1..=3).for_each(|number| _ = rig.meet(number, Manner::Silent(100_000)));
    rig.torrent.handle_candidates(rig.now, Source::User, &[addr(9)]);
    for _ in 0..7 {
        rig.run(10 * SECOND);
        (1..=3).for_each(|conn| rig.say(ConnId(conn), Message::KeepAlive));
    }
    assert!(rig.outputs.contains(&Output::Dial(addr(9))));
}

#[test]
fn what_a_liar_leaves_behind_or_hardly_feeds_does_not_keep_its_room() {
    let mut rig = Rig::new();
    let total_len = METADATA_LEN_MAX;
    let released = |rig: &Rig| {
        rig.outputs.iter().filter(|output| **output == Output::ReleaseMetadata(total_len)).count()
    };
    let data = |piece| MetadataMessage::Data { piece, total_len, bytes: vec![0; 16_384].into() };
    let conn = rig.meet(1, Manner::Silent(total_len));
    rig.say_metadata(conn, &data(rig.asked(conn)[0]));
    rig.torrent.handle_disconnected(rig.now, conn);
    rig.drain();
    assert_eq!(rig.reserved, u64::from(total_len));
    rig.run(301 * SECOND);
    assert_eq!((rig.reserved, rig.torrent.poll_timeout(), released(&rig)), (0, None, 1));
    let conn = rig.meet(2, Manner::Silent(total_len));
    for at in 0..4 {
        rig.say_metadata(conn, &data(rig.asked(conn)[at]));
        rig.run(100 * SECOND);
    }
    assert_eq!((rig.closed(conn), released(&rig)), (None, 2));
}

#[test]
fn who_switches_its_metadata_off_is_not_asked_any_more() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(100_000));
    let off = ExtensionHandshake { ut_metadata: Some(0), ..ExtensionHandshake::default() };
    rig.say(conn, Message::Extended { id: 0, payload: off.encode() });
    assert_eq!((rig.progress().source_count, rig.closed(conn)), (0, None));
}

#[test]
fn of_two_connections_the_one_that_stays_stands_for_the_address_that_was_dialled() {
    for (name, incoming_first) in [(1, true), (1, false), (b'z', true), (b'z', false)] {
        let mut rig = Rig::new();
        rig.torrent.handle_candidates(rig.now, Source::Tracker { local: false }, &[addr(1)]);
        let mut incoming = connected(1, FAST);
        incoming.peer_id.0[0] = name;
        let outgoing = Connected { addr: addr(1), direction: Direction::Outgoing, ..incoming };
        let (first, second) = if incoming_first { (incoming, outgoing) } else { (outgoing, incoming) };
        rig.torrent.handle_connected(rig.now, ConnId(1), first);
        rig.torrent.handle_connected(rig.now, ConnId(2), second);
        assert_eq!((rig.torrent.demand().connections, rig.torrent.demand().candidates), (1, 0));
        (1..=2).for_each(|conn| rig.torrent.handle_disconnected(rig.now, ConnId(conn)));
        assert_eq!((rig.torrent.demand().connections, rig.torrent.demand().candidates), (0, 1));
    }
}

#[test]
fn a_peer_that_changes_its_size_is_dropped() {
    let handshake = |len| ExtensionHandshake {
        ut_metadata: Some(THEIR_ID),
        metadata_size: Some(len),
        ..ExtensionHandshake::default()
    };
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(100_000));
    rig.say(conn, Message::Extended { id: 0, payload: handshake(100_000).encode() });
    assert_eq!(rig.closed(conn), None);
    rig.say(conn, Message::Extended { id: 0, payload: handshake(100_001).encode() });
    assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
    let data = MetadataMessage::Data { piece: 0, total_len: 50_000, bytes: vec![0; 16_384].into() };
    let conn = rig.meet(2, Manner::Says(100_000, data));
    rig.run(SECOND);
    assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
}

#[test]
fn pieces_of_wrong_length_end_the_connection_and_unasked_ones_do_when_they_go_on() {
    let data =
        |piece, len: usize| MetadataMessage::Data { piece, total_len: 20_000, bytes: vec![0; len].into() };
    for wrong in [data(0, 100), data(1, 16_384), data(0, 0)] {
        let mut rig = Rig::new();
        let conn = rig.meet(1, Manner::Says(20_000, wrong));
        rig.run(SECOND);
        assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
    }
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(20_000));
    let stranger = ConnId(2);
    rig.torrent.handle_connected(rig.now, stranger, connected(2, FAST));
    for _ in 0..100 {
        rig.say_metadata(conn, &data(7, 16_384));
        rig.say_metadata(stranger, &data(0, 16_384));
    }
    assert_eq!((rig.closed(conn), rig.closed(stranger)), (None, None));
    rig.say_metadata(conn, &data(7, 16_384));
    rig.say_metadata(stranger, &data(0, 16_384));
    assert!(rig.closed(conn).is_some() && rig.closed(stranger).is_some());
    assert_eq!(rig.progress().done_len, 0);
}

#[test]
fn nothing_is_asked_for_before_there_is_room() {
    let mut rig = Rig::new();
    rig.grants = 0;
    let conn = rig.meet(1, honest());
    rig.run(30 * SECOND);
    assert!(rig.asked(conn).is_empty());
    rig.grants = u64::MAX;
    rig.reserved = 100_000;
    rig.torrent.handle_metadata_reserved(rig.now, 100_000);
    rig.drain();
    assert!(rig.run(SECOND));
    // Granted after whoever claimed it has gone.
    let mut rig = Rig::new();
    rig.grants = 0;
    let conn = rig.meet(1, honest());
    rig.torrent.handle_disconnected(rig.now, conn);
    rig.torrent.handle_metadata_reserved(rig.now, 100_000);
    rig.reserved = 100_000;
    rig.drain();
    assert_eq!(rig.reserved, 0);
}

#[test]
fn liars_that_hold_all_copies_have_to_send_them_and_are_banned() {
    let mut rig = Rig::new();
    for number in 1..30 {
        rig.meet(number, Manner::Silent(200_000 + u32::from(number)));
    }
    rig.meet(30, honest());
    assert!(rig.run(300 * SECOND));
    let mut rig = Rig::new();
    for number in 1..30 {
        rig.meet(number, Manner::Answers(vec![number; 200_000 + usize::from(number)].into()));
    }
    rig.meet(30, honest());
    assert!(rig.run(300 * SECOND));
    assert!(rig.banned().iter().all(|addr| *addr != addr_of(30)));
    assert!(rig.reserved_max <= 8 * 300_000);
}

#[test]
fn magnets_among_themselves_wait_in_peace_and_make_room_for_others() {
    let mut rig = Rig::new();
    let now = rig.now;
    let lease = Lease { connection_max: 3, unchoke_max: None, upload_rate: None, download_rate: None };
    rig.torrent.handle_lease(now, lease);
    for number in 1..=3 {
        let conn = ConnId(u32::from(number));
        rig.torrent.handle_connected(now, conn, connected(number, FAST));
        let handshake = ExtensionHandshake { ut_metadata: Some(THEIR_ID), ..ExtensionHandshake::default() };
        rig.say(conn, Message::Extended { id: 0, payload: handshake.encode() });
        rig.say_metadata(conn, &MetadataMessage::Request(0));
    }
    assert_eq!((rig.run(50 * SECOND), rig.progress().source_count), (false, 0));
    assert!((1..=3).all(|conn| rig.closed(ConnId(conn)).is_none()));
    rig.torrent.handle_candidates(rig.now, Source::User, &[addr(9)]);
    rig.drain();
    assert!(!rig.outputs.contains(&Output::Dial(addr(9))));
    rig.run(20 * SECOND);
    assert!(rig.outputs.contains(&Output::Dial(addr(9))), "room was made");
    assert_eq!(rig.closed(ConnId(1)), Some(DisconnectReason::Full));
    assert!(rig.closed(ConnId(2)).is_none());
}

#[test]
fn an_empty_machine_waits_for_nothing() {
    let rig = Rig::new();
    assert_eq!(rig.torrent.poll_timeout(), None);
}

#[test]
fn ourselves_doubles_and_the_banned_are_refused() {
    let mut rig = Rig::new();
    let ours = Connected { peer_id: own_settings().peer_id, ..connected(1, FAST) };
    rig.torrent.handle_connected(rig.now, ConnId(1), ours);
    rig.meet(2, falsified(0));
    rig.run(SECOND);
    rig.torrent.handle_connected(rig.now, ConnId(3), connected(2, FAST));
    rig.torrent.handle_connected(rig.now, ConnId(4), connected(4, FAST));
    rig.torrent.handle_connected(rig.now, ConnId(5), connected(4, FAST));
    rig.drain();
    let closed: Vec<_> = (1..=5).map(|conn| rig.closed(ConnId(conn))).collect();
    let [ours, poison, banned, none, double] = &closed[..] else { panic!() };
    assert_eq!(*ours, Some(DisconnectReason::Ourselves));
    assert_eq!((*poison, *banned), (Some(DisconnectReason::Poison), Some(DisconnectReason::Banned)));
    assert_eq!((*none, *double), (None, Some(DisconnectReason::Duplicate)));
}

#[test]
fn what_breaks_the_protocol_ends_the_connection() {
    let extended = |id| Message::Extended { id, payload: vec![0xff; 40].into() };
    for offence in [Message::Have(u32::MAX), extended(0), extended(UT_METADATA_ID)] {
        let mut rig = Rig::new();
        let conn = rig.meet(1, honest());
        rig.say(conn, offence.clone());
        assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))), "{offence:?}");
        assert_eq!(rig.torrent.poll_timeout(), None);
    }
    let mut rig = Rig::new();
    let conn = rig.meet(1, honest());
    let block = Block { piece: 0, offset: 0, len: BLOCK_LEN };
    assert_eq!(rig.torrent.handle_block(rig.now, conn, block), Receipt::Discard);
    rig.drain();
    assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(5));
    let block = Block { piece: 0, offset: 0, len: BLOCK_LEN };
    rig.say(conn, Message::Request(block));
    assert!(rig.outputs.contains(&Output::Send(conn, Message::Reject(block))));
    (0..300).for_each(|_| rig.say(conn, Message::Request(block)));
    assert!(rig.closed(conn).is_some());
}

#[test]
fn silence_is_kept_alive_by_us_and_ended_when_it_is_theirs() {
    let mut rig = Rig::new();
    let conn = ConnId(1);
    rig.torrent.handle_connected(rig.now, conn, connected(1, FAST));
    let describer = rig.meet(2, Manner::Silent(5));
    rig.run(119 * SECOND);
    assert!(rig.outputs.contains(&Output::Send(conn, Message::KeepAlive)));
    assert_eq!((rig.closed(conn), rig.closed(describer)), (None, None));
    rig.run(3 * SECOND);
    assert_eq!([conn, describer].map(|conn| rig.closed(conn)), [Some(DisconnectReason::Idle); 2]);
    assert_eq!((rig.torrent.poll_timeout(), rig.reserved), (None, 0));
}

#[test]
fn gossip_names_candidates_and_not_too_often() {
    let mut rig = Rig::new();
    let conn = rig.meet(1, Manner::Silent(5));
    let gossip = |number| {
        let named = vec![
            (addr(number), PexFlags::default()),
            ("10.0.0.1:6881".parse().unwrap(), PexFlags::default()),
        ];
        let payload = PexMessage { added: named, dropped: Vec::new() }.encode();
        Message::Extended { id: UT_PEX_ID, payload }
    };
    (10..20).for_each(|number| rig.say(conn, gossip(number)));
    let dialled: Vec<_> = rig.outputs.iter().filter(|output| matches!(output, Output::Dial(_))).collect();
    assert_eq!(dialled, [&Output::Dial(addr(10)), &Output::Dial(addr(11))]);
    assert_eq!(rig.closed(conn), None);
    (20..30).for_each(|number| rig.say(conn, gossip(number)));
    assert!(matches!(rig.closed(conn), Some(DisconnectReason::Protocol(_))));
}
