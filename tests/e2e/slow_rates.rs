//! What a torrent is worth to its leecher while another one of the same seed is on a cold, slow or
//! still disk, or has readers that do not read: rates over loopback, of content in memory, as parts
//! of the rate when it is alone.
//!
//! `SPRAT_LONG=1` is the long form: 1 GiB, medians of three. Measured that way on two cores, as
//! parts of the rate alone (1,231 MiB/s): beside a torrent on a cold disk 1.06, on one held to 4
//! MiB/s 1.08, on one that stands still 1.10, beside 64 readers that do not read 1.05.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use sprat::engine::Metainfo;

use crate::engine::LOCALHOST;
use crate::process::{Sprat, content, empty, sprat};
use crate::raw_peer::RawPeer;
use crate::slow_device::SlowDisk;
use crate::small_disk::SmallDisk;

/// Bytes per second of a disk that is slow.
const SLOW_RATE: u64 = 4 << 20;
/// What the other leecher takes at most where the disk would give more: a few percent of what the
/// processor moves, so that what is lost is lost by waiting.
const OTHER_RATE: &str = "20MiB";
/// Peers that ask and do not read.
const STALLED_COUNT: usize = 64;
/// What is left of the rate at least, on the busiest of machines: whoever waited for a disk would
/// have next to nothing.
const RATIO_MIN: f64 = 0.5;

/// How much of it.
struct Scale {
    quick_len: usize,
    slow_len: usize,
    run_count: usize,
    is_judged: bool,
}

const SHORT: Scale = Scale { quick_len: 16 << 20, slow_len: 16 << 20, run_count: 1, is_judged: false };
const LONG: Scale = Scale { quick_len: 1 << 30, slow_len: 512 << 20, run_count: 3, is_judged: true };

/// What goes on beside.
#[derive(Clone, Copy, Debug)]
enum Beside {
    Nothing,
    ColdDisk,
    SlowDisk,
    StillDisk,
    StalledReaders,
}

/// One process that seeds `quick` out of memory, and `slow` from a disk.
struct Scene {
    dir: PathBuf,
    addr: SocketAddr,
    /// Before the seed, which may wait for it and cannot end then.
    disk: SlowDisk,
    seed: Sprat,
    _memory: [SmallDisk; 2],
}

/// Who takes something of `slow`, until dropped.
#[expect(dead_code, reason = "held, not looked at")]
enum Other {
    Leecher(Sprat),
    Stalled(Vec<JoinHandle<std::io::Result<RawPeer>>>),
}

impl Scene {
    /// None: disks cannot be mounted here.
    fn set(dir: &Path, scale: &Scale) -> Option<Self> {
        let data = dir.join("data");
        let sizes = [scale.quick_len + (8 << 20), scale.quick_len + scale.slow_len + (64 << 20)];
        let [memory, copies] = [(&data, sizes[0]), (&dir.join("copies"), sizes[1])]
            .map(|(at, size)| SmallDisk::mount(at, &format!("size={size}")));
        let memory = [memory?, copies?];
        let mib = (scale.slow_len >> 20) as u32 + 64;
        let disk = SlowDisk::mount(&dir.join("image"), &data.join("slow"), mib)?;
        std::fs::create_dir(dir.join("torrents")).unwrap();
        for (name, len) in [("slow", scale.slow_len), ("quick", scale.quick_len)] {
            content(&data.join(name), &[("file", len)]);
            let (content, torrent) = (format!("data/{name}"), format!("torrents/{name}.torrent"));
            assert_eq!(sprat(dir, &["create", &content, "-o", &torrent]).code, Some(0));
        }
        let mut seed = Sprat::start(dir, &["seed", "torrents", "-d", "data", "-p", "0", "--json"]);
        let port = seed.event("started")["port"].as_u64().unwrap() as u16;
        assert_eq!(seed.event("seeding")["torrents"], 2);
        disk.hold(seed.id());
        let addr = SocketAddr::new(LOCALHOST, port);
        Some(Self { dir: dir.to_owned(), addr, disk, seed, _memory: memory })
    }

    /// Bytes per second of a download of `quick` with this beside it.
    fn rate(&self, beside: Beside) -> f64 {
        let other = self.begin(beside);
        let mut download = self.download("quick", "copies/quick", None);
        let completed = download.event("completed");
        drop(other);
        assert_eq!(download.end().code, Some(0));
        self.disk.slow_down(None);
        for copy in ["copies/quick", "copies/slow"] {
            empty(&self.dir.join(copy));
        }
        completed["size"].as_f64().unwrap() / completed["seconds"].as_f64().unwrap()
    }

    fn begin(&self, beside: Beside) -> Option<Other> {
        let cool = || self.disk.cool(&self.dir.join("data/slow/file"));
        match beside {
            Beside::Nothing => return None,
            Beside::ColdDisk => cool(),
            Beside::SlowDisk => {
                cool();
                self.disk.slow_down(Some(SLOW_RATE));
            }
            Beside::StillDisk => {
                cool();
                self.disk.stop_reads();
            }
            Beside::StalledReaders => return Some(Other::Stalled(self.stalled())),
        }
        let mut leecher = self.download("slow", "copies/slow", Some(OTHER_RATE));
        leecher.event("peer");
        Some(Other::Leecher(leecher))
    }

    fn download(&self, name: &str, to: &str, limit: Option<&str>) -> Sprat {
        let (torrent, peer) = (format!("torrents/{name}.torrent"), self.addr.to_string());
        let limit: Vec<_> = limit.iter().flat_map(|limit| ["--down-limit", *limit]).collect();
        let args = ["download", &torrent, "-d", to, "-p", "0", "--json", "--peer", &peer];
        // None of them knows anything from before.
        let state = self.dir.join("copies");
        let variables = [("XDG_STATE_HOME", state.to_str().unwrap())];
        Sprat::start_with(&self.dir, &[&args[..], &limit].concat(), &variables)
    }

    /// As many of them as the seed serves ask for all that it takes requests for.
    fn stalled(&self) -> Vec<JoinHandle<std::io::Result<RawPeer>>> {
        let torrent = std::fs::read(self.dir.join("torrents/slow.torrent")).unwrap();
        let info = Metainfo::decode(&torrent).unwrap().info;
        let geometry = info.geometry;
        let of_piece =
            |piece| (0..geometry.block_count(piece)).map(move |index| geometry.block(piece, index));
        let blocks: Vec<_> = (0..geometry.piece_count()).flat_map(of_piece).take(512).collect();
        let stall = || {
            let (info, blocks, port) = (info.clone(), blocks.clone(), self.addr.port());
            std::thread::spawn(move || {
                let mut peer = RawPeer::connect(port, &info)?;
                peer.ask(&blocks)?;
                Ok(peer)
            })
        };
        std::iter::repeat_with(stall).take(STALLED_COUNT).collect()
    }
}

#[test]
fn a_torrent_keeps_its_rate_whatever_another_one_waits_for() {
    let scale = if std::env::var_os("SPRAT_LONG").is_some() { LONG } else { SHORT };
    let dir = tempfile::tempdir().unwrap();
    let Some(scene) = Scene::set(dir.path(), &scale) else { return };
    let median = |beside| {
        let mut rates: Vec<f64> = (0..scale.run_count).map(|_| scene.rate(beside)).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    // The first one finds memory that was never used.
    scene.rate(Beside::Nothing);
    let alone = median(Beside::Nothing);
    eprintln!("alone: {:.0} MiB/s", alone / f64::from(1 << 20));
    for beside in [Beside::ColdDisk, Beside::SlowDisk, Beside::StillDisk, Beside::StalledReaders] {
        let ratio = median(beside) / alone;
        let peak = scene.seed.memory("VmHWM") >> 20;
        eprintln!("{beside:?}: {ratio:.2} of that, the seed's memory {peak} MiB at most");
        assert!(!scale.is_judged || ratio >= RATIO_MIN, "{beside:?}: {ratio}");
    }
}
