//! Downloads by name alone: the description comes from peers, then the content from the same ones.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sprat::engine::{AddTorrent, Event, InfoHash, METADATA_LEN_MAX, Magnet, Selection, Stage, TorrentHandle};

use super::dht;
use super::engine::{Content, LOCALHOST, addr, engine, engine_at, event, seed, tree, within};
use super::metadata_peer::MetadataPeer;

/// The link of `content`, with nothing but its infohash.
fn bare(content: &Content) -> Magnet {
    Magnet { infohash: Some(content.metainfo.info.infohash), ..Magnet::default() }
}

#[tokio::test]
async fn a_bare_infohash_and_a_peer_are_enough() {
    let content = Content::folder();
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let peers = vec![addr(&seeder)];
    let download = AddTorrent { peers, ..AddTorrent::magnet(bare(&content), dir.path().to_owned()) };
    let mut torrent = leecher.add(download).await.unwrap();
    assert!(torrent.metainfo().is_none());
    let described = within(torrent.described()).await.unwrap();
    assert_eq!(described.info.bytes, content.metainfo.info.bytes);
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
    let snapshot = torrent.snapshot();
    let lens: Vec<_> = content.metainfo.info.files.iter().map(|file| file.len).collect();
    assert_eq!((snapshot.stage, snapshot.file_done_lens), (Stage::Seeding, lens));
    assert_eq!(snapshot.torrent.traffic.downloaded, content.metainfo.info.geometry.total_len());
}

#[tokio::test]
async fn metadata_that_is_too_long_is_told_with_its_peer() {
    let content = Content::new(&[("file", 100_000)]);
    let infohash = content.metainfo.info.infohash;
    let leecher = engine().await;
    let long = MetadataPeer::claiming(infohash, Bytes::new(), METADATA_LEN_MAX + 1).await;
    let dir = tempfile::tempdir().unwrap();
    let peers = vec![long.addr()];
    let download = AddTorrent { peers, ..AddTorrent::magnet(bare(&content), dir.path().to_owned()) };
    let mut torrent = leecher.add(download).await.unwrap();
    let told = event(&mut torrent, |event| matches!(event, Event::MetadataTooLong { .. }));
    let told = tokio::select! {
        () = long.run(|| {}) => unreachable!("it answers for ever"),
        told = told => told,
    };
    assert_eq!(told, Event::MetadataTooLong { addr: long.addr(), len: METADATA_LEN_MAX + 1 });
}

#[tokio::test]
async fn a_link_brings_its_own_peers_and_only_the_files_it_selects() {
    let content = Content::new(&[("first", 100_000), ("second", 100_000), ("third", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let port = seeder.listen_port();
    let peers = vec!["nowhere.invalid:1".to_owned(), format!("localhost:{port}")];
    let magnet = Magnet { peers, select: vec![(1, 1), (7, 9)], ..bare(&content) };
    let mut torrent = leecher.add(AddTorrent::magnet(magnet, dir.path().to_owned())).await.unwrap();
    within(torrent.completed()).await.unwrap();
    let names: Vec<_> = tree(&dir.path().join("content")).into_keys().collect();
    assert_eq!(names, [Path::new("second")]);
}

#[tokio::test]
async fn what_the_user_selects_counts_more_than_the_link() {
    let content = Content::new(&[("first", 100_000), ("second", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let magnet = Magnet { select: vec![(1, 1)], ..bare(&content) };
    let selection = Selection::Choose(Arc::new(|info| {
        Ok(info.files.iter().map(|file| file.path.ends_with(&["first".to_owned()])).collect())
    }));
    let peers = vec![addr(&seeder)];
    let download = AddTorrent { selection, peers, ..AddTorrent::magnet(magnet, dir.path().to_owned()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    let names: Vec<_> = tree(&dir.path().join("content")).into_keys().collect();
    assert_eq!(names, [Path::new("first")]);
}

#[tokio::test]
async fn a_choice_that_fits_nothing_ends_the_torrent_with_its_words() {
    let content = Content::new(&[("file", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let magnet = Magnet { select: vec![(1, 1)], ..bare(&content) };
    let download =
        AddTorrent { peers: vec![addr(&seeder)], ..AddTorrent::magnet(magnet, dir.path().to_owned()) };
    let mut torrent = leecher.add(download).await.unwrap();
    let error = within(torrent.completed()).await.unwrap_err().to_string();
    assert!(error.contains("selects files"), "{error}");
    assert!(matches!(torrent.snapshot().stage, Stage::Failed(_)));
    assert_eq!(tree(dir.path()).len(), 0);
}

#[tokio::test]
async fn a_tracker_in_the_link_brings_a_swarm_together() {
    let content = Content::new(&[("one", 2_000_000), ("two", 1_000_000)]);
    let seeder = engine_at(LOCALHOST, true).await;
    let trackers = vec![seeder.tracker_url(LOCALHOST).unwrap()];
    let seeding = AddTorrent { trackers: trackers.clone(), ..content.seed() };
    let mut seed = seeder.add(seeding).await.unwrap();
    event(&mut seed, |event| matches!(event, Event::TrackerOk { .. })).await;
    let mut peers = Vec::new();
    for _ in 0..8 {
        let (dir, engine) = (tempfile::tempdir().unwrap(), engine().await);
        let magnet = Magnet { trackers: trackers.clone(), ..bare(&content) };
        let torrent = engine.add(AddTorrent::magnet(magnet, dir.path().to_owned())).await.unwrap();
        peers.push((dir, engine, torrent));
    }
    for (dir, _, torrent) in &mut peers {
        within(torrent.completed()).await.unwrap();
        content.assert_same(dir.path());
    }
}

#[tokio::test]
async fn a_description_alone_touches_no_file_and_leaves() {
    let content = Content::new(&[("file", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let below = dir.path().join("never/made");
    let magnet = Magnet { web_seeds: vec!["http://w/".to_owned()], ..bare(&content) };
    let asking = AddTorrent {
        describe_only: true,
        peers: vec![addr(&seeder)],
        ..AddTorrent::magnet(magnet, below.clone())
    };
    let mut torrent = leecher.add(asking).await.unwrap();
    let described = within(torrent.described()).await.unwrap();
    assert_eq!(described.info.files, content.metainfo.info.files);
    assert_eq!(described.web_seeds, ["http://w/"]);
    event(&mut torrent, |event| *event == Event::Stopped).await;
    assert_eq!(torrent.snapshot().stage, Stage::Stopped);
    assert!(!below.exists());
}

#[tokio::test]
async fn an_interrupted_download_goes_on_by_the_same_name() {
    let content = Content::new(&[("file", 4_000_000)]);
    let (seeder, dir) = (engine().await, tempfile::tempdir().unwrap());
    let _seed = seed(&seeder, &content).await;
    let peers: Vec<SocketAddr> = vec![addr(&seeder)];
    let add = AddTorrent { peers, ..AddTorrent::magnet(bare(&content), dir.path().to_owned()) };
    let first = engine().await;
    let mut torrent = first.add(add.clone()).await.unwrap();
    // Said before there is anybody to tell, and kept.
    torrent.limit(None, Some(500_000)).await.unwrap();
    event(&mut torrent, |event| matches!(event, Event::Piece(_))).await;
    within(first.shutdown()).await;
    assert_eq!(torrent.snapshot().stage, Stage::Stopped);
    let second = engine().await;
    let mut torrent = second.add(add).await.unwrap();
    event(&mut torrent, |event| matches!(event, Event::Checked { good: 1.., .. })).await;
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_name_that_nobody_knows_can_be_given_up_at_once() {
    let content = Content::new(&[("file", 1)]);
    let engine = engine().await;
    let dir = tempfile::tempdir().unwrap();
    let torrent = engine.add(AddTorrent::magnet(bare(&content), dir.path().to_owned())).await.unwrap();
    let mut figures = torrent.clone();
    within(async {
        while !matches!(figures.snapshot().stage, Stage::FindingPeers { known: 0, connected: 0 }) {
            assert!(figures.changed().await);
        }
    })
    .await;
    within(torrent.stop(Duration::from_secs(5))).await.unwrap();
    assert_eq!(torrent.snapshot().stage, Stage::Stopped);
}

#[tokio::test]
async fn two_of_three_peers_lie_about_the_size_and_are_seen_through() {
    let content = Content::new(&[("file", 300_000)]);
    let infohash = content.metainfo.info.infohash;
    let len = content.metainfo.info.bytes.len() as u32;
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let short = MetadataPeer::claiming(infohash, Bytes::new(), len / 2).await;
    let long = MetadataPeer::claiming(infohash, Bytes::new(), 32 << 20).await;
    let dir = tempfile::tempdir().unwrap();
    let peers = vec![short.addr(), long.addr(), addr(&seeder)];
    let download = AddTorrent { peers, ..AddTorrent::magnet(bare(&content), dir.path().to_owned()) };
    let story = async {
        let mut torrent = leecher.add(download).await.unwrap();
        within(torrent.completed()).await.unwrap();
    };
    tokio::select! {
        () = story => {}
        () = short.run(|| {}) => {}
        () = long.run(|| {}) => {}
    }
    content.assert_same(dir.path());
}

#[tokio::test]
async fn who_gives_a_false_description_of_the_right_size_is_banned() {
    let content = Content::new(&[("file", 300_000)]);
    let infohash = content.metainfo.info.infohash;
    let len = content.metainfo.info.bytes.len() as u32;
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let liar = MetadataPeer::claiming(infohash, Bytes::new(), len).await;
    let dir = tempfile::tempdir().unwrap();
    let peers = vec![liar.addr()];
    let download = AddTorrent { peers, ..AddTorrent::magnet(bare(&content), dir.path().to_owned()) };
    let story = async {
        let mut torrent = leecher.add(download).await.unwrap();
        event(&mut torrent, |event| *event == Event::PeerBanned(liar.addr())).await;
        torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
        within(torrent.completed()).await.unwrap();
    };
    tokio::select! {
        () = story => {}
        () = liar.run(|| {}) => {}
    }
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_description_that_hashes_and_describes_nothing_ends_the_torrent() {
    let bytes = Bytes::from_static(b"d4:name1:xe");
    let peer = MetadataPeer::new(InfoHash::of(&bytes), bytes.clone()).await;
    let dir = tempfile::tempdir().unwrap();
    let magnet = Magnet { infohash: Some(InfoHash::of(&bytes)), ..Magnet::default() };
    let download =
        AddTorrent { peers: vec![peer.addr()], ..AddTorrent::magnet(magnet, dir.path().to_owned()) };
    let engine = engine().await;
    let story = async {
        let mut torrent = engine.add(download).await.unwrap();
        within(torrent.completed()).await.unwrap_err().to_string()
    };
    let error = tokio::select! {
        error = story => error,
        () = peer.run(|| {}) => String::new(),
    };
    assert!(error.contains("of no use"), "{error}");
}

#[tokio::test]
async fn a_bare_infohash_is_enough_in_the_dht() {
    let content = Content::new(&[("file", 500_000)]);
    let engines = dht::nodes(6).await;
    let mut seed = seed(&engines[2], &content).await;
    let mut downloads = Vec::new();
    for engine in [&engines[4], &engines[5]] {
        let dir = tempfile::tempdir().unwrap();
        let torrent = engine.add(AddTorrent::magnet(bare(&content), dir.path().to_owned())).await.unwrap();
        downloads.push((dir, torrent));
    }
    for (dir, torrent) in &mut downloads {
        within(torrent.completed()).await.unwrap();
        content.assert_same(dir.path());
    }
    // One of the three found another, whoever it was.
    let [(_, first), (_, second)] = &mut downloads[..] else { unreachable!("two downloads") };
    let has_found = |torrent: &TorrentHandle| torrent.snapshot().dht.is_some_and(|dht| dht.peers > 0);
    while !(has_found(&seed) || has_found(first) || has_found(second)) {
        let news = async {
            tokio::select! {
                _ = seed.changed() => (),
                _ = first.changed() => (),
                _ = second.changed() => (),
            }
        };
        within(news).await;
    }
}

#[tokio::test]
async fn a_torrent_that_turns_out_to_be_private_keeps_to_its_trackers() {
    let content = Content::private(&[("file", 300_000)]);
    let infohash = content.metainfo.info.infohash;
    let engines = dht::nodes(4).await;
    let seeder = engine_at(LOCALHOST, true).await;
    let trackers = vec![seeder.tracker_url(LOCALHOST).unwrap()];
    // Clients of others give out descriptions of private torrents; in the DHT nobody should know of
    // it.
    let stranger = MetadataPeer::new(infohash, content.metainfo.info.bytes.clone()).await;
    let (.., outcome) = dht::ask(&engines[1], dht::announce(infohash, stranger.addr().port())).await;
    assert!(outcome.stored > 0);
    let dir = tempfile::tempdir().unwrap();
    let (told, mut hung_up) = tokio::sync::mpsc::channel(16);
    let story = async {
        // Found by the DHT while nobody knew better.
        let mut torrent =
            engines[3].add(AddTorrent::magnet(bare(&content), dir.path().to_owned())).await.unwrap();
        let described = within(torrent.described()).await.unwrap();
        assert!(described.info.private);
        within(hung_up.recv()).await.unwrap();
        within(async { while dht::says_dht(&engines[3], infohash).await {} }).await;
        event(&mut torrent, |event| matches!(event, Event::Checked { .. })).await;
        let snapshot = torrent.snapshot();
        assert_eq!((snapshot.torrent.peers.len(), snapshot.torrent.candidate_count), (0, 0));
        within(torrent.stop(Duration::from_secs(5))).await.unwrap();

        // With its tracker in the link the same ends well.
        let mut seed = seeder.add(AddTorrent { trackers: trackers.clone(), ..content.seed() }).await.unwrap();
        event(&mut seed, |event| matches!(event, Event::TrackerOk { .. })).await;
        let magnet = Magnet { trackers, peers: vec![stranger.addr().to_string()], ..bare(&content) };
        let leecher = dht::node(&[], None).await;
        let mut torrent = leecher.add(AddTorrent::magnet(magnet, dir.path().to_owned())).await.unwrap();
        within(torrent.completed()).await.unwrap();
        assert_eq!(torrent.snapshot().dht, None);
    };
    tokio::select! {
        () = story => {}
        () = stranger.run(|| _ = told.try_send(())) => {}
    }
    content.assert_same(dir.path());
}
