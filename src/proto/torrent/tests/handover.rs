//! From an infohash to the content: machines that fetch the description of each other and go on as
//! torrents.

use bytes::Bytes;

use super::swarm::{PLAIN, Swarm, addr};
use crate::proto::bitfield::Bitfield;
use crate::proto::piece::Geometry;
use crate::proto::time::{Duration, Instant};
use crate::proto::torrent::event::{DisconnectReason, Event, Output, Source};
use crate::proto::torrent::metadata::MetadataProgress;
use crate::proto::wire::extension::ExtensionHandshake;
use crate::proto::wire::message::Message;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A swarm of 40 pieces of four blocks, whose description has six pieces.
fn swarm() -> Swarm {
    let mut swarm = Swarm::new(Geometry::new(39 * 65_536 + 20_000, 65_536).unwrap());
    swarm.metadata = Bytes::from(vec![5; 90_000]);
    swarm
}

fn nothing() -> Bitfield {
    Bitfield::new(40)
}

fn disconnects(swarm: &Swarm, number: usize) -> usize {
    let gone = |event: &Event| matches!(event, Event::PeerDisconnected(..));
    swarm.nodes[number].events.iter().filter(|(_, event)| gone(event)).count()
}

fn peer_count(swarm: &Swarm, number: usize) -> usize {
    swarm.nodes[number].torrent.snapshot(swarm.now).peers.len()
}

#[test]
fn the_content_comes_over_the_connections_that_brought_the_description() {
    for seed_count in [1, 3] {
        let mut swarm = swarm();
        let seeds: Vec<_> = (0..seed_count).map(|_| swarm.add_seed()).collect();
        let magnet = swarm.add_magnet(nothing());
        seeds.iter().for_each(|&seed| swarm.introduce(magnet, seed));
        assert!(swarm.run(SECOND, |swarm| swarm.nodes[magnet].is_described()));
        // The seeds' bitfields came before anybody knew how many pieces there are.
        assert_eq!(peer_count(&swarm, magnet), seed_count);
        let peers = swarm.nodes[magnet].torrent.snapshot(swarm.now).peers;
        assert!(peers.iter().all(|peer| peer.have_count == 40 && peer.am_interested));
        assert!(swarm.run(MINUTE, |swarm| disconnects(swarm, magnet) > 0 || swarm.is_complete(magnet)));
        assert!(swarm.is_complete(magnet), "without a new connection");
    }
}

#[test]
fn a_flash_crowd_of_magnets_completes_from_one_seed() {
    let mut swarm = swarm();
    let seed = swarm.add_seed();
    let magnets: Vec<_> = (0..8).map(|_| swarm.add_magnet(nothing())).collect();
    swarm.introduce_all();
    assert!(swarm.run(2 * MINUTE, |swarm| magnets.iter().all(|&magnet| swarm.is_complete(magnet))));
    assert!(swarm.nodes[seed].torrent.snapshot(swarm.now).traffic.uploaded > 0);
}

#[test]
fn the_description_spreads_from_peer_to_peer() {
    let mut swarm = swarm();
    let (seed, one) = (swarm.add_seed(), swarm.add_magnet(nothing()));
    let other = swarm.add_magnet(nothing());
    // The magnets meet first, and the other one never hears of the seed.
    swarm.introduce(other, one);
    swarm.run(5 * SECOND, |_| false);
    assert_eq!(peer_count(&swarm, other), 1);
    swarm.introduce(one, seed);
    assert!(swarm.run(2 * MINUTE, |swarm| swarm.is_complete(one) && swarm.is_complete(other)));
}

#[test]
fn a_torrent_without_pieces_spreads_by_its_link() {
    for source in [Source::User, Source::Tracker { local: false }] {
        let mut swarm = Swarm::new(Geometry::new(0, 16_384).unwrap());
        swarm.metadata = Bytes::from(vec![5; 40_000]);
        let (seed, one) = (swarm.add_seed(), swarm.add_magnet(Bitfield::new(0)));
        swarm.introduce_by(source, one, seed);
        assert!(swarm.run(MINUTE, |swarm| swarm.nodes[one].is_described()));
        assert!(swarm.is_complete(one));
        // From the one that had only the link itself, and the other one dials.
        let other = swarm.add_magnet(Bitfield::new(0));
        swarm.introduce_by(source, one, other);
        assert!(swarm.run(MINUTE, |swarm| swarm.nodes[other].is_described()));
        swarm.run(MINUTE, |_| false);
        assert!((0..3).all(|number| peer_count(&swarm, number) == 0), "nobody has anything left to give");
    }
}

#[test]
fn complete_peers_that_know_the_link_alone_get_the_metadata_and_part() {
    let mut swarm = swarm();
    let full = Bitfield::full(40);
    let (seed, one, other) = (swarm.add_seed(), swarm.add_magnet(full.clone()), swarm.add_magnet(full));
    swarm.introduce(one, other);
    swarm.run(5 * SECOND, |_| false);
    swarm.introduce(one, seed);
    let described = |swarm: &Swarm, number: usize| swarm.nodes[number].is_described();
    assert!(swarm.run(2 * MINUTE, |swarm| described(swarm, one) && described(swarm, other)));
    swarm.run(MINUTE, |_| false);
    assert!([seed, one, other].into_iter().all(|number| peer_count(&swarm, number) == 0));
}

#[test]
fn long_metadata_comes_as_fast_as_the_links_carry_it() {
    for seed_count in [1, 3] {
        let mut swarm = swarm();
        swarm.metadata = (0..14_u32 << 20).map(|at| (at >> 8) as u8).collect::<Vec<_>>().into();
        let seeds: Vec<_> = (0..seed_count).map(|_| swarm.add_seed()).collect();
        let magnet = swarm.add_magnet(nothing());
        seeds.iter().for_each(|&seed| swarm.introduce(magnet, seed));
        // 160 KiB a round trip of 10 ms and peer: 0.9 s from one.
        assert!(swarm.run(2 * SECOND, |swarm| swarm.nodes[magnet].is_described()));
    }
}

#[test]
fn magnets_alone_wait_in_peace() {
    let mut swarm = swarm();
    let magnets: Vec<_> = (0..4).map(|_| swarm.add_magnet(nothing())).collect();
    swarm.introduce_all();
    swarm.run(10 * MINUTE, |_| false);
    for magnet in magnets {
        let torrent = &swarm.nodes[magnet].torrent;
        assert_eq!(torrent.metadata_progress(), Some(MetadataProgress::default()));
        assert_eq!(torrent.snapshot(swarm.now).peers.len(), 3);
        assert!(torrent.poll_timeout().is_some_and(|at| at > swarm.now));
    }
}

#[test]
fn a_seed_that_lost_a_piece_before_the_description_was_there_is_not_asked_for_it() {
    let mut swarm = swarm();
    let (seed, leech) = (swarm.add_seed(), swarm.add_magnet(nothing()));
    swarm.introduce(leech, seed);
    assert!(swarm.run(SECOND, |swarm| peer_count(swarm, leech) > 0));
    swarm.input(seed, |torrent, now| torrent.handle_lost(now, vec![5], true));
    assert!(swarm.run(SECOND, |swarm| swarm.nodes[leech].is_described()));
    swarm.run(MINUTE, |_| false);
    let snapshot = swarm.nodes[leech].torrent.snapshot(swarm.now);
    assert_eq!((snapshot.have_count, snapshot.peers.len(), disconnects(&swarm, leech)), (39, 1, 0));
    assert_eq!((snapshot.peers[0].have_count, snapshot.traffic.wasted), (39, 0));
}

#[test]
fn what_we_have_already_is_told_late_by_haves_or_sp_have() {
    for plain in [true, false] {
        let mut swarm = swarm();
        let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
        let mut half = nothing();
        (0..20).for_each(|piece| _ = half.set(piece));
        let magnet = swarm.add_magnet(half);
        if plain {
            swarm.nodes[leech].capabilities = PLAIN;
        }
        swarm.introduce(magnet, seed);
        swarm.introduce(magnet, leech);
        assert!(swarm.run(SECOND, |swarm| swarm.nodes[magnet].is_described()));
        swarm.run(SECOND, |_| false);
        let peers = swarm.nodes[leech].torrent.snapshot(swarm.now).peers;
        assert!(peers.iter().any(|peer| peer.have_count >= 20), "{peers:?}");
        assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech) && swarm.is_complete(magnet)));
    }
}

#[test]
fn with_too_much_to_tell_by_haves_the_peer_is_dialled_again() {
    let mut swarm = Swarm::new(Geometry::new(2_000 * 16_384, 16_384).unwrap());
    swarm.metadata = Bytes::from(vec![5; 90_000]);
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    let mut most = Bitfield::full(2_000);
    most.clear(1_999);
    let magnet = swarm.add_magnet(most);
    swarm.nodes[leech].capabilities = PLAIN;
    swarm.introduce_by(Source::Tracker { local: false }, magnet, leech);
    swarm.introduce(magnet, seed);
    assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech) && swarm.is_complete(magnet)));
    let met =
        |(at, event): &(Instant, Event)| (*event == Event::PeerConnected(addr(leech as u8))).then_some(*at);
    let met: Vec<_> = swarm.nodes[magnet].events.iter().filter_map(met).collect();
    assert!(met.len() == 2 && met[1] - met[0] < SECOND, "at once: {met:?}");
    let anew =
        |(_, event): &(_, Event)| matches!(event, Event::PeerDisconnected(_, Some(DisconnectReason::Anew)));
    assert!(swarm.nodes[magnet].events.iter().any(anew));
}

#[test]
fn a_private_torrent_goes_on_with_whom_it_may_know() {
    let mut swarm = swarm();
    swarm.private = true;
    let (seed, stranger) = (swarm.add_seed(), swarm.add_seed());
    let magnet = swarm.add_magnet(nothing());
    swarm.introduce_by(Source::Dht { local: false }, magnet, stranger);
    swarm.introduce_by(Source::Tracker { local: false }, magnet, seed);
    assert!(swarm.run(SECOND, |swarm| swarm.nodes[magnet].is_described()));
    let peers = swarm.nodes[magnet].torrent.snapshot(swarm.now).peers;
    assert_eq!(peers.iter().map(|peer| peer.addr).collect::<Vec<_>>(), [addr(seed as u8)]);
    // What was offered before anybody knew is taken back.
    let offer = |(_, output): &(Instant, Output)| {
        let Output::Send(_, Message::Extended { id: 0, payload }) = output else { return None };
        ExtensionHandshake::decode(payload).ok()
    };
    let offer = swarm.nodes[magnet].outputs.iter().filter_map(offer).last().unwrap();
    assert_eq!((offer.ut_metadata, offer.ut_pex), (Some(0), Some(0)));
    let mut met = false;
    while swarm.now < Instant::ZERO + 10 * MINUTE && !swarm.is_complete(magnet) {
        swarm.run(SECOND, |_| false);
        let peers = swarm.nodes[magnet].torrent.snapshot(swarm.now).peers;
        met |= peers.iter().any(|peer| peer.addr == addr(stranger as u8));
    }
    assert!(swarm.is_complete(magnet) && !met);
}
