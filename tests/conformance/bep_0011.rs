//! BEP 11: peer exchange as other clients send it, and as it should not be sent.

use std::net::SocketAddr;

use sprat::proto::wire::pex::{PEX_COUNT_MAX, PEX_LEN_MAX, PexFlags, PexMessage};

const NONE: PexFlags =
    PexFlags { encryption: false, seed: false, utp: false, holepunch: false, reachable: false };

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn decode(payload: &[u8]) -> PexMessage {
    PexMessage::decode(payload).unwrap()
}

#[test]
fn everything_round_trips_and_our_bytes_are_canonical() {
    let sent = PexMessage {
        added: vec![
            (addr("1.2.3.4:6881"), PexFlags { seed: true, reachable: true, ..NONE }),
            (addr("5.6.7.8:1"), PexFlags { encryption: true, utp: true, holepunch: true, ..NONE }),
            (addr("[2001:db8::1]:258"), NONE),
        ],
        dropped: vec![addr("9.9.9.9:9"), addr("[2001:db8::2]:1")],
    };
    assert_eq!(decode(&sent.encode()), sent);
    let expected = b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\0\x017:added.f2:\x12\x0d\
        6:added618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x01\x028:added6.f1:\0\
        7:dropped6:\x09\x09\x09\x09\0\x098:dropped618:\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\0\x01e";
    assert_eq!(&sent.encode()[..], expected);
    assert_eq!(PexMessage::default().encode(), "de");
    assert_eq!(decode(b"de"), PexMessage::default());
}

#[test]
fn a_message_of_libtorrent_is_read() {
    let payload =
        b"d5:added6:\x0a\0\0\x01\x1a\xe17:added.f1:\x106:added60:8:added6.f0:7:dropped0:8:dropped60:e";
    let message = decode(payload);
    assert_eq!(message.added, [(addr("10.0.0.1:6881"), PexFlags { reachable: true, ..NONE })]);
    assert_eq!(message.dropped, []);
}

#[test]
fn what_is_of_the_wrong_kind_or_missing_counts_as_absent() {
    for payload in
        ["d5:addedi5ee", "d5:addedlee", "d7:dropped5:\0\0\0\0\0e", "d7:added.f2:\x01\x01e", "d1:xi1ee"]
    {
        assert_eq!(decode(payload.as_bytes()), PexMessage::default(), "{payload}");
    }
    let message = decode(b"d5:added12:\x01\x02\x03\x04\x1a\xe1\x05\x06\x07\x08\x1a\xe17:added.f1:\xffe");
    let flags: Vec<_> = message.added.iter().map(|(_, flags)| flags.seed).collect();
    assert_eq!(flags, [true, false], "an address without flags has none");
    let flagged = decode(b"d5:added12:\0\0\0\0\x1a\xe1\x05\x06\x07\x08\x1a\xe17:added.f2:\x02\0e");
    assert_eq!(flagged.added, [(addr("5.6.7.8:6881"), NONE)], "flags stay with their address");
}

#[test]
fn addresses_that_nobody_has_are_left_out_and_mapped_ones_are_ipv4() {
    let mut added = b"d6:added690:".to_vec();
    for ip in ["::ffff:1.2.3.4", "::", "ff02::1", "::ffff:224.0.0.1", "::1"] {
        added.extend_from_slice(&ip.parse::<std::net::Ipv6Addr>().unwrap().octets());
        added.extend_from_slice(&[0x1a, 0xe1]);
    }
    added.push(b'e');
    let addrs: Vec<_> = decode(&added).added.into_iter().map(|(addr, _)| addr).collect();
    assert_eq!(addrs, [addr("1.2.3.4:6881"), addr("[::1]:6881")]);
    assert_eq!(decode(b"d5:added6:\x01\x02\x03\x04\0\0e").added, [], "port 0");
}

#[test]
fn of_a_long_message_the_first_fifty_count_and_a_huge_one_is_refused() {
    let list = |count: usize| {
        let mut payload = format!("d5:added{}:", 6 * count).into_bytes();
        (0..count).for_each(|host| payload.extend_from_slice(&[1, 2, (host >> 8) as u8, host as u8, 9, 9]));
        payload.push(b'e');
        payload
    };
    assert_eq!(decode(&list(1_000)).added.len(), PEX_COUNT_MAX);
    let huge = list(PEX_LEN_MAX / 6);
    assert!(huge.len() > PEX_LEN_MAX && PexMessage::decode(&huge).is_err());
    for payload in ["", "i1e", "le", "d", "d5:added", "5:hello", "d5:added6:123e"] {
        assert!(PexMessage::decode(payload.as_bytes()).is_err(), "{payload}");
    }
    let deep = format!("d1:x{}{}e", "l".repeat(100), "e".repeat(100));
    assert!(PexMessage::decode(deep.as_bytes()).is_err());
}
