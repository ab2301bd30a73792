//! A disk that stands still, and readers that do: whoever needs them waits, and nobody else.
//! Everything here is told by events and completions; what it costs the others in rate is measured
//! by `slow_rates`.

use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sprat::engine::{AddTorrent, Engine, Event, Existing, Metainfo, TorrentHandle};

use tokio::time::timeout;

use crate::engine::{self, Content, LOCALHOST, addr, engine, event, within};
use crate::process::{Sprat, content, sprat, tree};
use crate::raw_peer::RawPeer;
use crate::slow_device::SlowDisk;
use crate::small_disk::SmallDisk;
use crate::truth::Truth;

/// Bytes of a torrent here.
const LEN: usize = 3_000_000;
/// Peers that ask and do not take: one less than a seed serves at once to begin with.
const STALLED_COUNT: usize = 5;
/// What a seed holds for a peer that takes nothing: the blocks that it read to send them.
const HELD_LEN_MAX: u64 = 16 * 16 * 1024;
/// What serving takes besides, whoever is served.
const SERVING_LEN_MAX: u64 = 4 << 20;

/// One process that seeds two torrents out of one folder in memory: `quick`, and `slow`, which lies
/// on a disk of its own that is mounted there.
struct Seed {
    /// Before the process, which may wait for it and cannot end then.
    disk: SlowDisk,
    process: Sprat,
    addr: SocketAddr,
    _memory: SmallDisk,
}

impl Seed {
    /// None: disks cannot be mounted here.
    fn start(dir: &Path) -> Option<Self> {
        let data = dir.join("data");
        let memory = SmallDisk::mount(&data, "size=16m")?;
        let disk = SlowDisk::mount(&dir.join("image"), &data.join("slow"), 32)?;
        for name in ["slow", "quick"] {
            content(&data.join(name), &[("file", LEN)]);
            create(dir, name);
        }
        let mut process = Sprat::start(dir, &["seed", "torrents", "-d", "data", "-p", "0", "--json"]);
        let port = process.event("started")["port"].as_u64().unwrap() as u16;
        assert_eq!(process.event("seeding")["torrents"], 2);
        disk.hold(process.id());
        Some(Self { disk, process, addr: SocketAddr::new(LOCALHOST, port), _memory: memory })
    }

    /// From now on nothing of `slow` is in memory, and nothing of it comes.
    fn stand_still(&self, dir: &Path) {
        self.disk.cool(&dir.join("data/slow/file"));
        self.disk.stop_reads();
    }
}

/// Makes the torrent of what is in `data`.
fn create(dir: &Path, name: &str) {
    std::fs::create_dir_all(dir.join("torrents")).unwrap();
    let (content, torrent) = (format!("data/{name}"), format!("torrents/{name}.torrent"));
    let args = ["create", &content, "-o", &torrent, "--piece-size", "64KiB"];
    assert_eq!(sprat(dir, &args).code, Some(0));
}

fn metainfo(dir: &Path, name: &str) -> Metainfo {
    Metainfo::decode(&std::fs::read(dir.join("torrents").join(name).with_extension("torrent")).unwrap())
        .unwrap()
}

/// A download of one of the two into `dir/copy`.
async fn download(engine: &Engine, dir: &Path, name: &str, from: SocketAddr) -> TorrentHandle {
    let add = AddTorrent { peers: vec![from], ..AddTorrent::new(metainfo(dir, name), dir.join("copy")) };
    engine.add(add).await.unwrap()
}

fn assert_same(dir: &Path, name: &str) {
    assert!(tree(&dir.join("copy").join(name)) == tree(&dir.join("data").join(name)), "{name} differs");
}

/// So many peers that ask for all of a torrent and take nothing.
fn stalled_peers(dir: &Path, name: &str, port: u16) -> Vec<RawPeer> {
    let info = metainfo(dir, name).info;
    let geometry = info.geometry;
    let of_piece = |piece| (0..geometry.block_count(piece)).map(move |index| geometry.block(piece, index));
    let blocks: Vec<_> = (0..geometry.piece_count()).flat_map(of_piece).collect();
    let stalled = || {
        let mut peer = RawPeer::connect(port, &info).unwrap();
        peer.ask(&blocks).unwrap();
        peer
    };
    std::iter::repeat_with(stalled).take(STALLED_COUNT).collect()
}

#[tokio::test]
async fn who_wants_what_a_still_disk_has_waits_and_nobody_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(seed) = Seed::start(dir) else { return };
    seed.stand_still(dir);
    let _waiting = stalled_peers(dir, "slow", seed.addr.port());
    let leecher = engine().await;
    let mut slow = download(&leecher, dir, "slow", seed.addr).await;
    event(&mut slow, |event| matches!(event, Event::PeerConnected(_))).await;
    let mut quick = download(&leecher, dir, "quick", seed.addr).await;
    within(quick.completed()).await.unwrap();
    assert_same(dir, "quick");
    assert_eq!(slow.snapshot().torrent.traffic.downloaded, 0, "it was in memory all the time");
    seed.disk.slow_down(None);
    within(slow.completed()).await.unwrap();
    assert_same(dir, "slow");
}

/// A file in many places of the disk: where they are has to be read, too.
#[tokio::test]
async fn where_a_file_lies_is_read_before_anybody_waits_for_it() {
    const PLACE_COUNT: u64 = 1_500;
    const PLACE_LEN: u64 = 16 * 1024;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(_memory) = SmallDisk::mount(&dir.join("data"), "size=16m") else { return };
    let Some(disk) = SlowDisk::mount(&dir.join("image"), &dir.join("data/slow"), 64) else { return };
    // Every second place is a hole.
    let file = std::fs::File::create(dir.join("data/slow/file")).unwrap();
    (0..PLACE_COUNT)
        .for_each(|place| file.write_all_at(&[7; PLACE_LEN as usize], 2 * place * PLACE_LEN).unwrap());
    file.sync_all().unwrap();
    drop(file);
    content(&dir.join("data/quick"), &[("file", LEN)]);
    create(dir, "slow");
    create(dir, "quick");
    disk.remount();
    let args = ["seed", "torrents", "-d", "data", "-p", "0", "--json", "--assume-complete"];
    let mut process = Sprat::start(dir, &args);
    let port = process.event("started")["port"].as_u64().unwrap() as u16;
    process.event("seeding");
    let info = metainfo(dir, "slow").info;
    let mut peer = RawPeer::connect(port, &info).unwrap();
    peer.ask(&[info.geometry.block(0, 0)]).unwrap();
    peer.block().unwrap();
    // Dropped before the process, which may wait for it and cannot end then.
    let disk = disk;
    disk.hold(process.id());
    disk.stop_reads();
    peer.ask(&[info.geometry.block(info.geometry.piece_count() - 2, 0)]).unwrap();
    let leecher = engine().await;
    let mut quick = download(&leecher, dir, "quick", SocketAddr::new(LOCALHOST, port)).await;
    within(quick.completed()).await.unwrap();
    assert_same(dir, "quick");
}

/// That silence ends such a connection after two minutes is shown in virtual time.
#[tokio::test]
async fn peers_that_ask_and_take_nothing_cost_others_nothing_and_the_seed_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(seed) = Seed::start(dir) else { return };
    let before = seed.process.memory("VmRSS");
    let _stalled = stalled_peers(dir, "slow", seed.addr.port());
    let leecher = engine().await;
    let mut both =
        [download(&leecher, dir, "slow", seed.addr).await, download(&leecher, dir, "quick", seed.addr).await];
    for torrent in &mut both {
        within(torrent.completed()).await.unwrap();
    }
    ["slow", "quick"].iter().for_each(|name| assert_same(dir, name));
    let taken = seed.process.memory("VmHWM") - before;
    let connection_count = STALLED_COUNT as u64 + 2;
    assert!(taken <= connection_count * HELD_LEN_MAX + SERVING_LEN_MAX, "{taken} bytes");
}

/// An engine that seeds two torrents, another that will download both, and the disk for one of the
/// copies.
struct Two {
    // First, so that it is let go before who waits for it.
    disk: SlowDisk,
    stuck: Content,
    free: Content,
    /// Where the disk is mounted.
    still: PathBuf,
    other: PathBuf,
    leecher: Engine,
    peers: Vec<SocketAddr>,
    _seeds: (Engine, TorrentHandle, TorrentHandle),
    _dir: tempfile::TempDir,
}

impl Two {
    /// None: disks cannot be mounted here.
    async fn begin() -> Option<Self> {
        let (stuck, free) = (Content::new(&[("stuck", LEN)]), Content::new(&[("free", LEN)]));
        let dir = tempfile::tempdir().unwrap();
        let (still, other) = (dir.path().join("still"), dir.path().join("other"));
        let disk = SlowDisk::mount(&dir.path().join("image"), &still, 32)?;
        let (seeder, leecher) = (engine().await, engine().await);
        let peers = vec![addr(&seeder)];
        let seeds = (engine::seed(&seeder, &stuck).await, engine::seed(&seeder, &free).await);
        let _seeds = (seeder, seeds.0, seeds.1);
        Some(Self { disk, stuck, free, still, other, leecher, peers, _seeds, _dir: dir })
    }
}

#[tokio::test]
async fn what_is_written_to_a_still_disk_waits_and_nothing_else_does() {
    let Some(two) = Two::begin().await else { return };
    let Two { disk, stuck, free, still, other, leecher, peers, .. } = &two;
    let add = AddTorrent { peers: peers.clone(), ..stuck.download(still) };
    let mut waiting = leecher.add(add).await.unwrap();
    waiting.limit(None, Some(500_000)).await.unwrap();
    event(&mut waiting, |event| matches!(event, Event::Piece(_))).await;
    disk.freeze();
    waiting.limit(None, None).await.unwrap();
    let add = AddTorrent { peers: peers.clone(), ..free.download(other) };
    let mut moving = leecher.add(add).await.unwrap();
    within(moving.completed()).await.unwrap();
    free.assert_same(other);
    assert!(!waiting.snapshot().finished);
    disk.thaw();
    within(waiting.completed()).await.unwrap();
    stuck.assert_same(still);
}

// Two threads, so that one which waits for the disk is noticed by the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torrent_whose_folder_cannot_be_made_yet_keeps_no_other_from_being_added() {
    let Some(two) = Two::begin().await else { return };
    let Two { disk, stuck, free, still, other, leecher, peers, .. } = &two;
    disk.freeze();
    let add = AddTorrent { peers: peers.clone(), ..stuck.download(&still.join("a/b")) };
    let mut adding = std::pin::pin!(leecher.add(add));
    let story = async {
        let add = AddTorrent { peers: peers.clone(), ..free.download(other) };
        let mut moving = within(leecher.add(add)).await.unwrap();
        within(moving.completed()).await.unwrap();
    };
    tokio::select! {
        biased;
        _ = &mut adding => panic!("there is no folder yet"),
        () = story => {}
    }
    free.assert_same(other);
    disk.thaw();
    let mut waiting = adding.await.unwrap();
    within(waiting.completed()).await.unwrap();
    stuck.assert_same(&still.join("a/b"));
}

#[tokio::test]
async fn a_seed_that_is_told_to_end_does_so_while_its_disk_stands_still() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(seed) = Seed::start(dir) else { return };
    seed.stand_still(dir);
    let _waiting = stalled_peers(dir, "slow", seed.addr.port());
    seed.process.signal("TERM");
    assert_eq!(seed.process.end().code, Some(0));
}

#[test]
fn a_download_that_is_told_to_end_says_so_and_claims_only_what_the_disk_took() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let Some(disk) = SlowDisk::mount(&dir.join("image"), &dir.join("copy"), 32) else { return };
    content(&dir.join("set"), &[("file", LEN)]);
    let mut seed = Sprat::start(dir, &["seed", "set", "-p", "0", "--json"]);
    let peer = format!("127.0.0.1:{}", seed.event("seeding")["port"]);
    let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--peer", &peer];
    let limited = [&args[..], &["--down-limit", "1MiB"]].concat();
    let mut download = Sprat::start(dir, &limited);
    while download.event("progress")["done"] == 0 {}
    disk.freeze();
    download.signal("TERM");
    download.event("stopped");
    // What waits for the disk in the system holds the process until the disk moves.
    disk.thaw();
    let ended = download.end();
    assert_eq!(ended.code, Some(143), "{ended:?}");
    let there = Truth::load(&dir.join("set.torrent"), dir).good(&dir.join("copy"));
    let mut again = Sprat::start(dir, &args);
    assert_eq!(again.event("checked")["good"], there.count());
    again.event("completed");
    assert_eq!(again.end().code, Some(0));
    assert!(tree(&dir.join("set")) == tree(&dir.join("copy/set")), "the copy differs");
}

/// As many fast peers, and as large pieces, as bring more blocks than may travel at once in one
/// process.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_for_a_still_disk_leaves_room_for_what_comes_for_others() {
    const SEED_COUNT: usize = 16;
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let still = dir.join("copy");
    let Some(disk) = SlowDisk::mount(&dir.join("image"), &still, 500) else { return };
    std::fs::create_dir(dir.join("torrents")).unwrap();
    content(&dir.join("data/slow"), &[("file", 400 << 20)]);
    let args = ["create", "data/slow", "-o", "torrents/slow.torrent", "--piece-size", "16MiB"];
    assert_eq!(sprat(dir, &args).code, Some(0));
    let free = Content::new(&[("free", LEN)]);
    let mut seeders = Vec::new();
    for _ in 0..SEED_COUNT {
        let seeder = engine().await;
        let existing = Existing::Assumed;
        let add = AddTorrent { existing, ..AddTorrent::new(metainfo(dir, "slow"), dir.join("data")) };
        let seed = seeder.add(add).await.unwrap();
        seeders.push((seeder, seed));
    }
    let _seed = engine::seed(&seeders[0].0, &free).await;
    let leecher = engine().await;
    let add = AddTorrent::new(metainfo(dir, "slow"), still.clone());
    let mut waiting = leecher.add(add).await.unwrap();
    event(&mut waiting, |event| matches!(event, Event::Checked { .. })).await;
    waiting.add_peers(seeders.iter().map(|(seeder, _)| addr(seeder)).collect()).await.unwrap();
    event(&mut waiting, |event| matches!(event, Event::Piece(_))).await;
    disk.freeze();
    // Until all has come that may come: figures follow what happens by 200 ms at most.
    for (_, seed) in &mut seeders {
        while timeout(Duration::from_millis(300), seed.changed()).await.is_ok() {}
    }
    let add = AddTorrent { peers: vec![addr(&seeders[0].0)], ..free.download(&dir.join("other")) };
    let mut moving = leecher.add(add).await.unwrap();
    within(moving.completed()).await.unwrap();
    disk.thaw();
    within(waiting.completed()).await.unwrap();
    assert_same(dir, "slow");
}
