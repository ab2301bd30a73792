//! BEP 15: the UDP tracker protocol, byte by byte as its tables say, both directions; and what
//! keeps it from being forged or turned against others.
use std::net::SocketAddr;

use sprat::proto::infohash::InfoHash;
use sprat::proto::peer_id::PeerId;
use sprat::proto::rng::Rng;
use sprat::proto::time::Instant;
use sprat::proto::tracker::service::Service;
use sprat::proto::tracker::udp_client::{Output, UdpClient};
use sprat::proto::tracker::{Announce, AnnounceEvent};

fn at(secs: u64) -> Instant {
    Instant::from_micros(secs * 1_000_000)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn tracker() -> Service {
    Service::new(Rng::from_number(1), at(0))
}

/// offset 0 connection_id 0x41727101980, 8 action 0, 12 transaction_id.
fn connect_request(transaction_id: u32) -> Vec<u8> {
    let mut bytes = vec![0x00, 0x00, 0x04, 0x17, 0x27, 0x10, 0x19, 0x80, 0, 0, 0, 0];
    bytes.extend(transaction_id.to_be_bytes());
    bytes
}

fn connect(tracker: &mut Service, now: Instant, from: &str) -> [u8; 8] {
    let mut out = Vec::new();
    assert!(tracker.handle_datagram(now, addr(from), &connect_request(0xdead_beef), &mut out));
    assert_eq!(out.len(), 16);
    assert_eq!(out[..8], [0, 0, 0, 0, 0xde, 0xad, 0xbe, 0xef]);
    out[8..].try_into().unwrap()
}

/// The 98 bytes of the table.
fn announce_request(connection_id: [u8; 8], peer: u8, left: u64, event: u32) -> Vec<u8> {
    let mut bytes = connection_id.to_vec();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 9]);
    bytes.extend([0xaa; 20]);
    bytes.extend([peer; 20]);
    bytes.extend(0_u64.to_be_bytes());
    bytes.extend(left.to_be_bytes());
    bytes.extend(0_u64.to_be_bytes());
    bytes.extend(event.to_be_bytes());
    bytes.extend([0, 0, 0, 0, 0x12, 0x34, 0x56, 0x78, 0xff, 0xff, 0xff, 0xff]);
    bytes.extend((6000 + u16::from(peer)).to_be_bytes());
    assert_eq!(bytes.len(), 98);
    bytes
}

fn announce(tracker: &mut Service, from: &str, peer: u8, left: u64, event: u32) -> Vec<u8> {
    let id = connect(tracker, at(0), from);
    let mut out = Vec::new();
    assert!(tracker.handle_datagram(at(0), addr(from), &announce_request(id, peer, left, event), &mut out));
    out
}

#[test]
fn announce_replies_are_laid_out_as_the_table_says() {
    let mut tracker = tracker();
    announce(&mut tracker, "192.0.2.1:1", 1, 0, 2);
    announce(&mut tracker, "192.0.2.2:1", 2, 5, 2);
    let reply = announce(&mut tracker, "192.0.2.3:1", 3, 5, 2);
    assert_eq!(reply[..8], [0, 0, 0, 1, 0, 0, 0, 9], "action, transaction id");
    let interval = u32::from_be_bytes(reply[8..12].try_into().unwrap());
    assert!((1600..=1800).contains(&interval), "{interval}");
    assert_eq!(reply[12..20], [0, 0, 0, 2, 0, 0, 0, 1], "leechers, seeders");
    let mut peers: Vec<_> = reply[20..].chunks(6).collect();
    peers.sort();
    assert_eq!(peers, [[192, 0, 2, 1, 0x17, 0x71], [192, 0, 2, 2, 0x17, 0x72]]);
}

#[test]
fn over_ipv6_peers_are_18_bytes_and_of_ipv6_only() {
    let mut tracker = tracker();
    announce(&mut tracker, "192.0.2.1:1", 1, 0, 2);
    announce(&mut tracker, "[2001:db8::7]:1", 2, 5, 2);
    let reply = announce(&mut tracker, "[2001:db8::8]:1", 3, 5, 2);
    assert_eq!(reply[12..20], [0, 0, 0, 2, 0, 0, 0, 1], "but all are counted");
    assert_eq!(reply[20..], *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07\x17\x72");
}

#[test]
fn seeds_are_not_named_to_seeds_and_those_who_stop_to_nobody() {
    let mut tracker = tracker();
    announce(&mut tracker, "192.0.2.1:1", 1, 0, 1);
    assert_eq!(announce(&mut tracker, "192.0.2.2:1", 2, 0, 1).len(), 20);
    assert_eq!(announce(&mut tracker, "192.0.2.1:1", 1, 0, 3).len(), 20);
    let reply = announce(&mut tracker, "192.0.2.3:1", 3, 1, 2);
    assert_eq!(reply[20..], [192, 0, 2, 2, 0x17, 0x72]);
}

#[test]
fn scrapes_are_three_numbers_a_torrent_in_the_order_asked() {
    let mut tracker = tracker();
    announce(&mut tracker, "192.0.2.1:1", 1, 7, 2);
    announce(&mut tracker, "192.0.2.1:1", 1, 0, 1);
    announce(&mut tracker, "192.0.2.2:1", 2, 7, 2);
    let mut request = connect(&mut tracker, at(0), "192.0.2.3:1").to_vec();
    request.extend([0, 0, 0, 2, 0, 0, 0, 8]);
    request.extend([0xbb; 20]);
    request.extend([0xaa; 20]);
    let mut out = Vec::new();
    assert!(tracker.handle_datagram(at(0), addr("192.0.2.3:1"), &request, &mut out));
    let expected =
        [0, 0, 0, 2, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1];
    assert_eq!(out, expected, "seeders, completed, leechers");
}

#[test]
fn a_million_guessed_connection_ids_open_nothing() {
    let mut tracker = tracker();
    let mut rng = Rng::from_number(7);
    let real = u64::from_be_bytes(connect(&mut tracker, at(1000), "192.0.2.1:1"));
    let mut request = announce_request([0; 8], 1, 1, 2);
    let mut out = Vec::new();
    for guess in 0..1_000_000_u64 {
        // Random ones, near misses, and those of a tracker that uses clock and counter.
        let id = match guess % 4 {
            0 => rng.bits(),
            1 => real ^ 1_u64.rotate_left((guess / 4) as u32) ^ (guess / 256) << 1,
            2 => real.wrapping_add(guess + 1),
            _ => guess,
        };
        if id == real {
            continue;
        }
        request[..8].copy_from_slice(&id.to_be_bytes());
        assert!(!tracker.handle_datagram(at(1000), addr("192.0.2.1:1"), &request, &mut out), "{id:#x}");
    }
    assert_eq!(tracker.totals().peers, 0);
    request[..8].copy_from_slice(&real.to_be_bytes());
    assert!(tracker.handle_datagram(at(1000), addr("192.0.2.1:1"), &request, &mut out));
}

#[test]
fn connection_ids_are_good_for_a_minute_at_least_and_two_at_most() {
    let mut tracker = tracker();
    let mut out = Vec::new();
    for issued_at in (0..200).step_by(7) {
        let id = connect(&mut tracker, at(issued_at), "192.0.2.1:1");
        let request = announce_request(id, 1, 1, 2);
        let mut works =
            |age, from| tracker.handle_datagram(at(issued_at + age), addr(from), &request, &mut out);
        assert!(works(0, "192.0.2.1:1") && works(60, "192.0.2.1:1"));
        assert!(works(0, "192.0.2.1:2"), "translators change ports");
        assert!(!works(120, "192.0.2.1:1"));
        assert!(!works(0, "192.0.2.9:1"), "another's");
    }
}

#[test]
fn nothing_is_gained_by_sending_from_a_forged_address() {
    let mut tracker = tracker();
    let mut rng = Rng::from_number(3);
    let mut out = Vec::new();
    for len in 0..1200 {
        let mut datagram = vec![0; len];
        rng.fill(&mut datagram);
        for action in 0..4 {
            if len >= 12 {
                datagram[8..12].copy_from_slice(&[0, 0, 0, action]);
            }
            assert!(!tracker.handle_datagram(at(0), addr("192.0.2.1:1"), &datagram, &mut out));
        }
        if len >= 16 {
            datagram[..16].copy_from_slice(&connect_request(1));
            assert!(tracker.handle_datagram(at(0), addr("192.0.2.1:1"), &datagram, &mut out));
            assert!(out.len() <= len);
        }
    }
}

fn announce_of(peer: u8) -> Announce {
    Announce {
        left: 1,
        event: AnnounceEvent::Started,
        numwant: Some(10),
        key: 1,
        ..Announce::new(InfoHash([0xaa; 20]), PeerId([peer; 20]), 6880 + u16::from(peer))
    }
}

#[test]
fn client_and_tracker_understand_each_other() {
    let mut tracker = tracker();
    announce(&mut tracker, "192.0.2.1:1", 1, 0, 2);
    let mut client = UdpClient::new(Rng::from_number(2));
    client.handle_announce(at(0), "torrent", addr("198.51.100.1:6969"), "/announce?k=1", announce_of(5));
    let mut out = Vec::new();
    loop {
        match client.poll_output().unwrap() {
            Output::Datagram { to, bytes } => {
                assert!(tracker.handle_datagram(at(0), addr("192.0.2.2:50"), &bytes, &mut out));
                assert!(client.handle_datagram(at(0), to, &out));
            }
            Output::Reply { key, reply } => {
                let reply = reply.unwrap();
                assert_eq!((key, reply.peers), ("torrent", vec![addr("192.0.2.1:6001")]));
                return;
            }
        }
    }
}

#[test]
fn every_request_ends_once_within_a_minute_whatever_the_network_does() {
    for seed in 0..300 {
        let mut rng = Rng::from_number(seed);
        let mut tracker = tracker();
        let mut client = UdpClient::new(rng.fork("client"));
        let (mut now, mut asked, mut ended, mut good) = (at(0), Vec::new(), Vec::new(), 0);
        let loss = rng.below(100);
        while ended.len() < 20 {
            if asked.len() < 20 && rng.below(2) == 0 {
                let key = asked.len();
                asked.push(now);
                let to = [addr("198.51.100.1:6969"), addr("198.51.100.2:6969")][key % 2];
                client.handle_announce(now, key, to, "", announce_of(key as u8 + 1));
            } else if let Some(next) = client.poll_timeout() {
                now = next.max(now);
                client.handle_timeout(now);
            }
            let mut out = Vec::new();
            while let Some(output) = client.poll_output() {
                match output {
                    Output::Datagram { to, bytes } => {
                        let arrives = rng.below(100) >= loss;
                        if arrives && tracker.handle_datagram(now, addr("192.0.2.2:50"), &bytes, &mut out) {
                            // Damaged and foreign copies come first, and the true answer comes
                            // twice.
                            let mut damaged = out.clone();
                            damaged[rng.below(8)] ^= 1;
                            client.handle_datagram(now, to, &damaged);
                            client.handle_datagram(now, addr("203.0.113.9:6969"), &out);
                            client.handle_datagram(now, to, &out);
                            client.handle_datagram(now, to, &out);
                        }
                    }
                    Output::Reply { key, reply } => {
                        assert!(now <= asked[key] + std::time::Duration::from_secs(60));
                        assert!(!ended.contains(&key));
                        ended.push(key);
                        good += usize::from(reply.is_ok());
                    }
                }
            }
        }
        assert!(loss > 0 || good == 20, "without loss all go well");
        assert!(loss > 30 || good > 10, "{good} with {loss} % lost");
    }
}
