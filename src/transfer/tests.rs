//! What the machines of a torrent tell each other. Swarms of such torrents are in `tests/sim`.

use bytes::Bytes;

use super::*;
use crate::proto::bitfield::Bitfield;
use crate::proto::discovery::event::{Config, Hints};
use crate::proto::infohash::InfoHash;
use crate::proto::peer_id::PeerId;
use crate::proto::piece::Geometry;
use crate::proto::rng::Rng;
use crate::proto::time::Duration;
use crate::proto::torrent::event::{Settings, Source};
use crate::proto::tracker::announcer::RequestId;
use crate::proto::tracker::{AnnounceEvent, AnnounceReply, TrackerError};

/// A torrent of four pieces with one tracker, of which it has `have`; there is a DHT.
fn transfer(have: Bitfield) -> Transfer<()> {
    let (infohash, peer_id, now) = (InfoHash([1; 20]), PeerId([2; 20]), Instant::ZERO);
    let settings = Settings {
        infohash,
        peer_id,
        listen_port: Some(1),
        swarming_interval: Duration::from_secs(1),
        sequential: false,
        metadata: Bytes::new(),
        private: false,
        pex: true,
        dht_port: Some(1),
        connection_max: 9,
    };
    let geometry = Geometry::new(4 << 14, 1 << 14).unwrap();
    let torrent = Torrent::new(settings, geometry, have, Bitfield::full(4), Rng::from_number(3), now);
    let hints = Hints { tiers: vec![vec!["http://tracker/announce".to_owned()]], ..Hints::default() };
    let (port, numwant, private, dht, lsd) = (1, 50, false, true, false);
    let config = Config { infohash, peer_id, port, numwant, private, dht, lsd, hints };
    let discovery = Discovery::new(config, torrent.progress(), Rng::from_number(4), now);
    Transfer::new(torrent, discovery, None, &[], ShareGoal::default(), now)
}

/// Returns the announces.
fn drain(transfer: &mut Transfer<()>, now: Instant) -> Vec<(RequestId, AnnounceEvent)> {
    let mut announces = Vec::new();
    while let Some(output) = transfer.poll_output(now) {
        match output {
            Output::Discovery(discovery::event::Output::Announce { request, announce, .. }) => {
                announces.push((request, announce.event));
            }
            Output::Discovery(discovery::event::Output::Found(found)) => transfer.handle_found(now, found),
            Output::Discovery(_) | Output::Torrent(_) => {}
            Output::Job(_) | Output::Storage(_) | Output::Metadata(_) => panic!("{output:?}"),
        }
    }
    announces
}

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

#[test]
fn a_demand_is_told_when_it_changes_and_again_when_the_session_did_not_hear_it() {
    let mut transfer = transfer(Bitfield::new(4));
    drain(&mut transfer, at(0));
    assert_eq!(transfer.poll_demand(at(9)), None, "nothing has changed");
    transfer.discovery_mut().handle_peers(Source::User, vec!["1.2.3.4:5".parse().unwrap()]);
    drain(&mut transfer, at(9));
    assert!(transfer.poll_timeout().is_some_and(|due_at| due_at <= at(9)));
    let demand = transfer.poll_demand(at(9)).unwrap();
    assert_eq!(transfer.poll_demand(at(9) + LEASE_INTERVAL), None, "it was told");
    transfer.handle_demand_untold();
    let due_at = at(9) + LEASE_INTERVAL;
    assert_eq!(transfer.poll_demand(at(9)), None, "not at once");
    assert_eq!(transfer.poll_demand(due_at), Some(demand));
}

#[test]
fn a_torrent_has_left_when_its_tracker_knows_and_waits_for_nothing_else() {
    let mut transfer = transfer(Bitfield::full(4));
    transfer.handle_timeout(at(0));
    let announces = drain(&mut transfer, at(0));
    let [(started, AnnounceEvent::Started)] = announces[..] else { panic!("{announces:?}") };
    let interval = Duration::from_secs(1_800);
    transfer.discovery_mut().handle_reply(at(1), started, Ok(reply(interval)), false);
    drain(&mut transfer, at(1));
    transfer.handle_leave(at(2));
    let announces = drain(&mut transfer, at(2));
    let [(stopped, AnnounceEvent::Stopped)] = announces[..] else { panic!("{announces:?}") };
    assert!(!transfer.has_left());
    assert!(transfer.poll_timeout().is_none_or(|due_at| due_at > at(2)), "no timer is in the past");
    transfer.discovery_mut().handle_reply(at(3), stopped, Err(TrackerError::Timeout), false);
    assert!(drain(&mut transfer, at(3)).is_empty());
    assert!(transfer.has_left());
}

fn reply(interval: Duration) -> AnnounceReply {
    AnnounceReply {
        interval,
        min_interval: None,
        seeders: None,
        leechers: None,
        peers: Vec::new(),
        tracker_id: None,
        warning: None,
        external_ip: None,
    }
}
