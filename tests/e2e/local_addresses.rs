//! A host with several addresses: whoever asks one of them by UDP is answered from that one, and
//! its connected socket receives the answer.

use std::net::{IpAddr, Ipv4Addr};

use sprat::engine::{Config, DhtConfig, Engine};
use tokio::net::UdpSocket;

use super::engine::within;

/// A connect request (BEP 15).
const TRACKER_CONNECT: &[u8] = b"\0\0\x04\x17\x27\x10\x19\x80\0\0\0\0abcd";
/// A ping (BEP 5).
const DHT_PING: &[u8] = b"d1:ad2:id20:abcdefghij0123456789e1:q4:ping1:t2:aa1:y1:qe";

#[tokio::test]
async fn the_tracker_and_the_node_answer_from_the_address_that_was_asked() {
    let engine = Engine::start(Config {
        listen: vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)],
        disk_threads: Some(1),
        embedded_tracker: true,
        dht: Some(DhtConfig { bootstrap: Vec::new(), ..DhtConfig::default() }),
        ..Config::default()
    })
    .await
    .unwrap();
    for asked in ["127.0.0.1", "127.0.0.7", "127.99.9.9"] {
        let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        peer.connect((asked, engine.listen_port())).await.unwrap();
        for (request, start) in [(TRACKER_CONNECT, &b"\0\0\0\0abcd"[..]), (DHT_PING, b"d")] {
            peer.send(request).await.unwrap();
            let mut answer = [0; 1_500];
            let len = within(peer.recv(&mut answer)).await.unwrap();
            assert!(
                answer[..len].starts_with(start),
                "{asked}: {:?}",
                answer[..len].escape_ascii().to_string()
            );
        }
    }
    engine.shutdown().await;
}
