//! `sprat demo`: a whole swarm on this machine. A seed that is its own tracker and some peers, each
//! an engine of its own on loopback, distribute data; every copy is compared with the original, and
//! all is removed.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::args::DemoArgs;
use super::clock;
use super::demo_data;
use super::demo_folder::DemoFolder;
use super::failure::Failure;
use super::interrupt::Interrupts;
use super::make;
use super::narrator::{fault_event, fault_text, storage_good};
use super::report::{Meter, Report};
use super::runtime;
use super::size::{show_len, show_rate};
use super::text::{counted, printable};
use crate::engine::metainfo::create::Draft;
use crate::engine::{
    AddTorrent, Config, Engine, Existing, Metainfo, Stage, StorageFault, TorrentHandle, TrackerStatus,
};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Between two looks at the peers.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the seed's own tracker may take to know it; then peers are told of the seed directly.
const TRACKER_TIME_MAX: Duration = Duration::from_secs(3);

/// Runs it in a folder of its own that is gone afterwards, whatever happens.
pub(crate) fn run(args: &DemoArgs, report: &Report) -> Result<(), Failure> {
    let folder = DemoFolder::make(report)?;
    if args.path.is_none() {
        // The original is made first: said before that takes its time.
        folder.require_room(args.size.saturating_mul(1 + u64::from(args.peers)))?;
    }
    let result = runtime::block_on(async {
        let mut interrupts = Interrupts::catch()?;
        let stop = Stop(Arc::new(AtomicBool::new(false)));
        tokio::select! {
            signal = interrupts.next() => Err(Failure::Interrupted(signal)),
            result = demo(args, &folder, &stop, report) => result,
        }
    });
    folder.close()?;
    result
}

/// Tells threads, by being dropped, that the demo no longer waits for them.
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One engine with the one torrent.
struct Peer {
    engine: Engine,
    handle: TorrentHandle,
    dir: PathBuf,
}

async fn demo(args: &DemoArgs, folder: &DemoFolder, stop: &Stop, report: &Report) -> Result<(), Failure> {
    let (metainfo, source_dir, hashed_at) = prepare(args, folder.path(), stop, report).await?;
    let size = metainfo.info.geometry.total_len();
    folder.require_room(size.saturating_mul(u64::from(args.peers)))?;
    let (seed, metainfo, known) = start_seed(metainfo, &source_dir, hashed_at).await?;
    let seed_addr = SocketAddr::new(LOOPBACK, seed.engine.listen_port());
    report.say(&format!(
        "A tracker and a seed with {} ({}), and {} that fetch it from each other",
        printable(&metainfo.info.name),
        show_len(size),
        counted(usize::from(args.peers), "peer")
    ));
    report.event(&json!({"event": "started", "peers": args.peers, "size": size}));
    let since = clock::now();
    let mut peers = Vec::new();
    for number in 1..=args.peers {
        let dir = folder.path().join(format!("peer-{number}"));
        let asked = if known { Vec::new() } else { vec![seed_addr] };
        peers.push(start_peer(&metainfo, dir, asked).await?);
    }
    watch(&peers, size, report).await?;
    let seconds = clock::now().duration_since(since).as_secs_f64();
    compare(&metainfo, &source_dir, &peers, stop).await?;
    conclude(&peers, size, seconds, report);
    for peer in peers {
        peer.engine.shutdown().await;
    }
    seed.engine.shutdown().await;
    Ok(())
}

/// The torrent, the folder of its content, which is what the user named or generated data, and when
/// hashing began.
async fn prepare(
    args: &DemoArgs,
    folder: &Path,
    stop: &Stop,
    report: &Report,
) -> Result<(Metainfo, PathBuf, SystemTime), Failure> {
    let (named, size, folder) = (args.path.clone(), args.size, folder.to_owned());
    let (stopped, report) = (Arc::clone(&stop.0), report.clone());
    let made = tokio::task::spawn_blocking(move || {
        let going = || !stopped.load(Ordering::Relaxed);
        let path = match named {
            Some(path) => make::content_path(&path.canonicalize().unwrap_or(path))?,
            None => demo_data::generate(&folder, size, &going)?,
        };
        let hashed_at = clock::wall();
        let metainfo = make::hash(&path, Draft::default(), false, None, &report, &going)?;
        let dir = path.parent().unwrap_or(&path).to_owned();
        Ok::<_, Failure>(metainfo.map(|metainfo| (metainfo, dir, hashed_at)))
    });
    let made = made.await.map_err(|error| Failure::Failed(error.to_string()))??;
    made.ok_or_else(|| Failure::Failed("stopped".to_owned()))
}

/// The seed, the torrent that names it as the tracker, and whether that tracker knows it.
async fn start_seed(
    mut metainfo: Metainfo,
    dir: &Path,
    hashed_at: SystemTime,
) -> Result<(Peer, Metainfo, bool), Failure> {
    let config = Config { embedded_tracker: true, ..loopback_config() };
    let engine = Engine::start(config).await?;
    metainfo.trackers = engine.tracker_url(LOOPBACK).into_iter().map(|url| vec![url]).collect();
    let torrent = AddTorrent { existing: Existing::Hashed(hashed_at), ..torrent(&metainfo, dir, Vec::new()) };
    let mut handle = engine.add(torrent).await?;
    let known = async {
        let knows = |status: &TrackerStatus| status.seeders.is_some_and(|seeders| seeders > 0);
        while !handle.snapshot().trackers.iter().any(knows) {
            if !handle.changed().await {
                return false;
            }
        }
        true
    };
    let known = tokio::time::timeout(TRACKER_TIME_MAX, known).await.unwrap_or(false);
    Ok((Peer { engine, handle, dir: dir.to_owned() }, metainfo, known))
}

async fn start_peer(metainfo: &Metainfo, dir: PathBuf, asked: Vec<SocketAddr>) -> Result<Peer, Failure> {
    std::fs::create_dir(&dir).map_err(|error| Failure::io(&dir, &error, ""))?;
    let engine = Engine::start(loopback_config()).await?;
    let handle = engine.add(torrent(metainfo, &dir, asked)).await?;
    Ok(Peer { engine, handle, dir })
}

/// One disk thread each: the engines share this machine's cores.
fn loopback_config() -> Config {
    Config { listen: vec![LOOPBACK], disk_threads: Some(1), ..Config::default() }
}

fn torrent(metainfo: &Metainfo, dir: &Path, peers: Vec<SocketAddr>) -> AddTorrent {
    AddTorrent { peers, ..AddTorrent::new(metainfo.clone(), dir.to_owned()) }
}

/// Shows each peer until all are complete.
async fn watch(peers: &[Peer], size: u64, report: &Report) -> Result<(), Failure> {
    let bars: Vec<Option<Meter>> =
        (1..=peers.len()).map(|number| report.named_meter(&format!("peer {number}"), size)).collect();
    let whole = bars.iter().all(Option::is_none).then(|| report.meter(size * peers.len() as u64));
    let all_complete = async {
        for peer in peers {
            peer.handle.clone().completed().await?;
        }
        Ok::<(), Failure>(())
    };
    tokio::pin!(all_complete);
    let mut looks = tokio::time::interval(LOOK_INTERVAL);
    let mut told: Option<StorageFault> = None;
    loop {
        tokio::select! {
            result = &mut all_complete => return result,
            _ = looks.tick() => {
                show(peers, &bars, whole.as_ref());
                told = tell_fault(peers, told, report);
            }
        }
    }
}

/// Says once why the disk holds up the peers, and when it no longer does; what was told last.
fn tell_fault(peers: &[Peer], told: Option<StorageFault>, report: &Report) -> Option<StorageFault> {
    let fault = peers.iter().find_map(|peer| match peer.handle.snapshot().stage {
        Stage::Waiting(fault) => Some(fault),
        Stage::Starting
        | Stage::FindingPeers { .. }
        | Stage::FetchingDescription { .. }
        | Stage::Checking { .. }
        | Stage::Downloading
        | Stage::Seeding
        | Stage::Paused
        | Stage::Stopped
        | Stage::Refused(_)
        | Stage::Failed(_) => None,
    });
    match (&told, &fault) {
        (None, Some(fault)) => {
            report.event(&fault_event(fault));
            report.warn(&format!("{}; the demo waits and goes on by itself", fault_text(fault)));
        }
        (Some(_), None) => {
            report.event(&storage_good());
            report.say("The disk takes data again; the demo goes on");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
    fault
}

fn show(peers: &[Peer], bars: &[Option<Meter>], whole: Option<&Meter>) {
    let mut done = Vec::with_capacity(peers.len());
    let mut rate = 0;
    for (peer, bar) in peers.iter().zip(bars) {
        let figures = peer.handle.snapshot().torrent;
        done.push(figures.wanted_done_len);
        rate += figures.traffic.download_rate;
        if let Some(bar) = bar {
            let text = || {
                let rate = show_rate(figures.traffic.download_rate);
                if figures.complete { "complete".to_owned() } else { rate }
            };
            bar.update(figures.wanted_done_len, text, || json!({}));
        }
    }
    if let Some(whole) = whole {
        let sum: u64 = done.iter().sum();
        whole.update(
            sum,
            || {
                format!(
                    "{} delivered to {}, {}",
                    show_len(sum),
                    counted(peers.len(), "peer"),
                    show_rate(rate)
                )
            },
            || json!({"event": "progress", "done": done, "download_rate": rate}),
        );
    }
}

/// Every file of every peer, byte by byte.
async fn compare(metainfo: &Metainfo, source: &Path, peers: &[Peer], stop: &Stop) -> Result<(), Failure> {
    let dirs: Vec<PathBuf> = peers.iter().map(|peer| peer.dir.clone()).collect();
    let (files, source, stopped) = (metainfo.info.files.clone(), source.to_owned(), Arc::clone(&stop.0));
    let compared = tokio::task::spawn_blocking(move || {
        for dir in dirs {
            for file in files.iter().filter(|file| !file.attributes.pad) {
                if stopped.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let below: PathBuf = file.path.iter().collect();
                demo_data::require_equal(&source.join(&below), &dir.join(&below))?;
            }
        }
        Ok(())
    });
    compared.await.map_err(|error| Failure::Failed(error.to_string()))?
}

fn conclude(peers: &[Peer], size: u64, seconds: f64, report: &Report) {
    let delivered = size * peers.len() as u64;
    let mib_per_second = delivered as f64 / seconds.max(0.001) / f64::from(1 << 20);
    report.say(&format!(
        "All {} have all {}, every byte compared: {seconds:.1} s, {mib_per_second:.1} MiB/s delivered",
        counted(peers.len(), "peer"),
        show_len(size)
    ));
    report.event(&json!({
        "event": "completed", "peers": peers.len(), "size": size, "seconds": seconds, "equal": true,
    }));
}
