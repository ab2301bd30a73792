//! BEP 10: the extension handshake as other clients send it, and as it should not be sent.

use sprat::proto::wire::extension::{CLIENT_CHAR_MAX, ExtensionHandshake};

fn decode(payload: &[u8]) -> ExtensionHandshake {
    ExtensionHandshake::decode(payload).unwrap()
}

#[test]
fn everything_round_trips() {
    for your_ip in ["10.1.2.3", "2001:db8::1"] {
        let sent = ExtensionHandshake {
            lt_donthave: Some(4),
            sp_have: Some(1),
            ut_metadata: Some(2),
            ut_pex: Some(3),
            metadata_size: Some(31_235),
            port: Some(6881),
            client: Some("sprat 0.1.0".to_owned()),
            request_queue_max: Some(512),
            your_ip: Some(your_ip.parse().unwrap()),
            upload_only: true,
        };
        assert_eq!(decode(&sent.encode()), sent);
    }
    assert_eq!(ExtensionHandshake::default().encode(), "d1:mdee");
    assert_eq!(decode(b"d1:mdee"), ExtensionHandshake::default());
}

#[test]
fn our_bytes_are_canonical() {
    let sent = ExtensionHandshake {
        sp_have: Some(1),
        ut_pex: Some(3),
        port: Some(6881),
        client: Some("sprat".to_owned()),
        your_ip: Some("1.2.3.4".parse().unwrap()),
        upload_only: true,
        ..ExtensionHandshake::default()
    };
    let expected =
        "d1:md7:sp_havei1e6:ut_pexi3ee1:pi6881e11:upload_onlyi1e1:v5:sprat6:yourip4:\x01\x02\x03\x04e";
    assert_eq!(sent.encode(), expected);
}

#[test]
fn the_example_of_the_bep() {
    let handshake = decode("d1:md11:LT_metadatai1e7:µT_PEXi2ee1:pi6881e1:v13:\u{b5}Torrent 1.2e".as_bytes());
    assert_eq!(handshake.port, Some(6881));
    assert_eq!(handshake.client.as_deref(), Some("µTorrent 1.2"));
    assert_eq!((handshake.ut_metadata, handshake.ut_pex, handshake.sp_have), (None, None, None));
}

#[test]
fn what_is_of_the_wrong_kind_or_out_of_range_counts_as_absent() {
    for payload in [
        "d1:mlee",
        "d1:mi1ee",
        "d1:md6:ut_pex1:1ee",
        "d1:md6:ut_pexi256eee",
        "d1:md6:ut_pexi-1eee",
        "d1:pi0ee",
        "d1:pi65536ee",
        "d1:p4:6881e",
        "d13:metadata_sizei-1ee",
        "d13:metadata_sizei4294967296ee",
        "d4:reqqdee",
        "d11:upload_onlyi0ee",
        "d1:vi5ee",
        "d1:v0:e",
        "d6:yourip3:abce",
        "d6:youripi3ee",
        "de",
    ] {
        assert_eq!(decode(payload.as_bytes()), ExtensionHandshake::default(), "{payload}");
    }
}

#[test]
fn number_zero_switches_an_extension_off() {
    let mut known = ExtensionHandshake::default();
    known.update(decode(b"d1:md11:ut_metadatai2e6:ut_pexi0eee"));
    assert_eq!((known.ut_metadata, known.ut_pex), (Some(2), None));
    known.update(decode(b"d1:md6:ut_pexi7eee"));
    known.update(decode(b"d1:md11:ut_metadatai0eee"));
    assert_eq!((known.ut_metadata, known.ut_pex), (None, Some(7)));
}

#[test]
fn unordered_keys_are_read_and_of_two_the_last_wins() {
    let handshake = decode(b"d1:v1:a1:pi1e1:pi2e1:md6:ut_pexi7eee");
    assert_eq!((handshake.port, handshake.ut_pex), (Some(2), Some(7)));
}

#[test]
fn a_mapped_address_is_ipv4() {
    let handshake = decode(b"d6:yourip16:\0\0\0\0\0\0\0\0\0\0\xff\xff\x01\x02\x03\x04e");
    assert_eq!(handshake.your_ip, Some("1.2.3.4".parse().unwrap()));
}

#[test]
fn a_client_name_cannot_spoil_a_terminal() {
    let name = "\u{1b}[31mEvil\u{202e}\u{2067}\r\n\t\u{200f}\u{85} client";
    let payload = format!("d1:v{}:{name}e", name.len());
    assert_eq!(decode(payload.as_bytes()).client.as_deref(), Some("[31mEvil client"));
    let long = format!("d1:v2000:{}e", "é".repeat(1000));
    assert_eq!(decode(long.as_bytes()).client.unwrap().chars().count(), CLIENT_CHAR_MAX);
    assert!(decode(b"d1:v3:\xff\xfeAe").client.unwrap().ends_with('A'));
}

#[test]
fn what_is_no_dictionary_or_costs_too_much_is_refused() {
    let deep = format!("d1:x{}{}e", "l".repeat(100), "e".repeat(100));
    let long = format!("d1:x20000:{}e", "x".repeat(20_000));
    let many = format!("d1:xl{}ee", "le".repeat(5_000));
    for payload in ["", "i1e", "le", "d", "d1:m", "5:hello", &deep, &long, &many] {
        assert!(ExtensionHandshake::decode(payload.as_bytes()).is_err(), "{payload:.20}");
    }
}
