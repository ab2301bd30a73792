//! A whole tracker, asked over UDP and HTTP.

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::tracker::service::{LIMITS, Service};
use sprat::proto::tracker::udp::{self, Family, Response};
use sprat::proto::tracker::{Announce, AnnounceEvent, http};

use super::input::Input;
use super::timer::later;

/// Most bytes of a datagram: it fits every MTU in use.
const DATAGRAM_LEN_MAX: usize = 1_400;
/// Most bytes of a body.
const BODY_LEN_MAX: usize = 8 << 10;

pub fn tracker(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (mut now, mut connection_id) = (Instant::from_micros(1_000_000), 0);
    let mut service = Service::new(Rng::from_number(1), now);
    let mut out = Vec::new();
    while !input.is_empty() {
        let from = input.addr();
        let mut datagram = Vec::new();
        match input.byte() % 8 {
            0 => datagram.extend(input.string()),
            1 => udp::encode_connect(input.u32(), &mut datagram),
            2 | 3 => {
                let announce = announce(&mut input);
                udp::encode_announce(connection_id, input.u32(), &announce, "/announce", &mut datagram);
            }
            4 => {
                let infohashes = [InfoHash([input.byte() % 4; 20]); 3];
                udp::encode_scrape(connection_id, input.u32(), &infohashes, &mut datagram);
            }
            5 => {
                let url = http::announce_url("/announce", &announce(&mut input));
                check_http(&mut service, now, from, &url);
            }
            6 => {
                let target = String::from_utf8_lossy(input.string());
                check_http(&mut service, now, from, &target);
            }
            _ => {
                now = later(&mut input, now, service.poll_timeout());
                service.handle_timeout(now);
                assert!(service.poll_timeout().is_none_or(|at| at > now), "a timer that does not move on");
            }
        }
        if service.handle_datagram(now, from, &datagram, &mut out) {
            assert!(out.len() <= DATAGRAM_LEN_MAX && datagram.len() >= 16);
            match udp::decode_response(&out, Family::of(from.ip())) {
                Ok(Response::Connect { connection_id: issued, .. }) => connection_id = issued,
                Ok(Response::Announce { reply, .. }) => assert!(reply.interval >= Duration::from_secs(60)),
                Ok(Response::Scrape { .. } | Response::Error { .. }) => {}
                Err(error) => panic!("an answer of ours is not read: {error}"),
            }
        }
        let totals = service.totals();
        assert!(totals.seeders <= totals.peers && totals.peers <= LIMITS.peer_max as u64);
    }
}

fn check_http(service: &mut Service, now: Instant, from: std::net::SocketAddr, target: &str) {
    let mut out = Vec::new();
    let status = service.handle_http(now, from, target, &mut out);
    assert_eq!(status == 200, !out.is_empty());
    assert!(out.len() <= BODY_LEN_MAX);
}

fn announce(input: &mut Input<'_>) -> Announce {
    let event =
        [AnnounceEvent::None, AnnounceEvent::Started, AnnounceEvent::Completed, AnnounceEvent::Stopped];
    let (infohash, peer_id) = (InfoHash([input.byte() % 4; 20]), PeerId([input.byte() % 8; 20]));
    Announce {
        left: u64::from(input.byte() % 4),
        event: input.one_of(&event).unwrap_or_default(),
        numwant: input.is_set().then(|| u32::from(input.byte())),
        ip: input.is_set().then(|| input.addr().ip()),
        key: input.byte().into(),
        ..Announce::new(infohash, peer_id, input.u16())
    }
}
