//! The rules that concern more than one source of peers.

use super::event::Event;
use super::*;
use crate::proto::dht::event::{Found, Outcome, Request};
use crate::proto::peer_id::PeerId;
use crate::proto::time::Duration;
use crate::proto::tracker::AnnounceEvent;

const A: &str = "http://a/announce";
const B: &str = "udp://b:1/announce";
const MISSING: Progress = Progress { uploaded: 0, downloaded: 0, left: 9 };

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A torrent that may use every source, with a tier for each tracker.
fn config(trackers: &[&str]) -> Config {
    let tiers = trackers.iter().map(|url| vec![(*url).to_owned()]).collect();
    Config {
        infohash: InfoHash([1; 20]),
        peer_id: PeerId([2; 20]),
        port: 3,
        numwant: 50,
        private: false,
        dht: true,
        lsd: true,
        hints: Hints { tiers, peers: vec!["1.2.3.4:5".to_owned()], nodes: vec![("node".to_owned(), 6)] },
    }
}

fn discovery(trackers: &[&str]) -> Discovery {
    Discovery::new(config(trackers), MISSING, Rng::from_number(1), at(0))
}

/// What a machine has decided, by kind.
#[derive(Debug, Default, PartialEq)]
struct Decided {
    peers: Vec<(Source, Vec<SocketAddr>)>,
    announces: Vec<(RequestId, String, AnnounceEvent)>,
    lookups: usize,
    cancelled: usize,
    lsd: Vec<bool>,
    names: usize,
    events: Vec<Event>,
}

fn drain(machine: &mut Discovery) -> Decided {
    let mut decided = Decided::default();
    while let Some(output) = machine.poll_output() {
        match output {
            Output::Found(DiscoveryEvent::Peers(source, peers)) => decided.peers.push((source, peers)),
            Output::Found(DiscoveryEvent::ExternalIp(_)) => {}
            Output::Announce { request, url, announce } => {
                decided.announces.push((request, url, announce.event));
            }
            Output::Lookup(Request::Peers { .. }) => decided.lookups += 1,
            Output::Lookup(other) => panic!("a lookup of peers is not {other:?}"),
            Output::CancelLookup => decided.cancelled += 1,
            Output::Lsd(announced) => decided.lsd.push(announced),
            Output::ResolvePeer(_) | Output::ResolveNode(..) => decided.names += 1,
            Output::Event(event) => decided.events.push(event),
        }
    }
    decided
}

/// Passes the time to `now`; what is decided then.
fn pass(machine: &mut Discovery, now: Instant) -> Decided {
    machine.handle_timeout(now);
    drain(machine)
}

fn reply(machine: &mut Discovery, now: Instant, request: RequestId, peers: &[&str]) -> Decided {
    let peers = peers.iter().map(|text| addr(text)).collect();
    let reply = AnnounceReply { interval: Duration::from_secs(1_800), peers, ..AnnounceReply::default() };
    machine.handle_reply(now, request, Ok(reply), false);
    drain(machine)
}

fn fail(machine: &mut Discovery, now: Instant, request: RequestId) -> Decided {
    machine.handle_reply(now, request, Err(TrackerError::Timeout), false);
    drain(machine)
}

fn done(machine: &mut Discovery, now: Instant) {
    machine.handle_found(now, Found::Done(Outcome { answered: 20, ..Outcome::default() }));
}

#[test]
fn a_public_torrent_begins_with_all_that_is_told_of_it() {
    let mut machine = discovery(&[]);
    let begun = drain(&mut machine);
    assert_eq!(begun.peers, [(Source::Magnet, vec![addr("1.2.3.4:5")])]);
    assert_eq!((begun.lookups, begun.lsd, begun.names), (1, vec![true], 1));
    assert!(machine.speaks_dht() && machine.tracker_statuses().is_empty());
}

#[test]
fn a_private_torrent_asks_its_trackers_alone_and_believes_them_the_user_and_the_link() {
    let private = Config { private: true, ..config(&[A]) };
    let mut machine = Discovery::new(private, MISSING, Rng::from_number(1), at(0));
    let begun = pass(&mut machine, at(0));
    assert_eq!((begun.lookups, begun.lsd.len(), begun.names), (0, 0, 0));
    let request = begun.announces[0].0;
    assert!(!machine.speaks_dht() && machine.dht_status().is_none());
    // Its tracker fails, and still neither the DHT nor the local network is asked.
    fail(&mut machine, at(1), request);
    machine.handle_lack(at(2), true);
    machine.handle_demand(at(2), &Demand::default(), true);
    let later = pass(&mut machine, at(10_000));
    assert_eq!((later.lookups, later.lsd.len()), (0, 0));
    let named = vec![addr("5.6.7.8:9")];
    for source in [Source::Lsd, Source::Dht { local: false }, Source::Pex { local: false }] {
        machine.handle_peers(source, named.clone());
        assert_eq!(drain(&mut machine), Decided::default(), "{source:?}");
    }
    for source in [Source::User, Source::Magnet, Source::Tracker { local: false }] {
        machine.handle_peers(source, named.clone());
        assert_eq!(drain(&mut machine).peers, [(source, named.clone())]);
    }
}

#[test]
fn a_torrent_that_turns_out_to_be_private_leaves_the_dht_and_the_local_network() {
    let mut machine = discovery(&[A]);
    drain(&mut machine);
    machine.handle_timeout(at(10));
    let begun = drain(&mut machine);
    assert_eq!((begun.announces.len(), begun.lookups), (1, 1), "the tracker has been silent for ten seconds");
    machine.handle_found(at(11), Found::Peers { peers: vec![addr("5.6.7.8:9")], local: false });
    machine.handle_peers(Source::User, vec![addr("5.6.7.8:10")]);
    machine.handle_private();
    let restricted = drain(&mut machine);
    assert_eq!(restricted.peers, [(Source::User, vec![addr("5.6.7.8:10")])], "not what the DHT named");
    assert_eq!((restricted.cancelled, restricted.lsd), (1, vec![false]));
    machine.handle_found(at(12), Found::Peers { peers: vec![addr("5.6.7.8:9")], local: false });
    done(&mut machine, at(12));
    assert_eq!(drain(&mut machine), Decided::default());
    let mut early = discovery(&[]);
    early.handle_private();
    assert_eq!(drain(&mut early).lookups, 0, "not even what was decided");
}

#[test]
fn who_needs_peers_asks_the_trackers_and_the_dht_before_their_time() {
    let few = Demand { connections: CONNECTIONS_FEW - 1, ..Demand::default() };
    let enough = Demand { connections: CONNECTIONS_FEW, ..Demand::default() };
    let dialling = Demand { candidates: 1, ..Demand::default() };
    for (demand, lacks_pieces, needs) in
        [(few, true, true), (enough, true, false), (dialling, true, false), (few, false, false)]
    {
        let mut machine = discovery(&[A]);
        let request = pass(&mut machine, at(0)).announces[0].0;
        reply(&mut machine, at(0), request, &["5.6.7.8:9"]);
        let looked_up_at = machine.poll_timeout().unwrap();
        assert_eq!(pass(&mut machine, looked_up_at).lookups, 1);
        done(&mut machine, looked_up_at);
        drain(&mut machine);
        machine.handle_demand(looked_up_at, &demand, lacks_pieces);
        let soon = pass(&mut machine, looked_up_at + Duration::from_secs(61));
        let is_asked = (soon.announces.len(), soon.lookups);
        assert_eq!(is_asked, if needs { (1, 1) } else { (0, 0) }, "{demand:?}, lacks {lacks_pieces}");
    }
}

#[test]
fn when_every_tracker_has_failed_the_dht_is_asked_at_once() {
    let mut machine = discovery(&[A, B, "wss://never/announce"]);
    let begun = pass(&mut machine, at(0));
    assert!(matches!(&begun.events[..], [Event::TrackerFailed { url, .. }] if url.starts_with("wss")));
    let first = fail(&mut machine, at(1), begun.announces[0].0);
    assert_eq!((first.events.len(), pass(&mut machine, at(1)).lookups), (1, 0), "the other one may answer");
    let second = fail(&mut machine, at(2), begun.announces[1].0);
    assert_eq!((second.events.len(), machine.poll_timeout()), (1, Some(at(2))));
    assert_eq!(pass(&mut machine, at(2)).lookups, 1);
    assert!(machine.tracker_statuses().iter().all(|status| status.error.is_some()));
    // One that comes back is no reason for a further lookup, and its figures are shown.
    done(&mut machine, at(3));
    let (request, url, _) = pass(&mut machine, at(6)).announces.remove(0);
    let answered = reply(&mut machine, at(6), request, &[]);
    assert!(answered.events.contains(&Event::TrackerAnswered { url: url.clone(), peers: 0 }), "{answered:?}");
    let is_well = |status: &TrackerStatus| status.url == url && status.error.is_none();
    assert!(machine.tracker_statuses().iter().any(is_well));
}

#[test]
fn a_peer_is_handed_on_with_the_source_that_named_it() {
    let mut machine = discovery(&[A]);
    let request = pass(&mut machine, at(0)).announces[0].0;
    let peers = vec![addr("10.0.0.1:9")];
    let answer = AnnounceReply { peers: peers.clone(), ..AnnounceReply::default() };
    machine.handle_reply(at(1), request, Ok(answer), true);
    assert_eq!(drain(&mut machine).peers, [(Source::Tracker { local: true }, peers.clone())]);
    for local in [false, true] {
        machine.handle_found(at(2), Found::Peers { peers: peers.clone(), local });
        assert_eq!(drain(&mut machine).peers, [(Source::Dht { local }, peers.clone())]);
    }
    assert_eq!(machine.dht_status().unwrap().peers, 1, "each is counted once");
}

#[test]
fn completed_is_announced_once_and_only_if_pieces_were_fetched() {
    for was_fetched in [false, true] {
        let mut machine = discovery(&[A]);
        let request = pass(&mut machine, at(0)).announces[0].0;
        reply(&mut machine, at(1), request, &[]);
        machine.handle_completed(at(2), was_fetched);
        let announces = drain(&mut machine).announces;
        let events: Vec<_> = announces.iter().map(|(_, _, event)| *event).collect();
        assert_eq!(events, if was_fetched { vec![AnnounceEvent::Completed] } else { Vec::new() });
        announces.into_iter().for_each(|(request, ..)| {
            reply(&mut machine, at(3), request, &[]);
        });
        machine.handle_completed(at(4), was_fetched);
        assert_eq!(drain(&mut machine).announces, []);
    }
}

#[test]
fn on_leaving_stopped_goes_to_each_tracker_that_knows_us_and_nothing_else_is_asked_or_told() {
    let mut machine = discovery(&[A, B]);
    let begun = pass(&mut machine, at(10));
    let of = |url: &str| begun.announces.iter().find(|(_, other, _)| other == url).unwrap().0;
    reply(&mut machine, at(10), of(A), &[]);
    fail(&mut machine, at(10), of(B));
    machine.handle_stopped(at(12));
    assert!(!machine.is_done());
    let left = drain(&mut machine);
    let told: Vec<_> = left.announces.iter().map(|(_, url, event)| (url.as_str(), *event)).collect();
    assert_eq!(told, [(A, AnnounceEvent::Stopped)], "not the one that never answered");
    assert_eq!((left.cancelled, left.lsd), (1, vec![false]));
    let request = left.announces[0].0;
    assert!(!machine.handle_queued(at(12), request), "who leaves does not wait for others");
    machine.handle_peers(Source::User, vec![addr("5.6.7.8:9")]);
    let last = reply(&mut machine, at(13), request, &["5.6.7.8:9"]);
    assert!(last.peers.is_empty() && last.announces.is_empty() && machine.is_done(), "{last:?}");
    assert_eq!(machine.poll_timeout(), None);
}
