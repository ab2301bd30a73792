//! Trackers that are dead or die: the DHT takes their place, without anybody asking for it.

use std::time::Duration;

use sprat::engine::{AddTorrent, Event, Magnet};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::dht::{NOWHERE, nodes};
use super::engine::{Content, addr, event, seed, within};

#[tokio::test]
async fn with_a_dead_tracker_a_link_is_fetched_by_the_dht() {
    let content = Content::new(&[("file", 500_000)]);
    let engines = nodes(5).await;
    let _seed = seed(&engines[2], &content).await;
    let dir = tempfile::tempdir().unwrap();
    let trackers = vec![format!("http://{NOWHERE}/announce")];
    let magnet = Magnet { infohash: Some(content.metainfo.info.infohash), trackers, ..Magnet::default() };
    let mut torrent = engines[4].add(AddTorrent::magnet(magnet, dir.path().to_owned())).await.unwrap();
    event(&mut torrent, |event| matches!(event, Event::TrackerFailed { .. })).await;
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn when_the_tracker_dies_in_mid_download_the_dht_goes_on() {
    let content = Content::new(&[("file", 4_000_000)]);
    let engines = nodes(6).await;
    let first = seed(&engines[1], &content).await;
    let dir = tempfile::tempdir().unwrap();
    let tracker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trackers = vec![format!("http://{}/announce", tracker.local_addr().unwrap())];
    let download = AddTorrent { trackers, ..content.download(dir.path()) };
    let mut torrent = engines[4].add(download).await.unwrap();
    torrent.limit(None, Some(500_000)).await.unwrap();
    name(tracker, addr(&engines[1]).port()).await;
    // Some came from the one peer that the tracker knew; then tracker and peer are gone.
    event(&mut torrent, |event| matches!(event, Event::Piece(_))).await;
    within(first.stop(Duration::from_secs(5))).await.unwrap();
    torrent.limit(None, None).await.unwrap();
    let _second = seed(&engines[2], &content).await;
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
    assert!(torrent.snapshot().dht.is_some_and(|dht| dht.lookups + u32::from(dht.asking) > 0));
}

/// A tracker that names one peer of this host, once, and dies.
async fn name(tracker: TcpListener, port: u16) {
    let (mut asked, _) = within(tracker.accept()).await.unwrap();
    assert_ne!(asked.read(&mut [0; 4096]).await.unwrap(), 0);
    let [high, low] = port.to_be_bytes();
    let body = [&b"d8:intervali30e5:peers6:\x7f\0\0\x01"[..], &[high, low], b"e"].concat();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    asked.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
}
