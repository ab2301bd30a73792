//! Who lies, floods and forges gets nothing, and nobody else is harmed by it.

use bytes::Bytes;

use super::super::event::Announce;
use super::super::item::{Item, ItemRef, SecretKey};
use super::super::krpc::Want;
use super::*;
use crate::proto::infohash::InfoHash;

const TARGET: NodeId = NodeId([7; 20]);
const BOTH: Want = Want { v4: true, v6: true };
/// Headers of IPv4 and UDP, bytes.
const HEADERS_LEN: usize = 28;

fn announce(token: &[u8]) -> Method<'_> {
    Method::AnnouncePeer { infohash: TARGET, port: Some(1), token, seed: false }
}

fn ask_peers(scrape: bool) -> Method<'static> {
    Method::GetPeers { infohash: TARGET, want: Want::default(), scrape, no_seed: false }
}

/// The code of an error.
fn error_code(bytes: &[u8]) -> Option<i64> {
    match krpc::decode(bytes).unwrap().body {
        Body::Error(code, _) => Some(code),
        Body::Query(_) | Body::Response(_) => None,
    }
}

fn token(bytes: &[u8]) -> Vec<u8> {
    match krpc::decode(bytes).unwrap().body {
        Body::Response(response) => response.token.unwrap().to_vec(),
        Body::Query(_) | Body::Error(..) => panic!("no answer"),
    }
}

/// Runs for a while in which all addresses without a machine answer queries with what `reply` makes
/// of the transaction id, the query and its sender.
fn run_with(net: &mut Net, span: Duration, reply: impl Fn(&[u8], &Query, SocketAddr) -> Vec<u8>) {
    let until = net.now + span;
    while net.step(until) {
        for stray in std::mem::take(&mut net.strays) {
            let message = krpc::decode(&stray.bytes).unwrap();
            if let Body::Query(query) = message.body {
                net.inject(stray.to, stray.from, &reply(message.transaction, &query, stray.from));
            }
        }
    }
}

/// Random public addresses, each of its own /24.
fn public(number: u32) -> SocketAddr {
    let [_, a, b, c] = (number * 256).to_be_bytes();
    addr([30 + a % 50, b, c, 9])
}

#[test]
fn forged_tokens_store_nothing_and_true_ones_only_where_they_were_given() {
    let mut net = Net::local(1, 1);
    let (me, asker) = (net.addr(0), addr([10, 1, 0, 1]));
    for number in 0..20_000_u64 {
        let token = number.to_be_bytes();
        let query = query(1, announce(&token));
        net.hosts[0].dht.handle_datagram(net.now, asker, &krpc::encode_query(*b"test", &query));
        net.drain(0);
    }
    net.run(MINUTE);
    let good = token(&net.ask(asker, me, &query(1, ask_peers(false))).unwrap());
    for (from, token) in [(addr([10, 1, 0, 2]), &good[..]), (asker, &good[..7]), (asker, b"")] {
        assert_eq!(error_code(&net.ask(from, me, &query(1, announce(token))).unwrap()), Some(203));
    }
    assert_eq!(net.hosts[0].dht.snapshot(net.now).stored_peers, (0, 0));
    assert_eq!(error_code(&net.ask(asker, me, &query(1, announce(&good))).unwrap()), None);
    assert_eq!(net.hosts[0].dht.snapshot(net.now).stored_peers, (1, 1));
}

#[test]
fn blind_replies_are_never_accepted() {
    let mut net = Net::new(2);
    let me = net.add(&[addr([10, 0, 0, 1])]);
    let (asked, elsewhere) = (addr([10, 0, 0, 2]), addr([10, 0, 0, 3]));
    net.hint(me, asked);
    let sent = net.flying.first_key_value().unwrap().1.bytes.clone();
    let right = krpc::decode(&sent).unwrap().transaction.to_vec();
    let reply = |id: &[u8]| krpc::encode_answer(id, TARGET, addr([10, 0, 0, 1]), &Answer::default());
    for number in 0..50_000_u32 {
        if number.to_be_bytes() != right[..] {
            net.inject(asked, addr([10, 0, 0, 1]), &reply(&number.to_be_bytes()));
        }
    }
    net.inject(elsewhere, addr([10, 0, 0, 1]), &reply(&right));
    net.inject(SocketAddr::new(asked.ip(), 1), addr([10, 0, 0, 1]), &reply(&right));
    assert_eq!(net.table_len(me), 0);
    net.inject(asked, addr([10, 0, 0, 1]), &reply(&right));
    assert_eq!(net.table_len(me), 1, "the true one still counts");
    net.inject(asked, addr([10, 0, 0, 1]), &reply(&right));
}

#[test]
fn a_read_only_node_is_answered_and_neither_kept_nor_asked() {
    let mut net = Net::local(3, 1);
    let asker = addr([10, 1, 0, 1]);
    let read_only = Query { read_only: true, ..query(1, Method::Ping) };
    assert!(net.ask(asker, net.addr(0), &read_only).is_some());
    net.run(MINUTE);
    assert!(net.strays.is_empty(), "{:?}", net.strays);
    assert!(net.ask(asker, net.addr(0), &query(1, Method::Ping)).is_some());
    net.run(SECOND);
    assert!(!net.strays.is_empty(), "who is not read-only is asked back");
    assert_eq!(net.table_len(0), 0, "and known only when it answers");
}

#[test]
fn a_node_that_claims_our_id_is_ignored() {
    let mut net = Net::local(4, 8);
    let me = net.id(0);
    let mirror = Query { id: me, ..query(1, Method::Ping) };
    assert!(net.ask(addr([10, 1, 0, 1]), net.addr(0), &mirror).is_none());
}

#[test]
fn thousands_that_claim_one_id_take_one_place() {
    let mut net = Net::global(5, 20);
    let claimed = query(0x99, Method::Ping);
    for number in 0..3_000 {
        // Each answers whatever it is asked back, so that it is a node like any other but for its
        // id.
        net.inject(public(number), net.addr(0), &krpc::encode_query(*b"test", &claimed));
        net.run(30 * MILLI);
        for stray in std::mem::take(&mut net.strays) {
            let Ok(krpc::Message { transaction, body: Body::Query(_), .. }) = krpc::decode(&stray.bytes)
            else {
                continue;
            };
            let reply = krpc::encode_answer(transaction, claimed.id, stray.from, &Answer::default());
            if net.place_of(stray.from) == Some(0) {
                net.inject(stray.to, stray.from, &reply);
            }
        }
    }
    let good = net.hosts[0].dht.good_nodes();
    assert!(good.iter().filter(|node| node.id == claimed.id).count() <= 1, "{good:?}");
    assert!(good.iter().filter(|node| node.id != claimed.id).count() >= 10, "the others are still known");
    let (_, outcome) = net.request(0, Request::Nodes(TARGET));
    assert!(outcome.answered >= 8, "{outcome:?}");
}

#[test]
fn public_nodes_cannot_make_us_query_local_addresses() {
    let mut net = Net::new(11);
    let me = net.add(&[public(1), "[2001:db8::1]:6881".parse().unwrap()]);
    net.hint(me, public(2));
    net.run(2 * MILLI);
    let asked = net.strays.remove(0);
    let neighbours = ["192.168.1.1:80", "127.0.0.1:53", "[fd00::1]:6881", "[fe80::1]:6881"];
    let nodes = neighbours.iter().enumerate();
    let nodes = nodes.map(|(at, addr)| Node { id: NodeId([at as u8; 20]), addr: addr.parse().unwrap() });
    let answer = Answer { nodes: nodes.collect(), names_v4: true, names_v6: true, ..Answer::default() };
    let transaction = krpc::decode(&asked.bytes).unwrap().transaction.to_vec();
    net.inject(asked.to, asked.from, &krpc::encode_answer(&transaction, TARGET, asked.from, &answer));
    net.run(10 * SECOND);
    let elsewhere: Vec<_> = net.strays.iter().filter(|stray| stray.to != public(2)).collect();
    assert!(!net.strays.is_empty() && elsewhere.is_empty(), "{elsewhere:?}");
}

#[test]
fn an_answer_brings_a_hundred_peers_and_a_refusal_steers_no_terminal() {
    let mut net = Net::new(12);
    let me = net.add(&[public(1)]);
    net.hint(me, public(2));
    let peers: Vec<SocketAddr> = (1..=120).map(public).collect();
    let infohash = InfoHash(TARGET.0);
    let announce = Some(Announce { port: None, seed: false });
    let id = net.start(me, Request::Peers { infohash, announce, scrape: false });
    run_with(&mut net, 10 * SECOND, |transaction, query, to| match query.method {
        Method::AnnouncePeer { .. } => krpc::encode_error(transaction, to, 201, "no\x1b[31m"),
        Method::GetPeers { .. } => {
            let answer = Answer { peers: peers.clone(), token: Some([1; 8]), ..Answer::default() };
            krpc::encode_answer(transaction, NodeId([2; 20]), to, &answer)
        }
        Method::Ping
        | Method::FindNode { .. }
        | Method::Get { .. }
        | Method::Put { .. }
        | Method::SampleInfohashes { .. }
        | Method::Unknown { .. } => krpc::encode_answer(transaction, NodeId([2; 20]), to, &Answer::default()),
    });
    assert_eq!(net.hosts[me].peers[&id].len(), 100);
    assert_eq!(net.hosts[me].done[&id].refused.as_deref(), Some("201 no[31m"));
}

#[test]
fn a_node_that_answers_by_errors_lives() {
    let mut net = Net::new(13);
    let me = net.add(&[public(1)]);
    net.hint(me, public(2));
    net.start(me, Request::Peers { infohash: InfoHash(TARGET.0), announce: None, scrape: false });
    run_with(&mut net, MINUTE, |transaction, query, to| match query.method {
        Method::GetPeers { .. } => krpc::encode_error(transaction, to, 204, "no"),
        Method::Ping
        | Method::FindNode { .. }
        | Method::AnnouncePeer { .. }
        | Method::Get { .. }
        | Method::Put { .. }
        | Method::SampleInfohashes { .. }
        | Method::Unknown { .. } => krpc::encode_answer(transaction, NodeId([2; 20]), to, &Answer::default()),
    });
    assert_eq!(net.hosts[me].dht.snapshot(net.now).overlays[0].nodes, (1, 1));
    assert_eq!(net.hosts[me].done.len(), 1);
}

#[test]
fn a_read_only_node_does_not_answer() {
    let mut net = Net::new(14);
    net.add_with(&[public(1)], ReadOnly::Always);
    assert!(net.ask(public(2), public(1), &query(1, Method::Ping)).is_none());
    let malformed = b"d1:q4:ping1:t1:a1:v80:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1:y1:qe";
    net.inject(public(2), public(1), malformed);
    net.run(SECOND);
    assert!(net.strays.is_empty(), "{:?}", net.strays);
}

#[test]
fn a_flood_of_hints_is_followed_slowly() {
    let mut net = Net::new(6);
    let me = net.add(&[addr([10, 0, 0, 1])]);
    for number in 0..10_000 {
        net.hint(me, public(number % 5_000));
        net.hint(me, SocketAddr::new(public(number).ip(), 0));
    }
    net.run(MINUTE);
    // The first 16 at once, then two a second until the 64 that were kept are through.
    let count = net.strays.len();
    assert!((60..=100).contains(&count), "{count} datagrams");
}

#[test]
fn a_flood_of_queries_is_answered_within_the_budget() {
    let mut net = Net::global(7, 20);
    let (me, start) = (net.addr(0), net.now);
    let bytes = krpc::encode_query(*b"test", &query(1, Method::FindNode { target: TARGET, want: BOTH }));
    for number in 0..20_000 {
        net.inject(public(number), me, &bytes);
        net.run(MILLI);
    }
    let sent: usize = net.strays.iter().map(|stray| stray.bytes.len()).sum();
    let seconds = (net.now - start).as_secs() as usize;
    assert!(sent <= 16_000 * (seconds + 10), "{sent} bytes in {seconds} s");
    net.strays.clear();
    net.run(MINUTE);
    net.strays.clear();
    for number in 0..2_000 {
        net.inject(SocketAddr::new(public(1).ip(), 1_000 + number), me, &bytes);
        net.run(MILLI);
    }
    assert!(net.strays.len() <= 100, "{} answers to one prefix in two seconds", net.strays.len());
}

#[test]
fn wrong_queries_are_refused_by_their_codes() {
    let mut net = Net::local(8, 1);
    let (me, asker) = (net.addr(0), addr([10, 1, 0, 1]));
    let mut refusal = |bytes: &[u8]| {
        net.strays.clear();
        net.inject(asker, me, bytes);
        net.run(2 * MILLI);
        let errors = net.strays.iter().map(|stray| error_code(&stray.bytes));
        errors.collect::<Vec<_>>().into_iter().flatten().next()
    };
    let refused = b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q9:find_node1:t4:aaaa1:v12:xxxxxxxxxxxx1:y1:qe";
    assert_eq!(refusal(refused), Some(203));
    assert_eq!(refusal(b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae1:q5:dance1:t1:a1:y1:qe"), Some(204));
    assert_eq!(refusal(b"d1:q4:ping1:t1:a1:y1:qe"), None, "a refusal would be longer");
    assert_eq!(refusal(b"d1:t1:a1:y1:re"), None, "an answer is no question");
    assert_eq!(refusal(b"d1:q4:ping1:t1:a1:y1:q"), None);
    let with_target =
        b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaa6:target20:bbbbbbbbbbbbbbbbbbbbe1:q5:dance1:t1:a1:y1:qe";
    assert_eq!(refusal(with_target), None, "answered as find_node");
}

#[test]
fn bad_items_are_refused_by_their_codes() {
    let mut net = Net::local(9, 1);
    let (me, asker) = (net.addr(0), addr([10, 1, 0, 1]));
    let good = SecretKey::from_bytes([3; 32]).sign(Bytes::from_static(b"s"), 1, "1:a".into()).unwrap();
    let mutable = good.mutable().unwrap();
    let (long_value, long_salt) = ([b"1001:", &[b'x'; 1_001][..]].concat(), [b's'; 65]);
    let item = ItemRef {
        value: good.value(),
        public_key: Some(&mutable.public_key),
        salt: &mutable.salt,
        seq: 1,
        signature: Some(&mutable.signature),
    };
    let wrong = [
        (ItemRef { seq: 2, ..item }, Some(206)),
        (ItemRef { value: &long_value, public_key: None, signature: None, salt: b"", seq: 0 }, Some(205)),
        (ItemRef { salt: &long_salt, ..item }, Some(207)),
        (item, None),
    ];
    for (item, code) in wrong {
        let get = query(1, Method::Get { target: item.target(), seq: None, want: Want::default() });
        let token = token(&net.ask(asker, me, &get).unwrap());
        let put = query(1, Method::Put { token: &token, cas: None, item });
        assert_eq!(error_code(&net.ask(asker, me, &put).unwrap()), code);
        let forged = query(1, Method::Put { token: b"12345678", cas: None, item });
        assert_eq!(error_code(&net.ask(asker, me, &forged).unwrap()), Some(203), "the token comes first");
    }
    assert_eq!(net.hosts[0].dht.snapshot(net.now).stored_items, 1);
}

/// A node whose tables, stores of peers and of items have all that an answer can name.
fn generous() -> (Net, NodeId) {
    let mut net = Net::new(10);
    for last in 1..=30 {
        let v6 = SocketAddr::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]), 6881);
        net.add(&[addr([10, 0, 0, last as u8]), v6]);
    }
    net.meet();
    net.run(MINUTE);
    let me = net.addr(0);
    for number in 0..200_u32 {
        let asker = addr([10, 2, 0, number as u8]);
        let token = token(&net.ask(asker, me, &query(1, ask_peers(false))).unwrap());
        assert_eq!(error_code(&net.ask(asker, me, &query(1, announce(&token))).unwrap()), None);
        net.run(SECOND / 2);
    }
    for number in 0..20 {
        let (infohash, asker) = (NodeId([100 + number; 20]), addr([10, 2, 1, number]));
        let get = Method::GetPeers { infohash, want: Want::default(), scrape: false, no_seed: false };
        let token = token(&net.ask(asker, me, &query(1, get)).unwrap());
        let announce = Method::AnnouncePeer { infohash, port: Some(1), token: &token, seed: false };
        assert_eq!(error_code(&net.ask(asker, me, &query(1, announce)).unwrap()), None);
        net.run(SECOND / 2);
    }
    let value = Bytes::from([b"996:", &[b'x'; 996][..]].concat());
    let item = Item::immutable(value).unwrap();
    let target = item.key().target();
    let asker = addr([10, 2, 0, 1]);
    let get = Method::Get { target, seq: None, want: Want::default() };
    let token = token(&net.ask(asker, me, &query(1, get)).unwrap());
    let item = ItemRef { value: item.value(), public_key: None, salt: b"", seq: 0, signature: None };
    let put = Method::Put { token: &token, cas: None, item };
    assert_eq!(error_code(&net.ask(asker, me, &query(1, put)).unwrap()), None);
    net.run(MINUTE);
    (net, target)
}

#[test]
fn no_answer_exceeds_the_stated_amplification() {
    let (mut net, item) = generous();
    let me = net.addr(0);
    let want = Want::default();
    let kinds = [
        ("ping", Method::Ping, 1.2),
        ("find_node", Method::FindNode { target: TARGET, want }, 2.6),
        ("find_node of both families", Method::FindNode { target: TARGET, want: BOTH }, 4.7),
        ("get_peers", ask_peers(false), 5.3),
        ("get_peers with filters", ask_peers(true), 6.9),
        ("announce_peer", announce(b""), 0.6),
        ("get", Method::Get { target: item, seq: None, want }, 10.7),
        ("sample_infohashes", Method::SampleInfohashes { target: TARGET, want }, 5.3),
        ("unknown", Method::Unknown { target: Some(TARGET) }, 2.9),
    ];
    for (name, method, stated) in kinds {
        // The shortest that asks so: a transaction id of one byte instead of four, and no `v`,
        // which takes nine.
        let asked = krpc::encode_query(*b"test", &query(1, method)).len() - 3 - 9;
        let answer = net.ask(addr([10, 3, 0, 1]), me, &query(1, method)).unwrap();
        let factor = (answer.len() - 3 + HEADERS_LEN) as f64 / (asked + HEADERS_LEN) as f64;
        println!("{name}: {asked} bytes asked, {} answered, factor {factor:.2}", answer.len());
        assert!((stated - 0.2..stated + 0.05).contains(&factor), "{name}: {factor:.2}, not {stated}");
        net.run(2 * SECOND);
    }
    for malformed in
        [&b"d1:t0:1:y1:qe"[..], b"d1:q4:ping1:t1:a1:v40:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1:y1:qe"]
    {
        net.strays.clear();
        net.inject(addr([10, 3, 0, 1]), me, malformed);
        net.run(SECOND);
        assert!(net.strays.iter().all(|stray| stray.bytes.len() <= malformed.len()), "{:?}", net.strays);
    }
}
