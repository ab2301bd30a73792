//! The clients under test and how each is told to seed and to download one torrent.

use std::path::Path;
use std::process::Command;

use crate::lab::Host;
use crate::process::Process;

/// Where every client listens; each has a host of its own.
const PORT: &str = "7000";

/// A client.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Client {
    /// Ours.
    Sprat,
    /// By its Python binding.
    Libtorrent,
    /// `transmission-daemon`.
    Transmission,
    /// `aria2c`.
    Aria2,
    /// `rtorrent`, without its terminal.
    Rtorrent,
    /// `qbittorrent-nox`.
    Qbittorrent,
}

/// What the client is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Seed,
    /// BEP 16.
    SuperSeed,
    /// Takes and makes only connections with message stream encryption.
    EncryptedSeed,
    Download,
}

impl Role {
    /// As the Python scripts take it.
    fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::SuperSeed => "super-seed",
            Self::EncryptedSeed => "encrypted-seed",
            Self::Download => "download",
        }
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

impl Client {
    /// What is missing to run it.
    pub(crate) fn missing(self) -> Option<String> {
        let present = match self {
            Self::Sprat => true,
            Self::Libtorrent => runs("python3", &["-c", "import libtorrent"]),
            Self::Transmission => runs("transmission-daemon", &["--version"]),
            Self::Aria2 => runs("aria2c", &["--version"]),
            Self::Rtorrent => runs("rtorrent", &["-h"]),
            Self::Qbittorrent => runs("qbittorrent-nox", &["--version"]),
        };
        (!present).then(|| format!("{self:?}"))
    }

    /// Transmission and aria2 leave files without content out.
    pub(crate) fn makes_empty_files(self) -> bool {
        match self {
            Self::Sprat | Self::Libtorrent | Self::Rtorrent | Self::Qbittorrent => true,
            Self::Transmission | Self::Aria2 => false,
        }
    }

    /// Seeds what lies in `folder`.
    pub(crate) fn seed(self, host: &Host, torrent: &Path, work: &Path, folder: &Path) -> Process {
        self.start(host, torrent, &work.join("seed"), folder, Role::Seed)
    }

    /// Super-seeds what lies in `folder` (BEP 16): libtorrent and rtorrent can.
    pub(crate) fn super_seed(self, host: &Host, torrent: &Path, work: &Path, folder: &Path) -> Process {
        assert!(matches!(self, Self::Libtorrent | Self::Rtorrent), "{self:?} is not told how to");
        self.start(host, torrent, &work.join("seed"), folder, Role::SuperSeed)
    }

    /// Seeds what lies in `folder` to peers that encrypt, and to no other: all but rtorrent and
    /// ours can.
    pub(crate) fn seed_encrypted(self, host: &Host, torrent: &Path, work: &Path, folder: &Path) -> Process {
        self.start(host, torrent, &work.join("seed"), folder, Role::EncryptedSeed)
    }

    /// Downloads into `folder`, and may go on seeding.
    pub(crate) fn download(self, host: &Host, torrent: &Path, work: &Path, folder: &Path) -> Process {
        self.start(host, torrent, &work.join("leech"), folder, Role::Download)
    }

    /// As [`Client::download`], for several clients with one `work` folder: each has a number. All
    /// go on seeding.
    pub(crate) fn join(
        self,
        host: &Host,
        torrent: &Path,
        work: &Path,
        number: usize,
        folder: &Path,
    ) -> Process {
        let state = work.join(format!("leech-{number}"));
        if matches!(self, Self::Sprat) {
            std::fs::create_dir(&state).expect("a new folder");
            let mut command = sprat(host, torrent, &state, folder, Role::Download);
            command.arg("--seed");
            return Process::start(command, &state.join("log"));
        }
        self.start(host, torrent, &state, folder, Role::Download)
    }

    fn start(self, host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Process {
        std::fs::create_dir(state).expect("a new folder");
        let command = match self {
            Self::Sprat => sprat(host, torrent, state, folder, role),
            Self::Libtorrent => libtorrent(host, torrent, folder, role),
            Self::Transmission => transmission(host, torrent, state, folder, role),
            Self::Aria2 => aria2(host, torrent, state, folder, role),
            Self::Rtorrent => rtorrent(host, torrent, state, folder, role),
            Self::Qbittorrent => qbittorrent(host, torrent, state, folder, role),
        };
        Process::start(command, &state.join("log"))
    }
}

/// A seed of ours or of rtorrent, with an upload limit in bytes per second.
pub(crate) fn limited_seed(
    client: Client,
    host: &Host,
    torrent: &Path,
    work: &Path,
    folder: &Path,
    rate: u64,
) -> Process {
    let state = work.join("seed");
    std::fs::create_dir(&state).expect("a new folder");
    let command = match client {
        Client::Sprat => {
            let mut command = sprat(host, torrent, &state, folder, Role::Seed);
            command.arg("--up-limit").arg(format!("{}KB", rate / 1_000));
            command
        }
        Client::Rtorrent => {
            let mut command = rtorrent(host, torrent, &state, folder, Role::Seed);
            command.arg("-o").arg(format!("throttle.global_up.max_rate.set_kb={}", rate / 1_024));
            command
        }
        Client::Libtorrent | Client::Transmission | Client::Aria2 | Client::Qbittorrent => {
            panic!("{client:?} is not told how to")
        }
    };
    Process::start(command, &state.join("log"))
}

fn sprat(host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Command {
    let mut command = host.command(env!("CARGO_BIN_EXE_sprat"));
    command.env("XDG_STATE_HOME", state);
    command.arg(if role == Role::Seed { "seed" } else { "download" }).arg(torrent).arg("-d").arg(folder);
    command.args(["-p", PORT, "--no-dht", "--no-lsd", "--no-port-forward"]);
    command
}

fn libtorrent(host: &Host, torrent: &Path, folder: &Path, role: Role) -> Command {
    let mut command = host.command("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/libtorrent_peer.py"));
    command.arg(torrent).arg(folder).arg(PORT).arg(role.name());
    command
}

/// Its UDP tracker client is a part of its DHT, which here finds nobody.
fn aria2(host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Command {
    let mut command = host.command("aria2c");
    command.args(["--no-conf", "--enable-dht=true", "--bt-enable-lpd=false", "--enable-peer-exchange=false"]);
    command.args(["--seed-ratio=0.0", "--file-allocation=none", "--summary-interval=0"]);
    command.env("XDG_CACHE_HOME", state);
    command.arg(format!("--listen-port={PORT}")).arg(format!("--dir={}", folder.display()));
    command.arg(if role == Role::Download { "--continue=true" } else { "--bt-seed-unverified=true" });
    command.arg(format!("--bt-require-crypto={}", role == Role::EncryptedSeed));
    command.arg(torrent);
    command
}

fn transmission(host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Command {
    let watch = state.join("watch");
    std::fs::create_dir(&watch).expect("a new folder");
    std::fs::copy(torrent, watch.join("content.torrent")).expect("a copy of the torrent");
    let settings = serde_json::json!({
        "download-dir": folder, "peer-port": PORT.parse::<u16>().expect("a number"), "watch-dir": watch, "watch-dir-enabled": true,
        "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false, "utp-enabled": false, "rpc-enabled": false,
        "port-forwarding-enabled": false, "encryption": if role == Role::EncryptedSeed { 2 } else { 0 }, "incomplete-dir-enabled": false, "rename-partial-files": false,
    });
    std::fs::write(state.join("settings.json"), settings.to_string()).expect("a new file");
    let mut command = host.command("transmission-daemon");
    command.arg("-f").arg("-g").arg(state).arg("--log-error");
    command
}

/// Checks what is in `folder`, and seeds or continues it.
fn rtorrent(host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Command {
    let session = state.join("session");
    std::fs::create_dir(&session).expect("a new folder");
    let config = state.join("rtorrent.rc");
    let kind = if role == Role::SuperSeed { "initial_seed" } else { "seed" };
    let text = format!(
        "system.daemon.set = true\nsession.path.set = \"{}\"\ndirectory.default.set = \"{}\"\n\
         network.port_range.set = {PORT}-{PORT}\nnetwork.port_random.set = no\ndht.mode.set = disable\n\
         protocol.pex.set = no\nprotocol.encryption.set = allow_incoming\ntrackers.use_udp.set = yes\n\
         protocol.connection.seed.set = {kind}\nschedule2 = load, 0, 0, ((load.start, \"{}\"))\n",
        session.display(),
        folder.display(),
        torrent.display()
    );
    std::fs::write(&config, text).expect("a new file");
    let mut command = host.command("rtorrent");
    command.arg("-n").arg("-o").arg(format!("import={}", config.display())).env("TERM", "dumb");
    command
}

fn qbittorrent(host: &Host, torrent: &Path, state: &Path, folder: &Path, role: Role) -> Command {
    let config = state.join("qBittorrent/config");
    std::fs::create_dir_all(&config).expect("a new folder");
    let text = format!(
        "[LegalNotice]\nAccepted=true\n\
         [BitTorrent]\nSession\\Port={PORT}\nSession\\BTProtocol=TCP\nSession\\DHTEnabled=false\n\
         Session\\LSDEnabled=false\nSession\\PeXEnabled=false\nSession\\QueueingSystemEnabled=false\n\
         Session\\Encryption={}\n\
         [Network]\nPortForwardingEnabled=false\n",
        u8::from(role == Role::EncryptedSeed)
    );
    std::fs::write(config.join("qBittorrent.conf"), text).expect("a new file");
    let mut command = host.command("qbittorrent-nox");
    command.arg(format!("--profile={}", state.display())).arg(format!("--save-path={}", folder.display()));
    command.arg("--skip-dialog=true").arg("--add-paused=false");
    if role != Role::Download {
        command.arg("--skip-hash-check");
    }
    command.arg(torrent);
    command
}
