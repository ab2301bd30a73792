//! N1: a download that is killed at random instants, over and over, and started again: nothing
//! false is claimed, little is fetched twice, and in the end every byte is right.
//!
//! `SPRAT_LONG=1` is the long form: 500 kills of 1 GiB in 40 files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sprat::engine::{AddTorrent, Config, Engine, Event, Limits, Metainfo, TorrentHandle};
use sprat::proto::rng::Rng;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use crate::engine::LOCALHOST;
use crate::process::{Sprat, content, empty, sprat, tree};
use crate::raw_peer::RawPeer;
use crate::truth::Truth;

const FILE_COUNT: usize = 40;
/// What a kill may cost at most.
const REFETCH_LEN_MAX: u64 = 32 << 20;

/// How much of it.
struct Scale {
    kill_count: usize,
    file_len: usize,
    piece_len: &'static str,
    /// Bytes per second from the seed.
    rate: u64,
    /// Longest life of a process.
    life_max: Duration,
    /// Whether to wait after each kill until the seed's figures are of now.
    is_exact: bool,
}

const SHORT: Scale = Scale {
    kill_count: 10,
    file_len: 150_001,
    piece_len: "32KiB",
    rate: 6 << 20,
    life_max: Duration::from_millis(500),
    is_exact: false,
};
const LONG: Scale = Scale {
    kill_count: 500,
    file_len: (1 << 30) / FILE_COUNT + 1,
    piece_len: "512KiB",
    rate: 30 << 20,
    life_max: Duration::from_secs(3),
    is_exact: true,
};

/// A seed in this process, so that it is known what it sent.
struct Seed {
    runtime: Runtime,
    handle: TorrentHandle,
    addr: SocketAddr,
    _engine: Engine,
}

impl Seed {
    fn start(torrent: &Path, dir: &Path, rate: u64) -> Self {
        let runtime = Runtime::new().unwrap();
        let metainfo = Metainfo::decode(&std::fs::read(torrent).unwrap()).unwrap();
        let (engine, handle) = runtime.block_on(async {
            let limits = Limits { upload_rate_max: Some(rate), ..Limits::default() };
            let config = Config { listen: vec![LOCALHOST], limits, ..Config::default() };
            let engine = Engine::start(config).await.unwrap();
            let mut handle = engine.add(AddTorrent::new(metainfo, dir.to_owned())).await.unwrap();
            handle.completed().await.unwrap();
            (engine, handle)
        });
        let addr = SocketAddr::new(LOCALHOST, engine.listen_port());
        Self { runtime, handle, addr, _engine: engine }
    }

    /// Bytes sent so far, by the latest figures.
    fn uploaded(&self) -> u64 {
        self.handle.snapshot().torrent.traffic.uploaded
    }

    /// Waits until nobody is connected and the figures say the last.
    fn settle(&mut self) {
        let Self { runtime, handle, .. } = self;
        // Figures follow what happened by 200 ms at most.
        let news = Duration::from_millis(300);
        runtime.block_on(async {
            while timeout(news, handle.changed()).await.is_ok() {}
            assert!(handle.snapshot().torrent.peers.is_empty());
        });
    }

    fn forget_events(&mut self) {
        let Self { runtime, handle, .. } = self;
        runtime.block_on(async { while timeout(Duration::ZERO, handle.next_event()).await.is_ok() {} });
    }

    fn connected(&mut self) {
        let Self { runtime, handle, .. } = self;
        let connected =
            async { while !matches!(handle.next_event().await.unwrap(), Event::PeerConnected(_)) {} };
        runtime.block_on(async { timeout(Duration::from_secs(60), connected).await.unwrap() });
    }
}

/// The figures, worst last.
#[derive(Default)]
struct Figures {
    refetched: Vec<f64>,
    to_checked: Vec<f64>,
    to_connected: Vec<f64>,
    completed_count: usize,
    claim_count: u64,
}

fn print(what: &str, unit: &str, values: &mut [f64]) {
    values.sort_by(f64::total_cmp);
    let at = |part: f64| values.get(((values.len() as f64 * part) as usize).min(values.len() - 1));
    if let (Some(median), Some(p99), Some(worst)) = (at(0.5), at(0.99), values.last()) {
        let count = values.len();
        eprintln!("{what}: median {median:.3}, p99 {p99:.3}, worst {worst:.3} {unit} of {count}");
    }
}

/// A place for a download that is killed again and again.
struct Victim {
    path: PathBuf,
    copy: PathBuf,
    state: String,
    truth: Truth,
    seed: Seed,
    figures: Figures,
}

impl Victim {
    fn new(path: &Path, scale: &Scale) -> Self {
        let names: Vec<String> = (0..FILE_COUNT).map(|at| format!("{}/file-{at}", at % 3)).collect();
        let files: Vec<(&str, usize)> =
            names.iter().enumerate().map(|(at, name)| (name.as_str(), scale.file_len + at)).collect();
        content(&path.join("set"), &files);
        let args = ["create", "set", "-o", "set.torrent", "--piece-size", scale.piece_len];
        assert_eq!(sprat(path, &args).code, Some(0));
        Self {
            path: path.to_owned(),
            copy: path.join("copy"),
            state: path.join("state").to_str().unwrap().to_owned(),
            truth: Truth::load(&path.join("set.torrent"), path),
            seed: Seed::start(&path.join("set.torrent"), path, scale.rate),
            figures: Figures::default(),
        }
    }

    fn start(&self) -> Sprat {
        let peer = self.seed.addr.to_string();
        let args = ["download", "set.torrent", "-d", "copy", "-p", "0", "--json", "--peer", &peer];
        Sprat::start_with(&self.path, &args, &[("XDG_STATE_HOME", &self.state)])
    }

    /// One life: whether it was killed before it was done.
    #[expect(clippy::disallowed_methods, reason = "a kill comes at an instant of real time")]
    fn live(&mut self, life: Duration, is_watched: bool, scale: &Scale) -> bool {
        let before = self.truth.good(&self.copy);
        let sent_before = self.seed.uploaded();
        self.seed.forget_events();
        let begun = Instant::now();
        let mut download = self.start();
        if is_watched {
            let port = download.event("started")["port"].as_u64().unwrap() as u16;
            let good = download.event("checked")["good"].as_u64().unwrap();
            self.figures.to_checked.push(begun.elapsed().as_secs_f64());
            assert_eq!(good, u64::from(before.count()), "what is there is known, and nothing else");
            if !before.is_full() {
                self.seed.connected();
                self.figures.to_connected.push(begun.elapsed().as_secs_f64());
                self.require_true(port);
            }
        }
        if let Err(ended) = download.kill_after(life) {
            assert_eq!(ended.code, Some(0), "{ended:?}");
            self.whole();
            return false;
        }
        if scale.is_exact {
            self.seed.settle();
        }
        let gained = self.truth.len_of(&self.truth.good(&self.copy)) - self.truth.len_of(&before);
        let refetched = (self.seed.uploaded() - sent_before).saturating_sub(gained);
        self.figures.refetched.push(refetched as f64 / f64::from(1 << 20));
        true
    }

    /// What the download claims to have is on disk.
    fn require_true(&mut self, port: u16) {
        // It may be done by now, and gone.
        if let Ok(peer) = RawPeer::connect(port, &self.truth.info) {
            let there = self.truth.good(&self.copy);
            assert!(!peer.claimed.has_more_than(&there), "a piece is claimed and false");
            self.figures.claim_count += u64::from(peer.claimed.count());
        }
    }

    /// Every byte is right; begin anew.
    fn whole(&mut self) {
        assert!(self.truth.good(&self.copy).is_full(), "the copy differs");
        let names = |dir: PathBuf| tree(&dir).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(self.copy.clone()), names_of(&self.truth), "files that do not belong there");
        self.figures.completed_count += 1;
        empty(&self.copy);
    }
}

fn names_of(truth: &Truth) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        (0..truth.info.files.len()).map(|number| truth.path(number, Path::new(""))).collect();
    names.sort();
    names
}

#[test]
fn a_download_that_is_killed_at_random_loses_next_to_nothing_and_claims_nothing_false() {
    let scale = if std::env::var_os("SPRAT_LONG").is_some() { LONG } else { SHORT };
    let dir = tempfile::tempdir().unwrap();
    let mut victim = Victim::new(dir.path(), &scale);
    let mut rng = Rng::from_number(1);
    let mut kill_count = 0;
    while kill_count < scale.kill_count {
        let part = rng.unit();
        let is_watched = rng.below(2) == 0;
        kill_count += usize::from(victim.live(scale.life_max.mul_f64(part * part), is_watched, &scale));
    }
    while victim.live(Duration::from_secs(600), true, &scale) {}
    let figures = &mut victim.figures;
    let worst = figures.refetched.iter().copied().fold(0.0, f64::max);
    eprintln!(
        "{kill_count} kills, {} downloads, {} claims held true",
        figures.completed_count, figures.claim_count
    );
    print("fetched twice after a kill", "MiB", &mut figures.refetched);
    print("start to pieces known", "s", &mut figures.to_checked);
    print("start to connected", "s", &mut figures.to_connected);
    assert!(
        worst <= (REFETCH_LEN_MAX as f64).min(2.0 * scale.rate as f64) / f64::from(1 << 20),
        "{worst} MiB"
    );
}
