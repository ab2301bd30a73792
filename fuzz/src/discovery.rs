//! Datagrams by which peers are found: of the DHT, and of the local network.

use std::net::SocketAddr;

use sprat::proto::compact;
use sprat::proto::dht::krpc::{self, Answer, Body, Response};
use sprat::proto::dht::node_id::NodeId;
use sprat::proto::infohash::InfoHash;
use sprat::proto::lsd::{Group, INFOHASH_MAX, Lsd, Output, Search};
use sprat::proto::rng::Rng;
use sprat::proto::scope::Scope;
use sprat::proto::time::{Duration, Instant};
use sprat::proto::utp::Refuser;

/// A message of the DHT: what is read and written again is read as the same.
pub fn krpc(bytes: &[u8]) {
    let to = SocketAddr::from(([1, 2, 3, 4], 5));
    let Ok(message) = krpc::decode(bytes) else { return };
    assert!(message.transaction.len() <= krpc::TRANSACTION_LEN_MAX);
    match message.body {
        Body::Query(query) => {
            let written = krpc::encode_query(*b"tttt", &query);
            assert_eq!(krpc::decode(&written).expect("what is written is read").body, message.body);
        }
        Body::Response(response) => {
            assert!(response.nodes().count() <= 2 * krpc::NODE_COUNT_MAX);
            let answer = answer_of(&response);
            let written = krpc::encode_answer(message.transaction, response.id, to, &answer);
            assert!(written.len() <= krpc::DATAGRAM_LEN_MAX);
            let again = krpc::decode(&written).expect("what is written is read");
            let Body::Response(read) = again.body else { panic!("{again:?}") };
            assert_eq!((read.id, again.transaction), (response.id, message.transaction));
            let answer = answer_of(&read);
            assert_eq!(written, krpc::encode_answer(again.transaction, read.id, to, &answer));
        }
        Body::Error(code, text) => {
            let Ok(text) = std::str::from_utf8(text) else { return };
            let written = krpc::encode_error(message.transaction, to, code, text);
            if text.len() <= 128 {
                assert_eq!(krpc::decode(&written).expect("what is written is read").body, message.body);
            }
        }
    }
}

/// The same answer, as far as it can be written.
fn answer_of(response: &Response<'_>) -> Answer {
    let samples = response.samples.map(|(ids, count)| {
        let ids = ids.as_chunks().0.iter().map(|&id| NodeId(id)).collect();
        (ids, usize::try_from(count).unwrap_or(0), 60)
    });
    Answer {
        nodes: response.nodes().collect(),
        peers: response.peers().collect(),
        token: response.token.and_then(|token| token.try_into().ok()),
        filters: response.filters.map(|(seeds, downloaders)| Box::new((*seeds, *downloaders))),
        samples,
        item: response.item.and_then(|item| item.verify().ok()),
        seq: response.seq,
        ..Answer::default()
    }
}

/// A datagram of local service discovery, and the machine that hears it.
pub fn lsd(bytes: &[u8]) {
    if let Ok(search) = Search::decode(bytes) {
        assert!(search.port != 0 && (1..=INFOHASH_MAX).contains(&search.infohashes.len()));
        assert_eq!(Search::decode(&search.encode(Group::V6)), Ok(search));
    }
    let ours = InfoHash([b'a'; 20]);
    let mut now = Instant::ZERO;
    let mut lsd = Lsd::new(6_881, Rng::from_number(1), now);
    lsd.handle_added(now, ours);
    for host in 1..4 {
        now += Duration::from_secs(20);
        lsd.handle_datagram(now, SocketAddr::from(([10, 0, 0, host], 6_771)), bytes);
        lsd.handle_timeout(now);
        while let Some(output) = lsd.poll_output() {
            match output {
                Output::Peer(infohash, addr) => assert!(infohash == ours && addr.port() != 0),
                Output::Announce(_, bytes) => assert!(Search::decode(&bytes).is_ok()),
            }
        }
        assert!(lsd.poll_timeout().is_none_or(|at| at > now), "a timer that does not move on");
    }
}

/// Compact addresses, their scopes, and uTP headers.
pub fn addresses(bytes: &[u8]) {
    let mut written = Vec::new();
    compact::decode_v4(bytes).for_each(|addr| compact::encode(addr, &mut written));
    assert!(bytes.starts_with(&written) && bytes.len() - written.len() < compact::V4_LEN);
    for addr in compact::decode_v6(bytes) {
        let canonical = compact::canonical(addr);
        assert_eq!(compact::canonical(canonical), canonical);
        let is_dialable = compact::is_dialable(canonical);
        assert!(!is_dialable || (addr.port() != 0 && Scope::of(addr.ip()).is_some()), "{addr}");
        let _ = (compact::is_local(canonical.ip()), compact::site(canonical.ip()));
    }
    let mut refuser = Refuser::new(Rng::from_number(1), Instant::ZERO);
    let from = SocketAddr::from(([1, 2, 3, 4], 5));
    if let Some(reset) = refuser.handle_datagram(Instant::ZERO, from, bytes) {
        assert!(reset.len() <= bytes.len(), "no datagram is answered by a longer one");
    }
}
