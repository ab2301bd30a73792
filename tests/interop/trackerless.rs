//! Transfers that nothing but an infohash begins: by a DHT of libtorrent nodes or of our own, with
//! Transmission in it, by the local network, and by gossip.

use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::content::Content;
use crate::lab::{self, Host, Lab};
use crate::process::{self, Process};

/// Where everybody listens; each has a host of its own.
const PORT: u16 = 7000;
/// Nodes of the DHT beside those of the two peers.
const NODE_COUNT: u8 = 12;
/// How long one transfer may take; they take a second or two, with Transmission a dozen.
const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);

/// Who the nodes are, and the peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sprat,
    Libtorrent,
    Transmission,
}

impl Kind {
    fn missing(self) -> Option<String> {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Sprat => return None,
            Self::Libtorrent => ("python3", &["-c", "import libtorrent"]),
            Self::Transmission => ("transmission-daemon", &["--version"]),
        };
        let runs = Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success());
        (!runs).then(|| format!("{self:?}"))
    }
}

/// Whether everything is there that the test needs; says what is not.
fn can_try(kinds: &[Kind]) -> bool {
    lab::can_try(&format!("{kinds:?}"), kinds.iter().map(|kind| kind.missing()))
}

/// One peer or node: where it runs and what it keeps.
struct Place<'a> {
    host: &'a Host,
    state: &'a Path,
    /// Nodes to ask first.
    nodes: &'a [String],
}

impl Place<'_> {
    fn start(&self, command: Command) -> Process {
        Process::start(command, &self.state.join("log"))
    }

    fn sprat(&self, arguments: &[&str]) -> Command {
        let mut command = self.host.command(env!("CARGO_BIN_EXE_sprat"));
        command.args(arguments).args(["--port", &PORT.to_string()]).env("XDG_STATE_HOME", self.state);
        for node in self.nodes {
            command.args(["--dht-bootstrap", node]);
        }
        command
    }

    fn libtorrent(&self, folder: &Path, role: &[&str]) -> Command {
        let mut command = self.host.command("python3");
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/libtorrent_node.py"));
        command.arg(PORT.to_string()).arg(self.nodes.join(",")).arg(folder).args(role);
        command
    }

    /// Takes torrents from a watched folder, and magnets by RPC.
    fn transmission(&self, folder: &Path) -> Command {
        let watch = self.state.join("watch");
        std::fs::create_dir(&watch).expect("a new folder");
        let bootstrap: String = self.nodes.iter().map(|node| node.replace(':', " ") + "\n").collect();
        std::fs::write(self.state.join("dht.bootstrap"), bootstrap).expect("a new file");
        let settings = serde_json::json!({
            "download-dir": folder, "peer-port": PORT, "watch-dir": watch, "watch-dir-enabled": true,
            "dht-enabled": true, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false,
            "rpc-enabled": true, "rpc-port": 9091, "rpc-whitelist-enabled": false, "port-forwarding-enabled": false,
            "encryption": 0, "incomplete-dir-enabled": false, "rename-partial-files": false,
        });
        std::fs::write(self.state.join("settings.json"), settings.to_string()).expect("a new file");
        let mut command = self.host.command("transmission-daemon");
        command.arg("-f").arg("-g").arg(self.state).arg("--log-info");
        command
    }

    fn tell_transmission(&self, magnet: &str) {
        let mut command = self.host.command("python3");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/transmission_add.py"))
            .arg(magnet);
        let told = command.output().expect("python3");
        assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    }

    fn node(&self, kind: Kind) -> Process {
        self.start(match kind {
            Kind::Sprat => self.sprat(&["dht", "node", "--quiet"]),
            Kind::Libtorrent => self.libtorrent(self.state, &[]),
            Kind::Transmission => unreachable!("no DHT of its own"),
        })
    }

    fn seed(&self, kind: Kind, content: &Content, torrent: &Path) -> Process {
        let path = torrent.to_str().expect("a temporary name");
        self.start(match kind {
            Kind::Sprat => {
                let mut command = self.sprat(&["seed", path, "--no-lsd"]);
                command.arg("-d").arg(content.folder());
                command
            }
            Kind::Libtorrent => self.libtorrent(content.folder(), &["seed", path]),
            Kind::Transmission => {
                let command = self.transmission(content.folder());
                let watched = self.state.join("watch/content.torrent");
                std::fs::copy(torrent, watched).expect("a copy of the torrent");
                command
            }
        })
    }

    fn download(&self, kind: Kind, infohash: &str, folder: &Path) -> Process {
        let magnet = format!("magnet:?xt=urn:btih:{infohash}");
        let process = self.start(match kind {
            Kind::Sprat => {
                let mut command = self.sprat(&["download", infohash, "--no-lsd", "--seed"]);
                command.arg("-d").arg(folder);
                command
            }
            Kind::Libtorrent => self.libtorrent(folder, &["download", &magnet]),
            Kind::Transmission => self.transmission(folder),
        });
        if kind == Kind::Transmission {
            self.tell_transmission(&magnet);
        }
        process
    }
}

fn new_folder(work: &Path, name: &str) -> std::path::PathBuf {
    let folder = work.join(name);
    std::fs::create_dir(&folder).expect("a new folder");
    folder
}

/// By a DHT of `nodes`, one downloads by infohash what the other seeds.
#[expect(clippy::disallowed_methods, reason = "real processes run in real time; the figure is only printed")]
fn find_by_dht(nodes: Kind, seed: Kind, leech: Kind) {
    if !can_try(&[nodes, seed, leech]) {
        return;
    }
    let what = format!("{seed:?} to {leech:?} by a DHT of {nodes:?}");
    let lab = Lab::new(NODE_COUNT + 2);
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent_without_tracker();
    let infohash = content.infohash(&torrent).to_string();
    let (others, peers) = lab.hosts.split_at(usize::from(NODE_COUNT));
    let [seeding, leeching] = peers else { unreachable!("so many hosts were asked for") };
    let names: Vec<String> = others.iter().map(|host| format!("{}:{PORT}", host.ip)).collect();
    let mut processes = Vec::new();
    for (number, host) in others.iter().enumerate() {
        let known: Vec<_> = (0..4).map(|at| names[(number + 1 + at) % names.len()].clone()).collect();
        let state = new_folder(work.path(), &format!("node-{number}"));
        processes.push(Place { host, state: &state, nodes: &known }.node(nodes));
    }
    let known = &names[..3];
    let state = new_folder(work.path(), "seed");
    processes.push(Place { host: seeding, state: &state, nodes: known }.seed(seed, &content, &torrent));
    let (state, downloaded) = (new_folder(work.path(), "leech"), new_folder(work.path(), "downloaded"));
    let began = Instant::now();
    let mut leecher =
        Place { host: leeching, state: &state, nodes: known }.download(leech, &infohash, &downloaded);
    let complete = process::poll(TRANSFER_TIMEOUT, || {
        leecher.assert_alive_or_done(&what);
        content.is_equal(&downloaded, leech != Kind::Transmission)
    });
    assert!(complete, "{what}: not complete; the leecher said: {}", leecher.said());
    eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f32());
}

#[test]
fn sprat_finds_what_libtorrent_seeds_by_infohash_alone() {
    find_by_dht(Kind::Libtorrent, Kind::Libtorrent, Kind::Sprat);
}

#[test]
fn libtorrent_finds_what_sprat_seeds_by_infohash_alone() {
    find_by_dht(Kind::Libtorrent, Kind::Sprat, Kind::Libtorrent);
}

#[test]
fn sprat_finds_sprat_in_a_dht_of_sprats() {
    find_by_dht(Kind::Sprat, Kind::Sprat, Kind::Sprat);
}

#[test]
fn libtorrent_finds_libtorrent_in_a_dht_of_sprats() {
    find_by_dht(Kind::Sprat, Kind::Libtorrent, Kind::Libtorrent);
}

#[test]
fn transmission_is_found_by_infohash_alone_and_finds_by_magnet() {
    // At once: Transmission asks its DHT only after a while.
    std::thread::scope(|scope| {
        scope.spawn(|| find_by_dht(Kind::Sprat, Kind::Transmission, Kind::Sprat));
        scope.spawn(|| find_by_dht(Kind::Sprat, Kind::Sprat, Kind::Transmission));
    });
}

#[test]
fn neighbours_find_each_other_by_the_local_network_alone() {
    if !can_try(&[]) {
        return;
    }
    let lab = Lab::new(2);
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent_without_tracker();
    let infohash = content.infohash(&torrent).to_string();
    let (seed_state, leech_state) = (new_folder(work.path(), "seed"), new_folder(work.path(), "leech"));
    let seeding = Place { host: &lab.hosts[0], state: &seed_state, nodes: &[] };
    let mut seed = seeding.sprat(&["seed", torrent.to_str().expect("a temporary name"), "--no-dht"]);
    seed.arg("-d").arg(content.folder());
    let _seed = seeding.start(seed);
    let downloaded = new_folder(work.path(), "downloaded");
    let leeching = Place { host: &lab.hosts[1], state: &leech_state, nodes: &[] };
    let mut leech = leeching.sprat(&["download", &infohash, "--no-dht"]);
    leech.arg("-d").arg(&downloaded);
    let leecher = leeching.start(leech);
    let complete = process::poll(TRANSFER_TIMEOUT, || content.is_equal(&downloaded, true));
    assert!(complete, "not complete; the leecher said: {}", leecher.said());
}

/// The seed is known to the first leecher only; the second one knows the first only.
#[test]
fn gossip_tells_of_a_third_peer() {
    if !can_try(&[]) {
        return;
    }
    let lab = Lab::new(3);
    let work = tempfile::tempdir().expect("a temporary folder");
    let content = Content::generate(work.path());
    let torrent = content.torrent_without_tracker();
    let path = torrent.to_str().expect("a temporary name");
    let addr = |ip: IpAddr| format!("{ip}:{PORT}");
    let alone = ["--no-dht", "--no-lsd"];
    let states = ["seed", "first", "second"].map(|name| new_folder(work.path(), name));
    let place = |number: usize| Place { host: &lab.hosts[number], state: &states[number], nodes: &[] };
    let mut seed = place(0).sprat(&["seed", path]);
    seed.args(alone).arg("-d").arg(content.folder());
    let _seed = place(0).start(seed);
    let mut first = place(1).sprat(&["download", path, "--seed", "--peer", &addr(lab.hosts[0].ip)]);
    // So slow that the second peer would not be complete in time by the first one alone.
    first
        .args(alone)
        .args(["--up-limit", "20KB", "--down-limit", "20KB", "-d"])
        .arg(new_folder(work.path(), "one"));
    let _first = place(1).start(first);
    let downloaded = new_folder(work.path(), "two");
    let mut second = place(2).sprat(&["download", path, "--json", "--peer", &addr(lab.hosts[1].ip)]);
    second.args(alone).arg("-d").arg(&downloaded);
    let leecher = place(2).start(second);
    let complete = process::poll(TRANSFER_TIMEOUT, || content.is_equal(&downloaded, true));
    assert!(complete, "not complete; the leecher said: {}", leecher.said());
}
