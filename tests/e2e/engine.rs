//! Engines that distribute content to each other.

use std::collections::BTreeMap;
use std::fs;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sprat::engine::metainfo::create::Draft;
use sprat::engine::{
    AddTorrent, Config, Engine, EngineError, Event, Metainfo, Refusal, Selection, Stage, TorrentHandle, make,
};
use tempfile::TempDir;
use tokio::net::{TcpListener, UdpSocket};

/// Longest that any step of a test may take.
const LIMIT: Duration = Duration::from_secs(60);
pub(super) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Content in a folder of its own, and its torrent.
pub(super) struct Content {
    dir: TempDir,
    pub(super) metainfo: Metainfo,
}

impl Content {
    /// Files below a folder called `content`; what is in them follows from their place.
    pub(super) fn new(files: &[(&str, usize)]) -> Self {
        Self::with(files, false)
    }

    /// The same, for the peers of its trackers only.
    pub(super) fn private(files: &[(&str, usize)]) -> Self {
        Self::with(files, true)
    }

    fn with(files: &[(&str, usize)], private: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("content");
        for (at, (name, len)) in files.iter().enumerate() {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, noise(at as u64 + 1, *len)).unwrap();
        }
        let draft = make::survey(&root, Draft { piece_len: 32 * 1024, private, ..Draft::default() }).unwrap();
        let metainfo = make::hash(&root, draft, &mut |_| true).unwrap().unwrap();
        Self { dir, metainfo }
    }

    /// Several files, deep and empty ones among them.
    pub(super) fn folder() -> Self {
        Self::new(&[("a/b/deep", 300_000), ("a/empty", 0), ("big", 1_500_000), ("c", 1), ("z/empty", 0)])
    }

    pub(super) fn seed(&self) -> AddTorrent {
        AddTorrent::new(self.metainfo.clone(), self.dir.path().to_owned())
    }

    /// Another torrent of the same files, in pieces of another length.
    fn twin(&self) -> Metainfo {
        let root = self.dir.path().join("content");
        let draft = make::survey(&root, Draft { piece_len: 128 * 1024, ..Draft::default() }).unwrap();
        make::hash(&root, draft, &mut |_| true).unwrap().unwrap()
    }

    pub(super) fn download(&self, to: &Path) -> AddTorrent {
        AddTorrent::new(self.metainfo.clone(), to.to_owned())
    }

    pub(super) fn assert_same(&self, other: &Path) {
        assert_eq!(tree(&other.join("content")), tree(&self.dir.path().join("content")));
    }
}

/// Bytes that do not repeat, from a linear congruence.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Every file below `root`, by path.
pub(super) fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, what).await.expect("takes too long")
}

pub(super) async fn engine_at(ip: IpAddr, embedded_tracker: bool) -> Engine {
    let config = Config {
        listen: vec![ip],
        embedded_tracker,
        swarming_interval: Duration::from_millis(100),
        disk_threads: Some(1),
        ..Config::default()
    };
    Engine::start(config).await.unwrap()
}

pub(super) async fn engine() -> Engine {
    engine_at(LOCALHOST, false).await
}

pub(super) fn addr(engine: &Engine) -> SocketAddr {
    SocketAddr::new(LOCALHOST, engine.listen_port())
}

pub(super) async fn event(torrent: &mut TorrentHandle, wanted: impl Fn(&Event) -> bool) -> Event {
    within(async {
        loop {
            let event = torrent.next_event().await.expect("the torrent ended");
            if wanted(&event) {
                return event;
            }
        }
    })
    .await
}

/// A running seed of `content`.
pub(super) async fn seed(engine: &Engine, content: &Content) -> TorrentHandle {
    let mut torrent = engine.add(content.seed()).await.unwrap();
    within(torrent.completed()).await.unwrap();
    torrent
}

#[tokio::test]
async fn a_folder_with_empty_files_arrives_whole_from_a_dialled_peer() {
    let content = Content::folder();
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let peers = vec![addr(&seeder)];
    let mut torrent = leecher.add(AddTorrent { peers, ..content.download(dir.path()) }).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
    let snapshot = torrent.snapshot();
    assert_eq!(snapshot.stage, Stage::Seeding);
    let lens: Vec<_> = content.metainfo.info.files.iter().map(|file| file.len).collect();
    assert_eq!(snapshot.file_done_lens, lens);
    assert_eq!(snapshot.torrent.traffic.downloaded, content.metainfo.info.geometry.total_len());
    assert_eq!(snapshot.torrent.left, 0);
}

#[tokio::test]
async fn twenty_peers_find_each_other_by_the_embedded_tracker_and_finish() {
    let content = Content::new(&[("one", 2_000_000), ("two", 1_000_000)]);
    let seeder = engine_at(LOCALHOST, true).await;
    let trackers = vec![seeder.tracker_url(LOCALHOST).unwrap()];
    let seeding = AddTorrent { trackers: trackers.clone(), ..content.seed() };
    let mut seed = seeder.add(seeding).await.unwrap();
    event(&mut seed, |event| matches!(event, Event::TrackerOk { .. })).await;
    let mut peers = Vec::new();
    for _ in 0..20 {
        let (dir, engine) = (tempfile::tempdir().unwrap(), engine().await);
        let download = AddTorrent { trackers: trackers.clone(), ..content.download(dir.path()) };
        let torrent = engine.add(download).await.unwrap();
        peers.push((dir, engine, torrent));
    }
    for (dir, _, torrent) in &mut peers {
        within(torrent.completed()).await.unwrap();
        content.assert_same(dir.path());
    }
}

#[tokio::test]
async fn peers_meet_over_ipv6() {
    if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("this system has no IPv6: skipped");
        return;
    }
    let content = Content::new(&[("file", 500_000)]);
    let ip = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let (seeder, leecher) = (engine_at(ip, true).await, engine_at(ip, false).await);
    let trackers = vec![seeder.tracker_url(ip).unwrap()];
    let seeding = AddTorrent { trackers: trackers.clone(), ..content.seed() };
    let mut seed = seeder.add(seeding).await.unwrap();
    event(&mut seed, |event| matches!(event, Event::TrackerOk { .. })).await;
    let dir = tempfile::tempdir().unwrap();
    let download = AddTorrent { trackers, ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
    assert!(torrent.snapshot().torrent.peers.iter().all(|peer| peer.addr.is_ipv6()));
}

#[tokio::test]
async fn two_torrents_of_the_same_files_live_in_one_process() {
    let content = Content::folder();
    let twin = content.twin();
    let (seeder, leecher) = (engine().await, engine().await);
    let _first = seed(&seeder, &content).await;
    let twin_at = |dir: &Path| AddTorrent::new(twin.clone(), dir.to_owned());
    let mut second = seeder.add(twin_at(content.dir.path())).await.unwrap();
    within(second.completed()).await.unwrap();
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let peers = vec![addr(&seeder)];
    let torrents = vec![
        AddTorrent { peers: peers.clone(), ..content.download(dirs[0].path()) },
        AddTorrent { peers, ..twin_at(dirs[1].path()) },
    ];
    let mut total = 0;
    for torrent in leecher.add_all(torrents).await {
        let mut torrent = torrent.unwrap();
        within(torrent.completed()).await.unwrap();
        total += torrent.snapshot().torrent.traffic.downloaded;
    }
    assert_eq!(total, 2 * content.metainfo.info.geometry.total_len());
    dirs.iter().for_each(|dir| content.assert_same(dir.path()));
    // And one that finds its files there, fetched under the other's name.
    let (third, dir) = (engine().await, dirs[0].path());
    let mut both = Vec::new();
    for torrent in third.add_all(vec![content.download(dir), twin_at(dir)]).await {
        let mut torrent = torrent.unwrap();
        within(torrent.completed()).await.unwrap();
        both.push(torrent);
    }
    assert!(both.iter().all(|torrent| torrent.snapshot().torrent.traffic.downloaded == 0));
    content.assert_same(dir);
}

#[tokio::test]
async fn only_selected_files_appear() {
    let content = Content::new(&[("first", 100_000), ("second", 100_000), ("third", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let selection = Selection::Flags(vec![false, true, false]);
    let download = AddTorrent { selection, peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    let names: Vec<_> = tree(&dir.path().join("content")).into_keys().collect();
    assert_eq!(names, [Path::new("second")]);
    assert_eq!(fs::read(dir.path().join("content/second")).unwrap(), noise(2, 100_000));
    assert!(torrent.snapshot().torrent.left > 0);
}

#[tokio::test]
async fn what_is_there_already_is_checked_and_not_fetched_again() {
    let content = Content::new(&[("file", 1_000_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let mut partial = noise(1, 1_000_000);
    partial[600_000..].fill(0);
    fs::create_dir_all(dir.path().join("content")).unwrap();
    fs::write(dir.path().join("content/file"), partial).unwrap();
    let download = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    let good = 600_000 / 32_768;
    let total = 1_000_000_u32.div_ceil(32_768);
    event(&mut torrent, |event| *event == Event::Checked { good, total }).await;
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
    assert_eq!(torrent.snapshot().torrent.traffic.downloaded, 1_000_000 - u64::from(good) * 32_768);
}

#[tokio::test]
async fn an_interrupted_download_goes_on_in_a_new_engine() {
    let content = Content::new(&[("file", 4_000_000)]);
    let (seeder, dir) = (engine().await, tempfile::tempdir().unwrap());
    let _seed = seed(&seeder, &content).await;
    let add = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let first = engine().await;
    let mut torrent = first.add(add.clone()).await.unwrap();
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
async fn a_named_peer_may_start_later() {
    let content = Content::new(&[("file", 300_000)]);
    let (leecher, dir) = (engine().await, tempfile::tempdir().unwrap());
    let early = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let later = early.local_addr().unwrap();
    let download = AddTorrent { peers: vec![later], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    // Somebody is there and hangs up; then nobody is there; then the seed.
    drop(within(early.accept()).await.unwrap());
    drop(early);
    let config = Config { port: later.port(), listen: vec![LOCALHOST], ..Config::default() };
    let seeder = Engine::start(config).await.unwrap();
    let _seed = seed(&seeder, &content).await;
    tokio::time::timeout(Duration::from_secs(20), torrent.completed())
        .await
        .expect("is dialled soon")
        .unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn nobody_waits_long_for_a_tracker_that_is_gone() {
    let content = Content::new(&[("file", 100_000)]);
    let tracker = engine_at(LOCALHOST, true).await;
    let url = tracker.tracker_url(LOCALHOST).unwrap();
    let seeder = engine().await;
    let mut seed = seeder.add(AddTorrent { trackers: vec![url], ..content.seed() }).await.unwrap();
    event(&mut seed, |event| matches!(event, Event::TrackerOk { .. })).await;
    within(tracker.shutdown()).await;
    let stopping = tokio::time::timeout(Duration::from_secs(4), seeder.shutdown());
    stopping.await.expect("two seconds, and some for a slow machine");
    // Without trackers there is nothing to wait for.
    let seeder = engine().await;
    let _seed = super::engine::seed(&seeder, &content).await;
    let stopping = tokio::time::timeout(Duration::from_secs(1), seeder.shutdown());
    stopping.await.expect("ends at once");
}

#[tokio::test]
async fn a_taken_port_and_a_duplicate_torrent_are_said() {
    let content = Content::new(&[("file", 10)]);
    let first = engine().await;
    let config = Config { port: first.listen_port(), listen: vec![LOCALHOST], ..Config::default() };
    let error = Engine::start(config).await.unwrap_err();
    assert!(matches!(error, EngineError::PortTaken(taken) if taken == addr(&first)));
    let _seed = seed(&first, &content).await;
    assert!(matches!(first.add(content.seed()).await, Err(EngineError::Duplicate)));
}

#[tokio::test]
async fn content_of_empty_files_alone_is_complete_at_once() {
    let content = Content::new(&[("empty", 0), ("folder/empty", 0)]);
    let (leecher, dir) = (engine().await, tempfile::tempdir().unwrap());
    let mut torrent = leecher.add(content.download(dir.path())).await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

#[tokio::test]
async fn seeding_ends_with_its_ratio() {
    let content = Content::new(&[("file", 300_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let mut seed = seeder.add(AddTorrent { ratio_max: Some(1.0), ..content.seed() }).await.unwrap();
    within(seed.completed()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let download = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    within(torrent.completed()).await.unwrap();
    event(&mut seed, |event| *event == Event::Stopped).await;
    assert_eq!(seed.snapshot().stage, Stage::Stopped);
    content.assert_same(dir.path());
}

#[tokio::test]
async fn a_paused_torrent_goes_on_when_told() {
    let content = Content::new(&[("file", 300_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    let mut torrent = leecher.add(content.download(dir.path())).await.unwrap();
    torrent.pause().await.unwrap();
    torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
    within(async {
        while torrent.snapshot().stage != Stage::Paused {
            assert!(torrent.changed().await);
        }
    })
    .await;
    torrent.resume().await.unwrap();
    within(torrent.completed()).await.unwrap();
    content.assert_same(dir.path());
}

/// A UDP tracker (BEP 15) that knows nobody and writes down the events it is told.
async fn fake_tracker(socket: UdpSocket, events: tokio::sync::mpsc::Sender<u32>) {
    let mut bytes = [0; 2048];
    while let Ok((len, from)) = socket.recv_from(&mut bytes).await {
        let mut answer = bytes[8..16].to_vec();
        if len == 16 {
            answer.extend_from_slice(b"8 bytes!");
        } else {
            let event = u32::from_be_bytes(bytes[80..84].try_into().unwrap());
            events.send(event).await.unwrap();
            answer.extend_from_slice(&1_800_u32.to_be_bytes());
            answer.extend_from_slice(&[0; 8]);
        }
        socket.send_to(&answer, from).await.unwrap();
    }
}

#[tokio::test]
async fn a_tracker_hears_of_the_start_the_completion_and_the_end() {
    let content = Content::new(&[("file", 300_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let socket = UdpSocket::bind((LOCALHOST, 0)).await.unwrap();
    let trackers = vec![format!("udp://{}/announce", socket.local_addr().unwrap())];
    let (sender, mut events) = tokio::sync::mpsc::channel(16);
    let story = async {
        let dir = tempfile::tempdir().unwrap();
        let mut torrent = leecher.add(AddTorrent { trackers, ..content.download(dir.path()) }).await.unwrap();
        assert_eq!(events.recv().await, Some(2), "started");
        torrent.add_peers(vec![addr(&seeder)]).await.unwrap();
        torrent.completed().await.unwrap();
        assert_eq!(events.recv().await, Some(1), "completed");
        torrent.stop(LIMIT).await.unwrap();
        assert_eq!(events.recv().await, Some(3), "stopped");
        assert_eq!(torrent.snapshot().stage, Stage::Stopped);
        assert!(torrent.snapshot().finished);
    };
    within(async {
        tokio::select! {
            () = story => {}
            () = fake_tracker(socket, sender) => panic!("the tracker ended"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_an_error_with_its_path() {
    let content = Content::new(&[("file", 10)]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("not a folder");
    fs::write(&file, "").unwrap();
    let error = engine().await.add(content.download(&file)).await.unwrap_err();
    assert!(error.to_string().contains("not a folder"), "{error}");
}

#[tokio::test]
async fn a_file_in_the_place_of_the_folder_ends_the_torrent_with_its_path() {
    let content = Content::new(&[("file", 100_000)]);
    let (seeder, leecher) = (engine().await, engine().await);
    let _seed = seed(&seeder, &content).await;
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("content"), "in the way").unwrap();
    let download = AddTorrent { peers: vec![addr(&seeder)], ..content.download(dir.path()) };
    let mut torrent = leecher.add(download).await.unwrap();
    let error = within(torrent.completed()).await.unwrap_err().to_string();
    assert!(error.contains(dir.path().join("content").to_str().unwrap()), "{error}");
    assert!(matches!(torrent.snapshot().stage, Stage::Refused(Refusal::Obstacle { .. })));
}
