//! A million random and mutated inputs for everything that trackers and their clients read: no
//! panic, and no value larger than its input warrants.

use std::net::SocketAddr;

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::service::Service;
use sprat::proto::tracker::udp::{Family, Response};
use sprat::proto::tracker::{Announce, AnnounceEvent, AnnounceReply, http, udp};

const ROUNDS: usize = 250_000;

fn announce() -> Announce {
    Announce {
        left: 5,
        event: AnnounceEvent::Started,
        numwant: Some(200),
        ..Announce::new(InfoHash([1; 20]), PeerId([2; 20]), 1)
    }
}

/// Flips, cuts, doubles and inserts a little.
fn mutate(rng: &mut Rng, sample: &[u8], tokens: &[&[u8]]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..=rng.below(4) {
        let at = rng.below(bytes.len());
        match rng.below(6) {
            0 if !bytes.is_empty() => bytes[at] = rng.bits() as u8,
            1 if !bytes.is_empty() => bytes[at] ^= 1 << rng.below(8),
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            _ => {
                let token = tokens[rng.below(tokens.len())];
                bytes.splice(at..at, token.iter().copied());
            }
        }
        bytes.truncate(4096);
    }
    bytes
}

fn noise(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = vec![0; rng.below(200)];
    rng.fill(&mut bytes);
    bytes
}

#[test]
fn any_datagram_is_a_request_or_none() {
    let mut rng = Rng::from_number(1);
    let mut tracker = Service::new(Rng::from_number(2), Instant::ZERO);
    let from: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut samples = [const { Vec::new() }; 3];
    udp::encode_connect(1, &mut samples[0]);
    let mut out = Vec::new();
    tracker.handle_datagram(Instant::ZERO, from, &samples[0], &mut out);
    let Ok(Response::Connect { connection_id, .. }) = udp::decode_response(&out, Family::V4) else {
        panic!()
    };
    udp::encode_announce(connection_id, 1, &announce(), "/announce?x=1", &mut samples[1]);
    udp::encode_scrape(connection_id, 1, &[InfoHash([1; 20]); 3], &mut samples[2]);
    let mut answered = 0;
    for round in 0..ROUNDS {
        let sample = &samples[round % 3];
        let datagram = if round % 10 == 0 {
            noise(&mut rng)
        } else {
            mutate(&mut rng, sample, &[b"\0", b"\xff", b"\x02\xff"])
        };
        if tracker.handle_datagram(Instant::ZERO, from, &datagram, &mut out) {
            answered += 1;
            assert!(out.len() <= 1400 && datagram.len() >= 16);
        }
    }
    assert!(answered > ROUNDS / 4 && answered < ROUNDS, "{answered}");
}

#[test]
fn any_datagram_is_a_response_or_none() {
    let mut rng = Rng::from_number(3);
    let mut samples = vec![Vec::new(); 4];
    udp::encode_connect_reply(1, 2, &mut samples[0]);
    udp::encode_announce_reply(1, 1800, 5, 6, &mut samples[1]);
    samples[1].extend([7; 36]);
    udp::encode_scrape_reply(1, &mut samples[2]);
    samples[2].extend([7; 36]);
    udp::encode_error(1, "no, \x1b[31m never", &mut samples[3]);
    for round in 0..ROUNDS {
        let bytes = if round % 10 == 0 {
            noise(&mut rng)
        } else {
            mutate(&mut rng, &samples[round % 4], &[b"\0", b"\xff"])
        };
        let family = if round % 2 == 0 { Family::V4 } else { Family::V6 };
        match udp::decode_response(&bytes, family) {
            Ok(Response::Announce { reply, .. }) => assert!(reply.peers.len() * 6 <= bytes.len()),
            Ok(Response::Scrape { torrents, .. }) => assert!(torrents.len() * 12 <= bytes.len()),
            Ok(Response::Error { message, .. }) => assert!(!message.contains(char::is_control)),
            Ok(Response::Connect { .. }) | Err(_) => (),
        }
    }
}

#[test]
fn any_query_is_answered() {
    let mut rng = Rng::from_number(4);
    let mut tracker = Service::new(Rng::from_number(5), Instant::ZERO);
    let from = "192.0.2.1:9".parse().unwrap();
    let announce = http::announce_url("http://t/announce", &announce());
    let scrape = http::scrape_url("http://t/announce", &[InfoHash([0xf1; 20])]).unwrap();
    let samples = [announce, scrape].map(|url| url.strip_prefix("http://t").unwrap().as_bytes().to_vec());
    let tokens: [&[u8]; 8] =
        [b"%", b"%zz", b"&", b"=", b"info_hash=", b"&left=-1", b"?", b"99999999999999999999"];
    let (mut out, mut refused) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        let target = mutate(&mut rng, &samples[round % 2], &tokens);
        let status = tracker.handle_http(Instant::ZERO, from, &String::from_utf8_lossy(&target), &mut out);
        assert_eq!(status == 200, !out.is_empty());
        assert!(out.len() <= 8192);
        refused += usize::from(out.starts_with(b"d14:failure reason"));
    }
    assert!(refused > ROUNDS / 10 && refused < ROUNDS, "{refused}");
}

#[test]
fn any_body_is_a_reply_or_an_error() {
    let mut rng = Rng::from_number(6);
    let samples: [&[u8]; 4] = [
        b"d8:completei3e11:external ip4:\x08\x08\x08\x0810:incompletei1e8:intervali60e12:min intervali120e\
          5:peers12:abcdefghijkl6:peers618:abcdefghijklmnopqr10:tracker id2:ide",
        b"d8:intervali60e5:peersld2:ip7:1.2.3.44:porti5eed2:ip3:::14:porti6eeee",
        b"d14:failure reason2:no8:retry in5:nevere",
        b"d5:filesd20:....................d8:completei5e10:downloadedi50e10:incompletei10eeee",
    ];
    let tokens: [&[u8]; 7] =
        [b"d", b"l", b"e", b"i-1e", b"5:peers", b"99999999999:", b"i9223372036854775808e"];
    let mut read = 0;
    for round in 0..ROUNDS {
        let body =
            if round % 10 == 0 { noise(&mut rng) } else { mutate(&mut rng, samples[round % 4], &tokens) };
        if let Ok(AnnounceReply { peers, warning, tracker_id, .. }) = http::decode_reply(&body) {
            read += 1;
            let text_len = warning.map_or(0, |text| text.len()) + tracker_id.map_or(0, |text| text.len());
            assert!(peers.len() * 6 + text_len / 3 <= body.len());
        }
    }
    assert!(read > ROUNDS / 100, "{read}");
}
