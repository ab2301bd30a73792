//! What a machine tells of its peers and of its DHT node, and what it makes of what they tell.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use super::rules::{PEER, PIECES, Rig, connected, disconnected};
use super::swarm::{FAST, Swarm, addr, settings};
use crate::proto::bitfield::Bitfield;
use crate::proto::peer_id::PeerId;
use crate::proto::piece::Geometry;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::dial::candidates::REDIAL_INTERVAL;
use crate::proto::torrent::event::{
    ConnId, Connected, Direction, DisconnectReason, Event, Output, Settings, Source,
};
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::handshake::Capabilities;
use crate::proto::wire::message::Message;
use crate::proto::wire::pex::{PEX_COUNT_MAX, PexFlags, PexMessage, UT_PEX_ID};

/// The number that the peers of these tests gave to `ut_pex`.
const THEIR_PEX: u8 = 77;
const MINUTE: Duration = Duration::from_secs(60);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn gossiping() -> Settings {
    Settings { pex: true, connection_max: 500, ..settings(0) }
}

fn leech() -> Rig {
    Rig::with(gossiping(), Bitfield::new(PIECES))
}

/// Another peer, at this address.
fn peer_at(conn: u32, addr: SocketAddr, direction: Direction) -> Connected {
    let mut peer_id = [b'y'; 20];
    peer_id[..4].copy_from_slice(&conn.to_be_bytes());
    Connected { addr, direction, peer_id: PeerId(peer_id), ..connected(1, FAST) }
}

fn hello(port: Option<u16>, ut_pex: Option<u8>) -> Message {
    let handshake = ExtensionHandshake { port, ut_pex, ..ExtensionHandshake::default() };
    Message::Extended { id: 0, payload: handshake.encode() }
}

/// A peer comes that we dialled, and that does not listen to gossip.
fn meet(rig: &mut Rig, conn: u32, addr: SocketAddr) {
    rig.connect(ConnId(conn), peer_at(conn, addr, Direction::Outgoing));
    rig.torrent.handle_message(rig.now, ConnId(conn), hello(None, None));
    rig.drain();
}

/// A peer that listens to gossip comes in from this address.
fn listen(rig: &mut Rig, from: SocketAddr) {
    rig.connect(PEER, peer_at(PEER.0, from, Direction::Incoming));
    rig.say(hello(Some(7_000), Some(THEIR_PEX)));
}

/// What the listener was told.
fn told(outputs: &[Output]) -> Vec<PexMessage> {
    let gossip = |output: &Output| {
        let Output::Send(PEER, Message::Extended { id: THEIR_PEX, payload }) = output else { return None };
        Some(PexMessage::decode(payload).unwrap())
    };
    outputs.iter().filter_map(gossip).collect()
}

fn host(number: u32) -> SocketAddr {
    SocketAddr::new(IpAddr::from((0x5000_0000 + number).to_be_bytes()), 6_881)
}

fn gossip_of(addrs: &[SocketAddr]) -> Message {
    let added = addrs.iter().map(|addr| (*addr, PexFlags::default())).collect();
    let payload = PexMessage { added, dropped: Vec::new() }.encode();
    Message::Extended { id: UT_PEX_ID, payload }
}

fn dials(outputs: &[Output]) -> Vec<SocketAddr> {
    let dial = |output: &Output| if let Output::Dial(addr) = output { Some(*addr) } else { None };
    outputs.iter().filter_map(dial).collect()
}

/// Lets time pass while every peer keeps its connection alive and every dial fails.
fn idle(rig: &mut Rig, span: Duration) -> Vec<Output> {
    let (end, mut outputs) = (rig.now + span, Vec::new());
    while rig.now < end {
        (1..300).for_each(|conn| rig.torrent.handle_message(rig.now, ConnId(conn), Message::KeepAlive));
        let passed = rig.wait(secs(20).min(end - rig.now));
        dials(&passed).into_iter().for_each(|addr| rig.torrent.handle_dial_failed(rig.now, addr));
        outputs.extend(passed);
    }
    outputs
}

/// Whether our extension handshake offers gossip.
fn offers(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| {
        let Output::Send(_, Message::Extended { id: 0, payload }) = output else { return false };
        ExtensionHandshake::decode(payload).unwrap().ut_pex == Some(UT_PEX_ID)
    })
}

#[test]
fn three_peers_of_which_one_knows_only_one_meet_within_seconds() {
    let mut swarm = Swarm::new(Geometry::new(1 << 24, 1 << 18).unwrap());
    for number in 0..3 {
        let settings = Settings { pex: true, ..settings(number) };
        let have = if number == 0 { Bitfield::full(64) } else { Bitfield::new(64) };
        swarm.add_with(settings, have);
    }
    swarm.nodes.iter_mut().for_each(|node| node.uplink = 100_000);
    swarm.introduce(1, 0);
    swarm.introduce(2, 0);
    let met = |swarm: &Swarm| {
        let hosts = [1, 2].map(|number| addr(number).ip());
        swarm.nodes[1..].iter().any(|node| {
            node.events
                .iter()
                .any(|(_, event)| matches!(event, Event::PeerConnected(addr) if hosts.contains(&addr.ip())))
        })
    };
    assert!(swarm.run(secs(5), met), "the two leeches never heard of each other");
    // The one that was in the swarm for longer is told of a late comer soon as well.
    swarm.run(secs(20), |_| false);
    let late = swarm.add_with(Settings { pex: true, ..settings(3) }, Bitfield::new(64));
    swarm.introduce(late, 0);
    let connected = |swarm: &Swarm| swarm.nodes[late].torrent.snapshot(swarm.now).peers.len() == 3;
    assert!(swarm.run(secs(5), connected));
}

#[test]
fn a_peer_is_told_soon_of_all_others_and_then_once_a_minute_of_what_changed() {
    let mut rig = leech();
    meet(&mut rig, 10, host(1));
    listen(&mut rig, host(99));
    rig.connect(ConnId(11), peer_at(11, SocketAddr::new(host(2).ip(), 50_123), Direction::Incoming));
    rig.torrent.handle_message(rig.now, ConnId(11), hello(Some(6_999), None));
    rig.torrent.handle_message(rig.now, ConnId(11), Message::HaveAll);
    // This one does not say where it listens.
    rig.connect(ConnId(12), peer_at(12, SocketAddr::new(host(3).ip(), 50_124), Direction::Incoming));
    rig.torrent.handle_message(rig.now, ConnId(12), hello(None, None));
    let first = told(&idle(&mut rig, secs(5)));
    let dialled = PexFlags { reachable: true, ..PexFlags::default() };
    let seed = PexFlags { seed: true, ..PexFlags::default() };
    let added = vec![(host(1), dialled), (SocketAddr::new(host(2).ip(), 6_999), seed)];
    assert_eq!(first, [PexMessage { added, dropped: Vec::new() }]);
    assert_eq!(told(&idle(&mut rig, secs(50))), [], "nothing changed");

    rig.torrent.handle_disconnected(rig.now, ConnId(10));
    meet(&mut rig, 13, host(4));
    assert_eq!(told(&idle(&mut rig, secs(1))), [], "not twice a minute");
    let second = told(&idle(&mut rig, secs(7)));
    assert_eq!(second, [PexMessage { added: vec![(host(4), dialled)], dropped: vec![host(1)] }]);
    // Who comes and goes between two messages was never there.
    meet(&mut rig, 14, host(5));
    rig.torrent.handle_disconnected(rig.now, ConnId(14));
    assert_eq!(told(&idle(&mut rig, secs(100))), []);
    meet(&mut rig, 15, host(1));
    assert_eq!(told(&idle(&mut rig, secs(3)))[0].added, [(host(1), dialled)], "back again");
}

#[test]
fn fifty_and_fifty_go_in_one_message_and_the_rest_a_minute_later() {
    let mut rig = leech();
    (100..220).for_each(|number| meet(&mut rig, number, host(number)));
    listen(&mut rig, host(99));
    let counts = |outputs: &[Output]| {
        told(outputs).iter().map(|message| (message.added.len(), message.dropped.len())).collect::<Vec<_>>()
    };
    let mut outputs = idle(&mut rig, secs(3));
    assert_eq!(counts(&outputs), [(PEX_COUNT_MAX, 0)]);
    outputs = idle(&mut rig, 3 * MINUTE);
    assert_eq!(counts(&outputs), [(PEX_COUNT_MAX, 0), (20, 0)]);
    (100..170).for_each(|number| rig.torrent.handle_disconnected(rig.now, ConnId(number)));
    outputs = idle(&mut rig, 3 * MINUTE);
    assert_eq!(counts(&outputs), [(0, PEX_COUNT_MAX), (0, 20)]);
}

#[test]
fn without_listeners_nothing_is_said_and_nothing_waited_for() {
    let mut rig = leech();
    let before = rig.torrent.poll_timeout();
    meet(&mut rig, 10, host(1));
    meet(&mut rig, 11, host(2));
    rig.torrent.handle_disconnected(rig.now, ConnId(10));
    rig.torrent.handle_disconnected(rig.now, ConnId(11));
    rig.drain();
    assert_eq!(rig.torrent.poll_timeout(), before);
    // Alone with us, a listener is not told of itself.
    listen(&mut rig, host(99));
    assert_eq!(told(&idle(&mut rig, MINUTE)), []);
}

#[test]
fn local_addresses_are_for_local_ears() {
    let places = ["127.0.0.1:6881", "10.0.0.7:6881", "80.1.1.1:6881"].map(|text| text.parse().unwrap());
    for (from, count) in [("127.0.0.1:50000", 3), ("10.0.0.8:50000", 2), ("8.8.8.8:50000", 1)] {
        let mut rig = leech();
        (10..).zip(places).for_each(|(conn, place)| meet(&mut rig, conn, place));
        listen(&mut rig, from.parse().unwrap());
        let told: Vec<_> = told(&idle(&mut rig, secs(3)))[0].added.iter().map(|(addr, _)| *addr).collect();
        assert_eq!(told, places[3 - count..], "{from}");

        let mut rig = leech();
        listen(&mut rig, from.parse().unwrap());
        let dialled = dials(&rig.say(gossip_of(&places)));
        assert_eq!(BTreeSet::from_iter(dialled), BTreeSet::from_iter(places[3 - count..].to_vec()), "{from}");
    }
}

#[test]
fn gossip_that_floods_or_is_nonsense_ends_the_connection() {
    let nonsense = Message::Extended { id: UT_PEX_ID, payload: b"i1e".as_slice().into() };
    for message in [gossip_of(&[host(1)]), nonsense] {
        let mut rig = leech();
        listen(&mut rig, host(99));
        let outputs: Vec<_> = (0..20).flat_map(|_| rig.say(message.clone())).collect();
        assert_eq!(disconnected(&outputs), Some(DisconnectReason::Protocol("too much gossip")));
    }
    // Two at the start and one a minute are no flood.
    let mut rig = leech();
    listen(&mut rig, host(99));
    for minute in 0..30 {
        let fresh = [host(1_000 + 2 * minute), host(1_001 + 2 * minute)];
        let mut outputs = rig.say(gossip_of(&fresh[..1]));
        if minute == 0 {
            outputs.extend(rig.say(gossip_of(&fresh[1..])));
        }
        assert_eq!((disconnected(&outputs), dials(&outputs).is_empty()), (None, false), "{minute}");
        dials(&outputs).into_iter().for_each(|addr| rig.torrent.handle_dial_failed(rig.now, addr));
        idle(&mut rig, MINUTE);
    }
    let crowd: Vec<_> = (0..500).map(|number| host(9_000 + number)).collect();
    let before = rig.torrent.snapshot(rig.now).candidate_count;
    let outputs = rig.say(gossip_of(&crowd));
    let kept = rig.torrent.snapshot(rig.now).candidate_count + dials(&outputs).len() - before;
    assert_eq!(kept, PEX_COUNT_MAX);
}

#[test]
fn a_seed_does_not_dial_seeds() {
    let mut rig = Rig::with(gossiping(), Bitfield::full(PIECES));
    listen(&mut rig, host(99));
    let seed = PexFlags { seed: true, ..PexFlags::default() };
    let added = vec![(host(1), seed), (host(2), PexFlags::default())];
    let payload = PexMessage { added, dropped: Vec::new() }.encode();
    assert_eq!(dials(&rig.say(Message::Extended { id: UT_PEX_ID, payload })), [host(2)]);
}

#[test]
fn who_is_private_or_was_told_not_to_neither_speaks_nor_listens() {
    let silent = [Settings { private: true, ..gossiping() }, Settings { pex: false, ..gossiping() }];
    assert!(offers(&leech().connect(PEER, connected(1, FAST))));
    for settings in silent {
        let mut rig = Rig::with(settings, Bitfield::new(PIECES));
        meet(&mut rig, 10, host(1));
        assert!(!offers(&rig.connect(PEER, peer_at(PEER.0, host(99), Direction::Incoming))));
        rig.say(hello(Some(7_000), Some(THEIR_PEX)));
        assert_eq!(told(&idle(&mut rig, MINUTE)), []);
        for _ in 0..20 {
            assert_eq!(rig.say(gossip_of(&[host(2)])), [], "neither dialled nor a fault");
        }
    }
}

#[test]
fn of_a_private_torrent_only_trackers_and_the_user_name_peers() {
    let mut rig = Rig::with(Settings { private: true, ..gossiping() }, Bitfield::new(PIECES));
    for source in [Source::Dht { local: false }, Source::Pex { local: false }, Source::Lsd] {
        rig.torrent.handle_candidates(rig.now, source, &[host(1)]);
    }
    listen(&mut rig, host(99));
    rig.torrent.handle_disconnected(rig.now, PEER);
    assert_eq!(dials(&rig.drain()), []);
    assert_eq!(rig.torrent.snapshot(rig.now).candidate_count, 0, "nor do peers name themselves");
    rig.torrent.handle_candidates(rig.now, Source::Tracker { local: false }, &[host(1)]);
    assert_eq!(dials(&rig.drain()), [host(1)]);
}

#[test]
fn who_was_not_told_of_is_not_told_of_as_gone() {
    let mut rig = leech();
    listen(&mut rig, host(99));
    (100..160).for_each(|number| meet(&mut rig, number, host(number)));
    let mut outputs = idle(&mut rig, 2 * MINUTE);
    assert_eq!(told(&outputs).iter().map(|message| message.added.len()).sum::<usize>(), 60);
    // Sixty leave, the next one comes and goes between two messages, and one stays.
    (100..160).for_each(|number| rig.torrent.handle_disconnected(rig.now, ConnId(number)));
    meet(&mut rig, 200, host(200));
    rig.torrent.handle_disconnected(rig.now, ConnId(200));
    meet(&mut rig, 201, host(201));
    outputs = idle(&mut rig, 3 * MINUTE);
    let dropped: Vec<_> = told(&outputs).into_iter().flat_map(|message| message.dropped).collect();
    assert_eq!((dropped.len(), dropped.contains(&host(200))), (60, false));
    let added: Vec<_> = told(&outputs).into_iter().flat_map(|message| message.added).collect();
    assert_eq!(added.iter().map(|(addr, _)| *addr).collect::<Vec<_>>(), [host(201)]);
}

#[test]
fn a_million_entries_that_name_a_victim_bring_it_one_dial_a_minute() {
    let mut rig = leech();
    let victims = [IpAddr::from([9, 9, 9, 9]), "2001:db8::9".parse().unwrap(), [192, 168, 0, 9].into()];
    let sources =
        [Source::Dht { local: false }, Source::Pex { local: false }, Source::Tracker { local: false }];
    let mut dialled = Vec::new();
    for list in 0..20_000_u32 {
        // Ten minutes in all; every dial fails at once.
        rig.now += Duration::from_millis(30);
        let addrs: Vec<_> = (0..50_u32)
            .map(|entry| SocketAddr::new(victims[entry as usize % 3], (50 * list + entry) as u16))
            .collect();
        rig.torrent.handle_candidates(rig.now, sources[list as usize % 3], &addrs);
        rig.torrent.handle_timeout(rig.now);
        for addr in dials(&rig.drain()) {
            dialled.push((addr.ip(), rig.now));
            rig.torrent.handle_dial_failed(rig.now, addr);
        }
    }
    for victim in victims {
        let at: Vec<Instant> = dialled.iter().filter(|(ip, _)| *ip == victim).map(|(_, at)| *at).collect();
        assert!(at.windows(2).all(|pair| pair[1] - pair[0] >= REDIAL_INTERVAL), "{victim}: {at:?}");
        assert_eq!(at.is_empty(), victim == victims[2], "{victim}");
    }
}

#[test]
fn dht_nodes_are_told_to_those_who_have_one_and_heard_of_them() {
    let speaks = Capabilities { dht: true, ..FAST };
    let ports = |outputs: &[Output]| {
        let is_port = |output: &&Output| matches!(output, Output::Send(_, Message::Port(6_881)));
        outputs.iter().filter(is_port).count()
    };
    let node = |port| Output::DhtNode(SocketAddr::new(addr(1).ip(), port));
    let mut rig = Rig::with(Settings { dht_port: Some(6_881), ..settings(0) }, Bitfield::new(PIECES));
    assert_eq!(ports(&rig.connect(ConnId(2), connected(2, FAST))), 0);
    let greeting = rig.connect(PEER, connected(1, speaks));
    assert_eq!(ports(&greeting), 1);
    assert!(matches!(greeting[0], Output::Send(_, Message::HaveNone)), "pieces come first");
    assert_eq!(rig.say(Message::Port(0)), []);
    assert_eq!(rig.say(Message::Port(7_000)), [node(7_000)]);
    for port in 1..100 {
        assert_eq!(rig.say(Message::Port(port)), [], "once in a while is enough");
    }
    let silent = [
        Settings { private: true, dht_port: Some(6_881), ..settings(0) },
        Settings { dht_port: None, ..settings(0) },
    ];
    for settings in silent {
        let mut rig = Rig::with(settings, Bitfield::new(PIECES));
        assert_eq!(ports(&rig.connect(PEER, connected(1, speaks))), 0);
        assert_eq!(rig.say(Message::Port(7_000)), []);
    }
}
