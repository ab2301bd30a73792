//! Machines that talk to each other.

use std::collections::BTreeSet;

use super::rules::{PEER, Rig, connected, disconnected, requests};
use super::swarm::{FAST, PLAIN, Swarm, addr};
use crate::proto::piece::Geometry;
use crate::proto::time::Duration;
use crate::proto::torrent::event::{
    Command, ConnId, Connected, Direction, DisconnectReason, Event, Output, Source,
};
use crate::proto::wire::message::Message;

const MINUTE: Duration = Duration::from_secs(60);

/// 40 pieces of four blocks, the last one odd.
fn geometry() -> Geometry {
    Geometry::new(39 * 65_536 + 20_000, 65_536).unwrap()
}

#[test]
fn two_machines_complete_a_download_and_part() {
    let mut swarm = Swarm::new(geometry());
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    swarm.introduce(leech, seed);
    assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech)));
    let now = swarm.now;
    let snapshot = swarm.nodes[leech].torrent.snapshot(now);
    assert_eq!((snapshot.left, snapshot.traffic.wasted), (0, 0));
    assert_eq!(snapshot.traffic.downloaded, geometry().total_len());
    swarm.run(MINUTE, |_| false);
    for node in &swarm.nodes {
        assert!(node.torrent.snapshot(swarm.now).peers.is_empty());
        assert!(node.events.iter().any(|(_, event)| {
            matches!(event, Event::PeerDisconnected(_, Some(DisconnectReason::BothComplete) | None))
        }));
    }
    let completed = swarm.nodes[leech].events.iter().filter(|(_, event)| *event == Event::Completed);
    assert_eq!(completed.count(), 1);
}

#[test]
fn a_swarm_completes_whatever_each_peer_speaks() {
    let mut swarm = Swarm::new(geometry());
    swarm.add_seed();
    for number in 0..8 {
        let leech = swarm.add_leech();
        if number % 2 == 0 {
            swarm.nodes[leech].capabilities = PLAIN;
        }
    }
    swarm.introduce_all();
    assert!(swarm.run(2 * MINUTE, |swarm| (0..9).all(|number| swarm.is_complete(number))));
    // Everything once from the seed would take 1.3 s; sharing makes eight copies cost little more.
    let shared: u64 =
        (1..9).map(|number| swarm.nodes[number].torrent.snapshot(swarm.now).traffic.uploaded).sum();
    assert!(shared > 3 * geometry().total_len(), "{shared}");
}

#[test]
fn one_seed_gives_one_history() {
    let run = || {
        let mut swarm = Swarm::new(geometry());
        swarm.add_seed();
        for _ in 0..4 {
            swarm.add_leech();
        }
        swarm.introduce_all();
        swarm.run(MINUTE, |swarm| (0..5).all(|number| swarm.is_complete(number)));
        swarm.nodes.into_iter().map(|node| node.outputs).collect::<Vec<_>>()
    };
    assert!(run() == run());
}

#[test]
fn exactly_the_liar_is_banned_and_the_download_completes() {
    let mut swarm = Swarm::new(geometry());
    let (honest, liar, other) = (swarm.add_seed(), swarm.add_seed(), swarm.add_seed());
    let leech = swarm.add_leech();
    swarm.nodes[liar].lies = (0..40).step_by(3).collect();
    swarm.introduce_all();
    assert!(swarm.run(5 * MINUTE, |swarm| swarm.is_complete(leech)));
    let banned: BTreeSet<_> = swarm.nodes[leech]
        .events
        .iter()
        .filter_map(|(_, event)| if let Event::PeerBanned(addr) = event { Some(*addr) } else { None })
        .collect();
    assert_eq!(banned, BTreeSet::from([addr(liar as u8)]));
    let failed = |(_, event): &&(_, Event)| matches!(event, Event::PieceFailed(_));
    let failed_count = swarm.nodes[leech].events.iter().filter(failed).count();
    assert!((1..=8).contains(&failed_count), "{failed_count}");
    for seed in [honest, other] {
        assert!(swarm.nodes[seed].torrent.snapshot(swarm.now).traffic.uploaded > 0);
    }
}

#[test]
fn a_stalling_peer_is_snubbed_and_its_blocks_come_from_others() {
    let mut swarm = Swarm::new(geometry());
    let (good, stalling) = (swarm.add_seed(), swarm.add_seed());
    let leech = swarm.add_leech();
    swarm.nodes[stalling].stalls = true;
    swarm.nodes[good].uplink = 30_000;
    swarm.introduce(leech, stalling);
    swarm.introduce(leech, good);
    assert!(swarm.run(3 * MINUTE, |swarm| swarm.is_complete(leech)));
}

#[test]
fn the_endgame_cancels_what_came_from_elsewhere() {
    let mut swarm = Swarm::new(geometry());
    let seeds = [swarm.add_seed(), swarm.add_seed(), swarm.add_seed()];
    let leech = swarm.add_leech();
    for (seed, rate) in seeds.into_iter().zip([20_000, 400_000, 400_000]) {
        swarm.nodes[seed].uplink = rate;
        swarm.introduce(leech, seed);
    }
    assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech)));
    let cancels = |output: &Output| matches!(output, Output::Send(_, Message::Cancel(_)));
    assert!(swarm.nodes[leech].outputs.iter().any(|(_, output)| cancels(output)));
    let snapshot = swarm.nodes[leech].torrent.snapshot(swarm.now);
    assert!(snapshot.traffic.wasted < geometry().total_len() / 5, "{}", snapshot.traffic.wasted);
}

#[test]
fn availability_goes_out_once_an_interval_and_costs_sprats_less() {
    let sent = |plain: bool| {
        let mut swarm = Swarm::new(Geometry::new(400 * 16_384, 16_384).unwrap());
        let seed = swarm.add_seed();
        let (one, other) = (swarm.add_leech(), swarm.add_leech());
        if plain {
            swarm.nodes.iter_mut().for_each(|node| node.capabilities = PLAIN);
        }
        swarm.introduce(one, seed);
        swarm.introduce(other, one);
        assert!(swarm.run(2 * MINUTE, |swarm| swarm.is_complete(one) && swarm.is_complete(other)));
        let batches: BTreeSet<_> = swarm.nodes[one]
            .outputs
            .iter()
            .filter(|(_, output)| {
                matches!(output, Output::Send(_, Message::Have(_) | Message::Extended { id: 1.., .. }))
            })
            .map(|(at, _)| *at)
            .collect();
        (batches.len(), swarm.nodes[one].torrent.snapshot(swarm.now).traffic.availability_sent)
    };
    let ((plain_batches, plain_len), (_, sprat_len)) = (sent(true), sent(false));
    assert!(plain_batches < 60, "{plain_batches}");
    assert!(sprat_len * 4 < plain_len, "{sprat_len} {plain_len}");
}

#[test]
fn pausing_closes_everything_and_resuming_goes_on() {
    let mut swarm = Swarm::new(geometry());
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    swarm.nodes[seed].uplink = 100_000;
    swarm.introduce(leech, seed);
    swarm.run(Duration::from_secs(5), |_| false);
    swarm.input(leech, |torrent, now| torrent.handle_command(now, Command::Pause));
    let before = swarm.nodes[leech].torrent.snapshot(swarm.now);
    assert!(before.peers.is_empty() && before.paused && before.left > 0);
    assert!(!swarm.run(2 * MINUTE, |swarm| !swarm.nodes[leech].torrent.snapshot(swarm.now).peers.is_empty()));
    swarm.input(leech, |torrent, now| torrent.handle_command(now, Command::Resume));
    assert!(swarm.run(20 * MINUTE, |swarm| swarm.is_complete(leech)));
}

#[test]
fn rate_limits_are_kept_both_ways() {
    for upload in [true, false] {
        let mut swarm = Swarm::new(geometry());
        let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
        let limit = Some(200_000);
        if upload {
            let command = Command::Limit { upload_rate: limit, download_rate: None };
            swarm.input(seed, |torrent, now| torrent.handle_command(now, command));
        } else {
            let command = Command::Limit { upload_rate: None, download_rate: limit };
            swarm.input(leech, |torrent, now| torrent.handle_command(now, command));
        }
        swarm.introduce(leech, seed);
        assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech)));
        let rate = geometry().total_len() * 1_000 / swarm.now.as_micros().div_ceil(1_000);
        assert!((170_000..205_000).contains(&rate), "{rate}");
    }
}

#[test]
fn a_peer_that_has_nothing_to_ask_for_does_not_wait_for_the_limit() {
    let mut rig = Rig::leech();
    let limit = Command::Limit { upload_rate: None, download_rate: Some(4_000) };
    rig.torrent.handle_command(rig.now, limit);
    let come = |rig: &mut Rig, number: u8| {
        let conn = ConnId(number.into());
        rig.connect(conn, connected(number, PLAIN));
        rig.torrent.handle_message(rig.now, conn, Message::Have(0));
        rig.torrent.handle_message(rig.now, conn, Message::Unchoke);
        requests(&rig.drain()).len()
    };
    // The first peer is asked for both blocks of its piece, as soon as the limit allows.
    let at_once = come(&mut rig, 1);
    let later = requests(&rig.wait(Duration::from_secs(10))).len();
    assert_eq!((at_once, later), (1, 1));
    // Now the limit allows one block, and the second peer has none.
    assert_eq!(come(&mut rig, 2), 0);
    rig.wait(Duration::from_secs(5));
}

#[test]
fn a_full_disk_halts_requests_until_there_is_room() {
    let mut swarm = Swarm::new(geometry());
    let (seed, leech) = (swarm.add_seed(), swarm.add_leech());
    swarm.nodes[seed].uplink = 200_000;
    swarm.introduce(leech, seed);
    swarm.run(Duration::from_secs(3), |_| false);
    swarm.input(leech, |torrent, now| torrent.handle_storage(now, true));
    swarm.run(Duration::from_secs(20), |_| false);
    let requests = |swarm: &Swarm| {
        let is_request = |output: &Output| matches!(output, Output::Send(_, Message::Request(_)));
        swarm.nodes[leech].outputs.iter().filter(|(_, output)| is_request(output)).count()
    };
    let before = requests(&swarm);
    swarm.run(Duration::from_secs(20), |_| false);
    assert_eq!(requests(&swarm), before);
    assert!(!swarm.is_complete(leech));
    swarm.input(leech, |torrent, now| torrent.handle_storage(now, false));
    assert!(swarm.run(MINUTE, |swarm| swarm.is_complete(leech)));
}

#[test]
fn both_ends_keep_the_same_one_of_two_connections() {
    let mut swarm = Swarm::new(geometry());
    let (one, other) = (swarm.add_leech(), swarm.add_leech());
    swarm.introduce(one, other);
    swarm.introduce(other, one);
    swarm.run(Duration::from_secs(5), |_| false);
    let directions: Vec<_> = swarm
        .nodes
        .iter()
        .map(|node| {
            let peers = node.torrent.snapshot(swarm.now).peers;
            assert_eq!(peers.len(), 1);
            peers[0].direction
        })
        .collect();
    assert_ne!(directions[0], directions[1]);
}

#[test]
fn a_torrent_that_goes_on_dials_the_peers_that_it_left_at_once() {
    let mut rig = Rig::leech();
    rig.torrent.handle_candidates(rig.now, Source::Tracker { local: false }, &[addr(1)]);
    assert!(rig.drain().contains(&Output::Dial(addr(1))));
    let outgoing = Connected { addr: addr(1), direction: Direction::Outgoing, ..connected(1, FAST) };
    rig.connect(PEER, outgoing);
    rig.torrent.handle_command(rig.now, Command::Pause);
    assert_eq!(disconnected(&rig.drain()), Some(DisconnectReason::Stopping));
    rig.torrent.handle_disconnected(rig.now, PEER);
    rig.now += Duration::from_secs(5);
    rig.torrent.handle_command(rig.now, Command::Resume);
    assert!(rig.drain().contains(&Output::Dial(addr(1))));
}
