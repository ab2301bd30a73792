//! A quarter of a million mutated inputs a run for gossip and local discovery: no panic, no more
//! values than the limits allow, and what decodes encodes to what decodes the same.

use std::net::{IpAddr, SocketAddr};

use sprat::proto::infohash::InfoHash;
use sprat::proto::lsd::{Group, INFOHASH_MAX, Lsd, Output, Search};
use sprat::proto::rng::Rng;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::wire::pex::{PEX_COUNT_MAX, PexFlags, PexMessage};

const PEX_INPUTS: usize = 200_000;
const LSD_INPUTS: usize = 50_000;

/// A bit flipped, a byte changed, dropped, put in or doubled, or the end cut off, up to three
/// times.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..1 + rng.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len());
        match rng.below(7) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.bits() as u8,
            2 => drop(bytes.remove(at)),
            3 => bytes.insert(at, rng.bits() as u8),
            4 => bytes.truncate(at),
            5 => bytes.extend_from_within(at..),
            _ => {}
        }
    }
}

fn some_addr(rng: &mut Rng) -> SocketAddr {
    let mut octets = [0; 16];
    rng.fill(&mut octets);
    let v4: [u8; 4] = octets[..4].try_into().unwrap();
    let ip = if rng.below(2) == 0 { IpAddr::from(v4) } else { IpAddr::from(octets) };
    SocketAddr::new(ip, rng.bits() as u16)
}

#[test]
fn pex_payloads() {
    let mut rng = Rng::from_number(0x5f11);
    let mut good = 0;
    for _ in 0..PEX_INPUTS {
        let added = (0..rng.below(4)).map(|_| (some_addr(&mut rng), PexFlags::default())).collect();
        let dropped = (0..rng.below(4)).map(|_| some_addr(&mut rng)).collect();
        let mut payload = PexMessage { added, dropped }.encode().to_vec();
        mutate(&mut rng, &mut payload);
        let Ok(message) = PexMessage::decode(&payload) else { continue };
        assert!(message.added.len() <= PEX_COUNT_MAX && message.dropped.len() <= PEX_COUNT_MAX);
        let again = PexMessage::decode(&message.encode()).unwrap();
        assert_eq!((again.added.len(), again.dropped.len()), (message.added.len(), message.dropped.len()));
        good += 1;
    }
    assert!(good > PEX_INPUTS / 5, "{good}");
}

#[test]
fn lsd_datagrams() {
    let mut rng = Rng::from_number(0x5f14);
    let (mut now, mut good, mut peers) = (Instant::ZERO, 0, 0);
    let ours: Vec<_> = (0..30_u32).map(|number| InfoHash::of(&number.to_be_bytes())).collect();
    let mut lsd = Lsd::new(6881, Rng::from_number(1), now);
    ours.iter().for_each(|&infohash| lsd.handle_added(now, infohash));
    for _ in 0..LSD_INPUTS {
        let infohashes = (0..1 + rng.below(30)).map(|_| ours[rng.below(ours.len())]).collect();
        let cookie = (rng.below(2) == 0).then(|| format!("{:x}", rng.bits()));
        let mut bytes = Search { port: rng.bits() as u16, infohashes, cookie }.encode(Group::V4);
        mutate(&mut rng, &mut bytes);
        if let Ok(search) = Search::decode(&bytes) {
            good += 1;
            assert!(search.port != 0 && (1..=INFOHASH_MAX).contains(&search.infohashes.len()));
            assert_eq!(Search::decode(&search.encode(Group::V6)), Ok(search));
        }
        now += Duration::from_millis(60);
        lsd.handle_datagram(now, SocketAddr::from(([10, 0, 0, rng.bits() as u8], 6771)), &bytes);
        lsd.handle_timeout(now);
        while let Some(output) = lsd.poll_output() {
            match output {
                Output::Peer(infohash, addr) => {
                    assert!(ours.contains(&infohash) && addr.port() != 0);
                    peers += 1;
                }
                Output::Announce(_, bytes) => assert!(Search::decode(&bytes).is_ok()),
            }
        }
    }
    assert!(good > LSD_INPUTS / 3 && peers > 10_000, "{good} {peers}");
}
