//! The trackers that bring the clients together: ours, and opentracker as Debian builds it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sprat::proto::infohash::InfoHash;

use crate::lab::Host;
use crate::process::Process;

/// Where both listen, by UDP and by HTTP.
const PORT: u16 = 6969;
/// How long a seed may take to announce itself.
const SEED_TIMEOUT: Duration = Duration::from_secs(30);

/// A tracker.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tracker {
    /// `sprat-tracker`.
    Sprat,
    /// opentracker.
    Opentracker,
}

/// How it is spoken to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    /// BEP 3.
    Http,
    /// BEP 15.
    Udp,
}

/// Our tracker's binary, which a workspace build puts beside our own.
fn sprat_tracker() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_sprat")).with_file_name("sprat-tracker")
}

/// What is missing.
pub(crate) fn missing() -> Option<String> {
    if !sprat_tracker().exists() {
        return Some("sprat-tracker (build the whole workspace)".to_owned());
    }
    let present = Command::new("opentracker").arg("-h").output().is_ok();
    (!present).then(|| "opentracker".to_owned())
}

impl Tracker {
    /// Its announce URL.
    pub(crate) fn url(self, transport: Transport, host: &Host) -> String {
        match transport {
            Transport::Http => format!("http://{}:{PORT}/announce", host.ip),
            Transport::Udp => format!("udp://{}:{PORT}/announce", host.ip),
        }
    }

    /// Starts it on `host`; Debian's opentracker serves only the torrents on its list.
    pub(crate) fn start(self, host: &Host, folder: &Path, infohash: InfoHash) -> Process {
        std::fs::create_dir(folder).expect("a new folder");
        let addr = format!("{}:{PORT}", host.ip);
        let command = match self {
            Self::Sprat => {
                let mut command = host.command(sprat_tracker());
                command.args(["--udp", &addr, "--http", &addr]);
                command
            }
            Self::Opentracker => {
                let config = folder.join("config");
                std::fs::write(folder.join("list"), format!("{infohash}\n")).expect("a new file");
                let root = folder.display();
                let text = format!(
                    "listen.tcp {addr}\nlisten.udp {addr}\naccess.whitelist /list\ntracker.rootdir {root}\ntracker.user nobody\n"
                );
                std::fs::write(&config, text).expect("a new file");
                open_to_all(folder);
                let mut command = host.command("opentracker");
                command.arg("-f").arg(config);
                command
            }
        };
        Process::start(command, &folder.join("log"))
    }
}

/// opentracker gives up its rights and still reads its list.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    for path in folder.ancestors().take(2) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).expect("our own folder");
    }
}

/// Waits until the tracker knows a seed, by its scrape.
pub(crate) fn wait_for_seed(host: &Host, announce: &str, infohash: InfoHash) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/wait_for_seed.py");
    let output = host
        .command("python3")
        .arg(script)
        .args([
            announce.replace("/announce", "/scrape"),
            infohash.to_string(),
            SEED_TIMEOUT.as_secs().to_string(),
        ])
        .output()
        .expect("python3");
    assert!(output.status.success(), "no seed: {}", String::from_utf8_lossy(&output.stderr));
}
