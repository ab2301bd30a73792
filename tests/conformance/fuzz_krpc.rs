//! A million mutated and made-up datagrams for the DHT's codec: no panic, and what is read and
//! written again is read as the same.

use std::net::SocketAddr;

use sprat::proto::bencode::{Keys, Limits, Trailing, scan};
use sprat::proto::dht::item::{Item, SecretKey};
use sprat::proto::dht::krpc::{
    Answer, Body, DATAGRAM_LEN_MAX, Method, NODE_COUNT_MAX, Query, Response, Want, decode, encode_answer,
    encode_error, encode_query,
};
use sprat::proto::dht::node_id::{Node, NodeId};
use sprat::proto::rng::Rng;

const ROUNDS: usize = 1_000_000;
const ID: NodeId = NodeId(*b"abcdefghij0123456789");
const TARGET: NodeId = NodeId(*b"mnopqrstuvwxyz123456");

/// What messages are made of: keys, and values of the right and of the wrong kind.
const PARTS: [&[u8]; 44] = [
    b"2:id20:abcdefghij0123456789",
    b"6:target20:mnopqrstuvwxyz123456",
    b"9:info_hash20:mnopqrstuvwxyz123456",
    b"5:token8:12345678",
    b"4:porti6881e",
    b"12:implied_porti1e",
    b"4:seedi1e",
    b"4:wantl2:n42:n6e",
    b"3:casi1e",
    b"3:seqi-1e",
    b"1:v5:hello",
    b"5:nodes26:abcdefghijklmnopqrstuvwxyz",
    b"6:valuesl6:abcdef18:abcdefghijklmnopqre",
    b"7:samples20:abcdefghij0123456789",
    b"2:ip6:abcdef",
    b"1:k32:abcdefghijklmnopqrstuvwxyz123456",
    b"3:num",
    b"4:BFsd",
    b"4:BFpe",
    b"6:nodes6",
    b"4:salt",
    b"3:sig",
    b"1:t",
    b"1:y",
    b"1:q",
    b"1:a",
    b"1:r",
    b"1:e",
    b"2:ro",
    b"1:v",
    b"d",
    b"l",
    b"e",
    b"0:",
    b"1:q",
    b"4:ping",
    b"i0e",
    b"i-0e",
    b"i65536e",
    b"i9223372036854775807e",
    b"99999999999999999999:",
    b"65535:",
    b"lllllllll",
    b"de",
];

fn samples() -> Vec<Vec<u8>> {
    let want = Want { v4: true, v6: true };
    let mutable = SecretKey::from_bytes([1; 32]).sign("salt".into(), 7, "5:hello".into()).unwrap();
    let immutable = Item::immutable("d1:ai1e1:bli2eee".into()).unwrap();
    let methods = [
        Method::Ping,
        Method::FindNode { target: TARGET, want },
        Method::GetPeers { infohash: TARGET, want, scrape: true, no_seed: true },
        Method::AnnouncePeer { infohash: TARGET, port: Some(6_881), token: b"12345678", seed: true },
        Method::AnnouncePeer { infohash: TARGET, port: None, token: b"12345678", seed: false },
        Method::Get { target: TARGET, seq: Some(5), want },
        Method::Put { token: b"12345678", cas: Some(6), item: mutable.as_item_ref() },
        Method::Put { token: b"12345678", cas: None, item: immutable.as_item_ref() },
        Method::SampleInfohashes { target: TARGET, want },
        Method::Unknown { target: Some(TARGET) },
    ];
    let queries = methods.map(|method| encode_query(*b"tttt", &Query { id: ID, read_only: true, method }));
    let to: SocketAddr = "1.2.3.4:5".parse().unwrap();
    let node = |number: u8| {
        let addr = if number.is_multiple_of(2) { to } else { "[2001:db8::1]:9".parse().unwrap() };
        Node { id: NodeId([number; 20]), addr }
    };
    let nodes: Vec<_> = (0..4).map(node).collect();
    let peers = nodes.iter().map(|node| node.addr).collect();
    let answers = [
        Answer { nodes, peers, token: Some([1; 8]), names_v4: true, names_v6: true, ..Answer::default() },
        Answer { item: Some(mutable), token: Some([1; 8]), ..Answer::default() },
        Answer { item: Some(immutable), seq: Some(1), ..Answer::default() },
        Answer { seq: Some(1), samples: Some((vec![ID, TARGET], 7, 60)), ..Answer::default() },
        Answer { filters: Some(Box::new(([1; 256], [2; 256]))), ..Answer::default() },
    ];
    let answers = answers.map(|answer| encode_answer(b"tttt", ID, to, &answer));
    let errors = [encode_error(b"aa", "[2001:db8::1]:9".parse().unwrap(), 203, "a text of some length")];
    queries.into_iter().chain(answers).chain(errors).collect()
}

/// Where a digit stands that may be of a length or a number.
fn digit(rng: &mut Rng, bytes: &[u8]) -> Option<usize> {
    let from = rng.below(bytes.len());
    (from..bytes.len()).find(|&at| bytes[at].is_ascii_digit())
}

/// Flips, changes, cuts, doubles, takes out, puts in; lengths and numbers more often than anything
/// else.
fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>) {
    for _ in 0..=rng.below(3) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.below(bytes.len());
        let part = PARTS[rng.below(PARTS.len())];
        match rng.below(9) {
            0 => bytes[at] ^= 1 << rng.below(8),
            1 => bytes[at] = rng.bits() as u8,
            2 => bytes.truncate(at),
            3 => bytes.extend_from_within(at..),
            4 => drop(bytes.drain(at..(at + 1 + rng.below(8)).min(bytes.len()))),
            5 | 6 => {
                if let Some(at) = digit(rng, bytes) {
                    bytes[at] = b'0' + rng.below(10) as u8;
                }
            }
            // Where an entry may stand.
            7 => drop(bytes.splice(1..1, part.iter().copied())),
            _ => drop(bytes.splice(at..at, part.iter().copied())),
        }
        bytes.truncate(1_500);
    }
}

/// A message whose every entry is drawn.
fn made_up(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let parts = |rng: &mut Rng, bytes: &mut Vec<u8>| {
        (0..rng.below(8)).for_each(|_| bytes.extend_from_slice(PARTS[rng.below(PARTS.len())]));
    };
    let (head, tail): (&[u8], &[u8]) = match rng.below(4) {
        0 => (b"d1:ad2:id20:abcdefghij0123456789", b"e1:q3:put1:t1:t1:y1:qe"),
        1 => (b"d1:ad2:id20:abcdefghij0123456789", b"e1:q13:announce_peer1:t1:t1:y1:qe"),
        2 => (b"d1:rd2:id20:abcdefghij0123456789", b"e1:t1:t1:y1:re"),
        _ => (b"d1:eli1e", b"e1:t1:t1:y1:ee"),
    };
    bytes.extend_from_slice(head);
    parts(rng, bytes);
    bytes.extend_from_slice(tail);
}

/// The same answer, as far as it can be written.
fn answer_of(response: &Response<'_>) -> Answer {
    let token = response.token.and_then(|token| token.try_into().ok());
    let samples = response.samples.map(|(ids, num)| {
        let ids = ids.as_chunks().0.iter().map(|&id| NodeId(id)).collect();
        (ids, usize::try_from(num).unwrap_or(0), 60)
    });
    // The signatures of the others cost too much for a million of them.
    let immutable = response.item.filter(|item| item.public_key.is_none());
    Answer {
        nodes: response.nodes().collect(),
        peers: response.peers().collect(),
        token,
        filters: response.filters.map(|(seeds, downloaders)| Box::new((*seeds, *downloaders))),
        samples,
        item: immutable.and_then(|item| item.verify().ok()),
        seq: response.seq,
        ..Answer::default()
    }
}

/// Whether it is read; then it is written and read again.
fn round_trip(bytes: &[u8]) -> bool {
    let to = "1.2.3.4:5".parse().unwrap();
    let Ok(message) = decode(bytes) else { return false };
    assert!(message.transaction.len() <= 32);
    match message.body {
        Body::Query(query) => {
            let written = encode_query(*b"tttt", &query);
            assert_eq!(decode(&written).unwrap().body, message.body);
        }
        Body::Response(response) => {
            assert!(response.nodes().count() <= 2 * NODE_COUNT_MAX);
            let written = encode_answer(message.transaction, response.id, to, &answer_of(&response));
            assert!(written.len() <= DATAGRAM_LEN_MAX);
            let again = decode(&written).unwrap();
            let Body::Response(read) = again.body else { panic!("{again:?}") };
            assert_eq!((read.id, again.transaction), (response.id, message.transaction));
            assert_eq!(written, encode_answer(again.transaction, read.id, to, &answer_of(&read)));
        }
        Body::Error(code, text) => {
            let Ok(text) = std::str::from_utf8(text) else { return true };
            let written = encode_error(message.transaction, to, code, text);
            if text.len() <= 128 {
                assert_eq!(decode(&written).unwrap().body, message.body);
            }
        }
    }
    true
}

#[test]
fn what_we_write_is_canonical() {
    let strict = Limits { keys: Keys::Ascending, trailing: Trailing::Refused, ..Limits::KRPC };
    for sample in samples() {
        assert_eq!(scan(&sample, &strict), Ok(sample.len()), "{}", String::from_utf8_lossy(&sample));
    }
}

#[test]
fn any_datagram_is_a_message_or_an_error() {
    let mut rng = Rng::from_number(1);
    let samples = samples();
    assert!(samples.iter().all(|sample| round_trip(sample)));
    let (mut bytes, mut read) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        bytes.clear();
        match round % 20 {
            0 => {
                bytes.resize(rng.below(100), 0);
                rng.fill(&mut bytes);
            }
            1..=5 => made_up(&mut rng, &mut bytes),
            _ => {
                bytes.extend_from_slice(&samples[rng.below(samples.len())]);
                mutate(&mut rng, &mut bytes);
            }
        }
        read += usize::from(round_trip(&bytes));
    }
    assert!(read > ROUNDS / 5 && read < ROUNDS / 2, "{read}");
}
